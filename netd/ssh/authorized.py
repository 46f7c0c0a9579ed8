"""Lines of an authorized_keys file (sshd(8), AUTHORIZED_KEYS FILE FORMAT), and what their options allow.

What is not understood is not let in: a line with an unknown option is refused whole and reported. Keys are compared by
their bytes, so that nothing a stranger offers as a key is ever parsed.
"""

import base64
import binascii
import fnmatch
import hashlib
import ipaddress
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from netd.ssh.wire import Malformed, Reader

LONGEST_FILE = 1 << 20
"""Bytes; some three thousand keys."""

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
"""A file with one of these modes is nobody's in particular."""

LEAST_RSA_BITS = 2048
"""NIST SP 800-131A rev. 2: shorter keys are not to be used."""

ALGORITHMS = {
    b"ssh-ed25519": (b"ssh-ed25519",),
    b"ecdsa-sha2-nistp256": (b"ecdsa-sha2-nistp256",),
    b"ecdsa-sha2-nistp384": (b"ecdsa-sha2-nistp384",),
    b"ecdsa-sha2-nistp521": (b"ecdsa-sha2-nistp521",),
    b"ssh-rsa": (b"rsa-sha2-512", b"rsa-sha2-256"),
    b"sk-ssh-ed25519@openssh.com": (b"sk-ssh-ed25519@openssh.com",),
    b"sk-ecdsa-sha2-nistp256@openssh.com": (b"sk-ecdsa-sha2-nistp256@openssh.com",),
}
"""Kinds of keys, and the signature algorithms each may be used with: SHA-1 and DSA are not among them."""

_HARMLESS = frozenset(
    {"no-port-forwarding", "no-agent-forwarding", "no-x11-forwarding", "no-user-rc", "user-rc"}
    | {"port-forwarding", "agent-forwarding", "x11-forwarding"}
)
"""They speak of what netd never does."""

_EXPIRY = re.compile(r"(\d{8})(\d{4}|\d{6})?(Z?)")
_PIECE = re.compile(r'([A-Za-z0-9-]+)(?:="((?:\\"|[^"])*)")?(,|\s+|$)')


@dataclass(frozen=True, slots=True)
class AuthorizedKey:
    """A public key that a user may log in with."""

    kind: bytes
    blob: bytes
    sources: tuple[str, ...] = ()
    """Patterns of from=; () is everywhere."""
    forced: str | None = None
    """command=: what runs, whatever is asked for."""
    pty: bool = True
    expires: datetime | None = None
    touch: bool = True
    """A security key must say that somebody touched it."""
    verified: bool = False
    """It must say that it knew who."""

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        return fingerprint(self.blob)

    def allows(self, host: str, now: datetime) -> bool:
        """Whether it may be used from this address ("" is a unix socket) at this time."""
        if self.expires is not None and now >= self.expires:
            return False
        return not self.sources or _matches(self.sources, host)


def fingerprint(blob: bytes) -> str:
    """SHA256:…, of a public key's bytes."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


class BadLine(Exception):
    """A line that lets nobody in; the text says why."""


def parse_file(raw: bytes) -> tuple[list[AuthorizedKey], list[str]]:
    """The keys of a file, and a complaint for each line that was refused: "line 3: …"."""
    found, complaints = [], []
    for number, line in enumerate(raw.split(b"\n"), 1):
        text = line.decode("utf-8", "replace").strip()
        if text and not text.startswith("#"):
            try:
                found.append(parse_line(text))
            except BadLine as error:
                complaints.append(f"line {number}: {error}")
    return found, complaints


def check_file(path: Path) -> list[str]:
    """What is wrong with a file of keys, as far as another user than the daemon's can tell."""
    try:
        if path.stat().st_mode & OTHERS_WRITE:
            return [f"others may write {path}, so that nobody logs in with it: chmod 644"]
        raw = path.read_bytes()
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]
    if len(raw) > LONGEST_FILE:
        return [f"{path} is larger than {LONGEST_FILE} bytes"]
    return [f"{path}, {complaint}" for complaint in parse_file(raw)[1]]


