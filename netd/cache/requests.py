"""What clients ask and what stores answer, in values that belong to no wire format.

Two dialects share them. memcached's requests are those of its meta commands (protocol.txt, "Meta Commands"): the
classic ones are special cases, `touch` a `Fetch` that wants nothing, `incr` an `Arithmetic` without options. A Redis
client's request is a `Command`, the words as they came.

The hot paths are bare. A plain get of one key, by far the most frequent request, is not an object: it *is* the key, as
bytes, in both dialects. Its answer is the value as it is kept (`netd.cache.layout`), or None. A plain set, without time
to live or conditions, is a pair: the key, and what is to be kept.

| request | answers |
|---|---|
| a key | bytes as kept, None, `Problem` |
| (key, bytes to keep) | `STORED`, `Outcome`, `Problem` |
| `Fetch` | `Hit`, None, `Problem` |
| `Put` | `Outcome`, `Written` where UNIQUE is wanted and it was stored, `Problem` |
| `Delete` | `Outcome`, `Problem` |
| `Arithmetic` | `Counted`, `Outcome`, `Problem` |
| `Flush` | `Outcome.DONE`, `Problem` |
| `Command` | `Reply`, among them `Problem` |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final, Literal, TypeAlias

LONGEST_KEY = 250
"""Bytes of a key in memcached's dialect (protocol.txt, "Keys"); Redis's have no such limit."""

# What a `Fetch` or `Put` wants to know; a store may have to pay for each. Plain integers, for the hot path.
VALUE: Final = 1
UNIQUE: Final = 2
TTL: Final = 4
HISTORY: Final = 8
"""When it was fetched last, and whether it ever was."""

Mode = Literal["set", "add", "replace", "append", "prepend"]


@dataclass(slots=True)
class Fetch:
    """Look at an item and perhaps change its time to live: `gets`, `gat`, `touch`, `mg`, `me`.

    Times are memcached's *exptimes*, as `deadline_of` explains.
    """

    key: bytes
    wants: int = VALUE
    touch: int | None = None
    """The new exptime of an item that is there."""
    vivify: int | None = None
    """When nothing is there: make an empty item with this exptime; the asker wins it. `touch` does not matter then."""
    recache: int | None = None
    """The asker wins an item that expires before this exptime, unless somebody has won it already."""
    unique: int | None = None
    """The CAS unique that an item made by `vivify` gets, in place of the store's next one."""
    touch_first: bool = True
    """Whether `touch` comes before `recache` looks at the deadline; the flags of `mg` work in the client's order."""
    peek: bool = False
    """Do not count this as an access: for `me` and `mg … u`."""


@dataclass(slots=True)
class Hit:
    """The item that a `Fetch` found or made. What was not wanted may be unset."""

    value: bytes
    flags: int = 0
    unique: int = 0
    ttl: int = -1
    """Whole seconds left, rounded up, -1 for ever: after `touch`."""
    old_ttl: int = -1
    """The same before it; -1 for an item that was made."""
    made: bool = False
    """Whether `vivify` made it just now."""
    fetched: bool = False
    """Whether anybody had fetched it before."""
    idle: int = 0
    """Whole seconds since it was accessed before."""
    won: bool = False
    """W: the asker is the one to renew it."""
    stale: bool = False
    """X: it was marked stale by a `Delete`, or written behind a newer one."""
    taken: bool = False
    """Z: somebody else has won it already."""
    size: int = 0
    """What it takes in memory, where a store knows: for `me`."""


@dataclass(slots=True)
class Put:
    """Write a value: `set`, `add`, `replace`, `append`, `prepend`, `cas`, `ms`."""

    key: bytes
    value: bytes
    flags: int = 0
    exptime: int = 0
    mode: Mode = "set"
    compare: int | None = None
    """Only over an item with this CAS unique; a "set" needs one that is there: `cas`. Not with "add", "replace"."""
    invalidate: bool = False
    """With `compare`: write over a newer item too, but mark what is written as stale (`ms … I`)."""
    unique: int | None = None
    """The CAS unique that it gets, in place of the store's next one."""
    wants: int = 0


@dataclass(slots=True)
class Delete:
    """Remove an item, or mark it stale: `delete`, `md`."""

    key: bytes
    compare: int | None = None
    invalidate: bool = False
    """Do not remove it: mark it stale, give it a new CAS unique, and let the next one who fetches it win."""
    touch: int | None = None
    """With `invalidate`: its new exptime."""
    unique: int | None = None


