"""memcached's requests in Redis's commands: one round trip each, a script where no command does it in one step.

A CAS unique is the first 64 bits of SHA-1 of the item. So there is nothing to store for it, and a value that a Redis
client wrote has one too; that an item changed and changed back is the one thing it does not show. What only memcached
keeps, when an item was fetched last and uniques that clients choose, is not kept here.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from typing import Any, Final

from netd.cache.layout import STALE, TAKEN, keep, read
from netd.cache.redis_plan import Plan, command, problem_or, run
from netd.cache.requests import (
    ITEM_HEADER,
    LONGEST_RELATIVE,
    TTL,
    UNIQUE,
    Answer,
    Arithmetic,
    Counted,
    Delete,
    Fetch,
    Hit,
    Outcome,
    Problem,
    Put,
    Reply,
    Written,
)

LONG_GONE: Final = b"1"
"""A Unix time of which GETEX makes "at once"."""


def unique_of(kept: bytes) -> int:
    """The CAS unique of an item; whether somebody has won it makes no difference."""
    value, flags, state = read(kept)
    if state & TAKEN:
        kept = keep(value, flags, state & ~TAKEN)
    return int.from_bytes(sha1(kept, usedforsecurity=False).digest()[:8], "big")


def seconds(milliseconds: int) -> int:
    """Whole seconds left, rounded up, of what PTTL says; -1 for ever."""
    return -(-milliseconds // 1000) if milliseconds >= 0 else -1


def hit_of(kept: bytes, **facts: Any) -> Hit:
    """An item as it was read."""
    value, flags, state = read(kept)
    stale, taken = bool(state & STALE), bool(state & TAKEN)
    return Hit(value, flags, unique_of(kept), stale=stale, taken=taken, size=len(kept), **facts)


class MemcachedPlans:
    """Makes a plan of each request. `prefix` stands before every key in Redis."""

    def __init__(self, prefix: bytes, max_item_size: int) -> None:
        self._prefix = prefix
        self._max_item_size = max_item_size
        self._make: Mapping[type, Callable[[Any, bytes], Plan]] = {
            Fetch: self._fetch,
            Put: self._put,
            Delete: self._delete,
            Arithmetic: self._count,
        }

    def plan(self, request: Fetch | Put | Delete | Arithmetic) -> Plan:
        """How to do it."""
        plan = self._make[request.__class__](request, self._prefix + request.key)
        plan.keys = (request.key,)
        return plan

    # --- fetching

    def looks(self, fetch: Fetch) -> bool:
        """Whether it only looks at an item: then `found` makes its answer of what GET says."""
        return fetch.touch is None and fetch.vivify is None and fetch.recache is None and not fetch.wants & TTL

    def found(self, fetch: Fetch, kept: Reply) -> "Answer | Plan":
        """The answer to a fetch that only looks, or what has to be asked for it still."""
        answer = self._found(fetch, self._prefix + fetch.key, kept, {})
        if isinstance(answer, Plan):
            answer.keys = (fetch.key,)
        return answer

    def _fetch(self, fetch: Fetch, key: bytes) -> Plan:
        if fetch.vivify is not None or fetch.recache is not None:
            return _fetch_by_script(fetch, key)
        if fetch.touch is None:
            return self._look(fetch, key)
        if fetch.wants & TTL:
            return _fetch_by_script(fetch, key)
        if not fetch.wants:
            return _touch(key, fetch.touch)
        option = _getex_option(fetch.touch)
        return Plan(command(b"GETEX", key, *option), 1, lambda replies: self._found(fetch, key, replies[0], {}))

    def _look(self, fetch: Fetch, key: bytes) -> Plan:
        def with_ttl(replies: Sequence[Any]) -> "Answer | Plan":
            left = seconds(replies[1]) if isinstance(replies[1], int) else -1
            return self._found(fetch, key, replies[0], {"ttl": left, "old_ttl": left})

        return Plan(command(b"GET", key) + command(b"PTTL", key), 2, with_ttl)

    def _found(self, fetch: Fetch, key: bytes, kept: Reply, facts: dict[str, Any]) -> "Answer | Plan":
        if not isinstance(kept, bytes):
            return kept
        hit = hit_of(kept, **facts)
        if hit.stale and not hit.taken:  # the first who fetches it wins, and only Redis knows who is first
            return _fetch_by_script(fetch, key)
        return hit

    # --- writing

    def _put(self, put: Put, key: bytes) -> Plan:
        if put.mode in {"append", "prepend"} or (put.mode == "set" and put.compare is not None):
            return self._put_by_script(put, key)
        kept = keep(put.value, put.flags)
        condition = {"set": (), "add": (b"NX",), "replace": (b"XX",)}[put.mode]
        if put.exptime < 0:
            return _put_nothing(put, key)

        def written(reply: Reply) -> Answer:
            if reply is None:
                return Outcome.NOT_STORED
            return Written(unique_of(kept)) if put.wants & UNIQUE else Outcome.DONE

        words = (b"SET", key, kept, *condition, *_expiry(put.exptime))
        return Plan(command(*words), 1, lambda replies: problem_or(written, replies[0]))

    def _put_by_script(self, put: Put, key: bytes) -> Plan:
        room = self._max_item_size - len(put.key) - ITEM_HEADER
        arguments = (
            put.mode.encode(),
            put.value,
            put.flags.to_bytes(4, "big"),
            b"%d" % put.exptime,
            _hex(put.compare),
            b"%d" % put.invalidate,
            b"%d" % room,
        )

        def written(reply: list[Any]) -> Answer:
            outcome, *unique = reply
            if outcome == b"done" and put.wants & UNIQUE:
                return Written(int(unique[0], 16))
            return _OUTCOMES[outcome]

        return run("put", key, arguments, written)

    def _delete(self, delete: Delete, key: bytes) -> Plan:
        if delete.compare is None and not delete.invalidate:
            return Plan(command(b"DEL", key), 1, lambda replies: problem_or(_deleted, replies[0]))
        arguments = (_hex(delete.compare), b"%d" % delete.invalidate, _number(delete.touch))
        return run("delete", key, arguments, lambda reply: _OUTCOMES[reply])

    def _count(self, request: Arithmetic, key: bytes) -> Plan:
        arguments = (
            b"%d" % request.down,
            b"%d" % request.delta,
            _hex(request.compare),
            _number(request.vivify),
            b"%d" % request.initial,
            _number(request.touch),
        )
        return run("arithmetic", key, arguments, _counted)


def _fetch_by_script(fetch: Fetch, key: bytes) -> Plan:
    arguments = (_number(fetch.touch), _number(fetch.vivify), _number(fetch.recache), b"%d" % fetch.touch_first)

    def found(reply: list[Any] | None) -> Answer:
        if reply is None:
            return None
        kept, before, after, won, made = reply
        hit = hit_of(kept, ttl=seconds(after), old_ttl=seconds(before), won=bool(won), made=bool(made))
        hit.taken = hit.taken and not made
        return hit

    return run("fetch", key, arguments, found)


def _touch(key: bytes, exptime: int) -> Plan:
    if exptime == 0:
        data = command(b"PERSIST", key) + command(b"EXISTS", key)
    else:
        verb = b"EXPIREAT" if exptime > LONGEST_RELATIVE else b"EXPIRE"
        data = command(b"EXISTS", key) + command(verb, key, b"%d" % exptime)
    return Plan(data, 2, lambda replies: _touched(replies[0 if exptime else 1], replies[1]))


def _touched(there: Reply, done: Reply) -> Answer:
    for reply in (there, done):
        if isinstance(reply, Problem):
            return reply
    return Hit(b"") if there else None


def _put_nothing(put: Put, key: bytes) -> Plan:
    """What is stored with a negative exptime is gone at once; only the answer tells that it was there."""
    if put.mode == "add":
        return Plan(command(b"EXISTS", key), 1, lambda replies: problem_or(_if(0), replies[0]))
    accepted = _if(1) if put.mode == "replace" else lambda _: Outcome.DONE
    return Plan(command(b"DEL", key), 1, lambda replies: problem_or(accepted, replies[0]))


def _if(wanted: int) -> Callable[[int], Outcome]:
    return lambda reply: Outcome.DONE if reply == wanted else Outcome.NOT_STORED


def _deleted(reply: int) -> Outcome:
    return Outcome.DONE if reply else Outcome.NOT_FOUND


def _counted(reply: list[Any]) -> Answer:
    if len(reply) == 1:
        return _OUTCOMES[reply[0]]
    number, unique, before, after, made = reply
    return Counted(int(number), int(unique, 16), seconds(after), seconds(before), made=bool(made))


_OUTCOMES: Final = {
    b"done": Outcome.DONE,
    b"not found": Outcome.NOT_FOUND,
    b"not stored": Outcome.NOT_STORED,
    b"exists": Outcome.EXISTS,
    b"not a number": Outcome.NOT_A_NUMBER,
}


def _expiry(exptime: int) -> tuple[bytes, ...]:
    """SET's option for an exptime that is not negative."""
    if exptime == 0:
        return ()
    return (b"EXAT" if exptime > LONGEST_RELATIVE else b"EX", b"%d" % exptime)


def _getex_option(exptime: int) -> tuple[bytes, ...]:
    if exptime == 0:
        return (b"PERSIST",)
    return (b"EXAT", LONG_GONE) if exptime < 0 else _expiry(exptime)


def _number(number: int | None) -> bytes:
    return b"" if number is None else b"%d" % number


def _hex(unique: int | None) -> bytes:
    return b"" if unique is None else b"%016x" % unique
