"""The near cache: values of Redis in this process, kept coherent by Redis's own invalidations (CLIENT TRACKING).

Redis tells one listening link which keys others have changed; changes on the tracking link itself it does not tell
(NOLOOP), as whoever makes them drops the keys here when the command is sent. So, in the order in which things happen:

- *dropped when sent*: a key that a command of ours touches is dropped before the command leaves, and refilled only by a
  request that is sent behind it on the same link;
- *poisoned fills*: a request under way whose key is invalidated or touched by a later command may carry the old value.
  Who asked gets it, as they asked before; it is not stored, and nobody joins it any more;
- *joining*: a miss joins a request under way instead of asking again, while that is not poisoned;
- *deadlines*: a value is gone when it is gone in Redis: PTTL asked with it, counted from the time of asking. A value
  whose PTTL says that it is gone already (-2) is not stored;
- *freshness*: hits are served for a second after the PING was sent that the listening link has last answered. A link
  that is silent for longer may hide an invalidation;
- *a new pair of links* begins with an empty cache, and with what is under way poisoned: nobody tracked in between. Both
  must lead to the same run of the same Redis (`run_id`), or the number of the one means somebody else to the other.

That a connection never sees a value go back in time needs one rule more: commands that only read, but past this cache,
count as touching, or a client could see with one the new value and then a hit with the old one.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from netd.cache.items import Items, NoRoom
from netd.cache.requests import NEVER, Reply

FRESH: Final = 1.0
"""Seconds after the last answered PING during which hits are served."""

GONE, FOREVER = -2, -1
"""PTTL's answers that are no times."""

Waiter = Callable[[Reply], None]


class Fill:
    """A request for a key that is under way, and who waits for it."""

    __slots__ = ("key", "poisoned", "sent", "waiters")

    def __init__(self, key: bytes, sent: float) -> None:
        self.key = key
        self.sent = sent
        self.poisoned = False
        self.waiters: list[Waiter] = []


class Near:
    """Values by key as clients name them. `clock` is that of deadlines and heartbeats alike; it never jumps."""

    def __init__(self, max_bytes: int, clock: Callable[[], float], *, serve_stale: float = 0.0) -> None:
        self.items = Items(max_bytes, clock)
        self.hits = 0
        self.misses = 0
        self.coalesced = 0
        self.invalidated = 0
        self.stale_hits = 0
        self._clock = clock
        self._serve_stale = serve_stale
        self._fills: dict[bytes, Fill] = {}
        self._tracked = False
        self._fresh_until = 0.0
        self._stale_until = 0.0

    # --- the links

    def begin(self) -> None:
        """Redis tracks for this cache from now on; nothing is known yet."""
        self._poison_all()
        self.items.clear()
        self._tracked = True
        self._stale_until = 0.0

    def end(self) -> None:
        """Redis does not track any more."""
        if self._tracked:
            self._tracked = False
            self._stale_until = self._clock() + self._serve_stale
        self._fresh_until = 0.0

    def alive(self, pinged: float) -> None:
        """The listening link has answered a PING that was sent at this time."""
        if self._tracked:
            self._fresh_until = pinged + FRESH

    @property
    def stale(self) -> bool:
        """Whether hits may be served if Redis is away."""
        return self._clock() < self._stale_until

    # --- hits and fills

    def lookup(self, keys: list[bytes]) -> list[bytes | None] | None:
        """The values that are here, as kept; None while hits may not be served."""
        if self._clock() >= self._fresh_until:
            return None
        found = self.items.fetch(keys)
        hits = len(keys)
        if None in found:
            misses = found.count(None)
            self.misses += misses
            hits -= misses
        self.hits += hits
        return found

    def join(self, key: bytes, waiter: Waiter) -> bool:
        """Wait for a request for this key that is under way, if there is one that may be waited for."""
        fill = self._fills.get(key)
        if fill is None:
            return False
        fill.waiters.append(waiter)
        self.coalesced += 1
        return True

    def fill(self, key: bytes, waiter: Waiter) -> Fill:
        """A request for this key is sent now."""
        fill = self._fills[key] = Fill(key, self._clock())
        fill.waiters.append(waiter)
        return fill

    def filled(self, fill: Fill, value: Reply, ttl: Reply) -> None:
        """Redis has answered a fill: GET and PTTL."""
        if self._fills.get(fill.key) is fill:
            del self._fills[fill.key]
        if not fill.poisoned and self._tracked and isinstance(value, bytes) and isinstance(ttl, int) and ttl != GONE:
            with suppress(NoRoom):
                self.items.put(fill.key, value, NEVER if ttl == FOREVER else fill.sent + ttl / 1000)
        for waiter in fill.waiters:
            waiter(value)

    # --- what is no longer true

    def drop(self, keys: Iterable[bytes]) -> None:
        """A command that touches these keys is sent now."""
        for key in keys:
            self.items.discard(key)
            self._poison(key)

    def drop_all(self) -> None:
        """A command that touches every key is sent now."""
        self.items.clear()
        self._poison_all()

    def invalidate(self, keys: Iterable[bytes] | None) -> None:
        """Redis says that these have changed; None: everything has."""
        if keys is None:
            self.invalidated += len(self.items)
            self.drop_all()
            return
        for key in keys:
            if self.items.discard(key):
                self.invalidated += 1
            self._poison(key)

    def _poison(self, key: bytes) -> None:
        fill = self._fills.pop(key, None)
        if fill is not None:
            fill.poisoned = True

    def _poison_all(self) -> None:
        for key in list(self._fills):
            self._poison(key)
