"""netd answers as memcached does, byte for byte: the same streams are sent to both.

What differs on purpose is listed in docs/protocols.md, and is not in these streams.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cache.beside import Beside
from tests.servers import MemcachedServer


@pytest.fixture(scope="module")
def beside() -> Iterator[Beside]:
    with MemcachedServer() as server:
        yield Beside(server)


LONG = "k" * 250
LARGE = "x" * 1_048_577

STREAMS = {
    "retrieval": """
set a 1 0 3
abc
set b 4294967295 0 0

set c 0 100 4
a
b
get a
get a b c d
gets a
get d
gets d a d b
get  a   b\x20
bget a
get
gets
 get a
GET a
""",
    "store": """
set a 0 0 1
1
add a 0 0 1
2
add b 0 0 1
2
replace a 7 0 1
3
replace z 0 0 1
4
append a 9 9 2
45
prepend a 9 9 2
12
append z 0 0 1
x
prepend z 0 0 1
x
gets a b z
""",
    "cas": """
set a 0 0 1
1
gets a
cas a 0 0 1 {2}
2
cas a 5 0 1 {1}
3
cas a 5 0 1 {4}
4
cas z 0 0 1 1
1
cas a 0 0 1 0
1
cas a 0 0 1
cas a 0 0 1 x
1
gets a
cas a 0 0 1 99 noreply
1
cas a 0 0 1 -1
""",
    "arithmetic": """
set n 3 0 2
10
incr n 1
decr n 5
decr n 100
incr n 18446744073709551615
incr n 1
get n
incr z 1
decr z 1
set s 0 0 3
abc
incr s 1
set e 0 0 0

incr e 1
incr n -1
incr n x
incr n 1 2
incr n
incr n 18446744073709551616
set w 0 0 4
 12\x20
incr w 88888
set m 0 0 2
-5
incr m 1
set p 0 0 2
+5
incr p 95
gets n w p
""",
    "deletion": """
set a 0 0 1
1
delete a
delete a
set a 0 0 1
1
delete a 0
delete a 1
delete a 0 noreply
delete a noreply
delete a 5 noreply
delete
delete a 0 noreply x
delete a b c
mn
""",
    "touch": """
set a 0 0 1
1
touch a 100
touch z 100
touch a x
touch a
touch a 0 noreply
gat 100 a z
gats 0 a
gat 100
gat x a
gat
touch a -1
get a
set b 0 0 1
1
gat -1 b
get b
""",
    "expiry": """
set a 0 -1 1
1
get a
set a 0 2592001 1
1
get a
set a 0 2592000 1
1
get a
set a 0 4102444800 1
1
get a
set a 0 -2147483648 1
1
get a
add a 0 0 1
2
get a
""",
    "noreply": """
set a 0 0 1 noreply
1
add a 0 0 1 noreply
2
get a
incr a 1 noreply
get a
decr a 1 noreply
append a 0 0 1 noreply
2
prepend a 0 0 1 noreply
2
replace a 0 0 1 noreply
z
get a
verbosity 1 noreply
touch a x noreply
incr a x noreply
set a b 0 1 noreply
set a 0 0 5 noreply
1

x
get a
flush_all noreply
get a
set a 0 0 1048577 noreply
{large}
mn
""",
    "mistakes": """

\x20
foo
set
set a
set a 0 0
set a 0 0 -1
set a 0 0 x
set a x 0 1
set a 0 x 1
set a -1 0 1
set a 4294967296 0 1
1
set a 0 0 1 2 3
set {long}k 0 0 1
1
set {long} 0 0 1
1
get {long}
set a 0 0 1
12
set a 0 0 2
1
get a
SET a 0 0 1
1
x
verbosity
verbosity x
verbosity 1
version x
shutdown
set a +1 +0 +1
1
get a
set a 0 0 1\t
1
set a 0 0 99999999999999999999
get a
getx a
stats foo
stats sizes
stats detail
stats detail x
set a 0 0 4294967297
1
""",
    "a key that is too long": "get {long}k\n",
    "a key that is too long, behind another": "get a {long}k b\n",
    "too large": """
set a 0 0 1
1
set a 0 0 1048577
{large}
get a
set a 0 0 1
1
add a 0 0 1048577
{large}
get a
ms a 1048577
{large}
get a
""",
    "flush": """
set a 0 0 1
1
flush_all
get a
set a 0 0 1
1
flush_all 0
get a
set a 0 0 1
1
flush_all 1000
get a
flush_all x
flush_all 0 noreply
get a
flush_all 0 0 0
flush_all -1
""",
    "quit": """
set a 0 0 1
1
get a
quit
get a
""",
    "http": "GET / HTTP/1.0\nget a\n",
    "a very long line": "get a\n" + "x" * 3000,
    "many keys": "set a 0 0 1\n1\nget " + " ".join(f"k{n}" for n in range(1000)) + " a\nget a\n",
    "meta get": """
