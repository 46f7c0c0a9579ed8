"""The embedded store: this process's memory, for both dialects."""

import time
from collections.abc import Mapping

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from netd.cache.config import CacheSettings, CacheUserSettings
from netd.cache.counters import Counters
from netd.cache.items import Items
from netd.cache.memory import Memory
from netd.cache.redis_commands import RedisCommands
from netd.cache.redis_info import embedded_port
from netd.cache.redis_keyspace import Keyspace
from netd.cache.redis_session import RedisSession
from netd.cache.resp import RespCodec
from netd.cache.store import Session
from netd.listener import Connection
from netd.runtime import Runtime

EXPIRY_INTERVAL = 1.0
"""Seconds between two looks for expired items that nobody asks for."""
EXPIRY_SLOTS = 20_000
"""Items looked at in one go: half a millisecond; a million are gone through in less than a minute."""

_log = Logger()


class EmbeddedStore:
    """A `netd.cache.store.Store` without a server."""

    def __init__(self, settings: CacheSettings, key: str, runtime: Runtime) -> None:
        self._key = key
        self.counters = Counters()
        self.items = Items(settings.max_memory, time.time, evict=settings.eviction == "lru")
        space = Keyspace(
            self.items,
            self.counters,
            allow_flush=settings.may_flush,
            max_item_size=settings.max_item_size,
            clock=time.time,
        )
        self._memory = Memory(
            self.items,
            self.counters,
            time.time,
            RedisCommands(space).run,
            max_item_size=settings.max_item_size,
            allow_flush=settings.may_flush,
        )
        self._port = embedded_port(settings, runtime, self.items, self.counters)
        self._expiring = LoopingCall(self.items.expire_some, EXPIRY_SLOTS)
        self._expiring.clock = runtime.reactor

    async def start(self) -> None:
        """Begin to look for what has expired."""
        self._expiring.start(EXPIRY_INTERVAL, now=False).addErrback(
            lambda failure: _log.failure("the look for expired items stopped", failure, service=self._key)
        )

    async def stop(self) -> None:
        """Forget everything."""
        if self._expiring.running:
            self._expiring.stop()
        self._port.login.stop()
        self.items.clear()

    def know(self, users: Mapping[str, CacheUserSettings]) -> None:
        """Have other users who may log in."""
        self._port.login.know(users)

    def health(self) -> str:
        """Nothing can be wrong with it."""
        return ""

    def stats(self) -> Mapping[str, int | float]:
        """Counters, and what there is."""
        return {
            **self.counters.read(),
            "items": len(self.items),
            "items_stored": self.items.stored,
            "items_evicted": self.items.evicted,
            "items_expired": self.items.expired,
            "memory_bytes": self.items.used,
            "memory_limit_bytes": self.items.max_bytes,
        }

    def memcached(self) -> Session:
        """All memcached clients are alike."""
        return self._memory

    def redis(self, connection: Connection, codec: RespCodec) -> Session:
        """A Redis client has a name, a log-in, and more."""
        return RedisSession(connection, codec.requests, self._memory, self._port)
