"""One box for all tests of this package, and netd installed in it by `make install`."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.box import Box, why_not

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="package")
def installed() -> Path:
    """Where `make install` has put netd. It stays for the next run, which then installs what has changed."""
    directory = ROOT / "build" / "systemd"
    # The variables of the `make` that runs the tests are not meant for this one.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    made = subprocess.run(
        ["make", "--silent", "install", f"DESTDIR={directory}"],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return directory


@pytest.fixture(scope="package")
def box(installed: Path) -> Iterator[Box]:
    """A running systemd with netd installed."""
    with Box(installed) as box:
        yield box


@pytest.fixture(autouse=True, scope="package")
def _possible() -> None:
    if reason := why_not():
        pytest.skip(reason)
