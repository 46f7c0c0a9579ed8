"""Forgetting every key of this cache, and of nobody else who uses the same Redis."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from netd.cache.redis_pass import escape
from netd.cache.redis_plan import Plan, command
from netd.cache.requests import Answer, Problem

STEP = b"1000"
"""Keys that are looked at and deleted in one go: a millisecond of Redis's time."""


def flush(prefix: bytes, answer: Answer) -> Plan:
    """How to forget everything that is under a prefix, in the whole database if there is none."""
    if not prefix:
        return Plan(command(b"FLUSHDB"), 1, partial(_flushed, answer), everything=True)
    return Plan(_scan(prefix, b"0"), 1, partial(_unlink, prefix, answer), everything=True)


def _flushed(answer: Answer, replies: Sequence[Any]) -> Answer:
    return replies[0] if isinstance(replies[0], Problem) else answer


def _scan(prefix: bytes, cursor: bytes) -> bytes:
    return command(b"SCAN", cursor, b"MATCH", escape(prefix) + b"*", b"COUNT", STEP)


def _unlink(prefix: bytes, answer: Answer, replies: Sequence[Any]) -> "Answer | Plan":
    """Delete what a step has found, and take the next."""
    if isinstance(replies[-1], Problem):
        return replies[-1]
    cursor, found = replies[-1]
    data, last = b"", cursor == b"0"
    if found:
        data = command(b"UNLINK", *found)
    if not last:
        data += _scan(prefix, cursor)
    if not data:
        return answer
    take: Callable[[Sequence[Any]], Answer | Plan] = partial(_unlink, prefix, answer)
    if last:
        take = partial(_flushed, answer)
    return Plan(data, bool(found) + (not last), take, [key[len(prefix) :] for key in found])
