"""Fixtures: the echo daemon under every reactor."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netd_process import Netd, running

ECHO = """
[echo.plain]
listen = "127.0.0.1:0"
[echo.upper]
listen = "127.0.0.1:0"
transform = "upper"
"""

REACTORS = ["fastio", "select", "poll", "epoll", "asyncio"]


@pytest.fixture(scope="module", params=REACTORS)
def netd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    """The daemon with two echo ports, under each reactor in turn."""
    reactor = "" if request.param == "fastio" else request.param
    with running(tmp_path_factory.mktemp("netd"), ECHO, reactor=reactor) as netd:
        yield netd


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for a daemon of the test's own."""
    return tmp_path
