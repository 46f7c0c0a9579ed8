"""Clients that ask for more than they take, or say more than they may: what the daemon does, measured from outside."""

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.netd_process import Netd, running
from tests.pace import slowness
from tests.servers import HOST, RedisServer

CONFIG = """
[log]
format = "json"
[cache.main]
listen_memcached = "127.0.0.1:0"
listen_redis = "127.0.0.1:0"
"""
PATIENCE = 60.0
VALUE = b"x" * 1_000_000
MIB = 1 << 20


STORES = {"embedded": "", "redis": 'store = "{url}"\nnear = false\n', "near": 'store = "{url}"\n'}


@pytest.fixture
def netd(tmp_path: Path) -> Iterator[Netd]:
    with running(tmp_path, CONFIG) as netd:
        yield netd


@pytest.fixture(scope="module", params=STORES)
def on_any_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    """The daemon before each kind of store in turn."""
    config = CONFIG + STORES[request.param]
    with ExitStack() as stack:
        if request.param != "embedded":
            config = config.format(url=stack.enter_context(RedisServer()).url)
        yield stack.enter_context(running(tmp_path_factory.mktemp("netd"), config))


def connect(netd: Netd, index: int = 0) -> socket.socket:
    return socket.create_connection((HOST, netd.port("cache.main", index)), PATIENCE)


def ask(connection: socket.socket, request: bytes, until: bytes = b"\r\n") -> bytes:
    connection.sendall(request)
    answer = b""
    while not answer.endswith(until) and (received := connection.recv(1 << 20)):
        answer += received
    return answer


@pytest.mark.parametrize(
    ("index", "request_"),
    [(0, b"get big\r\n"), (0, b"mg big v\r\n"), (1, b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n"), (1, b"GET big\r\n")],
)
def test_clients_that_pipeline_without_reading_cost_little_and_nobody_else_notices(
    on_any_store: Netd, index: int, request_: bytes
) -> None:
    netd = on_any_store
    with connect(netd) as writer:
        assert ask(writer, b"set big 0 0 %d\r\n%b\r\n" % (len(VALUE), VALUE)) == b"STORED\r\n"
    before = netd.forget_peak()
    greedy = [connect(netd, index) for _ in range(5)]
    for each in greedy:
        each.settimeout(0.3)
        with suppress(TimeoutError):  # its socket fills up: that is the point
            for _ in range(1000):
                each.sendall(request_ * 1000)
            pytest.fail("a million requests were taken of a client that does not read")
    with connect(netd) as other:
        began = time.monotonic()
        assert ask(other, b"get none\r\nmn\r\n", b"MN\r\n") == b"END\r\nMN\r\n"
        assert time.monotonic() - began < 10
    # what a batch may ask for before it is known how large the replies are, and what was read of the requests
    assert netd.peak() - before < len(greedy) * 20 * MIB
    for each in greedy:
        each.close()


def test_who_reads_late_gets_every_reply(on_any_store: Netd) -> None:
    netd = on_any_store
    count = 50_000
    with connect(netd) as client:
        ask(client, b"set a 0 0 10\r\n0123456789\r\n")
        sender = threading.Thread(target=client.sendall, args=(b"get a\r\n" * count,))
        sender.start()
        time.sleep(0.2)
        expected = len(b"VALUE a 0 10\r\n0123456789\r\nEND\r\n") * count
        received = 0
        while received < expected and (data := client.recv(1 << 20)):
            received += len(data)
        sender.join()
    assert received == expected


@pytest.mark.parametrize("index", [0, 1])
def test_a_request_line_of_ten_mebibytes_ends_the_connection_and_costs_nothing(netd: Netd, index: int) -> None:
    before = netd.rss()
    with connect(netd, index) as client, suppress(ConnectionError):
        for _ in range(10):
            client.sendall(b"x" * MIB)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 16):
            pass
    assert netd.rss() - before < 5 * MIB


@pytest.mark.parametrize("index", [0, 1])
def test_a_value_of_a_mebibyte_in_tiny_pieces_costs_no_more_than_itself(netd: Netd, index: int) -> None:
    request = b"set a 0 0 1000000\r\n" if index == 0 else b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000000\r\n"
    data = request + VALUE + b"\r\n"
    before = netd.rss(), netd.cpu()
    with connect(netd, index) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), 50):
            client.send(data[at : at + 50])
        assert ask(client, b"") in {b"STORED\r\n", b"+OK\r\n"}
    assert netd.rss() - before[0] < 8 * MIB
    assert netd.cpu() - before[1] < 5 * slowness()


def test_stopping_answers_what_is_under_way_and_ends_well(netd: Netd) -> None:
    with connect(netd) as client:
        assert ask(client, b"set a 0 0 1\r\n1\r\n") == b"STORED\r\n"
        client.sendall(b"get a\r\n" * 1000)
        netd.process.send_signal(signal.SIGTERM)
        answer = b""
        while received := client.recv(1 << 16):
            answer += received
    assert answer.count(b"END\r\n") == 1000
    assert netd.wait() == 0


def test_a_person_with_nc_is_answered_before_the_connection_ends(netd: Netd) -> None:
    command = ["nc", "-N", HOST, str(netd.port("cache.main"))]
    done = subprocess.run(
        command, input=b"set a 0 0 2\r\nhi\r\nget a\r\n", capture_output=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == b"STORED\r\nVALUE a 0 2\r\nhi\r\nEND\r\n"
