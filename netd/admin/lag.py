"""How late the reactor is: what keeps it busy keeps every client waiting."""

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from netd.stats import Histogram

INTERVAL = 0.25
"""Seconds between two looks: a hold-up of so long or longer is surely seen, a shorter one in proportion."""


class ReactorLag:
    """Measures how long after its time a call is made."""

    def __init__(self, clock: IReactorTime) -> None:
        self.histogram = Histogram("How late the event loop makes a call whose time has come")
        self._clock = clock
        self._next: IDelayedCall | None = None
        self._due = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._clock.seconds() + INTERVAL
        self._next = self._clock.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        """Measure no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        self.histogram.observe(max(self._clock.seconds() - self._due, 0.0))
        self.start()
