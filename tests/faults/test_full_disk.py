"""The disk with netd's state, its log and its audit is full: lines wait, and everybody else is served on."""

import time
from contextlib import suppress
from os import statvfs
from pathlib import Path

import pytest

from tests.faults.conftest import MakeWorld, Tell
from tests.integration.test_bridge import small_disk

__all__ = ["small_disk"]


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("ab", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    assert statvfs(path).f_bavail == 0


@pytest.mark.parametrize("small_disk", [64], indirect=True)
def test_a_full_disk_is_lines_own_business(make_world: MakeWorld, small_disk: Path, tell: Tell) -> None:
    world = make_world(small_disk)
    publish = world.doors["publish"]
    with world.unharmed("lines") as others, world.lines("lines", publish=publish) as load:
        ballast = small_disk / "ballast"
        began, told = time.monotonic(), set()
        for _ in range(20):  # what netd frees meanwhile is filled too
            fill(ballast)
            time.sleep(0.1)
            others.recovered()
            told.add(world.netdctl("bridge", "status")["bridges"][0]["problem"])
        assert any("disk is full" in each for each in told)
        lasted = time.monotonic() - began
        ballast.unlink()
        took = load.recovered([*load.publishers, *load.readers])
        others.recovered()
        load.settle()
    load.check()
    tell(f"the disk: full for {lasted:.0f} s", f"{load.said()}; others: {others.said()}", took)
