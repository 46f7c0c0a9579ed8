"""What systemd hears: a datagram socket in its place, and a clock."""

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from twisted.internet.task import Clock

from netd.systemd import RETRY, NotifySocket, announcer, watchdog_interval
from tests.test_daemon import Running, config


class Manager:
    """A service manager that only listens, at `name`, as $NOTIFY_SOCKET gives it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name.replace("@", "\0", 1))
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """The lines of each datagram since the last time."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def environ(manager: Manager, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.name, **more}


def test_a_daemon_that_is_ready_reloads_and_stops_says_so_in_this_order(tmp_path: Path, manager: Manager) -> None:
    running = Running(config(tmp_path), lambda clock: announcer(environ(manager), clock))
    running.daemon.startService()
    assert manager.heard() == []
    running.network.run()
    assert manager.heard() == [["READY=1", "STATUS=3 service(s) on 3 port(s)"]]
    running.daemon.request_reload("SIGHUP")
    [reloading, ready] = manager.heard()
    assert reloading[0] == "RELOADING=1"
    assert reloading[1].startswith("MONOTONIC_USEC=")
    assert int(reloading[1].partition("=")[2]) > 0
    assert ready == ["READY=1", "STATUS=3 service(s) on 3 port(s); reloaded: untouched echo.first, echo.second"]
    running.daemon.request_stop("SIGTERM")
    assert manager.heard() == [["STOPPING=1", "STATUS=SIGTERM: draining 0 connection(s)"]]
    running.network.pump([0, 0])
    assert running.left == [None]
    assert manager.heard() == []


@pytest.mark.parametrize("usec", ["", "0", "-1", "1e6", "\u0663", "9" * 400, "9" * 5000])
def test_a_watchdog_that_is_no_number_of_systemds_is_none(usec: str) -> None:
    assert watchdog_interval({"WATCHDOG_USEC": usec}) == 0
    assert watchdog_interval({"WATCHDOG_USEC": "1500000"}) == 1.5


def test_a_reload_that_failed_is_in_the_status(tmp_path: Path, manager: Manager) -> None:
    running = Running(path := config(tmp_path), lambda clock: announcer(environ(manager), clock))
    running.start()
    path.write_text("[echo.first]\nlisten = 1\n")
    running.daemon.request_reload("SIGHUP")
    ready = manager.heard()[-1]
    assert ready[0] == "READY=1"
    assert ready[1].startswith(f"STATUS=3 service(s) on 3 port(s); not reloaded: {path}: echo.first.listen: ")


def test_a_drained_service_is_in_the_status(tmp_path: Path, manager: Manager) -> None:
    running = Running(config(tmp_path), lambda clock: announcer(environ(manager), clock))
    running.start()
    running.daemon.runtime.services[0].draining = True
    running.daemon.request_reload("SIGHUP")
    assert "; drained: echo.first; " in manager.heard()[-1][1]


def test_why_the_daemon_could_not_start_is_in_the_status(tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "state").write_text("in the way")
    running = Running(config(tmp_path), lambda clock: announcer(environ(manager), clock))
    running.start()
    why = f"cannot start: daemon.state_dir: {tmp_path}/state: not writable: File exists"[:200]
    assert manager.heard() == [["STOPPING=1", f"STATUS={why}"]]


def test_the_heart_beats_at_half_of_the_time_systemd_waits(manager: Manager, clock: Clock) -> None:
    announcer(environ(manager, WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid())), clock)
    assert manager.heard() == [["WATCHDOG=1"]]
    clock.advance(4.9)
    assert manager.heard() == []
    clock.advance(0.1)
    assert manager.heard() == [["WATCHDOG=1"]]


def test_the_heart_beats_where_file_descriptors_have_run_out(manager: Manager, clock: Clock) -> None:
    announcer(environ(manager, WATCHDOG_USEC="10000000"), clock)
    manager.heard()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        clock.advance(5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert manager.heard() == [["WATCHDOG=1"]]


@pytest.mark.parametrize("wanted", [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}])
def test_no_heart_beats_for_nobody_or_for_another_process(
    manager: Manager, clock: Clock, wanted: dict[str, str]
) -> None:
    announcer(environ(manager, **wanted), clock)
    assert clock.getDelayedCalls() == []
    assert manager.heard() == []


def test_while_stopping_systemd_is_asked_for_time_as_long_as_the_heart_beats(manager: Manager, clock: Clock) -> None:
    announce = announcer(environ(manager, WATCHDOG_USEC="10000000"), clock)
    announce("stopping", "draining")
    manager.heard()
    clock.advance(5)
    assert manager.heard() == [["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=10000000"]]


def test_nothing_is_ready_any_more_once_it_stops(manager: Manager, clock: Clock) -> None:
    announce = announcer(environ(manager), clock)
    announce("stopping", "draining")
    announce("ready", "a reload that came to its end meanwhile")
    assert manager.heard() == [["STOPPING=1", "STATUS=draining"]]


def test_a_status_is_one_short_line(manager: Manager, clock: Clock) -> None:
    announcer(environ(manager), clock)("ready", "two\nlines " + "x" * 1000)
    [[_, status]] = manager.heard()
    assert status.startswith("STATUS=two lines xxx")
    assert len(status) == len("STATUS=") + 200


def test_an_abstract_socket_is_told_too(clock: Clock) -> None:
    manager = Manager(f"@netd-test-{token_hex(8)}")
    announcer(environ(manager), clock)("ready", "")
    assert manager.heard() == [["READY=1", "STATUS="]]
    manager.close()


@pytest.mark.parametrize("name", [None, "", "vsock:2:1234"])
def test_without_systemd_nothing_happens(clock: Clock, name: str | None) -> None:
    without = {"WATCHDOG_USEC": "2000000"} | ({} if name is None else {"NOTIFY_SOCKET": name})
    announcer(without, clock)("ready", "nobody hears this")
    assert clock.getDelayedCalls() == []


def test_what_a_busy_manager_does_not_take_is_said_again_in_order(manager: Manager, clock: Clock) -> None:
    announce = announcer(environ(manager), clock)
    while not clock.getDelayedCalls():
        announce("ready", "filling its queue")
    announce("reloading", "one")
    announce("ready", "two")
    manager.heard()
    clock.advance(RETRY)
    assert [lines[-1] for lines in manager.heard()][-2:] == ["STATUS=one", "STATUS=two"]
    assert clock.getDelayedCalls() == []


def test_a_manager_that_is_gone_harms_nobody(tmp_path: Path, clock: Clock) -> None:
    manager = NotifySocket(str(tmp_path / "nobody"), 2.0, clock)
    manager.announce("ready", "")
    clock.advance(1)
    assert len(clock.getDelayedCalls()) == 1
