"""Whether a figure is flat: the rule by which a soak is judged.

What grows while a daemon warms up (caches, pools, the allocator's arenas) is no leak; what still grows in the second
half of the run is. So the second half is cut into windows, each window stands for its lower quartile (what is taken and
given back again is not what leaks), and a line is laid through them whose slope is the median of the slopes between all
pairs (Theil and Sen): a fault that fills a queue for some seconds bends such a line as little as one loud sample does.
The figure is flat when that line rises by no more, from half time to the end, than is allowed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import median, quantiles

WINDOWS = 40
"""Into so many pieces the second half is cut, where there are samples enough."""

SMALLEST = 4
"""Samples in a window, at least."""
FEWEST = 4 * SMALLEST
"""Samples of a run of which something can be said: two windows in its second half."""

Point = tuple[float, float]
"""Seconds since the start, and what was measured."""


class TooFew(Exception):
    """Nothing can be said of so few samples."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """By how much a figure may rise in half of a run: a part of its level, or so much where that is more."""

    share: float
    least: float


@dataclass(frozen=True, slots=True)
class Trend:
    """What the line through the second half says."""

    start: Point
    """Where the line stands at half time."""
    end: Point
    allowed: float
    """How much it may rise."""

    @property
    def rise(self) -> float:
        """From half time to the end; a figure that falls has a negative one."""
        return self.end[1] - self.start[1]

    @property
    def flat(self) -> bool:
        """Whether it rises no more than is allowed."""
        return self.rise <= self.allowed


def trend(points: Sequence[Point], allowance: Allowance) -> Trend:
    """Judge the samples of a run, in the order they were taken; raises TooFew."""
    if len(points) < FEWEST:
        raise TooFew(f"{len(points)} samples")
    begin, end = points[0][0], points[-1][0]
    half = [point for point in points if point[0] >= (begin + end) / 2]
    floors = _floors(half)
    slope = median((y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in combinations(floors, 2))
    level = median(y - slope * x for x, y in floors)
    ends = [(x, level + slope * x) for x in (half[0][0], half[-1][0])]
    return Trend(ends[0], ends[1], max(allowance.least, allowance.share * abs(ends[0][1])))


def _floors(points: Sequence[Point]) -> list[Point]:
    """The lower quartile of each window, at the window's middle."""
    count = min(WINDOWS, len(points) // SMALLEST)
    edges = [round(at * len(points) / count) for at in range(count + 1)]
    windows = [points[start:stop] for start, stop in pairwise(edges)]
    return [(median(x for x, _ in window), quantiles(y for _, y in window)[0]) for window in windows]
