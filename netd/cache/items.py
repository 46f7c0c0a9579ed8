"""Values by key in this process, bounded by bytes: the embedded store's, and the near cache's.

A million small items are the design's measure: at a hundred bytes of value each takes some 320 bytes all in, and none
is an object that Python's garbage collector would have to visit. So there is no class for an item. An item is a *slot*,
a number, and what is known of it stands in columns: lists of keys and values, arrays of deadlines, CAS uniques and
times. A slot stays an item's own as long as the item lives, also when its value is replaced; that makes it a cursor for
SCAN.

Eviction gives second chances (CLOCK). A hand goes round the slots. An item that was used since the hand passed is
marked as not used; the first one that bears no mark goes. The hand moves at the speed of memchr, and a hit costs one
byte written, where a linked list would cost ten stores. What is used often stays, what is never used goes in the order
in which it came.

Times are Unix time. Expired items are noticed when somebody asks for them, and by `expire_some` if nobody does.
"""

import random
from array import array
from collections.abc import Callable, Iterator
from typing import Final

from netd.cache.requests import NEVER

OVERHEAD: Final = 216
"""Bytes of an item beside key and value: two object headers, its place in the index and in every column."""

_COLD, _USED, _FREE = 0, 1, 2
_COOL: Final = bytes([_COLD, _COLD, _FREE]) + bytes(range(3, 256))

RANDOM_TRIES: Final = 100
"""Slots looked at for a random key before the rest are gone through in order."""


class NoRoom(Exception):
    """The items would not fit, and none may be evicted."""


