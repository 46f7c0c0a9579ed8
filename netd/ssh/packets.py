"""From a stream of bytes to packets: the version line, then packet after packet, whatever way the bytes are cut."""

from netd.ssh.ciphers import LARGEST_PACKET, Opener, unpad
from netd.ssh.wire import Malformed

LONGEST_VERSION = 255
"""Bytes of the version line with its end (RFC 4253, section 4.2)."""
SEQUENCE_MASK = 0xFFFFFFFF


class PacketReader:
    """Keeps what has not been read yet. The opener may change between any two packets."""

    def __init__(self, opener: Opener) -> None:
        self.opener = opener
        self.sequence = 0
        """Of the next packet; wraps at 2**32."""
        self.taken = 0
        """Bytes that the last packet had on the wire."""
        self._buffer = b""
        self._at = 0
        self._length = -1

    def feed(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0

    def version(self) -> bytes | None:
        """The client's version line without its end; None while it is not all there. A client sends nothing before."""
        end = self._buffer.find(b"\n", 0, LONGEST_VERSION)
        if end < 0:
            if len(self._buffer) >= LONGEST_VERSION or not b"SSH-".startswith(self._buffer[:4]):
                raise Malformed("no SSH version")
            return None
        line = self._buffer[:end].removesuffix(b"\r")
        if not line.startswith((b"SSH-2.0-", b"SSH-1.99-")) or not line.isascii() or b"\0" in line:
            raise Malformed("no SSH-2.0 version")
        self._at = end + 1
        return line

    def next(self) -> bytes | None:
        """The payload of the next packet, at least a byte; None while it is not all there.

        Raises Malformed, or BadSeal; nothing more can be read then.
        """
        opener = self.opener
        start = self._at
        there = len(self._buffer) - start
        if self._length < 0:
            if there < 4:  # noqa: PLR2004 - a length
                return None
            self._length = opener.length(self.sequence, self._buffer[start : start + 4])
            counted = self._length + (4 if opener.tag == 0 else 0)
            if not opener.block <= self._length <= LARGEST_PACKET or counted % opener.block:
                raise Malformed("a packet of impossible length")
        total = 4 + self._length + opener.tag
        if there < total:
            return None
        body = opener.open(self.sequence, self._buffer[start : start + total])
        self._at += total
        self._length = -1
        self.taken = total
        self.sequence = (self.sequence + 1) & SEQUENCE_MASK
        return unpad(body)
