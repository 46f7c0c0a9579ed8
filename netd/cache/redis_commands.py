"""The Redis commands that the embedded store knows: one table, and the way from a request's words to its reply."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from netd.cache import redis_keys as keys
from netd.cache import redis_strings as strings
from netd.cache.redis_keyspace import Keyspace
from netd.cache.redis_words import Refused, wrong_arity
from netd.cache.requests import Problem, Reply

SHOWN_NAME, SHOWN_ARGUMENTS = 128, 128
"""Bytes of an unknown command that Redis repeats in its error."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: what does it, and what COMMAND says of it."""

    run: Callable[[Keyspace, list[bytes]], Reply]
    arity: int
    """How many words, its name included; negative: at least so many."""
    flags: str
    first: int = 1
    last: int = 1
    step: int = 1
    """Which of its words are keys."""


_READ, _WRITE, _WRITE_MORE = "readonly fast", "write fast", "write denyoom"

COMMANDS: Final[Mapping[bytes, Entry]] = {
    b"GET": Entry(strings.get, 2, _READ),
    b"SET": Entry(strings.set_, -3, _WRITE_MORE),
    b"GETEX": Entry(strings.getex, -2, _WRITE),
    b"GETDEL": Entry(strings.getdel, 2, _WRITE),
    b"GETSET": Entry(strings.getset, 3, "write denyoom fast"),
    b"MGET": Entry(strings.mget, -2, _READ, 1, -1),
    b"MSET": Entry(strings.mset, -3, _WRITE_MORE, 1, -1, 2),
    b"MSETNX": Entry(strings.msetnx, -3, _WRITE_MORE, 1, -1, 2),
    b"SETNX": Entry(strings.setnx, 3, "write denyoom fast"),
    b"SETEX": Entry(strings.setex, 4, _WRITE_MORE),
    b"PSETEX": Entry(strings.setex, 4, _WRITE_MORE),
    b"APPEND": Entry(strings.append, 3, "write denyoom fast"),
    b"STRLEN": Entry(strings.strlen, 2, _READ),
    b"GETRANGE": Entry(strings.getrange, 4, "readonly"),
    b"SUBSTR": Entry(strings.getrange, 4, "readonly"),
    b"SETRANGE": Entry(strings.setrange, 4, _WRITE_MORE),
    b"INCR": Entry(strings.incr, 2, "write denyoom fast"),
    b"DECR": Entry(strings.decr, 2, "write denyoom fast"),
    b"INCRBY": Entry(strings.incr, 3, "write denyoom fast"),
    b"DECRBY": Entry(strings.decr, 3, "write denyoom fast"),
    b"INCRBYFLOAT": Entry(strings.incrbyfloat, 3, "write denyoom fast"),
    b"DEL": Entry(keys.delete, -2, "write", 1, -1),
    b"UNLINK": Entry(keys.delete, -2, _WRITE, 1, -1),
    b"EXISTS": Entry(keys.exists, -2, _READ, 1, -1),
    b"TOUCH": Entry(keys.touch, -2, _READ, 1, -1),
    b"TYPE": Entry(keys.type_, 2, _READ),
    b"RENAME": Entry(keys.rename, 3, "write", 1, 2),
    b"RENAMENX": Entry(keys.rename, 3, _WRITE, 1, 2),
    b"KEYS": Entry(keys.keys, 2, "readonly", 0, 0, 0),
    b"SCAN": Entry(keys.scan, -2, "readonly", 0, 0, 0),
    b"RANDOMKEY": Entry(keys.randomkey, 1, "readonly", 0, 0, 0),
    b"DBSIZE": Entry(keys.dbsize, 1, _READ, 0, 0, 0),
    b"FLUSHDB": Entry(keys.flush, -1, "write", 0, 0, 0),
    b"FLUSHALL": Entry(keys.flush, -1, "write", 0, 0, 0),
    b"TTL": Entry(keys.ttl, 2, _READ),
    b"PTTL": Entry(keys.ttl, 2, _READ),
    b"EXPIRETIME": Entry(keys.ttl, 2, _READ),
    b"PEXPIRETIME": Entry(keys.ttl, 2, _READ),
    b"EXPIRE": Entry(keys.expire, -3, _WRITE),
    b"PEXPIRE": Entry(keys.expire, -3, _WRITE),
    b"EXPIREAT": Entry(keys.expire, -3, _WRITE),
    b"PEXPIREAT": Entry(keys.expire, -3, _WRITE),
    b"PERSIST": Entry(keys.persist, 2, _WRITE),
}


class RedisCommands:
    """The embedded store's answers to Redis commands."""

    def __init__(self, space: Keyspace) -> None:
        self._space = space

    def run(self, words: list[bytes]) -> Reply:
        """The reply to a command that has at least its name."""
        entry = COMMANDS.get(words[0].upper())
        if entry is None:
            return unknown(words)
        try:
            if not fits(entry.arity, words):
                raise wrong_arity(words[0].decode("latin-1"))
            return entry.run(self._space, words)
        except Refused as refused:
            return refused.problem


def fits(arity: int, words: list[bytes]) -> bool:
    """Whether a command was given as many words as it takes."""
    return len(words) == arity if arity >= 0 else len(words) >= -arity


def unknown(words: list[bytes]) -> Problem:
    """Redis's reply to a command it does not know (server.c, processCommand)."""
    shown = b""
    for word in words[1:]:
        if len(shown) >= SHOWN_ARGUMENTS:
            break
        shown += b"'%b' " % word[: SHOWN_ARGUMENTS - len(shown)].split(b"\0")[0]
    name = words[0][:SHOWN_NAME].split(b"\0")[0]
    return Problem(b"unknown command '%b', with args beginning with: %b" % (name, shown))
