"""What clients of a publish port send, in each framing, and that it can be spooled and published."""

import json
from collections.abc import Sequence

from fuzz.target import pieces
from netd.bridge import blocks
from netd.bridge.envelope import END, Envelope
from netd.bridge.fields import FieldError
from netd.bridge.lines import Framing, Incoming, Received, Rules, err
from netd.bridge.messages import Block, Route

LONGEST = 400
WORDS = (
    *(b"\n", b"\r\n", b"key\t", b"a.b\t", b'{"body":"x"}\n', b'{"key":"k","body":"x"}\n', b'"headers":{"a":1}'),
    *(b'"message_id":"m"', b'"body_base64":"aGk="', b"\\ud800", b"1e999", b"NaN", b"true", b"null", b'"x-netd-id"'),
    *(b'"CC"', b"9223372036854775808", b"[", b"{", b'{"body":"', b'"}\n'),
)
LONGEST_LINE = 300
ROUTE = Route("lines", "ex", "work", content_type="text/plain", priority=3, expiration=1000)
LARGEST_FRAME = 4096


def check(data: bytes) -> None:
    """The same messages and errors however the bytes are cut; each can be written, read again and published."""
    for framing in ("raw", "key-tab", "json"):
        rules = Rules(framing, LONGEST_LINE, lambda key: not key.startswith("no"), b"work")
        peer = "192.0.2.1" if len(data) % 2 else ""
        whole = _receive(rules, peer, [data])
        assert _flat(_receive(rules, peer, pieces(data))) == _flat(whole)
        for received in whole:
            _spool(received, framing)


def _receive(rules: Rules, peer: str, parts: Sequence[bytes]) -> list[Received]:
    incoming = Incoming(rules, peer)
    found = [incoming.receive(part) for part in parts]
    if incoming.tail:
        found.append(incoming.finish())
    assert not incoming.tail
    return found


def _flat(found: Sequence[Received]) -> list[object]:
    """What was received, whatever the reads were."""
    flat: list[object] = []
    for each in found:
        keys = each.keys if each.keys is not None else [b""] * len(each.bodies)
        extras = [(each.extras or {}).get(index) for index in range(len(each.bodies))]
        flat += zip(each.numbers, each.bodies, keys, extras, strict=True)
        flat += [(number, bad.code, bad.text) for number, bad in each.errors]
    return sorted(flat, key=repr)


def _spool(received: Received, framing: Framing) -> None:
    for number, bad in received.errors:
        reply = err(number, bad.code, bad.text)
        assert reply.count(b"\n") == 1
        assert reply.decode().rstrip("\n").isprintable()
    if not received.bodies:
        return
    block = Block(ROUTE, "0123456789ab-1", 1, 1, received.bodies, keys=received.keys, extras=received.extras)
    again = blocks.decode(ROUTE, block.origin, 1, 1, blocks.encode(block))
    assert list(again.bodies) == list(block.bodies)
    assert (again.keys is None) == (framing == "raw")
    assert again.keys is None or list(again.keys) == list(block.keys or ())
    assert json.dumps(repr(again.extras)) == json.dumps(repr(block.extras or None))
    try:
        frames = Envelope(ROUTE, 1, LARGEST_FRAME).encode(again, 0, len(again))
    except FieldError:
        return
    assert frames.endswith(END)
