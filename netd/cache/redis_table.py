"""What Redis says of its commands (COMMAND), and what netd knows beside it: who may use which, and where keys stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from netd.cache.redis_words import SYNTAX, Refused

MOST_KEYS = 1 << 20
"""Keys that a command may announce."""


def _names(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


REFUSED: Final = _names(
    "SHUTDOWN CONFIG DEBUG REPLICAOF SLAVEOF MONITOR SYNC PSYNC REPLCONF FAILOVER ACL MODULE SAVE BGSAVE BGREWRITEAOF "
    "CLUSTER MIGRATE SWAPDB MOVE SLOWLOG LATENCY RESTORE-ASKING PFSELFTEST PFDEBUG ASKING READONLY READWRITE LASTSAVE "
    "SENTINEL FUNCTION"
)
"""They would harm others, or mean nothing on a shared connection. Beside them, whatever Redis flags as admin."""
_HARMLESS: Final = {b"SCRIPT": _names("LOAD EXISTS")}
"""Commands of which only these subcommands may be used."""
FLUSHES: Final = _names("KEYS FLUSHALL FLUSHDB")
"""Refused unless `allow_flush`."""
OWN_CONNECTION: Final = _names(
    "MULTI EXEC DISCARD WATCH UNWATCH EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO WAIT WAITAOF "
    "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE XREAD XREADGROUP"
)
"""They change the connection or wait on it. Beside them, whatever Redis flags as blocking."""
_WAITING: Final = _names("WAIT WAITAOF XREAD XREADGROUP")
ALIKE: Final = _names(
    "GET SET GETEX GETDEL GETSET MGET MSET MSETNX SETNX SETEX PSETEX APPEND STRLEN GETRANGE SUBSTR SETRANGE INCR DECR "
    "INCRBY DECRBY INCRBYFLOAT DEL UNLINK EXISTS TYPE KEYS SCAN RANDOMKEY RENAME RENAMENX COPY TTL PTTL EXPIRE PEXPIRE "
    "EXPIREAT PEXPIREAT EXPIRETIME PEXPIRETIME PERSIST TOUCH DBSIZE FLUSHDB FLUSHALL SETBIT GETBIT BITCOUNT BITPOS "
    "BITOP LPUSH RPUSH LLEN LREM SADD SREM SCARD ZADD ZCARD HSET HLEN HDEL PUBLISH DUMP RESTORE TIME COMMAND INFO"
)
"""Their replies look alike in RESP2 and RESP3; for the others a client of RESP3 needs a connection in RESP3."""

_COUNTED: Final = {
    **dict.fromkeys(_names("ZUNION ZINTER ZDIFF ZINTERCARD SINTERCARD LMPOP ZMPOP"), (1, ())),
    **dict.fromkeys(_names("EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO BLMPOP BZMPOP"), (2, ())),
    **dict.fromkeys(_names("ZUNIONSTORE ZINTERSTORE ZDIFFSTORE"), (2, (1,))),
}
"""Commands that say how many keys follow: where, and which words beside those are keys."""
_STREAM_OPTIONS: Final = {b"COUNT": 2, b"BLOCK": 2, b"GROUP": 3}
"""Options of XREAD and XREADGROUP that take words, and how many there are with these."""
_SUBCOMMANDS: Final = _names("OBJECT MEMORY XINFO XGROUP")
"""Commands whose subcommands take a key."""
_STORES: Final = {
    b"SORT": {b"STORE"},
    b"GEORADIUS": {b"STORE", b"STOREDIST"},
    b"GEORADIUSBYMEMBER": {b"STORE", b"STOREDIST"},
}
"""Commands with one key, and options that name another."""


@dataclass(frozen=True, slots=True)
class Known:
    """A command as Redis describes it."""

    flags: frozenset[str]
    first: int
    last: int
    step: int


class Table:
    """The commands of the Redis that is connected."""

    def __init__(self, described: Sequence[Any] = ()) -> None:
        self._known: dict[bytes, Known] = {}
        for entry in described:
            name, _, flags, first, last, step = entry[:6]
            self._known[name.upper()] = Known(frozenset(flag.decode() for flag in flags), first, last, step)
        plain = {name for name in ALIKE if name in self._known and not self._special(name)}
        self.plain: Final = frozenset(plain | {name.lower() for name in plain})
        """Commands, in the two ways in which they are mostly spelled, that anybody may use on the shared connection."""

    def knows(self, name: bytes) -> bool:
        """Whether Redis has such a command."""
        return name in self._known

    def refused(self, words: Sequence[bytes], *, allow_flush: bool) -> bool:
        """Whether no client may use a command."""
        name = words[0].upper()
        if name in _HARMLESS:
            return len(words) < 2 or words[1].upper() not in _HARMLESS[name]  # noqa: PLR2004 - a subcommand
        known = self._known.get(name)
        admin = known is not None and "admin" in known.flags
        return admin or name in REFUSED or (name in FLUSHES and not allow_flush)

    def _special(self, name: bytes) -> bool:
        return self.refused([name], allow_flush=False) or self.needs_own_connection(name)

    def needs_own_connection(self, name: bytes) -> bool:
        """Whether a command cannot be used on a connection that is shared."""
        known = self._known.get(name)
        return name in OWN_CONNECTION or (known is not None and "blocking" in known.flags)

    def blocks(self, name: bytes) -> bool:
        """Whether a command may take as long as it likes."""
        known = self._known.get(name)
        return name in _WAITING or (known is not None and "blocking" in known.flags)

    def keys(self, words: Sequence[bytes]) -> list[int]:
        """Which words are keys; raises Refused for a command that says nonsense about them."""
        name = words[0].upper()
        count = len(words)
        if name in _COUNTED:
            return _counted(words, *_COUNTED[name])
        if name in {b"XREAD", b"XREADGROUP"}:
            at = 1
            while at < count and (option := words[at].upper()) != b"STREAMS":
                at += _STREAM_OPTIONS.get(option, 1)  # a group or a consumer may have any name
            return list(range(at + 1, at + 1 + (count - at - 1) // 2))
        if name in _SUBCOMMANDS:
            return [2] if count > 2 else []  # noqa: PLR2004 - after command and subcommand
        if name in _STORES:
            options = _STORES[name]
            return [1, *(at + 1 for at in range(2, count - 1) if words[at].upper() in options)]
        known = self._known.get(name)
        if known is None or not known.first:
            if known is not None and "movablekeys" in known.flags:  # of a newer Redis, or a module
                raise Refused("where this command has its keys is not known here", b"NOPERM")
            return []
        last = known.last if known.last >= 0 else count + known.last
        return [at for at in range(known.first, last + 1, known.step or 1) if at < count]


def _counted(words: Sequence[bytes], at: int, others: Sequence[int]) -> list[int]:
    if at >= len(words):
        return []
    text = words[at]
    if not text.isdigit() or len(text) > 7 or at + int(text) >= len(words):  # noqa: PLR2004 - MOST_KEYS has seven digits
        raise Refused(SYNTAX)
    return [*others, *range(at + 1, at + 1 + int(text))]
