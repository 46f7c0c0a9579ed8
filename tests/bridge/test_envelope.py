"""Frames of published messages, read again by pika."""

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from netd.bridge.envelope import Envelope
from netd.bridge.fields import FieldError
from netd.bridge.messages import Block, Extra, Route

ORIGIN = "0123456789ab-7"
CHANNEL = 3
LARGEST = 200


def read(frames: bytes) -> Iterator[tuple[spec.Basic.Publish, spec.BasicProperties, bytes]]:
    """What pika makes of frames: each message's method, properties and body."""
    decoded = []
    while frames:
        size, one = frame.decode_frame(frames)
        assert size, "half a frame"
        assert one is not None
        decoded.append(one)
        frames = frames[size:]
    position = iter(decoded)
    for method in position:
        assert method.channel_number == CHANNEL
        header = next(position)
        body = b""
        while len(body) < header.body_size:
            piece = next(position).fragment
            assert 0 < len(piece) <= LARGEST
            body += piece
        yield method.method, header.properties, body


def block(bodies: list[bytes], route: Route, **more: object) -> Block:
    return Block(route, ORIGIN, 42, 1_700_000_000, bodies, **more)  # type: ignore[arg-type]  # keys and extras


@given(st.lists(st.binary(max_size=3 * LARGEST), min_size=1, max_size=6), st.booleans(), st.booleans(), st.data())
def test_pika_reads_every_message_with_its_number(
    bodies: list[bytes], with_keys: bool, with_extras: bool, data: st.DataObject
) -> None:
    route = Route("p", "ex", "key", content_type="text/plain", priority=3, expiration=1500)
    keys = [b"k%d" % index for index in range(len(bodies))] if with_keys else None
    made = block(bodies, route, keys=keys, extras={} if with_extras else None)
    start = data.draw(st.integers(0, len(bodies)))
    stop = data.draw(st.integers(start, len(bodies)))
    found = list(read(Envelope(route, CHANNEL, LARGEST).encode(made, start, stop)))
    assert [body for _, _, body in found] == bodies[start:stop]
    for index, (method, properties, _) in enumerate(found, start):
        netd_id = f"{ORIGIN}-{42 + index:016d}"
        assert (method.exchange, method.mandatory, method.immediate) == ("ex", True, False)
        assert method.routing_key == (f"k{index}" if with_keys else "key")
        assert properties == spec.BasicProperties(
            content_type="text/plain",
            headers={"x-netd-id": netd_id},
            delivery_mode=2,
            priority=3,
            expiration="1500",
            message_id=netd_id,
            timestamp=1_700_000_000,
            app_id="netd",
        )


def test_a_message_with_extras_has_them_beside_its_number() -> None:
    extras = {1: Extra({"a": 1, "x-netd-id": "forged"}, "mine", "10.0.0.1"), 2: Extra(netd_id="old-1")}
    route = Route("p", "", "q")
    found = [
        each
        for _, each, _ in read(Envelope(route, CHANNEL, 4096).encode(block([b"x"] * 3, route, extras=extras), 0, 3))
    ]
    assert found[0].headers == {"x-netd-id": f"{ORIGIN}-{42:016d}"}
    assert found[1].headers == {"a": 1, "x-netd-peer": "10.0.0.1", "x-netd-id": f"{ORIGIN}-{43:016d}"}
    assert found[1].message_id == "mine"
    assert found[2].headers == {"x-netd-id": "old-1"}
    assert found[2].message_id == "old-1"
    assert found[0].content_type is None


def test_a_later_block_has_its_own_time() -> None:
    route = Route("p", "", "q")
    envelope = Envelope(route, CHANNEL, 4096)
    times = [
        next(read(envelope.encode(Block(route, ORIGIN, 1, time, [b"x"]), 0, 1)))[1].timestamp for time in (5, 6, 5)
    ]
    assert times == [5, 6, 5]


def test_headers_larger_than_the_brokers_frames_are_told() -> None:
    route = Route("p", "", "q")
    made = block([b"x"], route, extras={0: Extra({"big": "x" * 300})})
    with pytest.raises(FieldError, match=r"its headers take \d+ bytes, and the broker's frames hold 200"):
        Envelope(route, CHANNEL, LARGEST).encode(made, 0, 1)


def test_the_channel_stands_in_every_frame() -> None:
    route = Route("p", "", "q")
    frames = Envelope(route, 7, 4096).encode(block([b"x" * 10], route), 0, 1)
    at, channels = 0, []
    while at < len(frames):
        _, channel, size = struct.unpack_from(">BHI", frames, at)
        channels.append(channel)
        at += size + 8
    assert channels == [7, 7, 7]
