"""Which messages of a channel still wait for the broker's word.

A channel numbers what is published on it from 1, the delivery tags; the broker confirms by tag, one by one or all up to
one, in any order. Messages have numbers of their own, and mostly they run in parallel to the tags: a *run* is a stretch
of tags whose messages are consecutive. Everything is ranges, so that a confirm of ten thousand messages costs what one
of a single message does.
"""

from collections import deque
from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""First and last of consecutive numbers."""


class NeverSent(Exception):
    """The broker speaks of a message that was not published."""


class Ledger:
    """Tags given out, and those settled. Ranges that it takes and returns are of message numbers."""

    def __init__(self) -> None:
        self._runs: deque[Range] = deque()  # first tag, first number; a run ends where the next one begins
        self._low = 1  # all tags before it are settled
        self._next = 1
        self._early: set[int] = set()  # settled tags after `_low`

    @property
    def waiting(self) -> int:
        """How many messages are not settled."""
        return self._next - self._low - len(self._early)

    @property
    def last_tag(self) -> int:
        """The last tag given out."""
        return self._next - 1

    def sent(self, first: int, last: int) -> None:
        """Messages were published in this order."""
        if not self._runs or self._runs[-1][0] - self._runs[-1][1] != self._next - first:
            self._runs.append((self._next, first))
        self._next += last - first + 1

    def settle(self, tags: Iterable[int]) -> list[Range]:
        """The messages with these tags are settled; returns those that were not before."""
        low, early = self._low, self._early
        fresh = sorted({tag for tag in tags if tag >= low and tag not in early})
        if fresh and fresh[-1] >= self._next:
            raise NeverSent(f"tag {fresh[-1]} of {self._next - 1}")
        spans = list(_spans(fresh))
        for first, last in spans:
            if first == self._low:
                self._advance(last + 1)
            else:
                early.update(range(first, last + 1))
        return [numbers for span in spans for numbers in self._numbers(*span)]

    def settle_up_to(self, tag: int) -> list[Range]:
        """All messages up to this tag are settled, to the last one if it is 0; returns those that were not before."""
        tag = tag or self._next - 1
        if tag >= self._next:
            raise NeverSent(f"tag {tag} of {self._next - 1}")
        settled = [numbers for span in self._open(tag) for numbers in self._numbers(*span)]
        if tag >= self._low:
            self._early = {each for each in self._early if each > tag}
            self._advance(tag + 1)
        return settled

    def settle_number(self, number: int) -> bool:
        """A message is settled; False if it did not wait."""
        tag = self._tag(number)
        return tag is not None and bool(self.settle([tag]))

    def waits(self, number: int) -> bool:
        """Whether a message is not settled."""
        tag = self._tag(number)
        return tag is not None and tag >= self._low and tag not in self._early

    def _tag(self, number: int) -> int | None:
        """The tag that a message was given last."""
        end = self._next
        for first_tag, first in reversed(self._runs):
            tag = first_tag + number - first
            if first_tag <= tag < end:
                return tag
            end = first_tag
        return None

    def settle_all(self) -> list[Range]:
        """Nobody will tell any more; returns what still waited."""
        return self.settle_up_to(0) if self.waiting else []

    def _open(self, tag: int) -> Iterator[Range]:
        """The spans of tags up to this one that are not settled."""
        first = self._low
        for early in sorted(each for each in self._early if each <= tag):
            if early > first:
                yield first, early - 1
            first = early + 1
        if first <= tag:
            yield first, tag

    def _advance(self, low: int) -> None:
        early = self._early
        while low in early:
            early.remove(low)
            low += 1
        self._low = low

    def _numbers(self, first_tag: int, last_tag: int) -> Iterator[Range]:
        """The messages of consecutive tags; runs before them that are settled are forgotten."""
        runs = self._runs
        while len(runs) > 1 and runs[1][0] <= min(first_tag, self._low):
            runs.popleft()
        for index, (tag, number) in enumerate(runs):
            end = runs[index + 1][0] if index + 1 < len(runs) else self._next
            first, last = max(first_tag, tag), min(last_tag, end - 1)
            if first <= last:
                yield number + first - tag, number + last - tag


def _spans(tags: list[int]) -> Iterator[Range]:
    """Sorted tags as ranges."""
    if not tags:
        return
    if tags[-1] - tags[0] + 1 == len(tags):  # as nearly always
        yield tags[0], tags[-1]
        return
    first = last = tags[0]
    for tag in tags[1:]:
        if tag != last + 1:
            yield first, last
            first = tag
        last = tag
    yield first, last
