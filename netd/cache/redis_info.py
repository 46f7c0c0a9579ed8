"""What the embedded store tells a Redis client about itself: INFO and COMMAND."""

import os
import platform
from collections.abc import Callable, Mapping
from typing import Final

from netd.cache.config import CacheSettings
from netd.cache.counters import Counters
from netd.cache.items import Items
from netd.cache.redis_commands import COMMANDS, Entry
from netd.cache.redis_login import LogIn
from netd.cache.redis_own import OWN_COMMANDS, VERSION
from netd.cache.redis_session import RedisPort
from netd.cache.redis_words import Refused, upper, wrong_arity
from netd.cache.requests import Problem, Reply, Status
from netd.runtime import Runtime

COUNTED_EXPIRES: Final = 100_000
"""Keys up to which INFO counts those with a time to live: a millisecond's work."""


def embedded_port(settings: CacheSettings, runtime: Runtime, items: Items, counters: Counters) -> RedisPort:
    """The redis port of an embedded store."""
    port = RedisPort(LogIn(settings.users, runtime.reactor), runtime.reactor.seconds)
    info = Info(settings, runtime, items, counters, port)
    port.answers = {"INFO": info.answer, "COMMAND": command}
    return port


class Info:
    """INFO: the fields that mean something here, by Redis's names (server.c, genRedisInfoString)."""

    def __init__(
        self, settings: CacheSettings, runtime: Runtime, items: Items, counters: Counters, port: RedisPort
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._items = items
        self._counters = counters
        self._port = port

    def answer(self, words: list[bytes]) -> Reply:
        """INFO [section …]."""
        sections: Mapping[str, Callable[[], dict[str, object]]] = {
            "Server": self._server,
            "Clients": self._clients,
            "Memory": self._memory,
            "Stats": self._stats,
            "Replication": lambda: {"role": "master", "connected_slaves": 0},
            "Keyspace": self._keyspace,
        }
        wanted = {upper(word) for word in words[1:]}
        everything = not wanted or wanted & {"ALL", "EVERYTHING", "DEFAULT"}
        shown = [
            f"# {name}\r\n" + "".join(f"{key}:{value}\r\n" for key, value in fields().items())
            for name, fields in sections.items()
            if everything or name.upper() in wanted
        ]
        return "\r\n".join(shown).encode()

    def _server(self) -> dict[str, object]:
        uptime = int(self._runtime.reactor.seconds() - self._runtime.started)
        return {
            "redis_version": VERSION.decode(),
            "redis_mode": "standalone",
            "server_name": "netd",
            "os": f"{platform.system()} {platform.release()} {platform.machine()}",
            "arch_bits": 64,
            "process_id": os.getpid(),
            "uptime_in_seconds": uptime,
            "uptime_in_days": uptime // 86400,
        }

    def _clients(self) -> dict[str, object]:
        return {"connected_clients": len(self._port.sessions), "maxclients": self._settings.max_connections}

    def _memory(self) -> dict[str, object]:
        policy = "allkeys-lru" if self._settings.eviction == "lru" else "noeviction"
        return {
            "used_memory": self._items.used,
            "maxmemory": self._items.max_bytes,
            "maxmemory_policy": policy,
        }

    def _stats(self) -> dict[str, object]:
        return {
            "expired_keys": self._items.expired,
            "evicted_keys": self._items.evicted,
            "keyspace_hits": self._counters.get_hits,
            "keyspace_misses": self._counters.get_misses,
        }

    def _keyspace(self) -> dict[str, object]:
        if not len(self._items):
            return {}
        expires = sum(map(bool, self._items.deadlines)) if len(self._items) <= COUNTED_EXPIRES else 0
        return {"db0": f"keys={len(self._items)},expires={expires},avg_ttl=0"}


# --- COMMAND


def command(words: list[bytes]) -> Reply:
    """COMMAND [COUNT | LIST | INFO name … | DOCS name … | GETKEYS words …]."""
    if len(words) == 1:
        return [describe(name) for name in _known()]
    match upper(words[1]):
        case "COUNT":
            return len(_known())
        case "LIST":
            return [name.lower() for name in _known()]
        case "INFO":
            return [describe(name) for name in (words[2:] or _known())]
        case "DOCS":
            return {name.lower(): _docs(name) for name in (words[2:] or _known()) if name.upper() in _known()}
        case "GETKEYS":
            return _keys_of(words[2:])
    raise Refused(f"unknown subcommand '{words[1][:128].decode('latin-1')}'. Try COMMAND HELP.")


def _known() -> Mapping[bytes, Entry | int]:
    return {**COMMANDS, **{name.encode(): arity for name, arity in OWN_COMMANDS.items()}}


def describe(name: bytes) -> Reply:
    """What COMMAND INFO says of a command, None for one that is not known (server.c, addReplyCommandInfo)."""
    entry = _known().get(name.upper())
    if entry is None:
        return None
    if isinstance(entry, int):
        return [name.lower(), entry, [Status(b"loading"), Status(b"stale")], 0, 0, 0, [], [], [], []]
    flags = [Status(flag.encode()) for flag in entry.flags.split()]
    return [name.lower(), entry.arity, flags, entry.first, entry.last, entry.step, [], [], [], []]


def _docs(name: bytes) -> Reply:
    entry = COMMANDS.get(name.upper())
    summary = (entry.run.__doc__ or "").split(": ", 1) if entry else ["", "About the connection."]
    return {b"summary": summary[-1].encode(), b"group": b"string" if entry else b"connection"}


def _keys_of(words: list[bytes]) -> Reply:
    if not words:
        raise wrong_arity("command|getkeys")
    entry = COMMANDS.get(words[0].upper())
    if entry is None:
        return Problem(b"Invalid command specified")
    if not entry.first:
        return Problem(b"The command has no key arguments")
    last = entry.last if entry.last > 0 else len(words) + entry.last
    return [*words[entry.first : last + 1 : entry.step]]
