"""PROXY headers, as section 2 of HAProxy's doc/proxy-protocol.txt writes them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.proxy import LONGEST_BLOCK, LONGEST_LINE, Header, NoHeader, read_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def block(command: int, kind: int, body: bytes) -> bytes:
    """A version 2 header."""
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body)) + body


IPV4 = bytes([192, 0, 2, 1, 192, 0, 2, 9]) + struct.pack("!HH", 4711, 8001)
IPV6 = bytes.fromhex("20010db8" + "00" * 11 + "01") * 2 + struct.pack("!HH", 4711, 8001)
MAPPED = (bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])) * 2 + struct.pack("!HH", 4711, 8001)
TLV = b"\x05\x00\x03abc"

HEADERS = [
    (b"PROXY TCP4 192.0.2.1 192.0.2.9 4711 8001\r\n", "192.0.2.1", 4711),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 8001\r\n", "2001:db8::1", 4711),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.9 4711 8001\r\n", "192.0.2.1", 4711),
    (b"PROXY UNKNOWN\r\n", "", 0),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "", 0),
    (block(0x21, 0x11, IPV4), "192.0.2.1", 4711),
    (block(0x21, 0x11, IPV4 + TLV), "192.0.2.1", 4711),
    (block(0x21, 0x21, IPV6), "2001:db8::1", 4711),
    (block(0x21, 0x21, MAPPED), "192.0.2.1", 4711),
    (block(0x20, 0x00, b""), "", 0),
    (block(0x20, 0x11, IPV4), "", 0),
    (block(0x21, 0x00, TLV), "", 0),
    (block(0x21, 0x31, b"/run/x".ljust(216, b"\0")), "", 0),
]


@pytest.mark.parametrize(("data", "host", "port"), HEADERS)
def test_a_header_names_the_client(data: bytes, host: str, port: int) -> None:
    assert read_header(data + b"hello") == Header(len(data), host, port)


@pytest.mark.parametrize("data", [data for data, _, _ in HEADERS])
def test_every_part_of_a_header_is_waited_on(data: bytes) -> None:
    assert [read_header(data[:end]) for end in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.0\r\n", "it begins with something else"),
        (b"PRoxy ", "it begins with something else"),
        (b"\r\n\r\n\0\r\nQUITS", "it begins with something else"),
        (b"PROXY TCP4 " + b"1" * LONGEST_LINE, "its line is too long"),
        (b"PROXY \r\n", "its line is malformed"),
        (b"PROXY UDP4 192.0.2.1 192.0.2.9 1 2\r\n", "its line is malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.9 1\r\n", "its line is malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2 3\r\n", "its line is malformed"),
        (b"PROXY TCP4 192.0.2.256 192.0.2.9 1 2\r\n", "its line is malformed"),
        (b"PROXY TCP4 \xff 192.0.2.9 1 2\r\n", "its line is malformed"),
        (b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "its addresses are malformed"),
        (b"PROXY TCP6 fe80::1%\x1b[31m fe80::2 1 2\r\n", "its addresses are malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.9 70000 2\r\n", "its addresses are malformed"),
        (b"PROXY TCP6 fe80::1%\x1b[2J fe80::2 1 2\r\n", "its addresses are malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.9 -1 2\r\n", "its addresses are malformed"),
        (block(0x11, 0x11, IPV4), "its version or command is unknown"),
        (block(0x22, 0x11, IPV4), "its version or command is unknown"),
        (block(0x21, 0x12, IPV4), "it is for another protocol than TCP"),
        (block(0x21, 0x11, IPV4[:-1]), "its addresses are incomplete"),
        (block(0x21, 0x11, IPV4 + bytes(LONGEST_BLOCK)), "it is too long"),
    ],
)
def test_what_is_no_header_is_told(data: bytes, why: str) -> None:
    with pytest.raises(NoHeader, match=f"^{why}$"):
        read_header(data)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x0c"]), st.binary())
def test_garbage_is_no_header_or_incomplete_and_nothing_else(start: bytes, garbage: bytes) -> None:
    try:
        header = read_header(start + garbage)
    except NoHeader:
        return
    assert header is None or header.size <= len(start + garbage)
    assert header is not None or len(start + garbage) < LONGEST_BLOCK
