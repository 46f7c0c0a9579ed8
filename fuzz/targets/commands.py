"""What Redis clients ask of the embedded store: its commands, with any words."""

from fuzz.target import nothing_fails
from netd.cache.counters import Counters
from netd.cache.items import Items
from netd.cache.redis_commands import COMMANDS, RedisCommands
from netd.cache.redis_keyspace import Keyspace
from netd.cache.resp import ProtocolError, encode, split_words

WORDS = (
    *(name + b" " for name in COMMANDS),
    *(b"\n", b" a", b" b", b" 1", b" -1", b" 0.1", b" 1e308", b" inf", b" nan", b" 9223372036854775807", b" 1e5000"),
    *(
        b" EX",
        b" PX",
        b" NX",
        b" XX",
        b" KEEPTTL",
        b" GET",
        b" PERSIST",
        b" MATCH ",
        b" COUNT ",
        b" TYPE string",
        b"\0ND\1",
    ),
    *(b"*", b"?", b"[a-z]", b"[^", b"]", b"\\", b'"\\x00\\xff"'),
)
LONGEST = 400
NOW = 1_700_000_000.0
LARGEST = 1024


def check(data: bytes) -> None:
    """Every request has a reply, in either protocol, and no item is larger than it may be."""
    items = Items(1 << 18, lambda: NOW, evict=True)
    commands = RedisCommands(Keyspace(items, Counters(), allow_flush=True, max_item_size=LARGEST, clock=lambda: NOW))
    with nothing_fails():
        for line in data.split(b"\n"):
            try:
                words = split_words(line)
            except ProtocolError:
                continue
            if words:
                reply = commands.run(words)
                for version in (2, 3):
                    assert encode(reply, version).endswith(b"\r\n")
