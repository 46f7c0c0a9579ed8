"""Medians and ratios of what was measured in interleaved rounds."""

from collections.abc import Sequence
from statistics import median

# What one round measured: CPU microseconds of the server for one unit, units a second, latencies …
Figures = dict[str, float]
# One entry for each round, in order; None where the round failed.
Rounds = Sequence[Figures | None]


def values(rounds: Rounds, figure: str) -> list[float]:
    """The figure of each round that has it."""
    return [figures[figure] for figures in rounds if figures is not None and figure in figures]


def middle(rounds: Rounds, figure: str) -> float | None:
    """The median over the rounds, or None if no round has the figure."""
    found = values(rounds, figure)
    return median(found) if found else None


def spread(rounds: Rounds, figure: str) -> float | None:
    """How far the rounds lie apart: highest less lowest, as a part of the median."""
    found = values(rounds, figure)
    return (max(found) - min(found)) / median(found) if found and median(found) else None


def ratio(above: Rounds, below: Rounds, figure: str) -> float | None:
    """The median of the rounds' ratios, above / below.

    Both were measured seconds apart in each round, so that what slows the whole machine for a while drops out, as it
    would not from the ratio of two medians. Rounds in which either failed do not count.
    """
    ratios = [
        a[figure] / b[figure]
        for a, b in zip(above, below, strict=False)
        if a is not None and b is not None and figure in a and b.get(figure)
    ]
    return median(ratios) if ratios else None
