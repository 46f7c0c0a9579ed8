"""The configuration of an [ssh.NAME] service."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, model_validator

from netd import passwords
from netd.console.verbs import VERBS
from netd.settings import (
    Addresses,
    ConfigPath,
    Duration,
    Limit,
    ListenerSettings,
    Networks,
    Secret,
    SecretText,
    Settings,
    Size,
    show,
)
from netd.ssh.authorized import check_file
from netd.ssh.commands import Word, parse_words

RoleName = Literal["viewer", "operator", "admin"]

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_COMMAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _check_hash(secret: Secret) -> Secret:
    if secret.text is not None:
        passwords.check_hash(secret.text)
    return secret


PasswordHash = Annotated[SecretText, AfterValidator(_check_hash)]


class UserSettings(Settings):
    """A person or a script that may log in."""

    role: RoleName = "viewer"
    """viewer looks; operator changes what is running; admin does what cannot be undone for others."""
    authorized_keys_file: ConfigPath | None = None
    """Public keys, as in OpenSSH's authorized_keys, with from=, command=, restrict and expiry-time=."""
    password_hash: PasswordHash | None = None
    """Made by `netdctl hash-password`; `$2b$` is accepted too. Used where password_auth is true."""
    throwaway_key: StrictBool = False
    """Make a key for this user in the state directory and log the `ssh` line that uses it: for a first try."""

    @model_validator(mode="after")
    def _can_log_in(self) -> "UserSettings":
        if self.authorized_keys_file is None and self.password_hash is None and not self.throwaway_key:
            raise ValueError("nothing to log in with: add authorized_keys_file or password_hash")
        return self


T = TypeVar("T")


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("expected at least one")
    return values


def _as_table(value: object) -> object:
    """A command's short form, a list, is its argv."""
    return {"argv": value} if isinstance(value, list) else value


class CommandSettings(Settings):
    """A program that users may run: exactly these words, run without a shell."""

    argv: Annotated[tuple[StrictStr, ...], AfterValidator(_not_empty)]
    """The program and its arguments; {name} stands for an argument the user chooses."""
    args: dict[str, StrictStr] = Field(default_factory=dict)
    """What {name} may be: a regular expression that the whole value must match. A value never begins with "-"."""
    role: RoleName = "viewer"
    """The role it takes."""
    timeout: Duration = 60.0
    """Then it is killed and the exit status is 124. 0: never."""
    output_limit: Size = 64 << 20
    """Bytes of output; with more it is killed and the exit status is 125. 0: no limit."""

    @model_validator(mode="after")
    def _check_words(self) -> "CommandSettings":
        self.words()
        return self

    def words(self) -> tuple[Word, ...]:
        """The words of argv, ready to be matched; raises ValueError."""
        return parse_words(self.argv, self.args)


class LimitSettings(Settings):
    """What a client may do before it has logged in. 0: no limit."""

    grace: Duration = 20.0
    """Time to log in."""
    startups: Limit = 64
    """Connections that have not logged in, of all clients together."""
    startups_per_host: Limit = 8
    """The same for one address."""
    attempts: Limit = 6
    """Failed attempts to log in on one connection."""
    key_queries: Limit = 20
    """Questions whether a key would do, on one connection."""
    packets: Limit = 200
    """Packets before the log-in."""
    bytes: Size = 256 << 10
    """Bytes before the log-in."""
    channels: Limit = 10
    """Sessions open at once on one connection, after the log-in."""


def check_user_name(name: str) -> None:
    """Raise ValueError for what cannot be a user's name."""
    if not _USER.fullmatch(name):
        raise ValueError(f"{show(name)}: a user is 1 to 32 letters, digits, _ . or -, and begins with a letter")


def _check_users(users: dict[str, UserSettings]) -> dict[str, UserSettings]:
    for name in users:
        check_user_name(name)
    return users


def _check_commands(commands: dict[str, CommandSettings]) -> dict[str, CommandSettings]:
    for name in commands:
        if not _COMMAND.fullmatch(name):
            raise ValueError(f"{show(name)}: a command is 1 to 64 letters, digits, _ . or -")
        if name in VERBS:
            raise ValueError(f"{name}: is a verb of the console: give the command another name")
    return commands


class SshSettings(ListenerSettings):
    """The operator's console and a list of commands, by ssh."""

    own_login: ClassVar[bool] = True

    listen: Addresses
    """Where to listen: one address or a list."""
    users: Annotated[dict[str, UserSettings], AfterValidator(_check_users)] = Field(default_factory=dict)
    """Who may log in, by name."""
    commands: Annotated[
        dict[str, Annotated[CommandSettings, BeforeValidator(_as_table)]], AfterValidator(_check_commands)
    ] = Field(default_factory=dict)
    """What may be run beside the console's verbs, by name: a list of words, or a table."""
    password_auth: StrictBool = False
    """Whether users with a password_hash may log in by it; otherwise by key only."""
    limits: LimitSettings = Field(default_factory=LimitSettings)
    penalty_exempt: Networks | None = None
    """Networks that are not made to wait for their failures to log in."""
    host_keys: Annotated[tuple[Literal["ed25519", "rsa"], ...], AfterValidator(_not_empty)] = ("ed25519",)
    """Kinds of keys the host shows; made in the state directory on first start. rsa has 3072 bits."""
    max_connections: Limit = 1_000
    """Connections open at once on all ports of the service; more are closed at once. 0: no limit."""
    idle_timeout: Duration = 1800.0
    """A connection on which nothing runs and nobody types for this long is closed. 0: never."""
    keepalive: Duration = 30.0
    """A client that is silent for this long is asked whether it is there; after three times it is gone. 0: never."""
    rekey_bytes: Size = 1 << 30
    """New keys after this many bytes. 0: never."""
    rekey_after: Duration = 3600.0
    """New keys after this time. 0: never."""
    audit_log: StrictStr | None = None
    """Who did what, a JSON line each, in the state directory. Default: "ssh.NAME.audit.jsonl"; "" for none."""
    audit_size: Size = 10 << 20
    """The audit log is rotated at this size; five old files are kept. 0: never."""

    @model_validator(mode="before")
    @classmethod
    def _read_lists(cls, table: Any) -> Any:
        """TOML has lists where tuples are wanted, and pydantic's message for anything else says "tuple"."""
        if isinstance(table, dict) and isinstance(kinds := table.get("host_keys"), list):
            return {**table, "host_keys": tuple(kinds)}
        return table

    @model_validator(mode="after")
    def _throwaway_keys_stay_here(self) -> "SshSettings":
        for name, user in self.users.items():
            if user.throwaway_key and not all(address.local for address in self.listen):
                raise ValueError(f"users.{name}.throwaway_key: only where listen is on loopback")
        return self

    def warnings(self) -> list[str]:
        """What is probably not meant, beginning with the key."""
        if not self.users:
            return ["users: nobody may log in, so this does not listen: `netdctl ssh print-user` shows how to add one"]
        found = []
        for name, user in self.users.items():
            if user.password_hash is not None and not self.password_auth:
                found.append(f"users.{name}.password_hash: is not used while password_auth is false")
            if user.authorized_keys_file is not None:
                complaints = check_file(user.authorized_keys_file)
                found += [f"users.{name}.authorized_keys_file: {complaint}" for complaint in complaints]
        return found


def audit_path(settings: SshSettings, key: str, state_dir: Path) -> Path | None:
    """Where a service's audit goes; None when it is turned off."""
    name = f"{key}.audit.jsonl" if settings.audit_log is None else settings.audit_log
    return state_dir / name if name else None
