"""A batch whose answers come from here and there, at once or later."""

from collections.abc import Callable, Sequence
from typing import Any

from netd.cache.requests import Answer

Done = Callable[[Sequence[Answer]], None]


class Exchange:
    """A batch whose answers come from here and there."""

    __slots__ = ("answers", "done", "late", "missing")

    def __init__(self, answers: list[Any], done: Done) -> None:
        self.answers = answers
        self.done = done
        self.missing = 0
        self.late = False

    def settle(self, place: int, answer: Answer) -> None:
        """One answer more."""
        self.answers[place] = answer
        self.missing -= 1
        if not self.missing and self.late:
            self.done(self.answers)

    def result(self) -> list[Any] | None:
        """The answers if all are there; else they are given to `done` when they are."""
        if not self.missing:
            return self.answers
        self.late = True
        return None
