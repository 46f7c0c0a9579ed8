"""The ledger of the demonstration: what became of every line, told by those who saw it with their own eyes.

The clients say what they sent and what was answered `+OK`; a reader that knows nothing of netd says what came out of
RabbitMQ; netd's dead letters say what could not be delivered and why. LOST is what was answered and is nowhere.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

Line = tuple[int, int]
"""The client's number, and the line's."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Where things stand."""

    sent: int
    answered: int
    in_queue: int
    dead: Counter[str]
    """By reason."""
    repeats: int
    """Times that a line came again with the id it had before."""
    twice: int
    """Lines under two ids, as the client sent them again because an answer never came."""
    lost: int
    """Answered, and so far neither in the queue nor dead."""


class Ledger:
    """Several threads write into it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: set[Line] = set()
        self._again: set[Line] = set()
        self._answered: set[Line] = set()
        self._found: dict[Line, set[str]] = {}
        self._dead: dict[Line, str] = {}
        self._repeats = 0
        self._refused: list[str] = []

    def send(self, lines: Iterable[Line]) -> None:
        """The client sends lines; those that it has sent before it sends again."""
        with self._lock:
            for line in lines:
                (self._again if line in self._sent else self._sent).add(line)

    def answer(self, lines: Iterable[Line]) -> None:
        """Lines were answered `+OK`."""
        with self._lock:
            self._answered.update(lines)

    def refuse(self, answer: str) -> None:
        """A line was answered otherwise."""
        with self._lock:
            self._refused.append(answer)

    def find(self, line: Line, netd_id: str) -> None:
        """A line came out of the queue, with its `x-netd-id`."""
        with self._lock:
            ids = self._found.setdefault(line, set())
            self._repeats += netd_id in ids
            ids.add(netd_id)

    def bury(self, line: Line, reason: str) -> None:
        """A line stands in the dead letters."""
        with self._lock:
            self._dead[line] = reason

    def counts(self) -> Counts:
        """At this moment."""
        with self._lock:
            return Counts(
                len(self._sent),
                len(self._answered),
                len(self._found),
                Counter(self._dead.values()),
                self._repeats,
                sum(len(ids) > 1 for ids in self._found.values()),
                len(self._answered - self._found.keys() - self._dead.keys()),
            )

    def problems(self) -> list[str]:
        """What is wrong once everything has come to rest; nothing may be."""
        counts = self.counts()
        with self._lock:
            unanswered = len(self._sent - self._answered)
            invented = (self._found.keys() | self._dead.keys()) - self._sent
            doubled = [line for line, ids in self._found.items() if len(ids) > 1 and line not in self._again]
            found = [
                (counts.lost, "acknowledged lines are LOST"),
                (unanswered, "lines were never answered"),
                (len(invented), "lines came out that nobody sent"),
                (len(doubled), "lines that were sent once came under two ids"),
                (len(self._refused), f"lines were refused: {self._refused[:1]}"),
            ]
        return [f"{count:,} {what}" for count, what in found if count]
