"""What a broker sends: frames, and the messages in them."""

import json
from collections.abc import Sequence
from struct import pack
from typing import Any

from fuzz.target import pieces
from netd.bridge.frames import FrameError, FrameReader
from netd.bridge.lines import ENCODERS
from netd.bridge.messages import Delivery
from netd.bridge.subscription import RabbitDelivery, RabbitSubscription

DELIVER = b"\0\x3c\0\x3c\1t\0\0\0\0\0\0\0\1\0\0\1q"


def frame(kind: int, payload: bytes) -> bytes:
    """A frame of channel 1."""
    return pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


LONGEST = 1024
WORDS = (
    *(frame(8, b""), frame(1, b"\0\x3c\0\x50" + bytes(7) + b"\1\0"), frame(1, b"\0\x3c\0\x78" + bytes(7) + b"\1\0")),
    *(frame(1, DELIVER), frame(2, b"\0\x3c" + bytes(9) + b"\1\0\0"), frame(3, b"x"), b"\xce\1\0\1", b"\0\x3c\0\x32"),
    *(
        b"\x20\0\0\0\0\7\1hI\0\0\0\1",
        b"\xff\xfc",
        b"\1aF\0\0\0\0",
        b"\1aA\0\0\0\1t",
        b"\1dd\x7f\xf8\0\0\0\0\0\0",
        b"S\0\0\0\1a",
    ),
)
LARGEST_FRAME = 4096


def check(data: bytes) -> None:
    """The same events however the bytes are cut, or FrameError; every message can be made a line of."""
    whole = _read([data])
    assert _read(pieces(data)) == whole
    for delivery in _consume([event for event in whole if isinstance(event, tuple) and event[0] == "deliver"]):
        _lines(delivery)
    _lines(RabbitDelivery(1, b"x", False, DELIVER[4:], data))


def _read(parts: Sequence[bytes]) -> list[object]:
    reader = FrameReader()
    reader.largest_frame = LARGEST_FRAME
    found: list[object] = []
    for part in parts:
        try:
            found += reader.feed(part)
        except FrameError:
            found.append("the end")
            break
    # What came whole before the end is told or not, as the bytes are cut: the connection ends in either case.
    return found if "the end" not in found else ["the end"]


class _Link:
    """As much of one as a subscription sees, and its consumer."""

    connection = None

    def __init__(self) -> None:
        self.taken: list[Delivery] = []

    def join(self, user: object) -> None:
        """There is no connection yet."""

    def delivered(self, deliveries: Sequence[Delivery]) -> None:
        self.taken += deliveries


def _consume(events: Sequence[Any]) -> Sequence[Delivery]:
    link: Any = _Link()
    nothing: Any = None
    subscription = RabbitSubscription(link, link, nothing, queue="work", prefetch=1, declaring=nothing)
    subscription.received(events)
    for delivery in link.taken:
        subscription.acknowledge(delivery.tag, all_up_to=True)
    taken: list[Delivery] = link.taken
    return taken


def _lines(delivery: Delivery) -> None:
    for name, encode in ENCODERS.items():
        line = encode(delivery)
        assert line.endswith(b"\n")
        if name != "raw":
            assert line.count(b"\n") == 1
        if name == "json":
            json.loads(line, parse_constant=_no_json)
    assert delivery.details().deliveries >= 1


def _no_json(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")
