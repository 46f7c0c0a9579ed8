"""Ports that systemd passes: descriptors from 3 on, and $LISTEN_FDS. Here the test is who made them."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.integration.test_daemon import connect
from tests.integration.test_reload import reload
from tests.netd_process import TWISTD, Netd, running

ECHO = '[echo.plain]\nlisten = "systemd:domain=INET:index=0"\nopen = true\n'
PASS = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "netd"}
os.execv(sys.argv[2], sys.argv[2:])
"""
NOT_PASSED = (
    "systemd has passed no such socket to this daemon; netd.socket must list it, and be active when netd starts"
)
OTHER = '[echo.other]\nlisten = "127.0.0.1:0"\n'


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A port that listens, and outlives every daemon that serves it."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        yield port


def activated(directory: Path, config: str, port: socket.socket) -> AbstractContextManager[Netd]:
    """A daemon that was passed the port, as systemd does it."""
    command: list[str | Path] = [sys.executable, "-c", PASS, str(port.fileno()), TWISTD]
    return running(directory, config, command=command, pass_fds=[port.fileno()])


def number(port: socket.socket) -> int:
    found: int = port.getsockname()[1]
    return found


def say(client: socket.socket) -> bytes:
    client.sendall(b"hello")
    return client.recv(5)


def test_who_comes_while_no_daemon_runs_is_served_by_the_next(tmp_path: Path, port: socket.socket) -> None:
    with activated(tmp_path, ECHO, port) as netd:
        with connect(number(port)) as client:
            assert say(client) == b"hello"
        assert netd.stop() == 0
    with connect(number(port)) as early, activated(tmp_path, ECHO, port) as netd:
        assert say(early) == b"hello"
        netd.process.kill()
        netd.process.wait()
        with connect(number(port)):
            pass


def test_a_port_that_a_reload_gave_up_can_be_taken_again(tmp_path: Path, port: socket.socket) -> None:
    with activated(tmp_path, ECHO + OTHER, port) as netd:
        assert reload(netd, OTHER).startswith("reloaded: removed echo.plain")
        with connect(number(port)) as waiting:
            assert reload(netd, OTHER + ECHO).startswith("reloaded: added echo.plain")
            assert say(waiting) == b"hello"
        assert netd.stop() == 0


def test_many_may_wait_on_a_port_that_systemd_holds(tmp_path: Path, port: socket.socket) -> None:
    with activated(tmp_path, ECHO + OTHER, port) as netd:
        netd.process.send_signal(signal.SIGSTOP)
        clients = [connect(number(port)) for _ in range(200)]
        netd.process.send_signal(signal.SIGCONT)
        assert {say(client) for client in clients} == {b"hello"}
        for client in clients:
            client.close()


def test_a_port_of_systemd_s_may_be_behind_a_load_balancer(tmp_path: Path, port: socket.socket) -> None:
    config = ECHO.replace("systemd:", "haproxy:systemd:") + 'allow = ["192.0.2.0/24"]\n'
    with activated(tmp_path, config, port), connect(number(port)) as client:
        client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.9 4711 8001\r\n")
        assert say(client) == b"hello"


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("index=1", NOT_PASSED),
        ("name=nothing", NOT_PASSED),
    ],
)
def test_a_socket_that_was_not_passed_is_told(tmp_path: Path, port: socket.socket, listen: str, why: str) -> None:
    with activated(tmp_path, ECHO, port) as netd:
        bad = f'[echo.bad]\nlisten = "systemd:domain=INET:{listen}"\nopen = true\n'
        assert reload(netd, ECHO + bad).endswith(f"echo.bad.listen: systemd:domain=INET:{listen}: {why}")


def test_without_systemd_the_daemon_says_what_is_missing(tmp_path: Path) -> None:
    netd = Netd(tmp_path, ECHO)
    assert netd.wait() == os.EX_TEMPFAIL
    assert netd.stderr == f"netd: echo.plain.listen: systemd:domain=INET:index=0: {NOT_PASSED}\n"


def test_a_unix_socket_of_systemds_is_not_taken(tmp_path: Path, port: socket.socket) -> None:
    with activated(tmp_path, ECHO, port) as netd:
        bad = '[echo.bad]\nlisten = "systemd:domain=UNIX:index=0"\nopen = true\n'
        assert "for others say unix:/path" in reload(netd, ECHO + bad)
