"""The vocabulary of configuration models: durations, sizes, addresses, secrets, and what every listener shares.

Nothing here imports Twisted, so that `netdctl check` stays quick. A validator raises `ValueError` with a sentence that
completes "echo.plain.listen: …"; `netd.config` puts the key in front.
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo

CREDENTIALS_PREFIX = "$CREDENTIALS_DIRECTORY/"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a configuration comes from: validators resolve paths and read the environment through it."""

    directory: Path
    environ: Mapping[str, str]
    inline_secrets: list[str] = field(default_factory=list)
    """Names of secrets that stand in the table at hand itself."""
    readable_secrets: list[tuple[str, Path]] = field(default_factory=list)
    """Names of its secrets that stand in a file which every user may read, and the file."""


def origin_of(info: ValidationInfo) -> Origin:
    """The Origin a validator runs under; models are only ever validated with one."""
    if not isinstance(info.context, Origin):
        raise TypeError("settings are validated by netd.config, which names their origin")
    return info.context


# --- durations and sizes

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s?(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)")
_BYTES = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
LONGEST_DURATION = 10 * 365 * 86400.0
"""Seconds; beyond ten years a timer is a mistake, and beyond 24 days epoll's millisecond argument overflows."""


def parse_duration(value: object) -> float:
    """Seconds from a number of seconds or a string such as "10s", "1.5m", "500ms"."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds: float = value  # a whole number may be too large for a float
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(match[1]) * _SECONDS[match[2]]
    else:
        raise ValueError(f'expected seconds, or a string such as "10s", "5m" or "1h"; got {show(value)}')
    if not 0 <= seconds <= LONGEST_DURATION:
        raise ValueError(f"expected a duration from 0 to ten years; got {show(value)}")
    return float(seconds)


def parse_size(value: object) -> int:
    """Bytes from an integer or a string such as "64KiB", "1GiB", "10MB"."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        size = int(match[1]) * _BYTES[match[2]]
    else:
        raise ValueError(f'expected bytes, or a string such as "64KiB" or "1GiB"; got {show(value)}')
    if not 0 <= size < 1 << 63:
        raise ValueError(f"expected a size from 0 to 8 EiB; got {show(value)}")
    return size


def show(value: object) -> str:
    """A value from a configuration file as TOML would write it, short enough for one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = '"' + value.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
        case dict():
            return "a table"
        case list() | tuple():
            text = "[" + ", ".join("a list" if isinstance(each, list) else show(each) for each in value) + "]"
        case _:
            text = str(value)
    return text if len(text) <= 80 else text[:77] + "…"  # noqa: PLR2004 - the width of a line


Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
Limit = Annotated[StrictInt, Field(ge=0)]
"""A count; 0 means no limit."""


# --- paths and secrets


def expand_path(text: str, origin: Origin) -> Path:
    """A path from the configuration: relative to its file; a leading $CREDENTIALS_DIRECTORY/ is systemd's."""
    if text.startswith(CREDENTIALS_PREFIX) and (credentials := origin.environ.get("CREDENTIALS_DIRECTORY")):
        return Path(credentials, text.removeprefix(CREDENTIALS_PREFIX))
    return Path(os.path.normpath(origin.directory / os.path.expanduser(text)))  # noqa: PTH111 - Path's raises for an unknown ~user


def _parse_path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected a path; got {show(value)}")
    return expand_path(value, origin_of(info))


ConfigPath = Annotated[Path, BeforeValidator(_parse_path)]


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret given in the configuration, or a file that holds it. It never shows in a repr or a log."""

    text: str | None = field(default=None, repr=False)
    path: Path | None = None

    def read(self) -> str:
        """The secret's text, read anew from its file at each use; OSError when that cannot be read."""
        if self.path is not None:
            return self.path.read_text(encoding="utf-8").rstrip("\r\n")
        return self.text or ""


