"""SSH's own notation (RFC 4251, section 5): reading it strictly, writing it."""

import struct

_UINT32 = struct.Struct(">L")


class Malformed(Exception):
    """Bytes that are not what their place in the protocol asks for."""


class Reader:
    """Reads a payload from front to back; every method raises Malformed when there is not enough."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.left:
            raise Malformed("a message is shorter than it says")
        self._at += count
        return self._data[self._at - count : self._at]

    def uint32(self) -> int:
        """A number."""
        return int.from_bytes(self.take(4), "big")

    def boolean(self) -> bool:
        """A byte that is 0 or not."""
        return self.take(1) != b"\0"

    def string(self) -> bytes:
        """Bytes behind their length. The messages of a log-in are made of these: hence no calls."""
        data, start = self._data, self._at + 4
        self._at = end = start + int.from_bytes(data[self._at : start], "big")
        if end > len(data) or start > len(data):
            raise Malformed("a message is shorter than it says")
        return data[start:end]

    def names(self) -> list[bytes]:
        """A list of names."""
        return self.string().split(b",")

    def end(self) -> None:
        """There must be nothing left."""
        if self.left:
            raise Malformed("a message is longer than it says")


def uint32(number: int) -> bytes:
    """A number."""
    return _UINT32.pack(number)


def string(data: bytes) -> bytes:
    """Bytes behind their length."""
    return _UINT32.pack(len(data)) + data