set a 5 0 3
abc
mg a
mg a v
mg a v f t s c k q Oxyz
mg a h l t
mg a h l
mg z
mg z v q
mg z k Oabc
mg a T100 t
mg a t T200 t
mg a t T0
mg a t
mg
mg {long}k
mg a !
mg a v v
mg a Tx
mg a T
mg a O12345678901234567890123456789012
mg a O1234567890123456789012345678901
mg YQ== b v
mg YQ= b
mg ! b v
mg ! b Tx
mg ! Tx b
mg z b k
mg a 1 2 3 4 5 6 7 8 9 a b c d e f g h i j
mg a u h
mg a q
mn
mn x
""",
    "meta get, winning": """
mg a N100 v t c
mg a v t
mg a N100 v
set b 0 30 1
1
mg b R20 t
mg b R40 t
mg b R40 t
mg c T50 N100 t
mg d N100 T50 t
mg e t N100 t
mg f N0 t
mg g N-1 v
mg g v
mg b R-1
mg b R0
set i 0 0 1
1
mg i R100
set j 0 30 1
1
mg j T10 R20 t
set k 0 30 1
1
mg k R20 T10 t
""",
    "meta get, stale": """
set a 1 0 1
1
md a I T30
mg a v c t f
mg a v c t f
mg a v
get a
ms a 1 C{1} I c
2
mg a v c t
ms a 1 C{50} I
3
ms a 1
4
mg a v
md a I
append a 0 0 1
5
mg a v
md a I C1
md z I
""",
    "meta set": """
ms a 3 F7 T100 c k Oq
abc
mg a v f t
ms a 1 ME
1
ms b 1 ME
1
ms a 1 MA
d
ms a 1 MP
_
ms z 1 MA
1
ms z 1 MR c
1
ms a 1 MS
2
ms a 1 MX
2
ms a 1 M
2
ms a 1 MSS
2
ms a 1 C{5} k c
3
ms a 1 C{7}
3
ms a 1 C{99}
3
ms z 1 C1
3
ms a 1 C0
3
ms a 1 MA C1
3
ms a 1 MA C0
3
ms a 1 ME C1
3
ms a 1 q
4
ms z 1 MR q
4
ms a 1 q
45
ms a
ms a x
ms a -1
ms a 1 !
5
ms a 1 F
5
ms a 1 Fx
5
ms a 1 T
5
ms a 1 Cx
5
ms YmI= 2 b k
67
get bb
ms {long}k 1
1
ms a 1 O12345678901234567890123456789012
6
ms a 1 I
7
ms a 2
1
mg a v
ms
ms a 1 N5 MA
8
ms q 1 N5 MA
8
""",
    "meta delete": """
set a 0 0 1
1
md a q
md a q
md a k Oz
set a 0 0 1
1
md a C1 k
md a C{2} k Ox
md a C0
set a 0 0 1
1
md a C0
md YQ== b k
md YQ= b
md a !
md a k k
md
md {long}k
md a O12345678901234567890123456789012
md a 1 2 3 4 5 6 7 8 9 a b c d e f g h i j
""",
    "meta arithmetic": """
ma n
ma n N0
ma n
ma n v
ma n MD D5 v
ma n MI D100 v t c k Oq
ma n M+
ma n M- D50 v
ma n MX
ma o N100 J13 v t
ma o t T50 t
ma p N100 T50 t
ma q T50 N100 t
ma n Dx
ma n Jx
ma n C1
ma n C0 v
ma n q
ma z q
ma z q k
ma r q N0
set s 0 0 1
x
ma s
ma s q
ma bg== b k v
ma
ma n !
ma n v D18446744073709551615
ma n D18446744073709551616
ma {long}k
""",
    "meta debug": """
me
me a
me {long}k
me a b
me ! b
set a 0 100 1
1
me a
get a
me a
""",
}


def stream_of(name: str) -> bytes:
    """The bytes of a stream: every line ends in CR LF."""
    text = STREAMS[name].removeprefix("\n").replace("{long}", LONG).replace("{large}", LARGE)
    return text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_answered_as_memcached_does(beside: Beside, name: str) -> None:
    ours, theirs = beside.ask(stream_of(name))
    assert ours == theirs


ENDED = {"quit", "http", "a very long line"}
"""The server ends these; bytes that it gets afterwards make its kernel throw away what it has answered."""


@pytest.mark.parametrize("name", [name for name in STREAMS if len(stream_of(name)) < 3000 and name not in ENDED])
def test_bytes_that_come_one_by_one_are_answered_alike(beside: Beside, name: str) -> None:
    ours, theirs = beside.ask(stream := stream_of(name), range(len(stream) + 100))
    assert ours == theirs


# --- generated streams

STRINGS = st.sampled_from([b"a", b"b", b"YQ==", b"Yg==", b"k" * 250, b"k" * 251])
COUNTERS = st.sampled_from([b"n", b"m"])
"""Numbers have keys of their own: whether memcached counts in place, and so keeps an item's past, depends on timing."""
KEYS = st.one_of(STRINGS, COUNTERS)
SHORT = KEYS.filter(lambda key: len(key) <= 250)
"""A retrieval of a key that is too long makes memcached forget what it owes for commands before it."""
NUMBERS = st.sampled_from(
    [b"0", b"1", b"5", b"100", b"-1", b"x", b"", b"+3", b"18446744073709551615", b"{1}", b"{2}", b"{3}", b"4294967297"]
)
EXPTIMES = st.sampled_from([b"0", b"0", b"0", b"100", b"5000", b"-1", b"2592001", b"x", b"+9"])
VALUES = st.sampled_from(
    [b"", b"1", b"12", b"7 ", b" 7", b"abc", b"-1", b"\0ND\1abcdefg", b"a\r\nb", b"%d" % (2**64 - 1)]
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b" \r\n", b" noreply\r\n"])


