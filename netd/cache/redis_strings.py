"""Redis's string commands on the embedded store (t_string.c). Each takes the keyspace and the words of the request."""

from dataclasses import dataclass

from netd.cache.redis_keyspace import Keyspace
from netd.cache.redis_words import (
    LARGEST,
    NOT_AN_INTEGER,
    OVERFLOW,
    SMALLEST,
    SYNTAX,
    TOO_LARGE,
    Refused,
    add,
    integer,
    long_double,
    milliseconds,
    upper,
    wrong_arity,
)
from netd.cache.requests import NEVER, OK, Reply

Words = list[bytes]

LARGEST_STRING = 512 << 20
"""Bytes; proto-max-bulk-len."""
_EXPIRES = frozenset({"EX", "PX", "EXAT", "PXAT"})


@dataclass(slots=True)
class _Options:
    """Those of SET and GETEX."""

    names: set[str]
    unit: str = ""
    time: bytes = b""

    @property
    def timed(self) -> int:
        """How many of them concern the time to live; more than one contradict each other."""
        return bool(self.unit) + len(self.names & {"KEEPTTL", "PERSIST"})


def _options(words: Words, allowed: set[str]) -> _Options:
    """What follows in `words`; raises Refused. An option may be repeated, and the last one counts."""
    found = _Options(set())
    at = 0
    while at < len(words):
        name = upper(words[at])
        if name in allowed:
            found.names.add(name)
        elif name in _EXPIRES and at + 1 < len(words) and found.unit in {"", name}:
            at += 1
            found.unit, found.time = name, words[at]
        else:
            raise Refused(SYNTAX)
        at += 1
    if found.timed > 1 or {"NX", "XX"} <= found.names:
        raise Refused(SYNTAX)
    return found


def get(space: Keyspace, words: Words) -> Reply:
    """GET key."""
    return space.get(words[1])


def set_(space: Keyspace, words: Words) -> Reply:
    """SET key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT time | PXAT time | KEEPTTL]."""
    _, key, value, *rest = words
    options = _options(rest, {"NX", "XX", "GET", "KEEPTTL"})
    deadline = NEVER
    if options.unit:
        deadline = milliseconds(options.time, options.unit, space.now(), "set") / 1000
    before = space.get(key) if "GET" in options.names else None
    current = space.content(key)
    done: Reply = before if "GET" in options.names else OK
    undone: Reply = before
    if ("NX" in options.names and current is not None) or ("XX" in options.names and current is None):
        return undone
    if "KEEPTTL" in options.names and current is not None:
        deadline = current[2]
    space.put(key, value, deadline)
    return done


def setnx(space: Keyspace, words: Words) -> Reply:
    """SETNX key value."""
    if space.exists(words[1]):
        return 0
    space.put(words[1], words[2])
    return 1


def setex(space: Keyspace, words: Words) -> Reply:
    """SETEX key seconds value, PSETEX key milliseconds value."""
    name = upper(words[0])
    unit = "EX" if name == "SETEX" else "PX"
    space.put(words[1], words[3], milliseconds(words[2], unit, space.now(), name) / 1000)
    return OK


def getex(space: Keyspace, words: Words) -> Reply:
    """GETEX key [EX seconds | PX milliseconds | EXAT time | PXAT time | PERSIST]."""
    key = words[1]
    options = _options(words[2:], {"PERSIST"})
    value = space.get(key)
    if value is None:
        return None
    if options.unit:
        space.set_deadline(key, milliseconds(options.time, options.unit, space.now(), "getex"))
    elif "PERSIST" in options.names:
        space.set_deadline(key, None)
    return value


def getdel(space: Keyspace, words: Words) -> Reply:
    """GETDEL key."""
    value = space.get(words[1])
    if value is not None:
        space.items.discard(words[1])
    return value


def getset(space: Keyspace, words: Words) -> Reply:
    """GETSET key value."""
    value = space.get(words[1])
    space.put(words[1], words[2])
    return value


