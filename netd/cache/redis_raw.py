"""Redis's replies as they stand on the wire: cut apart and passed on as they are, but for the headers of values."""

from collections.abc import Iterator
from typing import Final

from netd.cache.layout import HEADER_SIZE, MARK

LARGEST_REPLY = 512 << 20
"""Bytes of one reply that are gathered at most: the largest string that Redis keeps."""

_BULKS: Final = frozenset(b"$=!")
_COUNTS: Final = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}
"""Types that announce more replies, and how many for each they count."""


class NotRedis(Exception):
    """These bytes are no replies."""


class RawReplies:
    """Bytes from Redis → replies, each whole. Works on from where it stopped, however the bytes are cut.

    `headers`: whether values may have one, which is taken out.
    """

    def __init__(self, *, headers: bool = True) -> None:
        self._headers = headers
        self._buffer = bytearray()
        self._at = 0
        self._open: list[int] = []

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes and yield the replies that are whole by now. Raises NotRedis."""
        self._buffer += data
        while self._step():
            if not self._open:
                reply = bytes(self._buffer[: self._at])
                del self._buffer[: self._at]
                self._at = 0
                yield reply
        if len(self._buffer) > LARGEST_REPLY:
            raise NotRedis("a reply that never ends")

    def _step(self) -> bool:
        """Pass over the next element of a reply, if it is there whole."""
        buffer, at = self._buffer, self._at
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return False
        kind, end = buffer[at], line + 2
        try:
            more = 0
            if kind in _BULKS:
                size = int(buffer[at + 1 : line])
                if size >= 0:
                    end = self._bulk(at, end, size)
            elif kind in _COUNTS:
                more = max(0, int(buffer[at + 1 : line])) * _COUNTS[kind]
            elif kind not in b"+-:_,#(":
                raise NotRedis("what stands at the address is no Redis")
        except ValueError:
            raise NotRedis("what stands at the address is no Redis") from None
        if not end:
            return False
        self._at = end
        self._close(more, attribute=kind == ord("|"))
        return True

    def _bulk(self, at: int, start: int, size: int) -> int:
        """Where a bulk string ends, its header taken out; 0 when it is not there whole."""
        buffer = self._buffer
        end = start + size + 2
        if end > len(buffer):
            return 0
        if self._headers and size >= HEADER_SIZE and buffer.startswith(MARK, start):
            head = b"$%d\r\n" % (size - HEADER_SIZE)
            buffer[at : start + HEADER_SIZE] = head
            return at + len(head) + size - HEADER_SIZE + 2
        return end

    def _close(self, more: int, *, attribute: bool) -> None:
        """One element is passed; `more` elements belong to it."""
        open_ = self._open
        if attribute:
            more += 1  # what it is an attribute of
        if more:
            open_.append(more)
            return
        while open_:
            open_[-1] -= 1
            if open_[-1]:
                return
            open_.pop()
