"""The memcached codec by itself; what it answers is compared with memcached in test_differential.py."""

from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.cache.counters import Counters
from netd.cache.items import Items
from netd.cache.memcached import LONGEST_GET, MemcachedCodec
from netd.cache.memcached_commands import Facts, MemcachedCommands
from netd.cache.memory import Memory
from netd.cache.requests import Problem

LIMIT = 1 << 20


class House:
    """A codec and a store, without a connection between them."""

    def __init__(self, max_item_size: int = LIMIT, **settings: Any) -> None:
        self.now = 1_700_000_000.0
        clock = lambda: self.now  # noqa: E731
        self.items = Items(settings.pop("max_memory", 10 << 20), clock, evict=settings.pop("evict", True))
        self.memory = Memory(self.items, Counters(), clock, lambda _: None, max_item_size=max_item_size, **settings)
        self.codec = MemcachedCodec(MemcachedCommands(max_item_size, cast("Facts", None)))
        self.closed = False

    def say(self, data: bytes, limit: int = 1000) -> bytes:
        """What the codec replies, by the long way."""
        self.codec.feed(data)
        out = b""
        while not self.closed and (batch := self.codec.next(limit)) is not None:
            out += self.codec.render(batch, self.memory.execute(batch.requests, lambda _: None))
            self.closed = batch.closes
        return out

    def say_shortly(self, data: bytes) -> bytes:
        """What it replies by the short ways, where they can be gone."""
        if (keys := self.codec.gets(data)) is not None:
            return self.codec.found(keys, self.memory.lookup(keys, lambda _: None))
        if (pairs := self.codec.sets(data)) is not None:
            return self.codec.stored(self.memory.write(pairs, lambda _: None))
        return self.say(data)


WORDS = st.sampled_from(
    [
        b"get",
        b"gets",
        b"set",
        b"add",
        b"cas",
        b"mg",
        b"ms",
        b"ma",
        b"md",
        b"incr",
        b"gat",
        b"a",
        b"b",
        b"0",
        b"3",
        b"v",
        b"noreply",
    ]
)
LINES = st.lists(WORDS | st.binary(max_size=4), max_size=8).map(b" ".join)
GARBAGE = st.lists(LINES | st.binary(max_size=30), max_size=10).map(b"\r\n".join)


@given(GARBAGE, st.lists(st.integers(0, 300), max_size=6), st.integers(1, 9))
def test_how_the_bytes_are_cut_and_batched_never_matters(data: bytes, cuts: list[int], limit: int) -> None:
    data = b"x" + data  # the first byte of a connection chooses the protocol
    whole = House().say(data)
    house = House()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges) if a < b and not house.closed]
    assert b"".join(house.say(piece, limit) for piece in pieces if not house.closed) == whole


@given(
    st.lists(
        st.sampled_from(
            [
                b"get a\r\n",
                b"get bb\r\n",
                b"get a b\r\n",
                b"set a 0 0 1\r\n1\r\n",
                b"set bb 7 0 2\r\n22\r\n",
                b"set a 0 9 1\r\n1\r\n",
                b"set a 0 0 1 noreply\r\n1\r\n",
                b"set a 0 0 2\r\n1\r\n",
                b"set c 0 0 4\r\n\0ND\1\r\n",
                b"get c\r\n",
                b"mn\r\n",
            ]
        )
    ),
    st.integers(0, 300),
)
def test_the_short_ways_lead_to_the_same_answers(commands: list[bytes], cut: int) -> None:
    data = b"".join(commands)
    short, long = House(), House()
    pieces = [piece for piece in (data[:cut], data[cut:]) if piece]
    assert b"".join(map(short.say_shortly, pieces)) == b"".join(map(long.say, pieces))


def test_plain_gets_take_the_short_way_and_others_do_not() -> None:
    codec = House().codec
    assert codec.gets(b"get a\r\n") == [b"a"]
    assert codec.gets(b"get a\r\nget bc\r\n") == [b"a", b"bc"]
    for other in (
        b"get a b\r\n",
        b"get a\n",
        b"get a",
        b"gets a\r\n",
        b"get a\r\nmn\r\n",
        b"get " + b"k" * 251 + b"\r\n",
        b"get \r\n",
    ):
        assert codec.gets(other) is None, other


def test_a_value_that_comes_byte_by_byte_is_kept_once() -> None:
    house = House()
    value = bytes(range(256)) * 400
    house.say(b"set a 0 0 %d\r\n" % len(value))
    assert b"".join(house.say(bytes([byte])) for byte in value) == b""
    assert house.say(b"\r\nget a\r\n") == b"STORED\r\nVALUE a 0 %d\r\n%b\r\nEND\r\n" % (len(value), value)


