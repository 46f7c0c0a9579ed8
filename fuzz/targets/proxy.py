"""The PROXY protocol's header, before a client's own bytes."""

import ipaddress
from itertools import accumulate

from fuzz.target import pieces
from netd.proxy import LONGEST_BLOCK, NoHeader, read_header

LONGEST = 1024
WORDS = (
    *(b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"127.0.0.1 ", b"::1 ", b"1 ", b"65535", b"\r\n"),
    *(b"\r\n\r\n\0\r\nQUIT\n", b"\x20", b"\x21\x11\0\x0c", b"\x21\x21\0\x24", b"\x21\x31\0\xd8"),
)


def check(data: bytes) -> None:
    """A header or none, whatever came when; an address is an address."""
    assert _read(data) == _read_in_pieces(data)


def _read(data: bytes) -> tuple[object, ...]:
    try:
        header = read_header(data)
    except NoHeader:
        return ("none",)
    if header is None:
        assert len(data) < LONGEST_BLOCK
        return ("more",)
    assert 0 < header.size <= min(len(data), LONGEST_BLOCK)
    assert 0 <= header.port < 1 << 16
    if header.host:
        assert str(ipaddress.ip_address(header.host)) == header.host
        assert set(header.host) <= set("0123456789abcdef.:"), "an address that is more than one"
    return header.size, header.host, header.port


def _read_in_pieces(data: bytes) -> tuple[object, ...]:
    found: tuple[object, ...] = ("more",)
    for known in accumulate(pieces(data)):
        found = _read(known)
        if found != ("more",):
            break
    return found