def parse_line(text: str) -> AuthorizedKey:
    """One key; raises BadLine."""
    options: list[tuple[str, str | None]] = []
    if (text.split(None, 1) or [""])[0].encode() not in ALGORITHMS:
        options, text = _split_options(text)
    name, _, rest = text.partition(" ")
    encoded = rest.strip().partition(" ")[0]
    kind = name.encode()
    if kind not in ALGORITHMS:
        raise BadLine("no key of a kind that is accepted: ed25519, ecdsa, rsa, and those of security keys")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise BadLine("the key is not base64") from None
    check_blob(kind, blob)
    return _with_options(kind, blob, options)


def check_blob(kind: bytes, blob: bytes) -> None:
    """Raise BadLine unless these are the bytes of a public key of this kind, long enough."""
    reader = Reader(blob)
    try:
        if reader.string() != kind:
            raise BadLine("the key is not of the kind that the line says")
        if kind == b"ssh-rsa":
            reader.string()
            bits = int.from_bytes(reader.string(), "big").bit_length()
            if bits < LEAST_RSA_BITS:
                raise BadLine(f"RSA keys of less than {LEAST_RSA_BITS} bits are not accepted; this one has {bits}")
        else:
            while reader.left:
                reader.string()
        reader.end()
    except Malformed:
        raise BadLine("the key is cut off") from None


def _split_options(text: str) -> tuple[list[tuple[str, str | None]], str]:
    """The options at the beginning of a line, and what stands behind them."""
    options: list[tuple[str, str | None]] = []
    at = 0
    while match := _PIECE.match(text, at):
        name, value, separator = match.groups()
        options.append((name.lower(), value.replace('\\"', '"') if value is not None else None))
        at = match.end()
        if separator != ",":
            return options, text[at:]
    raise BadLine("neither a key nor options before one")


def _with_options(kind: bytes, blob: bytes, options: list[tuple[str, str | None]]) -> AuthorizedKey:
    sources: tuple[str, ...] = ()
    forced = expires = None
    pty, touch, verified = True, True, False
    for name, value in options:
        match name, value:
            case ("from", str()) if value:
                sources = tuple(_check_source(each.strip()) for each in value.split(","))
            case ("command", str()):
                forced = value
            case ("expiry-time", str()):
                expires = _parse_expiry(value)
            case ("restrict" | "no-pty", None):
                pty = False
            case ("pty", None):
                pty = True
            case ("no-touch-required", None):
                touch = False
            case ("verify-required", None):
                verified = True
            case (_, None) if name in _HARMLESS:
                pass
            case _:
                raise BadLine(f"the option {name} is not understood")
    return AuthorizedKey(kind, blob, sources, forced, pty, expires, touch, verified)


def _parse_expiry(text: str) -> datetime:
    """YYYYMMDD[HHMM[SS]][Z], in the machine's time zone unless it ends in Z."""
    match = _EXPIRY.fullmatch(text)
    try:
        if match:
            moment = datetime.strptime(match[1] + (match[2] or "").ljust(6, "0"), "%Y%m%d%H%M%S")  # noqa: DTZ007 - given below
            return moment.replace(tzinfo=UTC) if match[3] else moment.astimezone()
    except (ValueError, OverflowError):  # a time zone may move it out of the years 1 to 9999
        pass
    raise BadLine(f"expiry-time is YYYYMMDD or YYYYMMDDHHMM; got {text[:40]!r}")


def _check_source(pattern: str) -> str:
    """The pattern as addresses are written by netd, so that a `!` surely meets the one that it means."""
    bare = pattern.removeprefix("!")
    try:
        if "/" in bare:
            found = str(ipaddress.ip_network(bare))
        elif re.fullmatch(r"[0-9A-Fa-f:.]*[*?][0-9A-Fa-f:.*?]*", bare):
            found = bare.lower()
        else:
            address = ipaddress.ip_address(bare)
            found = str((address.ipv4_mapped if address.version == 6 else None) or address)  # noqa: PLR2004 - IPv6
    except ValueError:
        raise BadLine(f"from: {bare[:60]!r}: not an address or a network, and netd looks up no names") from None
    return ("!" if pattern.startswith("!") else "") + found


def _matches(patterns: tuple[str, ...], host: str) -> bool:
    """ssh_config(5), PATTERNS: one that matches and none that matches behind "!"."""
    found = False
    for pattern in patterns:
        if _matches_one(pattern.removeprefix("!"), host):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _matches_one(pattern: str, host: str) -> bool:
    if "/" not in pattern:
        return fnmatch.fnmatchcase(host, pattern)
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(pattern)
    except ValueError:
        return False
