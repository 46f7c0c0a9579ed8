"""Fixtures: the world of all services, and a line printed for each fault."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.world import World
from tests.servers import RabbitServer, RedisServer, VirtualHost

Tell = Callable[..., None]
MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def shared_world(rabbit_server: RabbitServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rabbit_server.resume()
    rabbit_server.start()
    with (
        RedisServer() as redis,
        rabbit_server.vhost() as vhost,
        World(tmp_path_factory.mktemp("world"), redis, rabbit_server, vhost) as world,
    ):
        yield world


@pytest.fixture
def world(shared_world: World) -> World:
    """All services, and nothing wrong with them, whatever the test before did."""
    shared_world.mend()
    return shared_world


@pytest.fixture
def make_world(
    redis_server: RedisServer, rabbit_server: RabbitServer, rabbit_vhost: VirtualHost
) -> Iterator[MakeWorld]:
    """Makes a world for a test alone, whose netd is started in a way of its own."""
    with ExitStack() as stack:

        def make(directory: Path, **options: Any) -> World:
            return stack.enter_context(World(directory, redis_server, rabbit_server, rabbit_vhost, **options))

        yield make


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Prints a line about a fault: what was done, how much load there was, what was lost, how long it took after."""

    def tell(fault: str, load: str, recovered: float, more: str = "") -> None:
        with capsys.disabled():
            more = f"; {more}" if more else ""
            print(f"\n{fault}: {load}; recovered in {recovered:.2f} s{more}", end=" ")  # noqa: T201 - it is the report

    return tell


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once what failed, as the report at the end may be half an hour away."""
    if report.failed:
        what = getattr(getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr))
        print(f"\n{report.nodeid.rpartition('::')[2]} FAILED: {what.splitlines()[0][:500]}", end=" ")  # noqa: T201
