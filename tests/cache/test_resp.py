"""The codec of the redis port: what Redis's own parser takes and refuses, however the bytes are cut."""

import contextlib
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.cache.batch import Batch
from netd.cache.layout import keep
from netd.cache.requests import OK, STORED, Answer, Command, Problem, Reply
from netd.cache.resp import LONGEST_LINE, ProtocolError, Requests, RespCodec, Switched, encode, split_words

BUDGET = 1 << 20


def pack(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def requests_of(pieces: Iterable[bytes]) -> list[list[bytes]]:
    """What is asked, requests that ask nothing left out; the error that ends it as its last words."""
    requests, found = Requests(BUDGET), []
    for piece in pieces:
        requests.feed(piece)
        try:
            while (words := requests.next()) is not None:
                found.append(words)
        except ProtocolError as error:
            found.append([b"-", error.text])
            break
    return [words for words in found if words]


def read(reply: bytes) -> Any:
    reader = hiredis.Reader()
    reader.feed(reply)
    result = reader.gets()
    assert not reader.has_data()
    return result


def batches(codec: RespCodec) -> list[Batch]:
    found = []
    while (batch := codec.next(100)) is not None:
        found.append(batch)
        if batch.closes:
            break
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


words = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"$1\r\n", b"*", b"GET", b"x" * 2000])
requests_made = st.lists(st.lists(words, min_size=1, max_size=5), max_size=6)
places = st.lists(st.integers(0, 10_000), max_size=20)


@given(requests_made, places)
def test_requests_are_the_same_however_they_are_cut(asked: list[list[bytes]], places: list[int]) -> None:
    assert requests_of(cut(b"".join(pack(*each) for each in asked), places)) == asked


fragments = st.lists(
    st.sampled_from(
        [b"*", b"$", b"1", b"2", b"-1", b"\r\n", b"\r", b"\n", b"PING", b'"', b"'", b"\\x4", b" ", b":", b"\0"]
    )
    | st.binary(max_size=6)
).map(b"".join)


@given(fragments, places)
def test_garbage_is_understood_or_refused_alike_however_it_is_cut(data: bytes, places: list[int]) -> None:
    assert requests_of(cut(data, places)) == requests_of([data])
    assert requests_of([data[at : at + 1] for at in range(len(data))]) == requests_of([data])


@given(st.lists(words, min_size=1, max_size=20))
def test_a_read_of_plain_gets_says_the_same_on_the_short_way_as_on_the_long_one(keys: list[bytes]) -> None:
    data = b"".join(pack(b"GET", key) for key in keys)
    short, long = RespCodec(BUDGET), RespCodec(BUDGET)
    long.feed(data)
    [batch] = batches(long)
    assert batch.requests == keys
    found = short.gets(data)
    assert found in (None, keys)
    values: list[Answer] = [None, b"bare", keep(b"flagged", 7), Problem(b"away")] * len(keys)
    assert short.found(keys, values[: len(keys)]) == long.render(batch, values[: len(keys)])  # type: ignore[arg-type]


@given(st.binary(max_size=60) | fragments.map(lambda data: b"*2\r\n$3\r\nGET\r\n$" + data))
def test_the_short_way_takes_nothing_but_plain_gets(data: bytes) -> None:
    found = RespCodec(BUDGET).gets(data)
    if found is not None:
        assert data == b"".join(pack(b"GET", key) for key in found)