@dataclass(slots=True)
class Arithmetic:
    """Add to a decimal number of 64 bits, or take from it: `incr`, `decr`, `ma`.

    Adding wraps around at 2**64, taking stops at 0 (protocol.txt, "Increment/Decrement"). The result is never padded
    with spaces. Answers `Outcome.NOT_A_NUMBER` where the value is none.
    """

    key: bytes
    delta: int = 1
    down: bool = False
    compare: int | None = None
    vivify: int | None = None
    """When nothing is there, make an item of `initial` with this exptime."""
    initial: int = 0
    touch: int | None = None
    unique: int | None = None


@dataclass(slots=True)
class Flush:
    """Forget every item, now or in `delay` seconds: `flush_all`. Where it is not allowed: `Outcome.NOT_ALLOWED`."""

    delay: int = 0


@dataclass(slots=True)
class Command:
    """A Redis client's request: the command's name, in whatever case it was given, and its arguments."""

    words: list[bytes]


class Outcome(IntEnum):
    """How a request ended that has no more to tell. Integers, as their hash is on the hot path."""

    DONE = auto()
    """Stored, deleted, flushed."""
    NOT_STORED = auto()
    """The condition of the mode was not met."""
    EXISTS = auto()
    """The item has another CAS unique."""
    NOT_FOUND = auto()
    NOT_A_NUMBER = auto()
    TOO_LARGE = auto()
    """Larger than `max_item_size`. A plain "set" has removed what stood under the key, as in memcached."""
    NO_ROOM = auto()
    """The store is full and evicts nothing."""
    NOT_ALLOWED = auto()


@dataclass(slots=True)
class Written:
    """A `Put` was done, and this is the item's CAS unique."""

    unique: int


@dataclass(slots=True)
class Counted:
    """The number that an `Arithmetic` made, and what was wanted beside it."""

    number: int
    unique: int = 0
    ttl: int = -1
    """As in a `Hit`."""
    old_ttl: int = -1
    made: bool = False


# --- Redis replies


@dataclass(frozen=True, slots=True)
class Problem:
    """In place of an answer: `SERVER_ERROR text` to a memcached client, `-CODE text` to a Redis client.

    A store that cannot reach its server answers with one, and never raises.
    """

    text: bytes
    code: bytes = b"ERR"


@dataclass(frozen=True, slots=True)
class Status:
    """A Redis simple string, such as OK."""

    text: bytes


OK: Final = Status(b"OK")

Reply: TypeAlias = "bytes | int | float | bool | Status | Problem | Sequence[Reply] | dict[bytes, Reply] | None"
"""What a `Command` is answered with, whichever store did it; `netd.cache.resp` puts it on the wire, in RESP2 or RESP3.
Bytes are a bulk string *without* the header of `netd.cache.layout`."""

STORED: Final = b"OK"
"""The answer to a plain set: Redis's own word, so that it need not be looked at one by one."""

Request: TypeAlias = bytes | tuple[bytes, bytes] | Fetch | Put | Delete | Arithmetic | Flush | Command
Answer: TypeAlias = "Hit | Outcome | Written | Counted | Reply"

# --- time

LONGEST_RELATIVE = 30 * 86400
"""An exptime up to this is relative, a larger one a Unix time (protocol.txt, "Expiration times")."""

NEVER: Final = 0.0


def deadline_of(exptime: int, now: float) -> float:
    """The Unix time at which an item with a memcached exptime is gone, `NEVER` (0.0) for one that stays.

    0 is for ever, up to thirty days relative to `now`, more a Unix time; a negative one is gone at once (it was stored
    all the same, and the client is told so).
    """
    if exptime == 0:
        return NEVER
    if exptime < 0:
        return now
    return float(exptime) if exptime > LONGEST_RELATIVE else now + exptime


# --- size

ITEM_HEADER = 59
"""What memcached 1.6 counts beside key and value: its item header, a CAS unique, a NUL and CR LF."""
FLAGS_SIZE = 4


def item_size(key: bytes, length: int, flags: int = 0) -> int:
    """What an item with a value of `length` bytes counts for against `max_item_size`: as in memcached with `-I`."""
    return len(key) + length + ITEM_HEADER + (FLAGS_SIZE if flags else 0)
