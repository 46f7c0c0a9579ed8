"""What a codec reads from a client in one go, and what a codec is.

A codec knows one connection's wire format and nothing of sockets: bytes → batches of requests, answers → bytes. It
keeps what it has not understood yet, and no more than a request may have.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from netd.cache.requests import Answer, Outcome, Problem, Request

Found = Sequence[bytes | Problem | None]
"""The answers to plain gets: each as kept (`netd.cache.layout`), nothing, or why there is none."""

Pairs = list[tuple[bytes, bytes]]
"""Plain sets: each a key and the bytes to keep for it."""

T = TypeVar("T")


class Wired(list[T]):
    """Keys or pairs of a Redis client, with the bytes that asked for them: a Redis understands these as they are."""

    __slots__ = ("wire",)

    def __init__(self, asked: Iterable[T], wire: bytes) -> None:
        super().__init__(asked)
        self.wire = wire


Results = Sequence[bytes | Problem | Outcome]
"""The answers to plain sets: `STORED` each, if all went well."""


@dataclass(slots=True)
class Batch:
    """Requests that are handed on together, and the codec's own notes on how to reply."""

    requests: list[Request]
    forms: list[Any]
    """The codec's; there may be more forms than requests, for what it answers by itself."""
    closes: bool = False
    """After the replies the connection ends: the client said so, or cannot be understood any more."""
    holds: bool = False
    """What comes behind is not asked before this is answered: it ends with a flush, which may take several steps."""


class Codec(Protocol):
    """The wire format of one connection.

    A conversation feeds a read, then draws batches until there are none; reads that are nothing but plain gets, or
    plain sets, take a shorter way. `found`, `stored` and `render` are called in the order of the requests, each when
    everything before it has been replied to.
    """

    def gets(self, data: bytes) -> list[bytes] | None:
        """The keys, when a read is nothing but plain gets of one key each and nothing is left over from earlier reads.

        The hot path; None for any other read, which is then fed.
        """

    def found(self, keys: list[bytes], values: Found) -> bytes:
        """The replies to these gets."""

    def sets(self, data: bytes) -> Pairs | None:
        """The same for a read that is nothing but plain sets. The last may be there in part: it is as good as fed."""

    def stored(self, results: Results) -> bytes:
        """The replies to these sets."""

    def feed(self, data: bytes) -> None:
        """Any other read."""

    def next(self, limit: int) -> Batch | None:
        """The next requests that are there whole, some `limit` of them at most; None when more bytes are needed."""

    def render(self, batch: Batch, answers: Sequence[Answer]) -> bytes:
        """The replies to a batch."""