def plain_sets(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """What a conversation would make of reads that hold plain SETs: the pairs, and the replies."""
    codec, said = RespCodec(BUDGET), b""
    pairs: list[tuple[bytes, bytes]] = []
    for piece in pieces:
        found = codec.sets(piece)
        if found is None:
            codec.feed(piece)
        else:
            pairs += found
            said += codec.stored([STORED] * len(found))
        for batch in batches(codec):
            assert found is None, "what is whole is not left in the codec"
            pairs += batch.requests  # type: ignore[arg-type]  # pairs
            said += codec.render(batch, [STORED] * len(batch.requests))
    return pairs, said


@given(st.lists(st.tuples(words, words), min_size=1, max_size=8), places)
def test_plain_sets_say_the_same_on_the_short_way_however_they_are_cut(
    pairs: list[tuple[bytes, bytes]], places: list[int]
) -> None:
    data = b"".join(pack(b"SET", key, value) for key, value in pairs)
    kept = [(key, keep(value)) for key, value in pairs]
    assert plain_sets([data]) == plain_sets(cut(data, places)) == (kept, b"+OK\r\n" * len(pairs))


@given(fragments.map(lambda data: b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$" + data), places)
def test_the_short_way_takes_nothing_but_plain_sets(data: bytes, places: list[int]) -> None:
    codec = RespCodec(BUDGET)
    pairs = codec.sets(data)
    if pairs is not None:
        whole = b"".join(pack(b"SET", key, kept) for key, kept in pairs)
        assert data.startswith(whole)
        assert codec.next(10) is None, "what is whole is not left in the codec"


def test_a_get_of_an_empty_key_whose_end_is_not_there_yet_is_not_taken_for_whole() -> None:
    codec = RespCodec(BUDGET)
    data = pack(b"GET", b"")
    assert codec.gets(data[:-2]) is None
    codec.feed(data[:-2])
    assert codec.next(1) is None
    codec.feed(data[-2:])
    assert [batch.requests for batch in batches(codec)] == [[b""]]
    assert RespCodec(BUDGET).gets(data) == [b""]


def test_the_short_way_is_closed_while_something_is_left_over() -> None:
    codec = RespCodec(BUDGET)
    codec.feed(b"*2\r\n$3\r\nGET\r\n$46\r\n")
    assert codec.next(10) is None
    assert codec.gets(pack(b"GET", b"a")) is None


REFUSED = {
    b"*1\r\n:1\r\n": b"expected '$', got ':'",
    b"*1\r\nPING\r\n": b"expected '$', got 'P'",
    b"*x\r\n": b"invalid multibulk length",
    b"*01\r\n": b"invalid multibulk length",
    b"*+1\r\n": b"invalid multibulk length",
    b"*1_0\r\n": b"invalid multibulk length",
    b"*99999999999999999999999\r\n": b"invalid multibulk length",
    b"*2000000\r\n": b"invalid multibulk length",
    b"*1\r\n$-1\r\n": b"invalid bulk length",
    b"*1\r\n$2000000\r\n": b"invalid bulk length",
    b"*1\r\n$1x\r\n": b"invalid bulk length",
    b"*" + b"1" * 70000: b"too big mbulk count string",
    b"*1\r\n$" + b"1" * 70000: b"too big bulk count string",
    b"x" * 70000: b"too big inline request",
    b'GET "a\r\n': b"unbalanced quotes in request",
    b'GET "a"b\r\n': b"unbalanced quotes in request",
}


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: repr(data[:20]))
def test_what_is_no_request_is_refused_in_redis_own_words_and_the_connection_closed(data: bytes) -> None:
    codec = RespCodec(BUDGET)
    codec.requests = Requests(BUDGET)
    codec.feed(pack(b"PING") + data)
    [batch] = batches(codec)
    assert batch.closes
    assert batch.requests == [Command([b"PING"])]
    assert codec.render(batch, [OK]) == b"+OK\r\n-ERR Protocol error: %b\r\n" % REFUSED[data]


def test_what_many_words_take_together_is_bounded() -> None:
    assert requests_of([b"*1000000\r\n", b"$0\r\n\r\n" * 16_000, b"$0\r\n\r\n" * 1000]) == [
        [b"-", b"Protocol error: invalid bulk length"]
    ]


def test_a_line_of_ten_megabytes_is_refused_after_the_first_64_kilobytes() -> None:
    kilobytes = iter([b"x" * 1024] * (10 << 10))
    assert requests_of(kilobytes) == [[b"-", b"Protocol error: too big inline request"]]
    assert len(list(kilobytes)) == (10 << 10) - 65


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"*11\r\n", b"unauthenticated multibulk length"), (b"*1\r\n$16385\r\n", b"unauthenticated bulk length")],
)
def test_who_has_not_logged_in_may_send_little(data: bytes, text: bytes) -> None:
    codec = RespCodec(BUDGET)
    codec.requests.stranger = True
    codec.feed(data)
    [batch] = batches(codec)
    assert codec.render(batch, []) == b"-ERR Protocol error: %b\r\n" % text


INLINE = {
    b"": [],
    b"  ": [],
    b"SET a b": [b"SET", b"a", b"b"],
    b"\tSET  a\0b ": [b"SET", b"a", b"b"],
    b'SET a "x y"': [b"SET", b"a", b"x y"],
    rb'"\x41\n\r\t\b\a\\\"\q\xZ1"': [b'A\n\r\t\b\a\\"qxZ1'],
    rb"'it\'s \n'": [rb"it's \n"],
    b'a"b c" d': [b"ab c", b"d"],
    b'""': [b""],
}


