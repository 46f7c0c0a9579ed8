"""AMQP 0-9-1's frames, as far as many pass a second: what a broker confirms, refuses, returns and delivers.

A frame is a type, a channel, a size, that many bytes of payload and 0xCE. A message is a method frame, a header frame
(class, weight, size of the body, properties) and as many body frames as the body needs. `FrameReader` tells confirms
and whole messages; every other frame comes as its bytes, for the library that knows the rest of the protocol.

Tuples rather than classes, and one long function for a message that lies whole in what was read: this is what netd does
for each message that is consumed, and two thirds of the time would go into constructors and calls.
"""

import struct
from collections.abc import Callable
from typing import Literal, TypeAlias

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
OVERHEAD = 8
"""Bytes of a frame beside its payload."""

BASIC = 60
BASIC_PUBLISH = b"\0\x3c\0\x28"
BASIC_RETURN = b"\0\x3c\0\x32"
BASIC_DELIVER = b"\0\x3c\0\x3c"
BASIC_ACK = b"\0\x3c\0\x50"
BASIC_NACK = b"\0\x3c\0\x78"
"""Class and method, as a method frame's payload begins."""

LARGEST_FRAME = 1 << 20
"""Bytes of a frame at most before a size is agreed upon; RabbitMQ then offers 128 KiB."""

LARGEST_BODY = 512 << 20
"""Bytes of a message at most: RabbitMQ's own limit (rabbit.hrl, MAX_MSG_SIZE)."""

SMALLEST_HEADER = 14
"""Bytes of a header frame's payload at least: class, weight, size of the body, flags."""

_FRAME = struct.Struct(">BHI")
_HEADER = struct.Struct(">BHIHHQ")
_CONFIRM = struct.Struct(">QB")


class FrameError(Exception):
    """Bytes that are no AMQP frames, or frames in an order that AMQP does not know."""


Acked: TypeAlias = tuple[Literal["ack", "nack"], int, int, bool]
"""A broker's word on what was published: channel, tag, and whether it holds for all before it too."""
Content: TypeAlias = tuple[Literal["deliver", "return"], int, bytes, bytes, bytes]
"""A message: channel, the method's arguments, the properties, the body."""
Other: TypeAlias = tuple[Literal["other"], int, bytes]
"""Any other frame: channel, its bytes."""
Event: TypeAlias = Acked | Content | Other


class _Partial:
    """A message whose frames have not all come."""

    __slots__ = ("arguments", "body", "kind", "missing", "properties")

    def __init__(self, kind: Literal["deliver", "return"], arguments: bytes) -> None:
        self.kind = kind
        self.arguments = arguments
        self.properties = b""
        self.missing = -1  # bytes of the body; -1: the header has not come
        self.body: list[bytes] = []


