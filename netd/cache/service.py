"""A [cache.NAME] table at work."""

from collections.abc import Mapping
from typing import cast

from netd.cache.config import CacheSettings
from netd.cache.conversation import Conversation
from netd.cache.embedded import EmbeddedStore
from netd.cache.memcached import MemcachedCodec
from netd.cache.memcached_commands import MemcachedCommands
from netd.cache.memcached_facts import ServiceFacts
from netd.cache.redis_store import RedisStore
from netd.cache.resp import RespCodec
from netd.cache.store import Store
from netd.config import ServiceConfig
from netd.listener import Listener, Port
from netd.runtime import Runtime
from netd.service import Service


class CacheService(Service):
    """memcached and Redis clients over one store."""

    kind = "cache"

    def __init__(self, config: ServiceConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        self.settings = settings = cast("CacheSettings", config.settings)
        self.store = _make_store(settings, config.key, runtime)
        ports = [
            Port(f"{config.key}.{name}", addresses, build)
            for name, addresses, build in (
                ("listen_memcached", settings.listen_memcached, self._memcached),
                ("listen_redis", settings.listen_redis, self._redis),
            )
            if addresses
        ]
        listener = Listener(config.key, ports, settings, runtime)
        self._commands = MemcachedCommands(
            settings.max_item_size, ServiceFacts(settings, self.store, listener, runtime)
        )
        self.listeners = [listener]

    def _memcached(self) -> Conversation:
        return Conversation(MemcachedCodec(self._commands), self.store.memcached, self.runtime.reactor)

    def _redis(self) -> Conversation:
        codec = RespCodec(self.settings.max_item_size)
        return Conversation(codec, lambda connection: self.store.redis(connection, codec), self.runtime.reactor)

    def health(self) -> str:
        return self.store.health()

    def stats(self) -> Mapping[str, int | float]:
        return self.store.stats()

    async def start(self) -> None:
        await self.store.start()
        try:
            await super().start()
        except BaseException:
            await self.store.stop()
            raise

    async def stop(self) -> None:
        await super().stop()
        await self.store.stop()


def _make_store(settings: CacheSettings, key: str, runtime: Runtime) -> Store:
    if settings.embedded:
        return EmbeddedStore(settings, key, runtime)
    return RedisStore(settings, key, runtime)
