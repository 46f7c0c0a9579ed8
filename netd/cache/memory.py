"""Requests on items in this process, answered at once.

What memcached's requests do to an item is what memcached 1.6.18 does (memcached.c: do_store_item, do_add_delta), with
its counters. Redis's commands on the same items are in `netd.cache.redis_commands`.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

from netd.cache.batch import Found, Pairs, Results
from netd.cache.counters import Counters
from netd.cache.items import Items, NoRoom
from netd.cache.layout import STALE, TAKEN, keep, read
from netd.cache.memcached_words import unsigned64
from netd.cache.requests import (
    HISTORY,
    NEVER,
    STORED,
    TTL,
    UNIQUE,
    Answer,
    Arithmetic,
    Command,
    Counted,
    Delete,
    Fetch,
    Flush,
    Hit,
    Outcome,
    Put,
    Reply,
    Request,
    Written,
    deadline_of,
    item_size,
)


class Memory:
    """The session of every connection to an embedded store: nothing of it belongs to one client.

    `run` does a Redis client's command.
    """

    def __init__(
        self,
        items: Items,
        counters: Counters,
        clock: Callable[[], float],
        run: Callable[[list[bytes]], Reply],
        *,
        max_item_size: int,
        allow_flush: bool = True,
    ) -> None:
        self.items = items
        self.counters = counters
        self._clock = clock
        self._run = run
        self._max_item_size = max_item_size
        self._allow_flush = allow_flush
        self._flush_at = NEVER
        self._do: Mapping[type, Callable[[Any], Answer]] = {
            bytes: self._get,
            tuple: self._set,
            Put: self._put,
            Fetch: self._fetch,
            Delete: self._delete,
            Arithmetic: self._count,
            Flush: self._flush,
            Command: self._command,
        }

    # --- as a session

    def lookup(self, keys: list[bytes], done: Callable[[Found], None]) -> Found:  # noqa: ARG002 - answers at once
        if self._flush_at:
            self._flush_in_time()
        found = self.items.fetch(keys)
        counters, count = self.counters, len(keys)
        counters.cmd_get += count
        if None in found:
            misses = found.count(None)
            counters.get_misses += misses
            count -= misses
        counters.get_hits += count
        return found

    def write(self, pairs: Pairs, done: Callable[[Results], None]) -> Results:  # noqa: ARG002 - answers at once
        if self._flush_at:
            self._flush_in_time()
        set_ = self._set
        return [set_(pair) for pair in pairs]

    def execute(
        self,
        requests: list[Request],
        done: Callable[[Sequence[Answer]], None],  # noqa: ARG002 - answers at once
    ) -> Sequence[Answer]:
        if self._flush_at:
            self._flush_in_time()
        do = self._do
        return [do[request.__class__](request) for request in requests]

    def close(self) -> None:
        """Nothing is kept for a connection."""

    # --- memcached's requests

    def _get(self, key: bytes) -> bytes | None:
        (kept,) = self.items.fetch([key])
        self._count_get(hit=kept is not None)
        return kept

    def _count_get(self, *, hit: bool) -> None:
        self.counters.cmd_get += 1
        if hit:
            self.counters.get_hits += 1
        else:
            self.counters.get_misses += 1

    def _fetch(self, fetch: Fetch) -> Hit | None:
        items = self.items
        slot = items.find(fetch.key)
        if fetch.touch is None:
            self._count_get(hit=slot is not None)
        else:
            self.counters.cmd_touch += 1
            if slot is None:
                self.counters.touch_misses += 1
            else:
                self.counters.touch_hits += 1
        if slot is None:
            return None if fetch.vivify is None else self._vivify(fetch, fetch.vivify)
        value, flags, state = read(items.values[slot])
        if fetch.touch is None and fetch.recache is None and not state:  # the usual case
            hit = Hit(value, flags, items.uniques[slot])
            if fetch.wants & TTL:
                hit.ttl = hit.old_ttl = _ttl(items.deadlines[slot], self._clock())
        else:
            hit = self._change(fetch, slot, value, flags, state)
        if fetch.wants & HISTORY:
            hit.fetched, hit.idle, hit.size = items.fetched(slot), items.idle(slot), items.size(slot)
        if not fetch.peek:
            items.touch(slot)
        return hit

    def _change(self, fetch: Fetch, slot: int, value: bytes, flags: int, state: int) -> Hit:
        """Fetch an item that is touched, or that somebody may win."""
        items = self.items
        now = self._clock()
        old_ttl = _ttl(items.deadlines[slot], now)
        if fetch.touch is not None:
            items.deadlines[slot] = deadline_of(fetch.touch, now)
        ttl = _ttl(items.deadlines[slot], now)
        taken, stale = bool(state & TAKEN), bool(state & STALE)
        won = stale and not taken
        if fetch.recache is not None and not taken:
            looked_at = ttl if fetch.touch_first else old_ttl
            won = won or 0 <= looked_at < _ttl(deadline_of(fetch.recache, now), now)
        if won:
            items.rewrite(slot, keep(value, flags, state | TAKEN))
        return Hit(value, flags, items.uniques[slot], ttl, old_ttl, won=won, stale=stale, taken=taken)

    def _vivify(self, fetch: Fetch, exptime: int) -> Hit | None:
        now = self._clock()
        try:
            slot = self.items.put(fetch.key, keep(b"", 0, TAKEN), deadline_of(exptime, now), fetch.unique)
        except NoRoom:
            return None
        if not fetch.peek:
            self.items.touch(slot)
        ttl = _ttl(self.items.deadlines[slot], now)
        return Hit(b"", 0, self.items.uniques[slot], ttl, made=True, won=True, size=self.items.size(slot))

    def _set(self, pair: tuple[bytes, bytes]) -> bytes | Outcome:
        self.counters.cmd_set += 1
        key, kept = pair
        try:
            self.items.put(key, kept)
        except NoRoom:
            return self._no_room_to_set(key)
        return STORED

    def _no_room_to_set(self, key: bytes) -> Outcome:
        """As memcached, which would rather have nothing there than what was to be replaced."""
        self.counters.store_no_memory += 1
        self.items.discard(key)
        return Outcome.NO_ROOM

    def _put(self, put: Put) -> Outcome | Written:
        self.counters.cmd_set += 1
        if put.mode != "set" or put.compare is not None:
            return self._put_over(put)
        return self._write(put, keep(put.value, put.flags), deadline_of(put.exptime, self._clock()))

    def _put_over(self, put: Put) -> Outcome | Written:
        """Every mode that looks at what is there."""
        slot = self.items.find(put.key)
        match put.mode:
            case "set":
                return self._compare_and_set(put, slot)
            case "add" if slot is not None:
                self.items.touch(slot, fetch=False)
                return Outcome.NOT_STORED
            case "replace" if slot is None:
                return Outcome.NOT_STORED
            case "append" | "prepend":
                return Outcome.NOT_STORED if slot is None else self._extend(put, slot)
        return self._write(put, keep(put.value, put.flags), deadline_of(put.exptime, self._clock()))

    def _compare_and_set(self, put: Put, slot: int | None) -> Outcome | Written:
        counters = self.counters
        if slot is None:
            counters.cas_misses += 1
            return Outcome.NOT_FOUND
        unique = self.items.uniques[slot]
        if put.compare == unique:
            counters.cas_hits += 1
            return self._write(put, keep(put.value, put.flags), deadline_of(put.exptime, self._clock()))
        if put.invalidate and put.compare and put.compare < unique:
            counters.cas_hits += 1
            _, _, state = read(self.items.values[slot])
            kept = keep(put.value, put.flags, STALE | state & TAKEN)
            return self._write(put, kept, self.items.deadlines[slot])
        counters.cas_badval += 1
        return Outcome.EXISTS

    def _extend(self, put: Put, slot: int) -> Outcome | Written:
        if put.compare is not None and put.compare != self.items.uniques[slot]:
            return Outcome.EXISTS
        value, flags, _ = read(self.items.values[slot])
        value = value + put.value if put.mode == "append" else put.value + value
        if item_size(put.key, len(value), flags) > self._max_item_size:
            return Outcome.NOT_STORED
        written = self._write(put, keep(value, flags), self.items.deadlines[slot])
        return Outcome.NOT_STORED if written is Outcome.NO_ROOM else written

    def _write(self, put: Put, kept: bytes, deadline: float) -> Outcome | Written:
        try:
            slot = self.items.put(put.key, kept, deadline, put.unique)
        except NoRoom:
            if put.mode == "set":
                return self._no_room_to_set(put.key)
            self.counters.store_no_memory += 1
            return Outcome.NO_ROOM
        return Written(self.items.uniques[slot]) if put.wants & UNIQUE else Outcome.DONE

    def _delete(self, delete: Delete) -> Outcome:
        items, counters = self.items, self.counters
        slot = items.find(delete.key)
        if slot is None:
            counters.delete_misses += 1
            return Outcome.NOT_FOUND
        if delete.compare is not None and delete.compare != items.uniques[slot]:
            counters.delete_misses += 1
            return Outcome.EXISTS
        if delete.invalidate:
            if delete.touch is not None:
                items.deadlines[slot] = deadline_of(delete.touch, self._clock())
            value, flags, _ = read(items.values[slot])
            items.rewrite(slot, keep(value, flags, STALE))
            items.uniques[slot] = items.next_unique() if delete.unique is None else delete.unique
        else:
            counters.delete_hits += 1
            items.discard(delete.key)
        return Outcome.DONE

    def _count(self, request: Arithmetic) -> Counted | Outcome:
        items = self.items
        slot = items.find(request.key)
        if slot is None:
            return self._count_from(request)
        value, flags, state = read(items.values[slot])
        if not value:
            return Outcome.NOT_A_NUMBER
        if request.compare is not None and request.compare != items.uniques[slot]:
            return Outcome.EXISTS
        number = unsigned64(value)
        if number is None:
            return Outcome.NOT_A_NUMBER
        if request.down:
            number = max(0, number - request.delta)
            self.counters.decr_hits += 1
        else:
            number = (number + request.delta) % 2**64
            self.counters.incr_hits += 1
        digits = b"%d" % number
        if len(digits) <= len(value):  # the item stays itself: memcached writes over it
            items.rewrite(slot, keep(digits, flags, state))
            items.uniques[slot] = items.next_unique() if request.unique is None else request.unique
            items.touch(slot, fetch=False)
        else:
            try:
                slot = items.put(request.key, keep(digits, flags), items.deadlines[slot], request.unique)
            except NoRoom:
                return Outcome.NO_ROOM
        now = self._clock()
        old_ttl = _ttl(items.deadlines[slot], now)
        if request.touch is not None:
            items.deadlines[slot] = deadline_of(request.touch, now)
        return Counted(number, items.uniques[slot], _ttl(items.deadlines[slot], now), old_ttl)

    def _count_from(self, request: Arithmetic) -> Counted | Outcome:
        """Begin to count where nothing is."""
        if request.vivify is None:
            if request.down:
                self.counters.decr_misses += 1
            else:
                self.counters.incr_misses += 1
            return Outcome.NOT_FOUND
        now = self._clock()
        deadline = deadline_of(request.vivify, now)
        try:
            slot = self.items.put(request.key, b"%d" % request.initial, deadline, request.unique)
        except NoRoom:
            return Outcome.NO_ROOM
        return Counted(request.initial, self.items.uniques[slot], _ttl(deadline, now), made=True)

    def _flush(self, flush: Flush) -> Outcome:
        self.counters.cmd_flush += 1
        if not self._allow_flush:
            return Outcome.NOT_ALLOWED
        if flush.delay > 0:
            self._flush_at = deadline_of(flush.delay, self._clock())
            self._flush_in_time()
        else:
            self._flush_at = NEVER
            self.items.next_unique()  # as memcached, whose flush takes one
            self.items.clear()
        return Outcome.DONE

    def _flush_in_time(self) -> None:
        """Do the delayed flush if its time has come; nobody has seen an item since then."""
        if self._flush_at and self._clock() >= self._flush_at:
            self._flush_at = NEVER
            self.items.clear()

    def _command(self, command: Command) -> Reply:
        return self._run(command.words)


def _ttl(deadline: float, now: float) -> int:
    """Whole seconds left, rounded up; -1 for ever."""
    return max(0, ceil(deadline - now)) if deadline else -1
