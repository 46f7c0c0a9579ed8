"""A Redis client's commands on the shared connection to Redis: keys get their prefix, values lose their header.

Redis's replies come without saying whether a string was a simple one (`+OK`) or a bulk string; which it was follows
from the command.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from netd.cache.layout import MARK, keep, value_of
from netd.cache.redis_names import KEY_FIRST
from netd.cache.redis_plan import Plan, command, problem_or, run
from netd.cache.redis_scripts import script
from netd.cache.redis_table import Table
from netd.cache.redis_words import FLUSHES, NOT_AN_INTEGER, TOO_LARGE, Refused
from netd.cache.requests import ITEM_HEADER, OK, Answer, Problem, Reply, Status

OK_ALONE: Final = b"OK"
"""What most simple strings say; where a command may return it as a value, it is in `_VALUES`."""
_VALUES: Final = frozenset(
    b"GET GETEX GETDEL GETSET GETRANGE SUBSTR HGET LINDEX LPOP RPOP LMOVE RPOPLPUSH SPOP SRANDMEMBER HRANDFIELD "
    b"ZRANDMEMBER RANDOMKEY ECHO DUMP LCS INFO".split()
)
"""Commands whose reply is a value, whatever it says."""
_STATUSES: Final = frozenset({b"TYPE"})
"""Commands whose reply is a simple string, whatever it says."""

_STRIPPED: Final = frozenset({b"GETEX", b"GETDEL", b"GETSET", b"MGET", b"SET"})
"""Commands whose replies are values as they are kept."""
_WRITTEN: Final = {b"SET": (2, 3), b"SETNX": (2, 3), b"GETSET": (2, 3), b"SETEX": (3, 4), b"PSETEX": (3, 4)}
"""Which words are values that are kept: from, to."""
_PAIRED: Final = frozenset({b"MSET", b"MSETNX"})
_BY_SCRIPT: Final = frozenset(
    b"APPEND STRLEN GETRANGE SUBSTR SETRANGE SETBIT GETBIT BITCOUNT BITPOS BITFIELD BITFIELD_RO".split()
)
"""Commands to which a header would make a difference that Redis does not notice."""
_COUNTING: Final = frozenset({b"INCR", b"DECR", b"INCRBY", b"DECRBY", b"INCRBYFLOAT"})
"""Commands that fail where there is a header: then they are done by script."""
_NOT_NUMBERS: Final = frozenset({NOT_AN_INTEGER.encode(), b"value is not a valid float"})

_WITH_PATTERN: Final = frozenset({b"KEYS", b"SCAN"})
_NOT_PREFIXED: Final = frozenset({b"RANDOMKEY", b"SORT", b"SORT_RO", *FLUSHES})
"""Commands that would show or need keys outside the prefix. Flushes have a way of their own (`netd.cache.redis_flush`)
on the shared connection, and none elsewhere."""


class CommandPlans:
    """Makes a plan of each command. `table` may be replaced when another Redis is connected."""

    def __init__(self, prefix: bytes, max_item_size: int) -> None:
        self.table = Table()
        self._prefix = prefix
        self._max_item_size = max_item_size

    def plan(self, words: list[bytes]) -> Plan:
        """How to do it; raises Refused."""
        name = words[0].upper()
        sent, keys = self.outgoing(name, words)
        data = command(*sent)
        if name in _BY_SCRIPT and keys:
            return self._by_script(name, words, keys, _same)
        if name in _COUNTING and keys:
            return Plan(data, 1, lambda replies: self._counted(name, words, keys, replies[0]), keys)
        take = self._take(name)
        return Plan(data, 1, lambda replies: problem_or(take, replies[0]), keys)

    def alone(self, name: bytes, words: list[bytes]) -> list[bytes]:
        """The words as Redis gets them where no second step can follow, as in a transaction; raises Refused."""
        sent, keys = self.outgoing(name, words)
        if name in _BY_SCRIPT and keys:
            return [b"EVAL", script("string").text, b"1", sent[1], name, *sent[2:]]
        return sent

    def outgoing(self, name: bytes, words: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """The words as Redis gets them, and the keys among them as the client named them; raises Refused."""
        if max(map(len, words)) + ITEM_HEADER > self._max_item_size:
            raise Refused(TOO_LARGE)
        places = self.table.keys(words)
        keys = [words[at] for at in places]
        sent = list(words)
        if name in _WRITTEN and len(words) > _WRITTEN[name][0]:
            at = _WRITTEN[name][0]
            sent[at] = keep(words[at])
        elif name in _PAIRED:
            sent[2::2] = map(keep, words[2::2])
        if self._prefix:
            if name in _NOT_PREFIXED:
                raise Refused("this command cannot be used here: see key_prefix")
            for at in places:
                sent[at] = self._prefix + sent[at]
            if name in _WITH_PATTERN:
                sent = self._with_pattern(name, sent)
        return sent, keys

    def _with_pattern(self, name: bytes, words: list[bytes]) -> list[bytes]:
        if name == b"KEYS":
            return [words[0], *(escape(self._prefix) + pattern for pattern in words[1:])]
        patterns = [at + 1 for at in range(2, len(words) - 1, 2) if words[at].upper() == b"MATCH"]
        for at in patterns:  # of several Redis takes the last
            words[at] = escape(self._prefix) + words[at]
        return words if patterns else [*words, b"MATCH", escape(self._prefix) + b"*"]

    # --- replies

    def _take(self, name: bytes) -> Callable[[Reply], Answer]:
        if name in _STRIPPED:
            return _strip_or_ok if name == b"SET" else _strip
        if name in _STATUSES:
            return _status
        if name == b"COMMAND":
            return _flagged
        if self._prefix and name in _WITH_PATTERN:
            return self._strip_keys if name == b"KEYS" else self._strip_scan
        if self._prefix and name in KEY_FIRST:
            return self._strip_first
        return _same if name in _VALUES else _ok

    def _strip_keys(self, reply: Any) -> Answer:
        return [key[len(self._prefix) :] for key in reply]

    def _strip_scan(self, reply: Any) -> Answer:
        cursor, keys = reply
        return [cursor, self._strip_keys(keys)]

    def _strip_first(self, reply: Any) -> Answer:
        return [reply[0][len(self._prefix) :], *reply[1:]] if reply else reply

    # --- strings with a header

    def _by_script(
        self, name: bytes, words: list[bytes], keys: Sequence[bytes], take: Callable[[Reply], Answer]
    ) -> Plan:
        plan = run("string", self._prefix + words[1], [name, *words[2:]], take)
        plan.keys = keys
        return plan

    def _counted(self, name: bytes, words: list[bytes], keys: Sequence[bytes], reply: Reply) -> "Answer | Plan":
        if not isinstance(reply, Problem) or reply.text not in _NOT_NUMBERS:
            return reply
        return self._by_script(name, words, keys, lambda counted: reply if counted is None else counted)


def escape(text: bytes) -> bytes:
    """A text as a pattern that matches it alone."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\" else bytes([byte]) for byte in text)


