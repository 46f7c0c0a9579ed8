"""The embedded store as Redis commands see it: values without their header, deadlines in Redis's milliseconds."""

from collections.abc import Callable

from netd.cache import layout
from netd.cache.counters import Counters
from netd.cache.items import Items, NoRoom
from netd.cache.redis_words import TOO_LARGE, Refused
from netd.cache.requests import NEVER, item_size


class Keyspace:
    """What commands read and write. A writer raises Refused when a value is too large or there is no room."""

    def __init__(
        self,
        items: Items,
        counters: Counters,
        *,
        allow_flush: bool,
        max_item_size: int,
        clock: Callable[[], float],
    ) -> None:
        self.items = items
        self.counters = counters
        self.allow_flush = allow_flush
        self._max_item_size = max_item_size
        self._clock = clock

    def now(self) -> int:
        """The Unix time in milliseconds."""
        return int(self._clock() * 1000)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; a get that counts."""
        [kept] = self.items.fetch([key])
        self.counters.cmd_get += 1
        if kept is None:
            self.counters.get_misses += 1
            return None
        self.counters.get_hits += 1
        return layout.value_of(kept)

    def exists(self, key: bytes) -> bool:
        """Whether there is such a key."""
        return self.items.find(key) is not None

    def content(self, key: bytes) -> tuple[bytes, int, float] | None:
        """Value, flags and deadline of a key that is about to be changed; no access is counted."""
        slot = self.items.find(key)
        if slot is None:
            return None
        value, flags, _ = layout.read(self.items.values[slot])
        return value, flags, self.items.deadlines[slot]

    def put(self, key: bytes, value: bytes, deadline: float = NEVER, flags: int = 0) -> None:
        """Make or replace a key."""
        self.check_size(key, len(value), flags)
        try:
            self.items.put(key, layout.keep(value, flags), deadline)
        except NoRoom:
            self.counters.store_no_memory += 1
            raise Refused("command not allowed when used memory > 'maxmemory'.", b"OOM") from None
        self.counters.cmd_set += 1

    def check_size(self, key: bytes, length: int, flags: int = 0) -> None:
        """Raise Refused unless a value of this length may be stored."""
        if item_size(key, length, flags) > self._max_item_size:
            self.counters.store_too_large += 1
            raise Refused(TOO_LARGE)

    def deadline(self, key: bytes) -> int | None:
        """When a key expires, in milliseconds of Unix time; -1 for never, None when there is no such key."""
        slot = self.items.find(key)
        if slot is None:
            return None
        deadline = self.items.deadlines[slot]
        return round(deadline * 1000) if deadline else -1

    def set_deadline(self, key: bytes, when: int | None) -> None:
        """Have a key that is there expire at a Unix time in milliseconds, None for never; at once if that is over."""
        slot = self.items.find(key)
        if slot is None:
            return
        if when is not None and when <= self.now():
            self.items.discard(key)
        else:
            self.items.deadlines[slot] = when / 1000 if when is not None else NEVER
