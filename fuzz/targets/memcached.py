"""What clients of the memcached port send: commands, meta commands, values."""

from collections.abc import Sequence
from typing import cast

from fuzz.target import pieces
from netd.cache.counters import Counters
from netd.cache.items import Items
from netd.cache.memcached import MemcachedCodec
from netd.cache.memcached_commands import Facts, MemcachedCommands
from netd.cache.memory import Memory

LONGEST = 400
WORDS = (
    *(b"get ", b"gets ", b"gat 0 ", b"gats 0 ", b"set a 0 0 1\r\n1\r\n", b"add ", b"replace ", b"append ", b"prepend "),
    *(b"cas a 0 0 1 1\r\n", b"delete ", b"incr ", b"decr ", b"touch ", b"verbosity 1", b"flush_all", b"version\r\n"),
    *(
        b"mg a ",
        b"ms a 1 ",
        b"md a ",
        b"ma a ",
        b"mn\r\n",
        b"me ",
        b" noreply\r\n",
        b" b",
        b" k",
        b" O1",
        b" q",
        b" T0",
    ),
    *(b" N30", b" MI", b" E1", b" C1", b" I", b" F7", b" t", b" v", b"\r\n", b"\x80", b"18446744073709551615"),
)
LARGEST = 256
NOW = 1_700_000_000.0


def check(data: bytes) -> None:
    """The same answers however the bytes are cut and batched, by the short ways too."""
    if not data:
        return  # no transport tells of no bytes
    whole = _talk([data], 1000, shortly=False)
    assert _talk(pieces(data), 2, shortly=len(data) % 2 == 0) == whole


def _talk(parts: Sequence[bytes], limit: int, *, shortly: bool) -> tuple[bytes, bool]:
    items = Items(1 << 18, lambda: NOW, evict=True)
    memory = Memory(items, Counters(), lambda: NOW, lambda _: None, max_item_size=LARGEST)
    codec = MemcachedCodec(MemcachedCommands(LARGEST, cast("Facts", _NoFacts())))
    said = b""
    for part in parts:
        if shortly and (keys := codec.gets(part)) is not None:
            said += codec.found(keys, memory.lookup(keys, lambda _: None))
            continue
        if shortly and (pairs := codec.sets(part)) is not None:
            said += codec.stored(memory.write(pairs, lambda _: None))
            continue
        codec.feed(part)
        while (batch := codec.next(limit)) is not None:
            said += codec.render(batch, memory.execute(batch.requests, lambda _: None))
            if batch.closes:
                return said, True
    return said, False


class _NoFacts:
    """What `stats` would tell."""

    def __getattr__(self, name: str) -> object:
        return lambda *_: ()
