"""What services count: figures with their meaning, and histograms that cost next to nothing."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds from 0.1 ms, a Redis near by, to 10 s, where every time-out of netd has struck."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a figure of `Service.stats` means."""

    type: Literal["counter", "gauge"]
    """A counter only grows while the daemon runs: its rate is worth seeing."""
    help: str
    """A phrase such as "Requests answered from memory", without a full stop."""


def counter(text: str) -> Figure:
    """A figure that only grows."""
    return Figure("counter", text)


def gauge(text: str) -> Figure:
    """A figure that goes up and down."""
    return Figure("gauge", text)


@dataclass(frozen=True, slots=True)
class Chart:
    """What the page draws of a service, beside its connections, its traffic and its histograms."""

    title: str
    lines: Mapping[str, str]
    """The figure of each line, by its label. A counter is drawn as its growth per second."""
    share: bool = False
    """Draw one line instead: the share that the first figure has of all of them together."""


class Histogram:
    """How long something took, counted in buckets: an observation is a bisection and two additions (0.3 µs)."""

    __slots__ = ("bounds", "counts", "help", "total")

    def __init__(self, text: str, bounds: tuple[float, ...] = SECONDS) -> None:
        self.help = text
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The value that this share of the observations stays below; see `quantile`."""
        return quantile(self.bounds, self.counts, share)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    """The value that this share of what was counted stays below, estimated within its bucket; 0.0 of nothing.

    What lies beyond the last bound is taken for it.
    """
    rank = share * sum(counts)
    if not rank:
        return 0.0
    index = bisect_left(below := list(accumulate(counts)), rank)
    if index == len(bounds):
        return bounds[-1]
    lower = bounds[index - 1] if index else 0.0
    return lower + (bounds[index] - lower) * (1 - (below[index] - rank) / counts[index])