def words(*parts: bytes | st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(*(st.just(part) if isinstance(part, bytes) else part for part in parts)).map(b" ".join)


def line(*parts: bytes | st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(words(*parts), ENDS).map(b"".join)


@st.composite
def stores(draw: st.DrawFn) -> bytes:
    name = draw(st.sampled_from([b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas"]))
    value = draw(VALUES)
    size = draw(st.sampled_from([len(value)] * 8 + [len(value) + 1, max(0, len(value) - 1)]))
    parts = [name, draw(KEYS), draw(NUMBERS), draw(EXPTIMES), b"%d" % size]
    if name == b"cas":
        parts.append(draw(NUMBERS))
    return b" ".join(parts) + draw(ENDS) + value + b"\r\n"


def tokens(letters: str, strategy: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(st.sampled_from([letter.encode() for letter in letters]), strategy).map(b"".join)


def letters(text: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from([letter.encode() for letter in text])


MODES = tokens("M", st.sampled_from([b"E", b"A", b"P", b"R", b"S", b"I", b"D", b"+", b"-", b"X", b""]))
WRONG = st.sampled_from([b"!", b"x", b"\xc3\xa9"])
COMMON = st.one_of(
    letters("vfcqstPL"), letters("vfcqstPL"), st.just(b"Oab"), tokens("T", EXPTIMES), tokens("FCJD", NUMBERS)
)


def flags(*more: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.one_of(COMMON, *more), max_size=6).map(b" ".join).filter(_one_time)


def _one_time(given: bytes) -> bool:
    """Not both N and T: what a `t` between them tells of an item that is made just now is memcached's own affair."""
    letters = {word[:1] for word in given.split()}
    return not {b"N", b"T"} <= letters


LOOKS = flags(letters("khlu"), tokens("NR", st.sampled_from([b"0", b"30", b"5000", b"x"])), WRONG)
KEY_FLAGS = flags(st.just(b"b"), WRONG)
"""A key in base64 comes back in base64: memcached goes by how the item was stored, netd by how it was asked for."""


@st.composite
def meta_stores(draw: st.DrawFn) -> bytes:
    value = draw(VALUES)
    size = b"%d" % len(value)
    given = draw(flags(letters("kI"), MODES, WRONG, st.just(b"N5")))
    return b" ".join([b"ms", draw(KEYS), size, given]) + b"\r\n" + value + b"\r\n"


def meta(name: str, keys: st.SearchStrategy[bytes], given: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return words(name.encode(), keys, given).map(lambda text: text + b"\r\n")


COMMANDS = st.one_of(
    stores(),
    stores(),
    line(st.sampled_from([b"get", b"gets"]), SHORT),
    line(b"get", SHORT, COUNTERS, COUNTERS),
    line(st.sampled_from([b"gat", b"gats"]), EXPTIMES, COUNTERS, COUNTERS),
    line(st.sampled_from([b"incr", b"decr"]), COUNTERS, NUMBERS),
    line(b"touch", KEYS, EXPTIMES),
    line(b"delete", KEYS),
    line(b"delete", KEYS, NUMBERS),
    line(b"flush_all"),
    meta_stores(),
    meta("mg", STRINGS, LOOKS),
    meta("mg", STRINGS, LOOKS),
    meta("mg", KEYS, KEY_FLAGS),
    meta("md", STRINGS, flags(letters("kI"), WRONG)),
    meta("md", KEYS, KEY_FLAGS),
    meta("ma", COUNTERS, flags(MODES, letters("k"), tokens("N", EXPTIMES), WRONG)),
    st.binary(max_size=20).map(lambda junk: b"x" + junk + b"\r\n"),
)


def test_an_item_that_is_made_with_a_time_that_is_over_has_no_ttl(beside: Beside) -> None:
    ours, theirs = beside.ask(b"ma n N-1 t\r\n")
    assert ours == theirs == [b"HD t0", b""]


@given(st.lists(COMMANDS, min_size=1, max_size=12).map(b"".join), st.lists(st.integers(0, 500), max_size=4))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_is_sent_is_answered_as_memcached_does(beside: Beside, stream: bytes, cuts: list[int]) -> None:
    ours, theirs = beside.ask(stream + b"\r\nmn\r\n", cuts)
    assert ours == theirs
