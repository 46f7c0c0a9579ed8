"""The configuration of a [cache.NAME] service."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, Field, StrictBool, StrictStr, ValidationInfo, model_validator

from netd import passwords
from netd.settings import (
    Address,
    Addresses,
    Duration,
    ListenerSettings,
    Secret,
    SecretText,
    SecretUrl,
    Settings,
    Size,
    show,
)

SMALLEST_MEMORY = 1 << 20
"""Bytes; less is no cache, and probably a forgotten unit."""
LARGEST_ITEM = 512 << 20
"""Bytes; Redis keeps no larger string (proto-max-bulk-len)."""
REDIS_PORT = 6379

_USER = re.compile(r"[^\s:]{1,64}")
_FORMS = '"embedded:", "redis://host:port/db", "rediss://…" or "redis+unix:///path"'


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """The Redis that a `store` setting names. Not to be logged whole: it holds a password."""

    host: str
    port: int
    path: str
    """Of a unix socket; then host is "" and port 0."""
    tls: bool
    user: str
    password: str
    database: int

    @property
    def place(self) -> str:
        """Where it is, for logs: "127.0.0.1:6379/0", without user and password."""
        return f"{self.path or f'{self.host}:{self.port}'}/{self.database}"


def parse_store(text: str) -> RedisTarget | None:
    """The Redis that a store's URL names, None for "embedded:"; raises ValueError, which never shows the password."""
    if text == "embedded:":
        return None
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(f"not a URL that can be read; expected {_FORMS}") from None
    user, password = unquote(url.username or ""), unquote(url.password or "")
    if url.query or url.fragment:
        raise ValueError(f"a store's URL ends with the database; expected {_FORMS}")
    if user and not password:
        raise ValueError("a user without a password; a password alone is written redis://:password@host")
    match url.scheme:
        case "redis" | "rediss" if url.hostname:
            database = _database(url.path.removeprefix("/"))
            host = unquote(url.hostname)
            return RedisTarget(host, port or REDIS_PORT, "", url.scheme == "rediss", user, password, database)
        case "redis+unix" if not url.hostname and port is None and len(url.path) > 1:
            return _unix_target(url, user, password)
    raise ValueError(f"expected {_FORMS}")


def _unix_target(url: SplitResult, user: str, password: str) -> RedisTarget:
    return RedisTarget("", 0, unquote(url.path), tls=False, user=user, password=password, database=0)


def _database(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 5:  # noqa: PLR2004 - five digits are more than any Redis has
        raise ValueError("after the host and a slash comes the number of a database")
    return int(text)


def _check_store(secret: Secret) -> Secret:
    if secret.text is not None:
        parse_store(secret.text)
    return secret


StoreUrl = Annotated[SecretUrl, AfterValidator(_check_store)]


def _check_hash(secret: Secret) -> Secret:
    if secret.text is not None:
        passwords.check_hash(secret.text)
    return secret


class CacheUserSettings(Settings):
    """Who may use the redis port, once there is anybody: AUTH is required then."""

    password_hash: Annotated[SecretText, AfterValidator(_check_hash)]
    """Made by `netdctl hash-password`; also as password_hash_file."""


def _check_users(users: dict[str, CacheUserSettings]) -> dict[str, CacheUserSettings]:
    for name in users:
        if not _USER.fullmatch(name):
            raise ValueError(f"{show(name)}: a user is 1 to 64 characters without spaces and colons")
    return users


def _check_memory(size: int) -> int:
    if size < SMALLEST_MEMORY:
        raise ValueError(f"expected at least {SMALLEST_MEMORY >> 20} MiB")
    return size


def _check_item_size(size: int, info: ValidationInfo) -> int:
    largest = min(info.data.get("max_memory", LARGEST_ITEM) // 2, LARGEST_ITEM)
    if not 0 < size <= largest:
        raise ValueError("expected at least 1 byte, at most half of max_memory, and at most 512 MiB")
    return size


def _check_timeout(seconds: float) -> float:
    if seconds == 0:
        raise ValueError("expected more than 0")
    return seconds


class CacheSettings(ListenerSettings):
    """memcached and Redis clients over one store."""

    listen_memcached: Addresses | None = None
    """Where memcached clients connect: one address or a list."""
    listen_redis: Addresses | None = None
    """Where Redis clients connect."""
    store: StoreUrl = Secret(text="embedded:")
    """embedded: | redis://[user:password@]host:port/db | rediss://… | redis+unix:///path; also as store_file."""
    max_memory: Annotated[Size, AfterValidator(_check_memory)] = 64 << 20
    """Of the embedded store, or of the near cache."""
    eviction: Literal["lru", "refuse"] = "lru"
    """When the embedded store is full: drop what was used least recently, or refuse to store."""
    near: StrictBool = True
    """A near cache before Redis, kept coherent by Redis's own invalidations."""
    serve_stale: Duration = 0.0
    """While Redis is away, answer gets from the near cache for this long. 0: not."""
    key_prefix: StrictStr = ""
    """Stands before every key in Redis; clients never see it."""
    max_item_size: Annotated[Size, AfterValidator(_check_item_size)] = 1 << 20
    """Bytes of a key and its value; more is refused."""
    timeout: Annotated[Duration, AfterValidator(_check_timeout)] = 1.0
    """A batch that Redis has not answered for this long fails."""
    allow_flush: StrictBool | None = None
    """flush_all, FLUSHALL, FLUSHDB and KEYS. Default: true with the embedded store, false on Redis."""
    users: Annotated[dict[str, CacheUserSettings], AfterValidator(_check_users)] = Field(default_factory=dict)
    """Who may use the redis port, by name; without any it asks nobody. "default" is who gives a password alone."""

    @model_validator(mode="after")
    def _listens_somewhere(self) -> "CacheSettings":
        if self.listen_memcached is None and self.listen_redis is None:
            raise ValueError("where to listen is missing: add listen_memcached, listen_redis or both")
        return self

    @property
    def embedded(self) -> bool:
        """Whether values live in this process; what a file says is known once it is read."""
        return self.store.text == "embedded:"

    @property
    def may_flush(self) -> bool:
        """Whether clients may forget everything."""
        return self.embedded if self.allow_flush is None else self.allow_flush

    def exposed(self) -> dict[str, Address]:
        """As for every listener; users protect the redis port."""
        found = super().exposed()
        return {key: address for key, address in found.items() if not (key == "listen_redis" and self.users)}

    def warnings(self) -> list[str]:
        """What is probably not meant, beginning with the key."""
        unused = ["near", "serve_stale", "key_prefix"] if self.embedded else ["eviction"]
        found = [
            f"{name}: has no effect with {'the embedded store' if self.embedded else 'Redis behind'}"
            for name in unused
            if name in self.model_fields_set and getattr(self, name) != CacheSettings.model_fields[name].default
        ]
        if self.users and self.listen_redis is None:
            found.append("users: log in on the redis port, and there is none")
        return found
