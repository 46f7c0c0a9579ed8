"""Frames from a broker: how the bytes are cut never matters, garbage raises FrameError and nothing else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.bridge.frames import (
    BASIC_ACK,
    BASIC_DELIVER,
    BASIC_NACK,
    BASIC_RETURN,
    BODY,
    HEADER,
    HEARTBEAT,
    METHOD,
    Event,
    FrameError,
    FrameReader,
)

LARGEST = 4096
OPEN_OK = b"\0\x14\0\x0b\0\0\0\0"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def header(length: int, properties: bytes = b"\0\0") -> bytes:
    return struct.pack(">HHQ", 60, 0, length) + properties


def written(event: Event, size: int) -> bytes:
    """The frames that mean an event, bodies in pieces of `size` bytes."""
    match event:
        case ("ack" | "nack" as kind, channel, tag, multiple):
            method = BASIC_ACK if kind == "ack" else BASIC_NACK
            return frame(METHOD, channel, method + struct.pack(">QB", tag, multiple))
        case ("other", _, data):
            return data
        case ("deliver" | "return" as kind, channel, arguments, properties, body):
            method = BASIC_DELIVER if kind == "deliver" else BASIC_RETURN
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            return b"".join(
                [
                    frame(METHOD, channel, method + arguments),
                    frame(HEADER, channel, header(len(body), properties)),
                    *(frame(BODY, channel, piece) for piece in pieces),
                ]
            )
    raise AssertionError(event)


channels = st.integers(1, 3)
events: st.SearchStrategy[Event] = st.one_of(
    st.tuples(st.sampled_from(["ack", "nack"]), channels, st.integers(0, (1 << 64) - 1), st.booleans()),
    st.tuples(
        st.sampled_from(["deliver", "return"]),
        channels,
        st.binary(max_size=40),
        st.binary(min_size=2, max_size=40),
        st.binary(max_size=100),
    ),
    channels.map(lambda channel: ("other", channel, frame(METHOD, channel, OPEN_OK))),
    st.just(("other", 0, frame(HEARTBEAT, 0, b""))),
)


def fed(pieces: list[bytes]) -> list[Event]:
    reader = FrameReader()
    reader.largest_frame = LARGEST
    return [event for piece in pieces for event in reader.feed(piece)]


@given(st.lists(events, max_size=8), st.integers(1, 120), st.data())
def test_how_the_bytes_are_cut_never_matters(told: list[Event], size: int, data: st.DataObject) -> None:
    stream = b"".join(written(event, size) for event in told)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(pieces) == told
    assert fed([stream[at : at + 1] for at in range(len(stream))]) == told


@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.builds(
                frame,
                st.sampled_from([METHOD, HEADER, BODY, HEARTBEAT]),
                channels,
                st.one_of(
                    st.binary(max_size=30),
                    st.binary(max_size=30).map(BASIC_DELIVER.__add__),
                    st.binary(max_size=13).map(BASIC_ACK.__add__),
                    st.builds(header, st.integers(0, 40), st.binary(max_size=9)),
                ),
            ),
            max_size=6,
        ).map(b"".join),
    ),
    st.data(),
)
def test_garbage_raises_a_frame_error_however_it_is_cut(garbage: bytes, data: st.DataObject) -> None:
    def outcome(pieces: list[bytes]) -> tuple[list[Event], bool]:
        reader = FrameReader()
        reader.largest_frame = LARGEST
        told: list[Event] = []
        try:
            for piece in pieces:
                told += reader.feed(piece)
        except FrameError:
            return [], True
        return told, False

    cut = data.draw(st.integers(0, len(garbage)))
    assert outcome([garbage]) == outcome([garbage[:cut], garbage[cut:]])


def test_frames_of_other_channels_may_stand_between_those_of_a_message() -> None:
    ack = frame(METHOD, 2, BASIC_ACK + struct.pack(">QB", 7, 1))
    beat = frame(HEARTBEAT, 0, b"")
    method, head = frame(METHOD, 1, BASIC_DELIVER + b"x"), frame(HEADER, 1, header(4))
    first, second = frame(BODY, 1, b"ab"), frame(BODY, 1, b"cd")
    assert fed([method + ack + head + beat + first + ack + second]) == [
        ("ack", 2, 7, True),
        ("other", 0, beat),
        ("ack", 2, 7, True),
        ("deliver", 1, b"x", b"\0\0", b"abcd"),
    ]


METHOD_FRAME = frame(METHOD, 1, BASIC_DELIVER + b"x")


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request", "a frame of"),
        (frame(METHOD, 1, OPEN_OK)[:-1] + b"\0", "does not end"),
        (frame(7, 1, b""), "type 7"),
        (frame(BODY, 1, b"x"), "type 3 where none may stand"),
        (METHOD_FRAME + frame(BODY, 1, b"x"), "not where they must be"),
        (METHOD_FRAME + METHOD_FRAME, "interrupted"),
        (METHOD_FRAME + frame(HEADER, 1, header(2)) + frame(BODY, 1, b"xyz"), "a body of a wrong size"),
        (METHOD_FRAME + frame(HEADER, 1, b"\0\x3c"), "a header of a wrong size"),
        (METHOD_FRAME + frame(HEADER, 1, header(1 << 40)), "a message of"),
        (frame(METHOD, 1, BASIC_NACK + b"\0"), "a confirm of a wrong size"),
        (
            struct.pack(">BHI", METHOD, 1, LARGEST + 1) + b"x",
            f"a frame of {LARGEST + 1} bytes; {LARGEST} are the limit",
        ),
    ],
)
def test_what_amqp_does_not_know_is_told(wrong: bytes, complaint: str) -> None:
    with pytest.raises(FrameError, match=complaint):
        fed([wrong])


def test_a_closed_channel_may_leave_a_message_unfinished() -> None:
    reader = FrameReader()
    reader.feed(METHOD_FRAME)
    reader.forget(1)
    assert reader.feed(frame(METHOD, 1, OPEN_OK)) == [("other", 1, frame(METHOD, 1, OPEN_OK))]


def test_a_frame_that_comes_byte_by_byte_is_not_copied_again_for_each() -> None:
    reader = FrameReader()
    body = bytes(1 << 19)
    stream = METHOD_FRAME + frame(HEADER, 1, header(len(body))) + frame(BODY, 1, body)
    told = [event for at in range(0, len(stream), 64) for event in reader.feed(stream[at : at + 64])]
    assert told == [("deliver", 1, b"x", b"\0\0", body)]


def test_a_returned_message_comes_whole() -> None:
    event: Event = ("return", 1, b"\1\x38\x0aNO_ROUTE", b"\0\0", b"body")
    assert fed([written(event, 2)]) == [event]
    assert BASIC_RETURN in written(event, 2)
