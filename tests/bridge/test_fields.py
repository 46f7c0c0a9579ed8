"""AMQP's notation: what is written is read again, by pika too; garbage is a FieldError and nothing else."""

from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.data import decode_table, encode_table
from pika.spec import BasicProperties

from netd.bridge.fields import DEEPEST, Field, FieldError, Properties, Reader, short_string, table

names = st.text(max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary().filter(lambda data: not _is_text(data)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)
short = st.text(max_size=60)
properties = st.builds(
    Properties,
    content_type=st.none() | short,
    headers=st.none() | st.dictionaries(names, values, max_size=4),
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    expiration=st.none() | short,
    message_id=st.none() | short,
    timestamp=st.none() | st.integers(0, (1 << 64) - 1),
    cluster_id=st.none() | short,
)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.dictionaries(names, values, max_size=5))
def test_a_table_is_read_as_it_was_written(fields: dict[str, Field]) -> None:
    assert Reader(table(fields)).table() == fields


@given(properties)
def test_properties_are_read_as_they_were_written(given_properties: Properties) -> None:
    assert Properties.decode(given_properties.encode()) == given_properties


def test_pika_reads_what_netd_writes_and_the_other_way_round() -> None:
    fields: dict[str, Any] = {"a": "ü", "n": -5, "big": 1 << 40, "t": True, "l": [1, {"x": None}]}
    mine: list[object] = []
    encode_table(mine, fields)
    assert Reader(b"".join(cast("list[bytes]", mine))).table() == fields
    assert decode_table(table(fields), 0)[0] == fields

    theirs = BasicProperties(content_type="text/plain", headers=fields, delivery_mode=2, message_id="7", app_id="netd")
    written = b"".join(theirs.encode())
    ours = Properties(content_type="text/plain", headers=fields, delivery_mode=2, message_id="7", app_id="netd")
    assert Properties.decode(written) == ours
    assert BasicProperties().decode(ours.encode()) == theirs


@given(st.binary(max_size=200))
def test_garbage_is_a_field_error(garbage: bytes) -> None:
    for read in (lambda: Properties.decode(garbage), lambda: Reader(b"\0\0\0" + garbage).table()):
        with suppress(FieldError):
            read()


@given(properties, st.data())
def test_properties_that_are_cut_short_are_a_field_error(given_properties: Properties, data: st.DataObject) -> None:
    written = given_properties.encode()
    with pytest.raises(FieldError):
        Properties.decode(written[: data.draw(st.integers(0, len(written) - 1))])


def test_decimals_timestamps_and_every_integer_type_are_read() -> None:
    decimal = b"\1DD\2" + (-105).to_bytes(4, "big", signed=True)
    written = decimal + b"\1TT" + (7).to_bytes(8, "big") + b"\1bb\xff\1uu\1\0"
    fields = Reader(len(written).to_bytes(4, "big") + written).table()
    assert fields == {"D": "-1.05", "T": 7, "b": -1, "u": 256}


def _nested(depth: int) -> Field:
    value: Field = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"big": 1 << 63}, "header 'big': is an integer of more than 64 bits"),
        ({"n" * 256: 1}, "is 256 bytes long; AMQP's limit is 255"),
        ({"a": {"b": 1 << 70}}, "header 'a': header 'b': is an integer"),
        ({"deep": _nested(DEEPEST)}, f"header 'deep': is nested deeper than {DEEPEST}"),
        ({"half": "\ud800"}, "half of a surrogate pair"),
    ],
)
def test_headers_that_amqp_cannot_carry_are_named(fields: dict[str, Field], complaint: str) -> None:
    with pytest.raises(FieldError, match=complaint):
        table(fields)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (Properties(message_id="x" * 256), "message_id is 256 bytes long"),
        (Properties(priority=256), "priority cannot be 256"),
        (Properties(content_type="\ud800"), "content_type cannot be"),
    ],
)
def test_properties_that_amqp_cannot_carry_are_named(wrong: Properties, complaint: str) -> None:
    with pytest.raises(FieldError, match=complaint):
        wrong.encode()


def test_a_short_string_has_at_most_255_bytes() -> None:
    assert short_string("ü" * 127) == b"\xfe" + "ü".encode() * 127
    with pytest.raises(FieldError, match="is 256 bytes long"):
        short_string("ü" * 128)