def _same(reply: Reply) -> Answer:
    return reply


def _ok(reply: Reply) -> Reply:
    return OK if reply == OK_ALONE else reply


def _status(reply: Reply) -> Reply:
    return Status(reply) if isinstance(reply, bytes) else reply


_FLAG_NAMES: Final = (b"flags", b"doc_flags")
_DESCRIBED = 7
"""Members of a command's description that there are at least: the third and the last of these are flags."""


def _flagged(reply: Reply) -> Reply:
    """What COMMAND says, whose flags are simple strings; redis-cli insists on it."""
    if not isinstance(reply, list):
        return reply
    described = len(reply) >= _DESCRIBED and isinstance(reply[1], int)
    said: list[Reply] = []
    for at, each in enumerate(reply):
        flags = (described and at in {2, 6}) or (at > 0 and reply[at - 1] in _FLAG_NAMES)
        said.append([_status(flag) for flag in each] if flags and isinstance(each, list) else _flagged(each))
    return said


def _strip(reply: Reply) -> Reply:
    if isinstance(reply, bytes):
        return value_of(reply) if reply.startswith(MARK) else reply
    return [_strip(each) for each in reply] if isinstance(reply, list) else reply


def _strip_or_ok(reply: Reply) -> Answer:
    return _ok(_strip(reply))