class FrameReader:
    """Bytes from a broker → what they say, in order, however they are cut."""

    def __init__(self) -> None:
        self.largest_frame = LARGEST_FRAME
        self._rest = bytearray()
        self._needed = 0
        self._partial: dict[int, _Partial] = {}

    def forget(self, channel: int) -> None:
        """The channel is closed: what it began to send will not be completed."""
        self._partial.pop(channel, None)

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes complete; FrameError, and then this reader is of no use any more."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        events: list[Event] = []
        at = self._read(data, events)
        if at < len(data):
            self._rest += data[at:]
            self._needed = self._wanted(data, at)
        return events

    def _wanted(self, data: bytes, at: int) -> int:
        """How many bytes from `at` on it takes to know more."""
        if len(data) - at < _FRAME.size:
            return _FRAME.size
        return self._checked(int.from_bytes(data[at + 3 : at + 7], "big")) + OVERHEAD

    def _checked(self, size: int) -> int:
        if size > self.largest_frame:
            raise FrameError(f"a frame of {size} bytes; {self.largest_frame} are the limit")
        return size

    def _read(self, data: bytes, events: list[Event]) -> int:
        """Read whole frames; returns where the first one begins that is not whole."""
        end = len(data)
        at = 0
        tell = events.append
        unpack = _FRAME.unpack_from
        partial = self._partial
        while end - at >= OVERHEAD:
            kind, channel, size = unpack(data, at)
            if size > self.largest_frame:
                self._checked(size)
            after = at + size + OVERHEAD
            if after > end:
                break
            if data[after - 1] != FRAME_END:
                raise FrameError("a frame does not end as it must")
            if kind == METHOD:
                if data[at + 7 : at + 11] == BASIC_DELIVER and not partial:
                    whole = self._whole_content(data, after, end, channel)
                    if whole is not None:
                        properties, body, end_of_body = whole
                        tell(("deliver", channel, data[at + 11 : after - 1], properties, body))
                        at = end_of_body
                        continue
                self._method(channel, data[at:after], tell)
            elif kind in {HEADER, BODY} and channel in partial:
                self._content(kind, channel, data[at + 7 : after - 1], tell)
            elif kind == HEARTBEAT:
                tell(("other", channel, data[at:after]))
            else:
                raise FrameError(f"a frame of type {kind} where none may stand")
            at = after
        return at

    def _whole_content(self, data: bytes, at: int, end: int, channel: int) -> tuple[bytes, bytes, int] | None:
        """Properties, body and end of a message whose header is here and whose body follows in one frame.

        Nearly all messages lie so. None for others, wrong ones among them: they are read frame by frame.
        """
        if end - at <= _HEADER.size:
            return None
        kind, same_channel, size, _, _, length = _HEADER.unpack_from(data, at)
        body = at + size + OVERHEAD + _FRAME.size
        after = body + length
        if (
            after < end
            and _FRAME.unpack_from(data, body - 7) == (BODY, channel, length)
            and (kind, same_channel) == (HEADER, channel)
            and size >= SMALLEST_HEADER
            and data[after] == data[body - 8] == FRAME_END
            and 0 < length <= self.largest_frame >= size
        ):
            return data[at + 19 : body - 8], data[body:after], after + 1
        return None

    def _method(self, channel: int, frame: bytes, tell: Callable[[Event], None]) -> None:
        if channel in self._partial and channel:
            raise FrameError("a message is interrupted")
        method = frame[7:11]
        if method in {BASIC_ACK, BASIC_NACK}:
            if len(frame) != OVERHEAD + 13:
                raise FrameError("a confirm of a wrong size")
            tag, flags = _CONFIRM.unpack_from(frame, 11)
            tell(("ack" if method == BASIC_ACK else "nack", channel, tag, bool(flags & 1)))
        elif method == BASIC_DELIVER:
            self._partial[channel] = _Partial("deliver", frame[11:-1])
        elif method == BASIC_RETURN:
            self._partial[channel] = _Partial("return", frame[11:-1])
        else:
            tell(("other", channel, frame))

    def _content(self, kind: int, channel: int, payload: bytes, tell: Callable[[Event], None]) -> None:
        partial = self._partial[channel]
        if (kind == HEADER) != (partial.missing < 0):
            raise FrameError("a message's header and body are not where they must be")
        if kind == HEADER:
            if len(payload) < SMALLEST_HEADER:
                raise FrameError("a header of a wrong size")
            partial.missing = int.from_bytes(payload[4:12], "big")
            if partial.missing > LARGEST_BODY:
                raise FrameError(f"a message of {partial.missing} bytes; {LARGEST_BODY} are the limit")
            partial.properties = payload[12:]
        else:
            partial.missing -= len(payload)
            if partial.missing < 0 or not payload:
                raise FrameError("a body of a wrong size")
            partial.body.append(payload)
        if not partial.missing:
            del self._partial[channel]
            tell((partial.kind, channel, partial.arguments, partial.properties, b"".join(partial.body)))
