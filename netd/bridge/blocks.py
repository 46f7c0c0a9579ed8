"""How a block is written: one string of bytes with a checksum.

    count, flags | lengths of bodies | lengths of keys, keys | length of extras, extras (JSON) | bodies

Integers are little-endian. The checksum covers what stands beside the bytes in the spool as well, so that a block that
was written for another place does not pass for one of this.
"""

import json
import struct
import sys
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise

from netd.bridge.messages import Block, Extra, Route

MOST_MESSAGES = 1 << 22
"""In a block, as a bound on what a damaged count may ask for."""

_HEAD = struct.Struct("<IB")
_PLACE = struct.Struct("<QQQQ")
_SIZE = struct.Struct("<I")
_KEYS, _EXTRAS = 1, 2


class BadBlock(Exception):
    """The bytes are not those of a block that was written here; the text says how that shows."""


def encode(block: Block) -> bytes:
    """The bytes of a block."""
    flags = (_KEYS if block.keys is not None else 0) | (_EXTRAS if block.extras else 0)
    parts = [_HEAD.pack(len(block.bodies), flags), _integers("I", list(map(len, block.bodies)))]
    if block.keys is not None:
        parts += [_integers("B", list(map(len, block.keys))), *block.keys]
    if block.extras:
        extras = json.dumps({index: asdict(extra) for index, extra in block.extras.items()}).encode()
        parts += [_SIZE.pack(len(extras)), extras]
    parts += block.bodies
    return b"".join(parts)


def checksum(lane: int, first: int, count: int, accepted: int, data: bytes) -> int:
    """The checksum of a block's bytes at their place; raises BadBlock where such a place, or such bytes, cannot be."""
    try:
        return zlib.crc32(data, zlib.crc32(_PLACE.pack(lane, first, count, accepted)))
    except (struct.error, TypeError) as error:
        raise BadBlock(f"unreadable: {error}") from None


def decode(route: Route, origin: str, first: int, accepted: int, data: bytes) -> Block:
    """The block that was encoded; raises BadBlock. The checksum has been verified."""
    try:
        return _decode(route, origin, first, accepted, data)
    except (struct.error, ValueError, TypeError, RecursionError) as error:
        raise BadBlock(f"unreadable: {error}") from None


def _decode(route: Route, origin: str, first: int, accepted: int, data: bytes) -> Block:
    count, flags = _HEAD.unpack_from(data)
    if not 0 < count <= MOST_MESSAGES:
        raise BadBlock(f"a count of {count}")
    at = _HEAD.size
    lengths, at = _read(data, at, "I", count)
    keys: Sequence[bytes] | None = None
    extras: Mapping[int, Extra] | None = None
    if flags & _KEYS:
        key_lengths, at = _read(data, at, "B", count)
        keys, at = _cut(data, at, key_lengths)
    if flags & _EXTRAS:
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        extras = _read_extras(data[at : at + size], count)
        at += size
    bodies, at = _cut(data, at, lengths)
    if at != len(data):
        raise BadBlock(f"{len(data)} bytes for {at}")
    return Block(route, origin, first, accepted, bodies, keys=keys, extras=extras)


def _read_extras(data: bytes, count: int) -> Mapping[int, Extra]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise BadBlock("extras that are no table")
    extras = {int(index): Extra(**fields) for index, fields in found.items()}
    for index, extra in extras.items():
        texts = extra.message_id, extra.peer, extra.netd_id
        if not (
            0 <= index < count and isinstance(extra.headers, dict) and all(isinstance(each, str) for each in texts)
        ):
            raise BadBlock(f"extras of message {index} that are none")
    return extras


def _integers(code: str, values: list[int]) -> bytes:
    numbers = array(code, values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _read(data: bytes, at: int, code: str, count: int) -> tuple[Sequence[int], int]:
    numbers = array(code)
    end = at + count * numbers.itemsize
    numbers.frombytes(data[at:end])
    if sys.byteorder == "big":
        numbers.byteswap()
    if len(numbers) != count:
        raise BadBlock("too short")
    return numbers, end


def _cut(data: bytes, at: int, lengths: Sequence[int]) -> tuple[list[bytes], int]:
    ends = list(accumulate(lengths, initial=at))
    return [data[start:end] for start, end in pairwise(ends)], ends[-1]
