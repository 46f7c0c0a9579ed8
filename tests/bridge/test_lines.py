"""The line protocol: what bytes mean, however they are cut."""

import base64
import json
import math
import re
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.bridge import blocks, lines
from netd.bridge.blocks import BadBlock
from netd.bridge.lines import BadLine, Framing, Incoming, LineReader, Received, Rules
from netd.bridge.messages import Block, Details, Extra, Route


def read(data: bytes, framing: Framing = "raw", max_line: int = 100, peer: str = "") -> Received:
    """What bytes that arrive at once come to."""
    rules = Rules(framing, max_line, lambda key: key.startswith("app."), routing_key=b"own")
    return Incoming(rules, peer).receive(data)


def errors(received: Received) -> list[tuple[int, str]]:
    return [(number, bad.code) for number, bad in received.errors]


def test_lf_and_crlf_end_a_line_and_every_other_byte_is_kept() -> None:
    received = read(b"a\nb\r\n\0\xff\r.\n\r\r\n")
    assert list(received.bodies) == [b"a", b"b", b"\0\xff\r.", b"\r"]
    assert list(received.numbers) == [1, 2, 3, 4]


def test_empty_lines_count_and_are_skipped() -> None:
    received = read(b"\n\r\na\n\n")
    assert (list(received.bodies), list(received.numbers), received.upto) == ([b"a"], [3], 4)


def test_a_line_that_is_too_long_is_refused_and_the_next_one_is_not() -> None:
    received = read(b"x" * 101 + b"\n" + b"y" * 100 + b"\r\n")
    assert errors(received) == [(1, "TOOLONG")]
    assert list(received.bodies) == [b"y" * 100]
    assert list(received.numbers) == [2]


def memory_of(reader: LineReader, pieces: Iterable[bytes]) -> int:
    """Bytes that the reader keeps after these pieces of a line that goes on."""
    tracemalloc.start()
    try:
        for piece in pieces:
            assert reader.feed(piece) == []
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_line_that_never_ends_takes_no_memory() -> None:
    reader = LineReader(100)
    assert memory_of(reader, [b"x" * 1000] * 1000) < 20_000
    assert reader.feed(b"\nok\n") == [None, b"ok"]


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"\r\n", b"\r", b"x" * 11])))
def test_how_the_bytes_are_cut_never_matters(pieces: list[bytes]) -> None:
    reader, whole = LineReader(10), LineReader(10)
    cut = [line for piece in pieces for line in reader.feed(piece)]
    assert cut == whole.feed(b"".join(pieces))
    assert reader.begun == whole.begun
    assert reader.finish() == whole.finish()


@given(st.binary(), st.sampled_from(["raw", "key-tab", "json"]))
def test_garbage_gives_messages_and_errors_and_nothing_else(data: bytes, framing: Framing) -> None:
    received = read(data, framing, max_line=20)
    assert received.upto == data.count(b"\n")
    assert len(received.bodies) == len(received.numbers)
    said = {number for number, _ in received.errors} | set(received.numbers)
    lines_there = data.split(b"\n")[:-1]
    assert said == {number for number, line in enumerate(lines_there, 1) if line.removesuffix(b"\r")}
    for _, bad in received.errors:
        assert lines.err(1, bad.code, bad.text).count(b"\n") == 1


def test_key_tab_has_a_key_and_a_body_that_may_hold_tabs() -> None:
    received = read(b"app.one\ta\tb\n\tc\napp.one\t\n", "key-tab")
    assert received.keys == [b"app.one", b"own", b"app.one"]
    assert list(received.bodies) == [b"a\tb", b"c", b""]


@pytest.mark.parametrize("line", [b"no tab", b"other\tx", b"app.\xff\tx", b"app." + b"k" * 252 + b"\tx"])
def test_a_key_that_may_not_be_named_is_refused(line: bytes) -> None:
    assert errors(read(line + b"\n", "key-tab", max_line=1000)) == [(1, "KEY")]


def test_a_line_must_name_a_key_where_the_port_has_none() -> None:
    rules = Rules("key-tab", 100, lambda _: True, key_required=True)
    assert errors(Incoming(rules).receive(b"\tbody\nkey\tbody\n")) == [(1, "KEY")]


def test_json_says_all_there_is() -> None:
    document = {"key": "app.x", "body": "hé\n", "headers": {"a": 1, "b": None, "c": True}, "message_id": "m1"}
    binary = {"body_base64": base64.b64encode(b"\0\xff").decode()}
    received = read(json.dumps(document).encode() + b"\n" + json.dumps(binary).encode() + b"\n", "json", 1000)
    assert list(received.bodies) == ["hé\n".encode(), b"\0\xff"]
    assert received.keys == [b"app.x", b"own"]
    assert received.extras == {0: Extra({"a": 1, "b": None, "c": True}, "m1")}


BAD_JSON = [
    "no json",
    "[]",
    "{}",
    '{"body":1}',
    '{"body":"a","body_base64":"YQ=="}',
    '{"body_base64":"!"}',
    '{"body":"a","colour":"red"}',
    '{"body":"\\ud800"}',
    '{"body":"a","headers":[]}',
    '{"body":"a","headers":{"":1}}',
    '{"body":"a","headers":{"a":[1]}}',
    '{"body":"a","headers":{"a":9223372036854775808}}',
    '{"body":"a","headers":{"CC":"other"}}',
    '{"body":"a","headers":{"x-netd-id":"mine"}}',
    '{"body":NaN}',
    '{"body":"a","headers":{"a":1e999}}',
    '{"body":"a","message_id":"' + "m" * 256 + '"}',
    "[" * 100_000,
]


