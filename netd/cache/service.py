"""A [cache.NAME] table at work."""

import time
from collections.abc import Callable, Mapping
from typing import cast

from netd.cache.commands import COMMANDS
from netd.cache.config import CacheSettings, parse_store
from netd.cache.conversation import Conversation
from netd.cache.embedded import EmbeddedStore
from netd.cache.figures import CHARTS, EMBEDDED_CHARTS, FIGURES, NEAR_CHARTS
from netd.cache.memcached import MemcachedCodec
from netd.cache.memcached_commands import MemcachedCommands
from netd.cache.memcached_facts import ServiceFacts
from netd.cache.redis_store import RedisStore
from netd.cache.resp import RespCodec
from netd.cache.sample import Sample
from netd.cache.store import Store
from netd.config import ServiceConfig
from netd.listener import Listener, Port
from netd.runtime import Runtime
from netd.service import Service
from netd.settings import SHARED
from netd.stats import Histogram


class CacheService(Service):
    """memcached and Redis clients over one store."""

    kind = "cache"
    commands = COMMANDS
    figures = FIGURES

    def __init__(self, config: ServiceConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        self.sample = Sample()
        self.settings = settings = cast("CacheSettings", config.settings)
        self.store = _make_store(settings, config.key, runtime)
        self.charts = EMBEDDED_CHARTS if settings.embedded else NEAR_CHARTS if settings.near else CHARTS
        listener = Listener(config.key, self._ports(settings), settings, runtime)
        self._commands = MemcachedCommands(
            settings.max_item_size, ServiceFacts(settings, self.store, listener, runtime)
        )
        self.listeners = [listener]

    def _ports(self, settings: CacheSettings) -> list[Port]:
        return [
            Port(f"{self.key}.listen_memcached", settings.listen_memcached or (), self._memcached),
            Port(f"{self.key}.listen_redis", settings.listen_redis or (), self._redis),
        ]

    def _memcached(self) -> Conversation:
        codec = MemcachedCodec(self._commands)
        return Conversation(codec, lambda _: self.store.memcached(), self.runtime.reactor, self.sample)

    def _redis(self) -> Conversation:
        codec = RespCodec(self.settings.max_item_size)
        open_session = lambda connection: self.store.redis(connection, codec)  # noqa: E731 - it is in the way there
        return Conversation(codec, open_session, self.runtime.reactor, self.sample)

    @property
    def place(self) -> str:
        """Where values live, for a person; without user and password."""
        try:
            target = parse_store(self.settings.store.read())
        except (OSError, ValueError) as error:
            return f"unknown: {error}"
        return "embedded" if target is None else target.place

    @staticmethod
    def now() -> float:
        """Unix time."""
        return time.time()

    def health(self) -> str:
        return self.store.health()

    def histograms(self) -> Mapping[str, Histogram]:
        return {"upstream": self.store.upstream.seconds} if isinstance(self.store, RedisStore) else {}

    def stats(self) -> Mapping[str, int | float]:
        return self.store.stats()

    async def prepare(self) -> None:
        await self.store.start()
        await super().prepare()

    async def adapt(self, config: ServiceConfig) -> Callable[[], None] | None:
        settings = cast("CacheSettings", config.settings)
        if self.settings.changes(settings) - SHARED - {"listen_memcached", "listen_redis", "users"}:
            return None  # another store
        serve = await self.listeners[0].prepare(self._ports(settings), settings)

        def commit() -> None:
            self.settings = settings
            self.store.know(settings.users)
            serve()

        return commit

    async def stop(self) -> None:
        await super().stop()
        await self.store.stop()


def _make_store(settings: CacheSettings, key: str, runtime: Runtime) -> Store:
    if settings.embedded:
        return EmbeddedStore(settings, key, runtime)
    return RedisStore(settings, key, runtime)
