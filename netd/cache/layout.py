r"""How a value is kept: one run of bytes that both dialects and every store share.

Mostly it is the bare value, so that what a memcached client wrote is what redis-cli reads, and the other way round.
Only a value with more to it, client flags or a mark of the meta commands, has a header of nine bytes before it:

    \0 N D \1   state   flags, 32 bits, big-endian   the value

A bare value that happens to begin with the same four bytes is given a header too, so that reading is never in doubt.
"""

from struct import Struct
from typing import Final

MARK: Final = b"\0ND\1"
HEADER_SIZE: Final = 9

STALE: Final = 1
"""State: marked by `md … I`, or written behind a newer item by `ms … I`."""
TAKEN: Final = 2
"""State: a client has been told that it is the one to renew the item."""

_HEADER = Struct(">4sBI")


def keep(value: bytes, flags: int = 0, state: int = 0) -> bytes:
    """The bytes to keep for a value."""
    if flags or state or value.startswith(MARK):
        return _HEADER.pack(MARK, state, flags) + value
    return value


def value_of(kept: bytes) -> bytes:
    """The value alone."""
    return kept[HEADER_SIZE:] if kept.startswith(MARK) and len(kept) >= HEADER_SIZE else kept


def read(kept: bytes) -> tuple[bytes, int, int]:
    """Value, flags and state."""
    if kept.startswith(MARK) and len(kept) >= HEADER_SIZE:
        _, state, flags = _HEADER.unpack_from(kept)
        return kept[HEADER_SIZE:], flags, state
    return kept, 0, 0