def test_a_line_that_goes_on_and_on_ends_the_connection() -> None:
    house = House()
    house.say(b"x" * (1 << 16))
    assert house.closed


def test_a_retrieval_may_be_long_but_not_endless() -> None:
    house = House()
    keys = b" ".join(b"key%d" % number for number in range(10_000))
    assert house.say(b"get " + keys + b"\r\n") == b"END\r\n"
    for sent in range(0, 10 << 20, 1 << 16):
        house.say(b"get " + b"k " * (1 << 15) if not sent else b"k " * (1 << 15))
        if house.closed:
            break
    assert sent <= LONGEST_GET


def test_the_binary_protocol_ends_the_connection() -> None:
    house = House()
    assert house.say(b"\x80\0\0\0") == b""
    assert house.closed


def test_after_the_first_byte_of_a_connection_its_protocol_is_not_asked_again() -> None:
    for first in (b"mn\r\n", b"get a\r\n", b"set a 0 0 1\r\n1\r\n"):
        house = House()
        house.say_shortly(first)
        assert house.say_shortly(b"\x80\r\n") == b"ERROR\r\n"
        assert not house.closed


def test_a_number_that_gets_shorter_is_not_padded() -> None:
    assert House().say(b"set n 0 0 2\r\n10\r\ndecr n 1\r\nget n\r\n") == b"STORED\r\n9\r\nVALUE n 0 1\r\n9\r\nEND\r\n"


def test_a_client_may_choose_the_cas_unique() -> None:
    house = House()
    assert (
        house.say(b"ms a 1 E500 c\r\n1\r\nmg a c\r\nma a N0 E7 c\r\nmg b N0 E9 c\r\n")
        == b"HD c500\r\nHD c500\r\nHD c7\r\nHD c9 W\r\n"
    )
    assert house.say(b"md a I E99\r\nmg a c\r\n") == b"HD\r\nHD c99 X W\r\n"


def test_hit_and_last_access_are_told_by_a_meta_get() -> None:
    house = House()
    house.say(b"set a 0 0 1\r\n1\r\n")
    house.now += 5
    assert house.say(b"mg a h l\r\n") == b"HD h0 l5\r\n"
    house.now += 2
    assert house.say(b"mg a h l u\r\n") == b"HD h1 l2\r\n"
    assert house.say(b"mg a h l\r\n") == b"HD h1 l2\r\n"


def test_the_time_left_counts_down_and_the_item_goes() -> None:
    house = House()
    house.say(b"set a 0 10 1\r\n1\r\n")
    house.now += 3.5
    assert house.say(b"mg a t\r\n") == b"HD t7\r\n"
    house.now += 6.5
    assert house.say(b"mg a t\r\n") == b"EN\r\n"


def test_a_delayed_flush_comes_in_time() -> None:
    house = House()
    house.say(b"set a 0 0 1\r\n1\r\nflush_all 10\r\n")
    house.now += 9
    house.say(b"set b 0 0 1\r\n1\r\n")
    assert house.say(b"get a\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"
    house.now += 1
    assert house.say(b"get a b\r\n") == b"END\r\n"


def test_a_flush_that_is_not_allowed_is_refused() -> None:
    house = House(allow_flush=False)
    assert house.say(b"set a 0 0 1\r\n1\r\nflush_all\r\nget a\r\n").splitlines()[1:3] == [
        b"CLIENT_ERROR flush_all not allowed",
        b"VALUE a 0 1",
    ]


@pytest.mark.parametrize(
    "command", [b"set b 0 0 900000\r\n", b"set b 0 100 900000\r\n", b"ms b 900000\r\n", b"add b 0 0 900000\r\n"]
)
def test_a_full_store_that_must_not_evict_answers_as_memcached_does_with_the_option_m(command: bytes) -> None:
    house = House(max_memory=1 << 20, evict=False)
    house.say(b"set a 0 0 500000\r\n" + b"x" * 500_000 + b"\r\n")
    assert house.say(command + b"x" * 900_000 + b"\r\n") == b"SERVER_ERROR out of memory storing object\r\n"
    assert house.say(b"mg a s\r\n") == b"HD s500000\r\n"


def test_a_problem_of_the_store_takes_the_place_of_the_rest_of_a_retrieval() -> None:
    codec = House().codec
    codec.feed(b"get a b c d\r\n")
    first, second = codec.next(2), codec.next(2)
    assert first is not None
    assert second is not None
    assert codec.render(first, [b"1", Problem(b"away")]) == b"VALUE a 0 1\r\n1\r\nSERVER_ERROR away\r\n"
    assert codec.render(second, [b"3", b"4"]) == b""
