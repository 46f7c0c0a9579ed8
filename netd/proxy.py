"""The PROXY protocol: the header by which a load balancer says for whom it connects. Bytes in, an address out.

Both versions of HAProxy's doc/proxy-protocol.txt are read (sections 2.1 and 2.2), however the bytes are cut. What
follows the addresses in version 2 (TLVs, section 2.2) is skipped.
"""

import ipaddress
import struct
from dataclasses import dataclass

LONGEST_LINE = 107
"""Bytes of a version 1 header with its CRLF (section 2.1)."""

LONGEST_BLOCK = 4096
"""Bytes of a version 2 header. Addresses take at most 232 (section 2.2); certificates' names and the like follow."""

HIGHEST_PORT = 65535

_LINE = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_START = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_UNKNOWN_PROTOCOL = 0x00
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31
_ADDRESSES = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}
_VERSIONS = {b"TCP4": 4, b"TCP6": 6}


class NoHeader(ValueError):
    """The bytes are no PROXY header; the text says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """A header, which takes the first `size` bytes. `host` is "" when it names no client with an IP address."""

    size: int
    host: str = ""
    port: int = 0


def read_header(data: bytes) -> Header | None:
    """The header that `data` begins with, None while it is incomplete; raises NoHeader as soon as it cannot be one."""
    if data.startswith(_LINE):
        return _read_line(data)
    if data.startswith(_SIGNATURE):
        return _read_block(data)
    if _LINE.startswith(data) or _SIGNATURE.startswith(data):
        return None
    raise NoHeader("it begins with something else")


def _read_line(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0:
        if len(data) >= LONGEST_LINE:
            raise NoHeader("its line is too long")
        return None
    size = end + len(b"\r\n")
    protocol, *words = data[len(_LINE) : end].split(b" ")
    if protocol == b"UNKNOWN":
        return Header(size)
    try:
        source, destination, port, other_port = (word.decode("ascii") for word in words)
        version = _VERSIONS[protocol]
        addresses = [ipaddress.ip_address(each) for each in (source, destination) if "%" not in each]
        ports = [int(each) for each in (port, other_port) if each.isdecimal() and int(each) <= HIGHEST_PORT]
    except (ValueError, KeyError):
        raise NoHeader("its line is malformed") from None
    scoped = b"%" in data[:end]  # a link's name behind an address, which is ipaddress's and not the protocol's
    if [each.version for each in addresses] != [version, version] or len(ports) != len(addresses) or scoped:
        raise NoHeader("its addresses are malformed")
    return Header(size, _name(addresses[0]), ports[0])


def _read_block(data: bytes) -> Header | None:
    if len(data) < _START.size:
        return None
    _, command, kind, length = _START.unpack_from(data)
    size = _START.size + length
    if command not in {_LOCAL, _PROXY}:
        raise NoHeader("its version or command is unknown")
    if size > LONGEST_BLOCK:
        raise NoHeader("it is too long")
    if len(data) < size:
        return None
    if command == _LOCAL or kind in {_UNKNOWN_PROTOCOL, _UNIX}:
        return Header(size)
    if kind not in _ADDRESSES:
        raise NoHeader("it is for another protocol than TCP")
    if length < _ADDRESSES[kind].size:
        raise NoHeader("its addresses are incomplete")
    source, _, port, _ = _ADDRESSES[kind].unpack_from(data, _START.size)
    return Header(size, _name(ipaddress.ip_address(source)), port)


def _name(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """As who connects by himself is named: an IPv4 address in IPv6, ::ffff:192.0.2.1, is one of IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