@pytest.mark.parametrize("line", INLINE, ids=repr)
def test_inline_requests_are_split_as_redis_splits_them(line: bytes) -> None:
    assert split_words(line) == INLINE[line]


@pytest.mark.parametrize(
    "line",
    [
        b'"' + b"\\x41" * 20,
        b'"' + b'\\"' * 32_000,
        b"'" + b"\\'" * 32_000,
        b"x" * 65_000,
    ],
    ids=["escapes", "escaped quotes", "escaped single quotes", "one word"],
)
def test_no_inline_request_takes_long(line: bytes) -> None:
    """Quotes that were never closed once doubled the time with each escape: forty of them hung the daemon."""
    began = time.process_time()
    for _ in range(40):
        with contextlib.suppress(ProtocolError):
            split_words(line)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("line", [b"'a\\' b", b"'a\\'", b'"a\\" b', b'"a\\x4'])
def test_an_escaped_quote_closes_nothing(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="unbalanced"):
        split_words(line)


def test_a_number_that_is_too_long_is_refused_alike_however_it_is_cut() -> None:
    data = b"*" + b"1" * (LONGEST_LINE + 2) + b"\r\n"
    assert requests_of([data]) == requests_of([data[:7000], data[7000:]]) == requests_of([data[:-2], data[-2:]])


def test_a_request_that_asks_nothing_has_no_reply() -> None:
    codec = RespCodec(BUDGET)
    codec.feed(b"\r\n*0\r\n*-1\r\n" + pack(b"PING"))
    [batch] = batches(codec)
    assert batch.requests == [Command([b"PING"])]


def test_quit_is_answered_and_what_follows_it_is_not() -> None:
    codec = RespCodec(BUDGET)
    codec.feed(pack(b"GET", b"a") + pack(b"quit") + pack(b"GET", b"b"))
    [batch] = batches(codec)
    assert (batch.requests, batch.closes) == ([b"a"], True)
    assert codec.render(batch, [None]) == b"$-1\r\n+OK\r\n"
    codec.feed(pack(b"PING"))
    assert codec.next(10) is None or codec.next(10).closes  # type: ignore[union-attr]


def test_a_browser_is_hung_up_on() -> None:
    codec = RespCodec(BUDGET)
    codec.feed(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
    [batch] = batches(codec)
    assert (batch.requests, batch.closes) == ([], True)
    assert codec.render(batch, []) == b""


def test_the_protocol_changes_with_the_answer_to_hello_and_not_before() -> None:
    codec = RespCodec(BUDGET)
    codec.feed(pack(b"GET", b"a") + pack(b"HELLO", b"3") + pack(b"GET", b"a"))
    [batch] = batches(codec)
    said = codec.render(batch, [None, Switched(3, {b"proto": 3}), None])
    assert said == b"$-1\r\n%1\r\n$5\r\nproto\r\n:3\r\n_\r\n"


@pytest.mark.parametrize(
    ("reply", "version", "said"),
    [
        ([1, [b"a", None]], 2, b"*2\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n"),
        ({b"a": 1.5}, 2, b"*2\r\n$1\r\na\r\n$3\r\n1.5\r\n"),
        ({b"a": 1.5}, 3, b"%1\r\n$1\r\na\r\n,1.5\r\n"),
        (True, 2, b":1\r\n"),
        (True, 3, b"#t\r\n"),
        (3.0, 3, b",3\r\n"),
        (OK, 2, b"+OK\r\n"),
        (Problem(b"bad\r\nthing"), 2, b"-ERR bad  thing\r\n"),
        (Problem(b"first", b"NOAUTH"), 3, b"-NOAUTH first\r\n"),
    ],
    ids=repr,
)
def test_replies_are_written_as_redis_writes_them(reply: Reply, version: int, said: bytes) -> None:
    assert encode(reply, version) == said


replies = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20),
    lambda each: st.lists(each, max_size=4),
    max_leaves=12,
)


@given(replies, st.sampled_from([2, 3]))
def test_what_is_written_a_client_reads_back(reply: Any, version: int) -> None:
    assert read(encode(reply, version)) == reply