@dataclass(frozen=True, slots=True)
class _GivenTwice:
    name: str


def _parse_secret(value: object) -> Secret:
    match value:
        case Secret():
            return value
        case _GivenTwice(name):
            raise ValueError(f"give {name} or {name}_file, not both")
        case str() if value:
            return Secret(text=value)
    raise ValueError("expected a string that is not empty")


def _note_secret(secret: Secret, info: ValidationInfo) -> Secret:
    if secret.text is not None:
        origin_of(info).inline_secrets.append(str(info.field_name))
    elif secret.path is not None and _all_may_read(secret.path):
        origin_of(info).readable_secrets.append((str(info.field_name), secret.path))
    return secret


def _all_may_read(path: Path) -> bool:
    """Whether every user of the machine may read a file, and come as far; False when that cannot be seen from here."""
    try:
        path = path.resolve()
        return bool(path.stat().st_mode & stat.S_IROTH) and all(
            directory.stat().st_mode & stat.S_IXOTH for directory in path.parents
        )
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return False


class _SecretMark:
    """Marks the fields that may also be given as NAME_file."""


SecretText = Annotated[Secret, BeforeValidator(_parse_secret), AfterValidator(_note_secret), _SecretMark()]


def _note_secret_login(secret: Secret, info: ValidationInfo) -> Secret:
    if secret.path is not None and not _all_may_read(secret.path):
        return secret  # and nobody has to read it yet
    try:
        return _note_secret(secret, info) if "@" in secret.read() else secret
    except (OSError, ValueError):  # ValueError: not UTF-8; who uses it says what is wrong
        return secret


SecretUrl = Annotated[Secret, BeforeValidator(_parse_secret), AfterValidator(_note_secret_login), _SecretMark()]
"""Where a backend is: a secret only when there is a password in it."""


def _is_secret(info: FieldInfo) -> bool:
    """Whether a field, or one of the types it may have (`… | None`), bears the mark."""
    types = [getattr(each, "__metadata__", ()) for each in get_args(info.annotation)]
    return any(isinstance(mark, _SecretMark) for marks in (info.metadata, *types) for mark in marks)


