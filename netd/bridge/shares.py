"""Who is told what of the lines he sent: shares of blocks, and when each is done."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Protocol


class Client(Protocol):
    """Who sent lines and waits for word of them."""

    def share_done(self, share: "Share") -> None:
        """Every message of a share is on disk; or confirmed, where that is asked for."""

    def message_dead(self, number: int, reason: str) -> None:
        """The message of this line has become a dead letter. Told only where confirms are asked for, before `done`."""


class Share:
    """What one read from one client added to a lane: consecutive messages, and the last line they came with."""

    __slots__ = ("client", "confirmed", "done", "first", "last", "left", "numbers", "upto")

    def __init__(self, client: Client, upto: int, first: int, numbers: Sequence[int], *, confirmed: bool) -> None:
        self.client = client
        self.confirmed = confirmed
        """Whether the client waits for the broker's word, not only the disk's."""
        self.upto = upto
        """The number of the client's last line in it, messages or not."""
        self.first = first
        """The lane's number of its first message."""
        self.last = first + len(numbers) - 1
        self.numbers = numbers
        """The client's line of each message."""
        self.left = len(numbers)
        """Messages that have come to no end yet."""
        self.done = False


class Shares:
    """The shares of a lane whose messages have not all come to an end, in order."""

    def __init__(self) -> None:
        self._shares: list[Share] = []

    def __len__(self) -> int:
        return len(self._shares)

    def add(self, share: Share) -> None:
        """One more, whose messages come after those of all the others."""
        self._shares.append(share)

    def settle(self, first: int, last: int) -> None:
        """Messages have come to an end; clients are told of the shares that this completes."""
        finished = 0
        for share in self._overlapping(first, last):
            share.left -= min(last, share.last) - max(first, share.first) + 1
            if not share.left:
                finished += 1
                share.client.share_done(share)
        if finished:
            self._drop_finished()

    def bury(self, number: int, reason: str) -> None:
        """Tell the client of a message that it has become a dead letter."""
        for share in self._overlapping(number, number):
            share.client.message_dead(share.numbers[number - share.first], reason)

    def _overlapping(self, first: int, last: int) -> Iterator[Share]:
        at = max(0, bisect_right(self._shares, first, key=lambda share: share.first) - 1)
        while at < len(self._shares) and self._shares[at].first <= last:
            if self._shares[at].last >= first:
                yield self._shares[at]
            at += 1

    def _drop_finished(self) -> None:
        at = 0
        while at < len(self._shares) and not self._shares[at].left:
            at += 1
        del self._shares[:at]
