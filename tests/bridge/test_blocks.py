"""Blocks whose bytes are not what was written, although the checksum is right, are damaged ones and nothing else."""

import struct
from typing import Any

import pytest

from netd.bridge import blocks
from netd.bridge.messages import Extra, Route

ROUTE = Route("lines", "", "work")


def with_extras(extras: bytes) -> bytes:
    """A block of two empty messages."""
    return struct.pack("<IBIII", 2, 2, 0, 0, len(extras)) + extras


@pytest.mark.parametrize("data", [None, 7, "text"])
def test_a_row_that_holds_no_bytes_is_a_damaged_block(data: Any) -> None:
    with pytest.raises(blocks.BadBlock):
        blocks.checksum(1, 1, 1, 1, data)


def test_extras_are_read() -> None:
    block = blocks.decode(ROUTE, "id-1", 1, 1, with_extras(b'{"1": {"headers": {"a": 1}, "message_id": "m"}}'))
    assert block.extras == {1: Extra({"a": 1}, "m")}


@pytest.mark.parametrize(
    "extras",
    [
        b"1e999",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"0": []}',
        b'{"0": {"headers": "n"}}',
        b'{"0": {"message_id": 1.5}}',
        b'{"0": {"peer": null}}',
        b'{"0": {"netd_id": ["n"]}}',
        b'{"0": {"nothing": 1}}',
        b'{"2": {}}',
        b'{"-1": {}}',
        b'{"x": {}}',
    ],
    ids=lambda extras: repr(extras[:30]),
)
def test_extras_that_are_none_are_a_damaged_block(extras: bytes) -> None:
    with pytest.raises(blocks.BadBlock):
        blocks.decode(ROUTE, "id-1", 1, 1, with_extras(extras))
