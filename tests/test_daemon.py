"""The way up and the way down, with services that live in memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from netd.config import load
from netd.daemon import Announce, Daemon, Phase
from netd.log import LogOutput, render_text
from netd.runtime import CannotStart, Reactor
from tests.fakes import MemoryNetwork

TWO = """
[daemon]
drain_timeout = "10s"
[echo.first]
listen = "127.0.0.1:1001"
[echo.second]
listen = "127.0.0.1:1002"
"""


def nobody(phase: Phase, state: str) -> None:
    """Who is told what the daemon does, and does not care."""


class Running:
    """A daemon on a network in memory, and why it left."""

    def __init__(self, path: Path, announcer: Callable[[MemoryNetwork], Announce] = lambda _: nobody) -> None:
        self.network = MemoryNetwork()
        self.left: list[CannotStart | None] = []
        log = LogOutput(lambda _: None, render_text, "info")
        reactor = cast("Reactor", self.network)
        self.daemon = Daemon(load(path, {}), log, reactor, self.left.append, announcer(self.network))

    def start(self) -> None:
        self.daemon.startService()
        self.network.run()

    @property
    def open_ports(self) -> list[int]:
        return [port for port, *_ in self.network.tcpServers]


def config(directory: Path) -> Path:
    path = directory / "netd.toml"
    path.write_text(TWO)
    return path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(config(tmp_path))
    running.start()
    yield running
    running.network.advance(60)
    assert not running.network.getDelayedCalls()


def test_services_start_in_the_order_of_the_file_once_the_reactor_runs(tmp_path: Path) -> None:
    running = Running(config(tmp_path))
    running.daemon.startService()
    assert running.open_ports == []
    running.network.run()
    assert running.open_ports == [1001, 1002]
    assert running.left == []
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_request_to_stop_waits_for_what_is_in_flight(running: Running) -> None:
    client = running.network.client()
    running.daemon.request_stop("SIGTERM")
    client.send(b"more")
    running.network.advance(0.2)
    assert running.left == []
    running.network.pump([0.2, 0.2])
    assert client.gone
    assert running.left == [None]


def test_the_drain_timeout_cuts_what_does_not_finish(running: Running) -> None:
    client = running.network.client()
    client.reads = False
    running.daemon.request_stop("SIGTERM")
    running.network.advance(9.9)
    assert not client.gone
    running.network.pump([0.2, 0.2])
    assert client.gone
    assert running.left == [None]


def test_a_second_request_cuts_at_once(running: Running) -> None:
    client = running.network.client()
    client.reads = False
    running.daemon.request_stop("SIGTERM")
    running.daemon.request_stop("SIGINT")
    running.network.pump([0])
    assert client.gone
    assert running.left == [None]


def test_a_third_request_changes_nothing(running: Running) -> None:
    for _ in range(3):
        running.daemon.request_stop("SIGTERM")
        running.network.pump([0.2, 0.2, 0.2])
    assert running.left == [None]


def test_a_reactor_that_stops_by_itself_stops_the_services(running: Running) -> None:
    client = running.network.client()
    stopped = running.daemon.stopService()
    running.network.pump([0, 0])
    assert client.gone
    assert stopped.called


def test_a_state_directory_that_cannot_be_made_is_the_reason_to_leave(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    running = Running(config(tmp_path))
    running.start()
    (reason,) = running.left
    assert str(reason) == f"daemon.state_dir: {tmp_path}/state: not writable: File exists"
    assert running.open_ports == []
