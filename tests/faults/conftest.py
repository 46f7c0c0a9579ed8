"""Fixtures: the world of all services, and a line printed for each fault."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.world import World
from tests.servers import RabbitServer, RedisServer

Tell = Callable[..., None]


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
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Prints a line about a fault: what was done, how much load there was, what was lost, how long it took after."""

    def tell(fault: str, load: str, recovered: float, more: str = "") -> None:
        with capsys.disabled():
            more = f"; {more}" if more else ""
            print(f"\n{fault}: {load}; recovered in {recovered:.2f} s{more}", end=" ")  # noqa: T201 - it is the report

    return tell
