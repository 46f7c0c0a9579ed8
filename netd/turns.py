"""Strangers take turns: what clients may cost who are not known must not hold up everybody else.

A log-in by ssh takes milliseconds of mathematics, in steps; so does a page of metrics. When a hundred clients come at
once, or one asks a hundred times in one go, what they want is ready in one turn of the reactor, which would then do
nothing else for a tenth of a second and more. So all of them together get a little of each turn; who comes too late
waits for the next.
"""

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

BUDGET = 0.003
"""Seconds of a turn of the reactor. The longest steps, a key exchange and a page of metrics, take one and four
milliseconds."""


class Turns:
    """Calls functions, at once or in a later turn, in the order in which they come."""

    def __init__(self, clock: IReactorTime, budget: float = BUDGET) -> None:
        self._clock = clock
        self._budget = budget
        self._waiting: deque[Callable[[], object]] = deque()
        self._until: float | None = None
        """When the budget of this turn is spent; None until somebody comes."""

    def take(self, function: Callable[[], object]) -> None:
        """Call it; it raises nothing."""
        if self._until is None:
            self._begin()
        self._waiting.append(function)
        if len(self._waiting) == 1:
            self._go_on()

    def _begin(self) -> None:
        self._until = self._clock.seconds() + self._budget
        self._clock.callLater(0, self._next)

    def _next(self) -> None:
        self._until = None
        if self._waiting:
            self._begin()
            self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._until is not None and self._clock.seconds() < self._until:
            function = self._waiting[0]
            function()
            self._waiting.popleft()
