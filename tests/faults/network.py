"""What a network does to the connections through a proxy."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.faults.proxy import FaultProxy, Way

Strike = Callable[[FaultProxy, Way], None]

LASTS = 1.0
"""Seconds that a fault lasts; half a dozen exchanges of the slowest client on a busy machine."""


@dataclass(frozen=True)
class Fault:
    """A name for a person, and what happens to open connections; what breaks them makes clients connect again."""

    name: str
    strike: Strike
    breaks: bool = False
    directions: tuple[str, ...] = ("up", "down")

    def befall(self, proxy: FaultProxy, direction: str, seconds: float = LASTS) -> None:
        """Let it happen, for so long."""
        way = proxy.up if direction == "up" else proxy.down
        for _ in range(5 if self.breaks else 1):
            self.strike(proxy, way)
            time.sleep(seconds / (5 if self.breaks else 1))
        proxy.clear()


FAULTS = (
    Fault("100 ms late", lambda _proxy, way: way.late(0.1)),
    Fault("byte by byte", lambda _proxy, way: way.sliced(1)),
    Fault("stalled", lambda proxy, way: proxy.stall(way)),
    Fault("half-closed five times", lambda proxy, way: proxy.half_close(way), breaks=True),
    Fault("cut in the middle five times", lambda proxy, way: proxy.truncate(way, random.randint(1, 200)), breaks=True),
    Fault("reset five times", lambda proxy, _way: proxy.reset(), breaks=True, directions=("both",)),
)

CASES = [
    pytest.param(fault, direction, id=f"{fault.name.replace(' ', '-')}-{direction}")
    for fault in FAULTS
    for direction in fault.directions
]
"""Each fault in each direction, for parametrize."""
