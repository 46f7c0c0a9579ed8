"""Redis's commands about keys and their time to live on the embedded store (db.c, expire.c)."""

import re

from netd.cache.redis_keyspace import Keyspace
from netd.cache.redis_words import LARGEST, SYNTAX, Refused, glob, integer, invalid_expire, upper
from netd.cache.requests import OK, Problem, Reply, Status

Words = list[bytes]

SCAN_COUNT = 10
"""Keys looked at by a SCAN that does not say how many."""
MOST_SCANNED = 10_000
"""Keys looked at by one SCAN at most: COUNT is a hint, and one client's wish must not hold up the others."""
_CURSOR = re.compile(rb"[+-]?[0-9]{1,19}")
NOT_ALLOWED = Problem(b"this server does not allow it: see allow_flush", b"NOPERM")


def delete(space: Keyspace, words: Words) -> Reply:
    """DEL and UNLINK key [key …]: how many there were."""
    deleted = sum(space.items.discard(key) for key in words[1:])
    space.counters.delete_hits += deleted
    space.counters.delete_misses += len(words) - 1 - deleted
    return deleted


def exists(space: Keyspace, words: Words) -> Reply:
    """EXISTS key [key …]: how many there are; one that is named twice counts twice."""
    return sum(space.exists(key) for key in words[1:])


def touch(space: Keyspace, words: Words) -> Reply:
    """TOUCH key [key …]: mark as used."""
    slots = [slot for key in words[1:] if (slot := space.items.find(key)) is not None]
    for slot in slots:
        space.items.touch(slot)
    return len(slots)


def type_(space: Keyspace, words: Words) -> Reply:
    """TYPE key."""
    return Status(b"string" if space.exists(words[1]) else b"none")


def rename(space: Keyspace, words: Words) -> Reply:
    """RENAME key newkey, RENAMENX key newkey: with its flags and time to live."""
    old, new = words[1:]
    content = space.content(old)
    if content is None:
        raise Refused("no such key")
    only_new = upper(words[0]) == "RENAMENX"
    if only_new and space.exists(new):
        return 0
    if old != new:
        value, flags, deadline = content
        space.put(new, value, deadline, flags)
        space.items.discard(old)
    return 1 if only_new else OK


# --- all keys


def dbsize(space: Keyspace, words: Words) -> Reply:
    """DBSIZE: expired keys that nobody has noticed count, as in Redis."""
    return len(space.items)


def flush(space: Keyspace, words: Words) -> Reply:
    """FLUSHDB and FLUSHALL [ASYNC | SYNC]."""
    if len(words) > 2 or (len(words) > 1 and upper(words[1]) not in {"ASYNC", "SYNC"}):  # noqa: PLR2004 - one option
        raise Refused(SYNTAX)
    if not space.allow_flush:
        return NOT_ALLOWED
    space.items.clear()
    space.counters.cmd_flush += 1
    return OK


def keys(space: Keyspace, words: Words) -> Reply:
    """KEYS pattern."""
    if not space.allow_flush:
        return NOT_ALLOWED
    matches = glob(words[1]).fullmatch
    found = [key for key in list(space.items.all_keys()) if matches(key)]
    return [key for key in found if space.exists(key)]


def scan(space: Keyspace, words: Words) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]."""
    if not _CURSOR.fullmatch(words[1]):
        raise Refused("invalid cursor")
    pattern, count, wanted = None, SCAN_COUNT, "string"
    rest = words[2:]
    for name, value in zip(map(upper, rest[::2]), rest[1::2], strict=False):
        match name:
            case "MATCH":
                pattern = glob(value)
            case "COUNT":
                count = integer(value)
                if count < 1:
                    raise Refused(SYNTAX)
            case "TYPE":
                wanted = value.decode("latin-1").lower()
            case _:
                raise Refused(SYNTAX)
    if len(rest) % 2:
        raise Refused(SYNTAX)
    cursor, found = space.items.scan(int(words[1]) & LARGEST, min(count, MOST_SCANNED))
    if wanted != "string":
        found = []
    return [b"%d" % cursor, [key for key in found if pattern is None or pattern.fullmatch(key)]]


def randomkey(space: Keyspace, words: Words) -> Reply:
    """RANDOMKEY."""
    return space.items.random_key()


# --- time to live


def ttl(space: Keyspace, words: Words) -> Reply:
    """TTL, PTTL, EXPIRETIME, PEXPIRETIME key: -2 without such a key, -1 without a time to live."""
    when = space.deadline(words[1])
    if when is None:
        return -2
    if when < 0:
        return -1
    name = upper(words[0])
    left = when if name.endswith("TIME") else max(when - space.now(), 0)
    return left if name.startswith("P") else (left + 500) // 1000


def expire(space: Keyspace, words: Words) -> Reply:
    """EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT key time [NX | XX | GT | LT]."""
    name = upper(words[0])
    options = _expire_options(words[3:])
    when = integer(words[2])
    if not name.startswith("P"):
        if not -LARGEST // 1000 <= when <= LARGEST // 1000:
            raise invalid_expire(name)
        when *= 1000
    base = 0 if name.endswith("AT") else space.now()
    if when > LARGEST - base:
        raise invalid_expire(name)
    when += base
    current = space.deadline(words[1])
    if current is None or not _allowed(options, current, when):
        return 0
    space.set_deadline(words[1], when)
    return 1


def _expire_options(words: Words) -> set[str]:
    options = set()
    for word in words:
        if upper(word) not in {"NX", "XX", "GT", "LT"}:
            raise Refused(f"Unsupported option {word.decode('latin-1')}")
        options.add(upper(word))
    if "NX" in options and len(options) > 1:
        raise Refused("NX and XX, GT or LT options at the same time are not compatible")
    if {"GT", "LT"} <= options:
        raise Refused("GT and LT options at the same time are not compatible")
    return options


def _allowed(options: set[str], current: int, when: int) -> bool:
    """Whether a deadline may be set over the current one; -1, none at all, counts as infinitely late."""
    return not (
        ("NX" in options and current >= 0)
        or ("XX" in options and current < 0)
        or ("GT" in options and (current < 0 or when <= current))
        or ("LT" in options and current >= 0 and when >= current)
    )


def persist(space: Keyspace, words: Words) -> Reply:
    """PERSIST key."""
    when = space.deadline(words[1])
    if when is None or when < 0:
        return 0
    space.set_deadline(words[1], None)
    return 1
