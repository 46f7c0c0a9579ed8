"""Which parts of Redis's replies are keys, where these have a prefix that clients know nothing of.

A few commands answer with keys: KEYS, SCAN, XREAD, and what takes an element from the first of several keys that has
one. On a client's own connection their replies are on the wire already; they are cut apart where the keys stand, and
the rest is passed on as it is. In a transaction the replies of all its commands are in that of EXEC.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, cycle, repeat
from typing import Final

from netd.cache.redis_raw import RawReplies
from netd.cache.requests import Problem
from netd.cache.resp import Raw

KEY_FIRST: Final = frozenset(b"LMPOP ZMPOP BLMPOP BZMPOP BLPOP BRPOP BZPOPMIN BZPOPMAX".split())
"""Commands whose reply begins with the key."""

_QUEUED: Final = b"+QUEUED\r\n"
_OK: Final = b"+OK\r\n"
_ENDS: Final = frozenset({b"EXEC", b"DISCARD"})
_AGGREGATES: Final = (b"*", b"~", b"%")

Cut = Callable[[bytes, bytes], bytes]
"""A reply and the prefix → the reply without it."""


class KeyNames:
    """What a client has asked on a connection of its own, as far as it says where keys stand in the replies."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._queued: list[Cut | None] = []

    def bare(self, name: bytes, reply: Raw | Problem) -> Raw | Problem:
        """The reply to a command, its keys as the client named them."""
        if isinstance(reply, Problem):
            return reply
        if reply.data == _QUEUED:
            self._queued.append(_CUTS.get(name))
            return reply
        if name in _ENDS or (name == b"MULTI" and reply.data == _OK):
            queued, self._queued = self._queued, []
            return Raw(_cut(reply.data, self._prefix, queued)) if name == b"EXEC" and any(queued) else reply
        cut = _CUTS.get(name)
        return reply if cut is None else Raw(cut(reply.data, self._prefix))


def _cut(reply: bytes, prefix: bytes, cuts: Iterable[Cut | None]) -> bytes:
    """The elements of an aggregate, each cut in its way; those beyond the last way, and what is none, are passed on."""
    if not reply.startswith(_AGGREGATES):
        return reply
    start = reply.index(b"\r\n") + 2
    parts = RawReplies(headers=False).feed(reply[start:])
    each = zip(parts, chain(cuts, repeat(None)), strict=False)
    return reply[:start] + b"".join(cut(part, prefix) if cut else part for part, cut in each)


def _key(reply: bytes, prefix: bytes) -> bytes:
    start = reply.index(b"\r\n") + 2
    if not reply.startswith(b"$") or not reply.startswith(prefix, start):
        return reply
    key = reply[start + len(prefix) :]
    return b"$%d\r\n%b" % (len(key) - 2, key)


def _keys(reply: bytes, prefix: bytes) -> bytes:
    return _cut(reply, prefix, repeat(_key))


def _scan(reply: bytes, prefix: bytes) -> bytes:
    return _cut(reply, prefix, (None, _keys))


def _first(reply: bytes, prefix: bytes) -> bytes:
    return _cut(reply, prefix, (_key,))


def _streams(reply: bytes, prefix: bytes) -> bytes:
    """A map of keys in RESP3, an array of pairs in RESP2."""
    return _cut(reply, prefix, cycle((_key, None)) if reply.startswith(b"%") else repeat(_first))


_CUTS: Final[Mapping[bytes, Cut]] = {
    b"KEYS": _keys,
    b"SCAN": _scan,
    b"XREAD": _streams,
    b"XREADGROUP": _streams,
    **dict.fromkeys(KEY_FIRST, _first),
}