class Settings(BaseModel):
    """A table of the configuration: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def secret_names(cls) -> list[str]:
        """The keys of this table that may be given as NAME_file instead."""
        return [name for name, info in cls.model_fields.items() if _is_secret(info)]

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, table: Any, info: ValidationInfo) -> Any:
        if not isinstance(table, dict):
            return table
        table = dict(table)
        for name in cls.secret_names():
            key = f"{name}_file"
            if key not in table:
                continue
            text = table.pop(key)
            if name in table:
                table[name] = _GivenTwice(name)
            elif isinstance(text, str) and text and "\0" not in text:
                table[name] = Secret(path=expand_path(text, origin_of(info)))
            else:
                table[name] = ""
        return table


# --- addresses

BALANCED = "haproxy:"
"""Begins endpoints whose clients come through a load balancer; the endpoint it listens at follows."""


@dataclass(frozen=True, slots=True)
class Address:
    """One place to listen: a TCP host and port, or a Twisted endpoint string.

    `local` says that only this machine (a loopback address, a unix socket) can reach it.
    """

    text: str
    host: str = ""
    port: int = 0
    endpoint: str = ""
    local: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def every_interface(self) -> bool:
        """Whether this is a TCP address without a host, such as ":8001"."""
        return not self.endpoint and ipaddress.ip_address(self.host).is_unspecified

    def overlaps(self, other: "Address") -> bool:
        """Whether the two cannot both be bound."""
        if self.endpoint or other.endpoint:
            return self.text.removeprefix(BALANCED) == other.text.removeprefix(BALANCED)
        if self.port != other.port or self.port == 0:
            return False
        return self.host == other.host or self.every_interface or other.every_interface


_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]*)):(\d{1,5})")
_ENDPOINT = re.compile(r"([a-z][a-z0-9]*):.+", re.DOTALL)
_FORMS = '"127.0.0.1:8001", "[::1]:8001", ":8001", "unix:/path" or a Twisted endpoint string'
HIGHEST_PORT = 65535


def parse_address(text: object, directory: Path) -> Address:
    """An Address from one of the contract's forms; a unix socket's path is relative to `directory`."""
    if not isinstance(text, str):
        raise ValueError(f"expected an address such as {_FORMS}; got {show(text)}")
    if (match := _HOST_PORT.fullmatch(text)) and (host := _ip_address(match[1] or match[2])) is not None:
        port = int(match[3])
        if port > HIGHEST_PORT:
            raise ValueError(f"ports go up to {HIGHEST_PORT}; got {show(text)}")
        return Address(text, host, port, local=ipaddress.ip_address(host).is_loopback)
    if (match := _ENDPOINT.fullmatch(text)) and match[1] != "stdio" and "\0" not in text:
        return Address(text, endpoint=_absolute(text, directory), local=_is_local_endpoint(text))
    raise ValueError(f"expected an address such as {_FORMS}; got {show(text)}")


def _absolute(endpoint: str, directory: Path) -> str:
    """A unix endpoint with its path made absolute, escaped as Twisted wants; others as they are."""
    if endpoint.startswith(BALANCED):
        return BALANCED + _absolute(endpoint.removeprefix(BALANCED), directory)
    if not endpoint.startswith("unix:") or endpoint.startswith(("unix:/", "unix:address=")):
        return endpoint
    return f"unix:{escape_endpoint(str(directory))}/{endpoint.removeprefix('unix:')}"


def escape_endpoint(text: str) -> str:
    """A text as a value of a Twisted endpoint string."""
    return re.sub(r"([\\:=])", r"\\\1", text)


def _ip_address(host: str) -> str | None:
    if host == "":
        return "::"
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _is_local_endpoint(text: str) -> bool:
    """Whether an endpoint string surely listens for this machine alone; what is not understood counts as reachable."""
    if text.startswith("unix:"):
        return True
    if text.startswith(("tcp:", "tcp6:")) and (match := re.search(r":interface=((?:\\.|[^:\\])+)", text)):
        host = _ip_address(match[1].replace("\\", ""))
        return host is not None and ipaddress.ip_address(host).is_loopback
    return False


def _parse_addresses(value: object, info: ValidationInfo) -> tuple[Address, ...]:
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise ValueError("expected at least one address")
    addresses = tuple(parse_address(text, origin_of(info).directory) for text in texts)
    for index, address in enumerate(addresses):
        for earlier in addresses[:index]:
            if address.overlaps(earlier):
                raise ValueError(f"{address} and {earlier} overlap")
    return addresses


Addresses = Annotated[tuple[Address, ...], BeforeValidator(_parse_addresses)]


def _parse_networks(value: object) -> tuple[Network, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise ValueError(f'expected a list of networks such as ["10.0.0.0/8", "::1"]; got {show(value)}')
    networks = []
    for text in value:
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError:
            raise ValueError(f'expected a network such as "10.0.0.0/8" or "::1"; got {show(text)}') from None
    return tuple(networks)


Networks = Annotated[tuple[Network, ...], BeforeValidator(_parse_networks)]


# --- what every listener shares


def _parse_pem(value: object, info: ValidationInfo) -> Secret:
    """PEM text, or the path of a file that holds it."""
    if isinstance(value, str) and value and not value.startswith("-----BEGIN"):
        return Secret(path=_parse_path(value, info))
    return _parse_secret(value)


Pem = Annotated[Secret, BeforeValidator(_parse_pem)]
SecretPem = Annotated[Pem, AfterValidator(_note_secret), _SecretMark()]


class TlsSettings(Settings):
    """A listener's TLS: TLS 1.2 and up; with `client_ca` a client must show a certificate that it signed."""

    certificate: Pem
    """PEM file: the certificate and its chain, leaf first."""
    private_key: SecretPem
    """PEM file, not encrypted; also as private_key_file."""
    client_ca: Pem | None = None
    """PEM file of the authorities whose client certificates are asked for and required."""