@pytest.mark.parametrize("line", BAD_JSON, ids=lambda line: line[:30])
def test_what_is_no_message_is_refused_in_words(line: str) -> None:
    ((number, bad),) = read(line.encode() + b"\n", "json", 200_000).errors
    assert (number, bad.code) == (1, "JSON")
    assert bad.text


def test_the_peer_stands_beside_each_message_where_that_is_asked_for() -> None:
    received = read(b"a\n", peer="192.0.2.1:7")
    assert received.extras == {0: Extra(peer="192.0.2.1:7")}


def test_replies() -> None:
    assert lines.ok(7) == b"+OK 7\n"
    assert lines.err(3, "KEY", "no\ttab\n") == b"-ERR 3 KEY no tab \n"
    assert lines.wait("full") == b"*WAIT full\n"
    assert lines.GO == b"*GO\n"


@dataclass
class Delivered:
    body: bytes
    tag: int = 1
    redelivered: bool = False
    headers: dict[str, object] = field(default_factory=dict)

    def details(self) -> Details:
        return Details("app.x", self.headers, 2)


def test_lines_out() -> None:
    assert lines.raw_line(Delivered(b"a\nb")) == b"a\nb\n"
    assert lines.escaped_line(Delivered(b"a\nb\\n")) == b"a\\nb\\\\n\n"
    shown = json.loads(lines.json_line(Delivered(b"\xff", redelivered=True, headers={"t": b"\xff"})))
    assert shown == {"key": "app.x", "headers": {"t": "\\xff"}, "body_base64": "/w==", "redelivered": True}


def test_numbers_that_json_does_not_know_are_text_in_lines_out() -> None:
    headers: dict[str, object] = {"n": math.nan, "deep": [{"i": -math.inf}, 1.5], "b": b"x"}
    line = lines.json_line(Delivered(b"", headers=headers))
    shown = json.loads(line, parse_constant=pytest.fail)
    assert shown["headers"] == {"n": "nan", "deep": [{"i": "-inf"}, 1.5], "b": "x"}


@given(st.binary())
def test_an_escaped_line_can_be_read_back(body: bytes) -> None:
    line = lines.escaped_line(Delivered(body))
    assert line.count(b"\n") == 1
    assert re.sub(rb"\\(.)", lambda found: b"\n" if found[1] == b"n" else found[1], line[:-1]) == body


@pytest.mark.parametrize("line", [b"", b"ACK", b"ACK x", b"NACK *3", b"DROP 1", b"ACK -1", b"ACK \xc2\xb2", None])
def test_what_a_subscriber_may_not_say(line: bytes | None) -> None:
    with pytest.raises(BadLine):
        lines.parse_settlement(line)


def test_what_a_subscriber_may_say() -> None:
    assert lines.parse_settlement(b"ACK 7") == lines.Settlement("ACK", 7)
    assert lines.parse_settlement(b"ACK *7") == lines.Settlement("ACK", 7, all_up_to=True)
    assert lines.parse_settlement(b"NACK 7") == lines.Settlement("NACK", 7)


# --- blocks

ROUTE = Route("lines", "", "work")
EXTRAS = st.builds(Extra, st.dictionaries(st.text(), st.none() | st.integers() | st.text()), st.text(), st.text())


@given(st.data(), st.lists(st.binary(), min_size=1))
def test_a_block_is_read_as_it_was_written(data: st.DataObject, bodies: list[bytes]) -> None:
    count = len(bodies)
    keys = data.draw(st.none() | st.lists(st.binary(max_size=255), min_size=count, max_size=count))
    extras = data.draw(st.dictionaries(st.integers(0, count - 1), EXTRAS))
    block = Block(ROUTE, "id-1", 5, 6, bodies, keys=keys, extras=extras or None)
    back = blocks.decode(ROUTE, "id-1", 5, 6, blocks.encode(block))
    assert (list(back.bodies), back.keys, back.extras) == (bodies, keys, extras or None)


@given(st.binary())
def test_bytes_that_are_no_block_say_so(data: bytes) -> None:
    try:
        back = blocks.decode(ROUTE, "id-1", 5, 6, data)
    except BadBlock:
        return
    assert blocks.encode(back) == data or data[4:5] not in {b"\0", b"\1"}


def test_a_changed_bit_changes_the_checksum() -> None:
    data = blocks.encode(Block(ROUTE, "id-1", 5, 6, [b"hello"]))
    good = blocks.checksum(1, 5, 1, 6, data)
    assert blocks.checksum(1, 5, 1, 6, data[:-1] + b"p") != good
    assert blocks.checksum(2, 5, 1, 6, data) != good


def test_a_line_that_comes_in_many_pieces_takes_no_more_memory_than_a_line() -> None:
    """Each piece was kept as it came: two bytes at a time took 24 times what they were."""
    reader = LineReader(65536)
    assert memory_of(reader, (bytes([120, 121]) for _ in range(30_000))) < 100_000
    assert reader.feed(b"\n") == [b"xy" * 30_000]
