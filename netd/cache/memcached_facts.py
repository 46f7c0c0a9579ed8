"""What netd answers to memcached's `stats`: the names that mean something here, in memcached's order."""

import os
import resource
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields

from netd.cache.config import CacheSettings
from netd.cache.counters import Counters
from netd.cache.memcached_commands import VERSION
from netd.cache.store import Store
from netd.listener import Listener
from netd.runtime import Runtime


class ServiceFacts:
    """The facts of one cache service."""

    def __init__(self, settings: CacheSettings, store: Store, listener: Listener, runtime: Runtime) -> None:
        self._settings = settings
        self._store = store
        self._listener = listener
        self._runtime = runtime

    def general(self) -> Iterator[tuple[str, object]]:
        """What monitoring of memcached looks at."""
        store = self._store.stats()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        listener = self._listener
        yield "pid", os.getpid()
        yield "uptime", int(self._runtime.reactor.seconds() - self._runtime.started)
        yield "time", int(time.time())
        yield "version", VERSION.decode()
        yield "pointer_size", 8 * struct.calcsize("P")
        yield "rusage_user", f"{usage.ru_utime:.6f}"
        yield "rusage_system", f"{usage.ru_stime:.6f}"
        yield "max_connections", self._settings.max_connections
        yield "curr_connections", len(listener.connections)
        yield "total_connections", listener.accepted
        yield "rejected_connections", sum(listener.refused.values())
        for counter in fields(Counters):
            yield counter.name, store.get(counter.name, 0)
        bytes_read, bytes_written = listener.bytes_total()
        yield "bytes_read", bytes_read
        yield "bytes_written", bytes_written
        yield "limit_maxbytes", self._settings.max_memory
        yield "accepting_conns", 1
        yield "threads", 1
        yield from self._items(store)

    @staticmethod
    def _items(store: Mapping[str, int | float]) -> Iterator[tuple[str, object]]:
        yield "bytes", store.get("memory_bytes", 0)
        yield "curr_items", store.get("items", 0)
        yield "total_items", store.get("items_stored", 0)
        yield "evictions", store.get("items_evicted", 0)
        yield "reclaimed", store.get("items_expired", 0)

    def settings(self) -> Iterator[tuple[str, object]]:
        """The settings that memcached has, too."""
        settings = self._settings
        yield "maxbytes", settings.max_memory
        yield "maxconns", settings.max_connections
        yield "verbosity", 0
        yield "evictions", "on" if settings.eviction == "lru" else "off"
        yield "shutdown_command", "no"
        yield "num_threads", 1
        yield "detail_enabled", "no"
        yield "cas_enabled", "yes"
        yield "auth_enabled_ascii", "no"
        yield "item_size_max", settings.max_item_size
        yield "flush_enabled", "yes" if settings.may_flush else "no"
        yield "dump_enabled", "no"
        yield "idle_timeout", int(settings.idle_timeout)

    def items(self) -> Iterator[tuple[str, object]]:
        """As if all were of one slab class."""
        store = self._store.stats()
        if store.get("items"):
            yield "items:1:number", store["items"]
            yield "items:1:evicted", store.get("items_evicted", 0)
            yield "items:1:reclaimed", store.get("items_expired", 0)

    def slabs(self) -> Iterator[tuple[str, object]]:
        """The same class, and what all its items take; there are no pages or chunks to tell of."""
        store = self._store.stats()
        items = store.get("items", 0)
        if items:
            yield "1:used_chunks", items
            yield "1:get_hits", store.get("get_hits", 0)
            yield "1:cmd_set", store.get("cmd_set", 0)
        yield "active_slabs", int(items > 0)
        yield "total_malloced", store.get("memory_bytes", 0)

    def sizes(self) -> Iterator[tuple[str, object]]:
        """They are not counted, as in a memcached that was not asked to."""
        yield "sizes_status", "disabled"

    def connections(self) -> Iterator[tuple[str, object]]:
        """Who is connected, on either port; idle seconds are a second's sweep old."""
        now = self._runtime.reactor.seconds()
        for connection in self._listener.connections.values():
            yield f"{connection.id}:addr", f"tcp:{connection.peer}" if connection.host else connection.peer
            yield f"{connection.id}:secs_since_last_cmd", int(now - connection.quiet_since)

    def reset(self) -> None:
        """Count from nought again."""
        self._store.counters.reset()