def mget(space: Keyspace, words: Words) -> Reply:
    """MGET key [key …]."""
    return [space.get(key) for key in words[1:]]


def mset(space: Keyspace, words: Words) -> Reply:
    """MSET key value [key value …]."""
    _put_all(space, words)
    return OK


def msetnx(space: Keyspace, words: Words) -> Reply:
    """MSETNX key value [key value …]: all of them, or none if any key is there."""
    pairs_of(words)
    if any(space.exists(key) for key in words[1::2]):
        return 0
    _put_all(space, words)
    return 1


def pairs_of(words: Words) -> list[tuple[bytes, bytes]]:
    """The keys and values of MSET."""
    if len(words) % 2 == 0:
        raise wrong_arity(words[0].decode("latin-1"))
    return list(zip(words[1::2], words[2::2], strict=True))


def _put_all(space: Keyspace, words: Words) -> None:
    pairs = pairs_of(words)
    for key, value in pairs:
        space.check_size(key, len(value))
    for key, value in pairs:
        space.put(key, value)


def append(space: Keyspace, words: Words) -> Reply:
    """APPEND key value; flags and time to live stay."""
    key, more = words[1:]
    current = space.content(key)
    value, flags, deadline = current or (b"", 0, NEVER)
    _check_length(len(value) + len(more))
    space.put(key, value + more, deadline, flags)
    return len(value) + len(more)


def strlen(space: Keyspace, words: Words) -> Reply:
    """STRLEN key."""
    return len(space.get(words[1]) or b"")


def getrange(space: Keyspace, words: Words) -> Reply:
    """GETRANGE key start end; negative numbers count from the end."""
    start, end = integer(words[2]), integer(words[3])
    value = space.get(words[1])
    if value is None or (start < 0 and end < 0 and start > end):
        return b""
    size = len(value)
    start = max(start + size, 0) if start < 0 else start
    end = max(end + size, 0) if end < 0 else end
    return value[start : min(end, size - 1) + 1] if size else b""


def setrange(space: Keyspace, words: Words) -> Reply:
    """SETRANGE key offset value; a gap is filled with zero bytes."""
    key, part = words[1], words[3]
    offset = integer(words[2])
    if offset < 0:
        raise Refused("offset is out of range")
    value, flags, deadline = space.content(key) or (b"", 0, NEVER)
    if not part:
        return len(value)
    _check_length(offset + len(part))
    space.check_size(key, max(len(value), offset + len(part)), flags)  # before the gap is made
    changed = value[:offset].ljust(offset, b"\0") + part + value[offset + len(part) :]
    space.put(key, changed, deadline, flags)
    return len(changed)


def _check_length(length: int) -> None:
    if length > LARGEST_STRING:
        raise Refused(TOO_LARGE)


# --- counting


def incr(space: Keyspace, words: Words) -> Reply:
    """INCR key, INCRBY key increment."""
    return _add(space, words[1], integer(words[2]) if len(words) > 2 else 1)  # noqa: PLR2004 - INCRBY


def decr(space: Keyspace, words: Words) -> Reply:
    """DECR key, DECRBY key decrement."""
    delta = integer(words[2]) if len(words) > 2 else 1  # noqa: PLR2004 - DECRBY
    if delta == SMALLEST:
        raise Refused("decrement would overflow")
    return _add(space, words[1], -delta)


def _add(space: Keyspace, key: bytes, delta: int) -> int:
    value, flags, deadline = space.content(key) or (b"0", 0, NEVER)
    result = integer(value, NOT_AN_INTEGER) + delta
    if not SMALLEST <= result <= LARGEST:
        raise Refused(OVERFLOW)
    space.put(key, b"%d" % result, deadline, flags)
    return result


def incrbyfloat(space: Keyspace, words: Words) -> Reply:
    """INCRBYFLOAT key increment."""
    key = words[1]
    value, flags, deadline = space.content(key) or (b"0", 0, NEVER)
    result = add(long_double(value), long_double(words[2]))
    space.put(key, result, deadline, flags)
    return result