class Items:
    """Values with deadlines and CAS uniques. `used` bytes of at most `max_bytes`; `evicted` items had to go.

    Without `evict`, a write that would not fit raises NoRoom.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float], *, evict: bool = True) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        self.evicted = 0
        self.expired = 0
        self.stored = 0
        """How many were ever stored."""
        self._clock = clock
        self._evict = evict
        self._epoch = int(clock())
        self._unique = 0
        self._empty()

    def _empty(self) -> None:
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.deadlines = array("d")
        self.uniques = array("Q")
        self._index: dict[bytes, int] = {}
        self._accessed = array("I")  # seconds since the epoch, doubled; odd: fetched since it was stored
        self._marks = bytearray()
        self._free: list[int] = []
        self._hand = 0
        self._expiring = 0
        self.used = 0

    def __len__(self) -> int:
        """How many there are, expired ones that nobody has noticed included."""
        return len(self._index)

    # --- reading

    def fetch(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of several keys, as kept; None for what is not there. Counts as an access. The hot path."""
        find, deadlines = self._index.get, self.deadlines
        now = self._clock()
        moment = int(now - self._epoch) * 2 + 1
        found: list[bytes | None] = []
        for key in keys:
            slot = find(key)
            if slot is None:
                found.append(None)
            elif (deadline := deadlines[slot]) and deadline <= now:
                self._expire(key, slot)
                found.append(None)
            else:
                self._marks[slot] = _USED
                self._accessed[slot] = moment
                found.append(self.values[slot])
        return found

    def find(self, key: bytes) -> int | None:
        """The slot of a key; no access is counted."""
        slot = self._index.get(key)
        if slot is not None and NEVER < self.deadlines[slot] <= self._clock():
            self._expire(key, slot)
            return None
        return slot

    def touch(self, slot: int, *, fetch: bool = True) -> None:
        """Count an access; one that is no `fetch` leaves open whether anybody has fetched it."""
        self._marks[slot] = _USED
        self._accessed[slot] = (int(self._clock()) - self._epoch) * 2 + (fetch or self._accessed[slot] & 1)

    def fetched(self, slot: int) -> bool:
        """Whether an access was counted since the item was stored."""
        return bool(self._accessed[slot] & 1)

    def idle(self, slot: int) -> int:
        """Whole seconds since the last access, or since it was stored."""
        return max(0, int(self._clock()) - self._epoch - (self._accessed[slot] >> 1))

    def size(self, slot: int) -> int:
        """What an item counts for in `used`."""
        return len(self.keys[slot]) + len(self.values[slot]) + OVERHEAD

    def all_keys(self) -> Iterator[bytes]:
        """Every key, expired ones that nobody has noticed included. Nothing may be written meanwhile."""
        return iter(self._index)

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Keys from some `count` slots on from `cursor`, and the next cursor, 0 at the end.

        Who goes from 0 to 0 sees every item that was there all the time, once.
        """
        end = cursor + count
        now = self._clock()
        found = [
            self.keys[slot]
            for slot in range(cursor, min(end, len(self.keys)))
            if self._marks[slot] != _FREE and not NEVER < self.deadlines[slot] <= now
        ]
        return (end if end < len(self.keys) else 0), found

    def random_key(self) -> bytes | None:
        """Any key, None when there is none."""
        for _ in range(RANDOM_TRIES if self._index else 0):
            slot = random.randrange(len(self.keys))  # noqa: S311 - no secret
            if self._marks[slot] != _FREE and self.find(self.keys[slot]) is not None:
                return self.keys[slot]
        return next((key for key in list(self._index) if self.find(key) is not None), None)

    # --- writing

    def put(self, key: bytes, kept: bytes, deadline: float = NEVER, unique: int | None = None) -> int:
        """Make or replace an item and return its slot; it gets the next CAS unique unless one is given.

        Raises NoRoom, with nothing changed, when it does not fit.
        """
        slot = self._index.get(key)
        if slot is not None:
            more = len(kept) - len(self.values[slot])
            if more > 0 and self.used + more > self.max_bytes:
                self._marks[slot] = _USED
                self._make_room(more, len(key) + len(kept) + OVERHEAD)
                slot = self._index.get(key)
        if slot is None:
            more = len(key) + len(kept) + OVERHEAD
            if self.used + more > self.max_bytes:
                self._make_room(more, more)
            slot = self._take_slot()
            self._index[key] = slot
            self.keys[slot] = key
        self.used += more
        self.values[slot] = kept
        self.deadlines[slot] = deadline
        self._accessed[slot] = (int(self._clock()) - self._epoch) * 2
        self.uniques[slot] = self.next_unique() if unique is None else unique
        self.stored += 1
        return slot

    def rewrite(self, slot: int, kept: bytes) -> None:
        """Put other bytes in an item that stays what it is: no new CAS unique. They may be longer by a header only."""
        self.used += len(kept) - len(self.values[slot])
        self.values[slot] = kept

    def next_unique(self) -> int:
        """The next CAS unique; memcached's begin at 1, too."""
        self._unique += 1
        return self._unique

    def discard(self, key: bytes) -> bool:
        """Remove an item; says whether there was one."""
        slot = self.find(key)
        if slot is None:
            return False
        self._remove(key, slot)
        return True

    def clear(self) -> None:
        """Remove everything. CAS uniques go on: none is ever given twice."""
        self._empty()

    def expire_some(self, limit: int) -> None:
        """Look at the next `limit` slots, and remove what has expired: for a call now and then."""
        start = self._expiring if self._expiring < len(self.keys) else 0
        self._expiring = start + limit
        now = self._clock()
        for slot, deadline in enumerate(self.deadlines[start : start + limit], start):
            if NEVER < deadline <= now and self._marks[slot] != _FREE:
                self._expire(self.keys[slot], slot)

    # --- slots

    def _take_slot(self) -> int:
        """A free slot. What stands where the hand comes soon is marked as used, so that it lives as long as others."""
        if self._free:
            slot = self._free.pop()
            self._marks[slot] = _COLD if slot < self._hand else _USED
            return slot
        self.keys.append(b"")
        self.values.append(b"")
        self.deadlines.append(NEVER)
        self.uniques.append(0)
        self._accessed.append(0)
        self._marks.append(_USED if self._hand else _COLD)
        return len(self.keys) - 1

    def _remove(self, key: bytes, slot: int) -> None:
        self.used -= len(key) + len(self.values[slot]) + OVERHEAD
        del self._index[key]
        self.keys[slot] = self.values[slot] = b""
        self._marks[slot] = _FREE
        self._free.append(slot)

    def _expire(self, key: bytes, slot: int) -> None:
        self._remove(key, slot)
        self.expired += 1

    def _make_room(self, more: int, whole: int) -> None:
        """Evict until `more` bytes fit; `whole` is what the item takes that they are for."""
        if not self._evict or whole > self.max_bytes:
            raise NoRoom
        while self.used + more > self.max_bytes and self._index:
            slot = self._next_victim()
            self._remove(self.keys[slot], slot)
            self.evicted += 1

    def _next_victim(self) -> int:
        """Move the hand to the first item without a mark; those it passes lose theirs."""
        marks = self._marks
        start = self._hand if self._hand < len(marks) else 0
        while (slot := marks.find(_COLD, start)) < 0:
            marks[start:] = marks[start:].translate(_COOL)
            start = 0
        marks[start:slot] = marks[start:slot].translate(_COOL)
        self._hand = slot + 1
        return slot
