"""Blocks of the spool whose bytes are not what was written, although the checksum is right."""

import json
from contextlib import suppress

from netd.bridge import blocks
from netd.bridge.envelope import Envelope
from netd.bridge.fields import FieldError
from netd.bridge.messages import Route

LONGEST = 1024
WORDS = (
    *(
        b"\1\0\0\0\0",
        b"\1\0\0\0\1",
        b"\1\0\0\0\2",
        b"\2\0\0\0\3",
        b"\1\0\0\0",
        b"\xff\xff\xff\xff",
        b"{}",
        b"[",
        b"null",
        b'"',
    ),
    *(
        b'{"0": {"headers": {"a": 1}, "message_id": "m", "peer": "p", "netd_id": "n"}}',
        b'{"0": ',
        b'"headers": ',
        b"1e999",
    ),
)
ROUTE = Route("lines", "", "work")


def check(data: bytes) -> None:
    """A block or BadBlock; a block can be written again and published."""
    try:
        block = blocks.decode(ROUTE, "0123456789ab-1", 1, 1, data)
    except blocks.BadBlock:
        return
    assert len(block) > 0
    assert block.keys is None or len(block.keys) == len(block)
    assert sum(map(len, block.bodies)) <= len(data)
    again = blocks.decode(ROUTE, block.origin, 1, 1, blocks.encode(block))
    assert list(again.bodies) == list(block.bodies)
    assert json.dumps(repr(again.extras)) == json.dumps(repr(block.extras or None))
    with suppress(FieldError):
        Envelope(ROUTE, 1, 4096).encode(block, 0, len(block))