class ListenerSettings(Settings):
    """What may stand beside `listen` in any service."""

    allow: Networks | None = None
    """Networks that may connect; not given, anybody who can reach the port."""
    open: StrictBool = False
    """Says that a port beyond loopback without `allow`, client certificates or a log-in of its own is meant."""
    balancers: Networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))
    """Load balancers that are believed at `haproxy:` endpoints, where nobody else may connect."""
    max_connections: Limit = 10_000
    """Connections open at once on all ports of the service; more are closed at once. 0: no limit."""
    max_connections_per_host: Limit = 2_500
    """The same for one client address, or one /64 of IPv6. 0: no limit."""
    idle_timeout: Duration = 0.0
    """A connection without a byte either way for this long is closed. 0: never."""
    tcp_keepalive: StrictBool = True
    """Probe a silent peer after a minute, so that one that vanished is noticed within two."""
    tls: TlsSettings | None = None

    own_login: ClassVar[bool] = False
    """Whether clients of this kind log in, so that its ports are never unprotected."""

    def changes(self, other: "ListenerSettings") -> set[str]:
        """The keys by which two tables of a kind differ."""
        return {name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)}

    def digest_files(self) -> str:
        """Of what the TLS files hold, so that a reload sees that a certificate was renewed."""
        if self.tls is None:
            return ""
        digest = hashlib.sha256()
        for pem in (self.tls.certificate, self.tls.private_key, self.tls.client_ca):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                digest.update(hashlib.sha256(pem.read().encode() if pem else b"").digest())
        return digest.hexdigest()

    def warnings(self) -> list[str]:
        """What is probably not meant although it is no mistake, a line each that begins with the key."""
        return []

    @classmethod
    def listen_names(cls) -> list[str]:
        """The keys of this table that name addresses."""
        return [name for name in cls.model_fields if name == "listen" or name.startswith("listen_")]

    def listens(self) -> dict[str, tuple[Address, ...]]:
        """The addresses of this table, by their key."""
        return {name: getattr(self, name) or () for name in self.listen_names()}

    def exposed(self) -> dict[str, Address]:
        """The first address of each key that others can reach although nothing protects it."""
        if self.open or self.own_login or self.allow is not None or (self.tls and self.tls.client_ca):
            return {}
        reachable = {name: [each for each in found if not each.local] for name, found in self.listens().items()}
        return {name: found[0] for name, found in reachable.items() if found}


SHARED = frozenset(ListenerSettings.model_fields)
"""The keys of every kind's table: a listener goes over to other values of these in place."""


class DaemonSettings(Settings):
    """[daemon]: what concerns the whole process."""

    state_dir: ConfigPath | None = None
    """What must survive a restart, created 0700. Default: $STATE_DIRECTORY, else "state" beside this file."""
    drain_timeout: Duration = 10.0
    """When stopping, how long connections may go on to finish before they are cut."""
    drain_delay: Duration = 0.0
    """When stopping, how long /readyz says no before ports close, so that a load balancer stops sending clients."""
    fastio: StrictBool = True
    """The fast reactor. `twistd --reactor=…` wins over it."""

    def state_directory(self, origin: Origin) -> Path:
        """The state directory in force; systemd may name several, the first is ours."""
        if self.state_dir is not None:
            return self.state_dir
        if given := origin.environ.get("STATE_DIRECTORY"):
            return Path(given.split(os.pathsep)[0])
        return origin.directory / "state"


class LogSettings(Settings):
    """[log]: what is logged and how it looks."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    """Connections are logged at debug only."""
    format: Literal["auto", "text", "json"] = "auto"
    """auto is text on a terminal, else a JSON object a line."""
