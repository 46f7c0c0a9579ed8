"""The machine's clock is set, forward and back, under a netd at work: nobody notices.

Only netd's own wall clock is: a library that is loaded before all others adds to it what a file says.
"""

import json
import struct
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import MakeWorld, Tell
from tests.faults.world import World
from tests.netd_process import Netd

HOUR, DAY = 3600, 86400


@pytest.fixture(scope="module")
def offset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, and beside it the file that it reads."""
    directory = tmp_path_factory.mktemp("clock")
    source = Path(__file__).with_name("clock.c")
    strict = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *strict, "-o", directory / "clock.so", source], check=True)
    path = directory / "offset"
    path.write_bytes(struct.pack("q", 0))
    return path


def wall_clock(world: World) -> float:
    """What netd takes the time for."""
    told: float = json.loads(world.get("/status")[1])["time"]
    return told


def test_nobody_notices_that_the_clock_is_set(make_world: MakeWorld, tmp_path: Path, offset: Path, tell: Tell) -> None:
    environ = {"LD_PRELOAD": str(offset.with_name("clock.so")), "WALL_CLOCK_OFFSET": str(offset)}
    timed = make_world(tmp_path, start=partial(Netd, environ=environ))
    with timed.everybody(each=2) as load:
        for seconds in (HOUR, -HOUR, 2 * DAY, -30 * DAY, 0):
            with offset.open("r+b") as file:
                file.write(struct.pack("q", seconds))
            assert abs(wall_clock(timed) - time.time() - seconds) < HOUR / 2
            took = load.until_answered()
            time.sleep(1.5)  # longer than any of netd's periods but the heartbeats'
        load.settle()
    load.check()
    tell("wall clock: set by hours and days, forward and back, five times", load.said(), took)
