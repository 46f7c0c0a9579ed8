"""What a connection costs and may do, measured on the real daemon."""

import json
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from netd.ports import KEPT_DESCRIPTORS
from tests.netd_process import NETDCTL, TWISTD, Netd, running
from tests.pace import slowness
from tests.servers import RedisServer, find_program

PLAIN = '[echo.plain]\nlisten = "127.0.0.1:0"\n'
MANY = 2000
MEMORY_OF_ONE = 2500
"""Bytes resident for each idle connection, its place in the table included."""

CACHE = '[cache.main]\nlisten_memcached = "127.0.0.1:0"\nlisten_redis = "127.0.0.1:0"\n'
MEMORY_OF_A_CACHE_CLIENT = 3000
"""The same for a cache's, with its codec and its session."""

START_CPU = 0.7
"""Seconds of processor time until ready with echo alone; what else runs on the machine does not count."""


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def says(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    try:
        return client.recv(len(data))
    except ConnectionError:
        return b""


def asks(client: socket.socket, request: bytes, reply: bytes) -> bool:
    client.sendall(request)
    return client.recv(len(reply)) == reply


def test_an_idle_connection_costs_little_memory(directory: Path) -> None:
    limits = f"max_connections = {MANY + 10}\nmax_connections_per_host = 0\n"
    with running(directory, PLAIN + limits) as netd, ExitStack() as clients:
        port = netd.port("echo.plain")
        for _ in range(100):  # what is made once is made by these
            assert says(clients.enter_context(connect(port)), b"hello") == b"hello"
        before = netd.rss()
        for _ in range(MANY - 100):
            assert says(clients.enter_context(connect(port)), b"hello") == b"hello"
        assert (netd.rss() - before) / (MANY - 100) < MEMORY_OF_ONE


@pytest.mark.parametrize("store", ["embedded", "redis"])
@pytest.mark.parametrize(
    ("index", "request_", "reply"), [(0, b"get a\r\n", b"END\r\n"), (1, b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"$-1\r\n")]
)
def test_an_idle_client_of_a_cache_costs_little_memory(
    directory: Path, store: str, index: int, request_: bytes, reply: bytes
) -> None:
    limits = f"max_connections = {MANY + 10}\nmax_connections_per_host = 0\n"
    with ExitStack() as stack:
        if store == "redis":
            limits += f'store = "{stack.enter_context(RedisServer()).url}"\n'
        netd = stack.enter_context(running(directory, CACHE + limits))
        port = netd.port("cache.main", index)
        for _ in range(100):
            assert asks(stack.enter_context(connect(port)), request_, reply)
        before = netd.rss()
        for _ in range(MANY - 100):
            assert asks(stack.enter_context(connect(port)), request_, reply)
        assert (netd.rss() - before) / (MANY - 100) < MEMORY_OF_A_CACHE_CLIENT


def test_echo_alone_is_ready_soon(tmp_path: Path) -> None:
    spent = []
    for attempt in range(3):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        with running(directory, PLAIN) as netd:
            spent.append(netd.cpu())
        if spent[-1] < START_CPU * slowness():
            return
    pytest.fail(f"used {spent} seconds, on a machine that is {slowness():.1f} times slower than the one of the figure")


def test_keepalive_is_on_unless_turned_off(directory: Path) -> None:
    for setting, timer in (("", "02"), ("tcp_keepalive = false\n", "00")):
        with running(directory, PLAIN + setting) as netd, connect(netd.port("echo.plain")) as client:
            assert says(client, b"hello") == b"hello"
            assert timer_of(netd, client) == timer


def timer_of(netd: Netd, client: socket.socket) -> str:
    """Which timer runs on the daemon's side of a connection, once all is acknowledged: 02 is keepalive (proc(5))."""
    wanted = f":{netd.port('echo.plain'):04X}", f":{client.getsockname()[1]:04X}"
    deadline = time.monotonic() + 60
    while True:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if (fields[1][-5:], fields[2][-5:]) == wanted:
                timer = fields[5][:2]
                if timer != "01" or time.monotonic() > deadline:
                    return timer


def test_behind_haproxy_clients_are_served_and_the_limit_holds(directory: Path, free_port: int) -> None:
    config = f'[echo.plain]\nlisten = "haproxy:tcp:{free_port}:interface=127.0.0.1"\nopen = true\nmax_connections = 1\n'
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n"
    with running(directory, config), connect(free_port) as first:
        first.sendall(header)
        assert says(first, b"hello") == b"hello"
        with connect(free_port) as second:
            second.sendall(header)
            assert says(second, b"hello") == b""


def test_one_host_may_not_take_every_place(directory: Path) -> None:
    with running(directory, PLAIN + "max_connections_per_host = 2\n") as netd, ExitStack() as clients:
        port = netd.port("echo.plain")
        answers = [says(clients.enter_context(connect(port)), b"hello") for _ in range(4)]
        assert answers == [b"hello", b"hello", b"", b""]
        netd.wait_for("by max_connections_per_host, last from 127.0.0.1")


def test_a_crowd_leaves_descriptors_for_the_operator(directory: Path) -> None:
    limit = 150
    limited: list[str | Path] = [find_program("prlimit"), f"--nofile={limit}:{limit}", TWISTD]
    with running(directory, PLAIN, command=limited) as netd, ExitStack() as clients:
        port = netd.port("echo.plain")
        answers = [says(clients.enter_context(connect(port)), b"hello") for _ in range(limit)]
        served = answers.count(b"hello")
        assert limit // 2 < served <= limit - KEPT_DESCRIPTORS
        assert answers == [b"hello"] * served + [b""] * (limit - served)
        netd.wait_for("by descriptors, last from 127.0.0.1")
        asking: list[str | Path] = [NETDCTL, "--socket", directory / "state/netd.sock", "services", "--json"]
        shown = json.loads(subprocess.run(asking, stdout=subprocess.PIPE, check=True, timeout=60).stdout)
        assert shown["services"][0]["refused"] == {"descriptors": limit - served}


def test_who_is_not_allowed_is_refused(directory: Path) -> None:
    with running(directory, PLAIN + 'allow = ["192.0.2.0/24"]\n') as netd, connect(netd.port("echo.plain")) as client:
        assert says(client, b"hello") == b""
        netd.wait_for("refused 1 connection(s) by allow, last from 127.0.0.1")


def test_an_idle_connection_is_closed(directory: Path) -> None:
    with running(directory, PLAIN + 'idle_timeout = "1s"\n') as netd, connect(netd.port("echo.plain")) as client:
        assert says(client, b"hello") == b"hello"
        began = time.monotonic()
        assert client.recv(1) == b""
        assert time.monotonic() - began > 0.5
