"""What is seen of the demonstration: a table that is drawn again and again; without a terminal, a line per event."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tests.demo.ledger import Counts

WIDTH = 78
EVENTS = 11
"""The newest events that the screen shows; all are written below the table in the end."""
CLEAR, HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"
REASON = 22
"""Letters of each reason that are shown."""
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
BOLD, DIM, RED, GREEN, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[1;31m", "\x1b[1;32m", "\x1b[0m"

UNKNOWN = "?"


class Screen:
    """The table and the events."""

    def __init__(self, title: str, counts: Callable[[], Counts], out: TextIO = sys.stdout) -> None:
        self._final: Counts | None = None
        self._title = title
        self._counts = counts
        self._out = out
        self._live = out.isatty()
        self._began = time.monotonic()
        self._events: list[str] = []

    def settle(self, counts: Counts) -> None:
        """What is not there now is lost."""
        self._final = counts

    def open(self) -> None:
        """Take the terminal."""
        if self._live:
            self._out.write(HIDE + CLEAR)
        else:
            self._out.write(f"{self._title}\n")

    def close(self) -> None:
        """Give it back, with the last table and every event on it."""
        if self._live:
            self._out.write(HOME + REST_OF_SCREEN + "\n".join([*self._table(), "", *self._events, ""]) + "\n" + SHOW)
        else:
            self._out.write("\n".join(["", *self._table(), "", ""]))
        self._out.flush()

    def say(self, what: str, text: str) -> None:
        """Something has happened."""
        event = f"{self._clock()}  {what:<9} {text}"
        self._events.append(event)
        if self._live:
            self.draw()
        else:
            self._out.write(f"{event}\n")
            self._out.flush()

    def draw(self) -> None:
        """The table as it is now."""
        if self._live:
            events = [event[:WIDTH] for event in self._events[-EVENTS:]]
            lines = [*self._table(), "", *events]
            self._out.write(HOME + "".join(f"{line}{REST_OF_LINE}\n" for line in lines) + REST_OF_SCREEN)
            self._out.flush()

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes}:{seconds:02d}"

    def _table(self) -> list[str]:
        counts = self._final or self._counts()
        lost = f"{counts.lost:,}" if self._final else UNKNOWN
        on_way = 0 if self._final else counts.lost
        dead = "; ".join(f"{count:,} x {reason[:REASON]}" for reason, count in sorted(counts.dead.items()))
        rows = [
            ("sent", f"{counts.sent:,}", "numbered lines; one without an answer is sent again"),
            ("+OK", f"{counts.answered:,}", "answered: from now on netd must not lose it"),
            ("in queue", f"{counts.in_queue:,}", "read out of RabbitMQ by pika, not by netd"),
            ("dead", f"{counts.dead.total():,}", dead or "no queue for it: the reason is kept with it"),
            ("repeats", f"{counts.repeats:,}", "a line that came again, with the same x-netd-id"),
            ("sent twice", f"{counts.twice:,}", "sent again, and both came, as two messages"),
            ("on its way", f"{on_way:,}", "answered, and in netd's spool or on its way out"),
            ("LOST", lost, "answered, and nowhere" if self._final else "known once everything has come to rest"),
        ]
        head = self._paint(BOLD, self._title) + f"{self._clock():>{WIDTH - len(self._title)}}"
        return [head, "", *(self._row(*row) for row in rows)]

    def _row(self, name: str, value: str, meaning: str) -> str:
        cell = f"{name:<10} {value:>9}"
        if name == "LOST" and value != UNKNOWN:
            cell = self._paint(GREEN if value == "0" else RED, cell)
        return f"  {cell}   {self._paint(DIM, meaning[: WIDTH - 26])}"

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._live else text
