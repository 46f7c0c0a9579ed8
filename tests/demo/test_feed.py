"""The demonstration's client sends again what was not answered, and nothing else; it hears what netd says."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.demo.feed import Feed, converse, line_of
from tests.demo.ledger import Ledger
from tests.waiting import eventually

SECONDS = 60.0


class Server:
    """Stands for netd's port: a test says what it answers."""

    def __init__(self, listening: socket.socket) -> None:
        listening.settimeout(SECONDS)
        self._listening = listening

    def accept(self) -> socket.socket:
        connection, _ = self._listening.accept()
        connection.settimeout(SECONDS)
        return connection

    @property
    def port(self) -> int:
        port: int = self._listening.getsockname()[1]
        return port


@pytest.fixture
def server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Server(listening)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def feed(server: Server, ledger: Ledger) -> Iterator[Feed]:
    feed = Feed(server.port, 1, ledger)
    feed.start()
    yield feed
    feed.leave()


def heard(connection: socket.socket, count: int) -> list[int]:
    """The numbers of the next lines."""
    data = b""
    while data.count(b"\n") < count:
        received = connection.recv(65536)
        assert received, f"closed after {data[-100:]!r}"
        data += received
    return [line_of(line)[1] for line in data.splitlines()]


def test_what_was_not_answered_is_sent_again_on_the_next_connection(server: Server, feed: Feed, ledger: Ledger) -> None:
    feed.send(10)
    with server.accept() as connection:
        assert heard(connection, 10) == list(range(1, 11))
        connection.sendall(b"+OK 2\n+OK 4\n")
    with server.accept() as connection:
        assert heard(connection, 6) == list(range(5, 11))
        connection.sendall(b"+OK 6\n")
        assert eventually(lambda: feed.done)
    assert (ledger.counts().sent, ledger.counts().answered) == (10, 10)


def test_an_error_is_noted_as_one(server: Server, feed: Feed, ledger: Ledger) -> None:
    feed.send(2)
    with server.accept() as connection:
        heard(connection, 2)
        connection.sendall(b"-ERR 1 TOOLONG longer\n+OK 2\n")
        assert eventually(lambda: feed.done)
    assert "1 lines were refused: ['-ERR 1 TOOLONG longer']" in ledger.problems()


def test_it_knows_that_netd_reads_no_further(server: Server, feed: Feed) -> None:
    feed.send(1)
    with server.accept() as connection:
        heard(connection, 1)
        connection.sendall(b"*WAIT the disk is full\n+OK 1\n")
        assert eventually(lambda: feed.done)
        assert feed.waiting == "the disk is full"
        feed.send(1)
        heard(connection, 1)
        connection.sendall(b"*GO\n+OK 2\n")
        assert eventually(lambda: feed.done)
        assert feed.waiting == ""


def test_lines_that_are_traced_go_three_at_a_time(server: Server, ledger: Ledger) -> None:
    talking = threading.Thread(target=converse, args=(server.port, 7, 7, ledger))
    talking.start()
    with server.accept() as connection:
        assert heard(connection, 3) == [1, 2, 3]
        assert ledger.counts().answered == 0
        connection.sendall(b"+OK 1\n+OK 3\n")
        assert heard(connection, 3) == [4, 5, 6]
        connection.sendall(b"+OK 6\n")
        talking.join(SECONDS)
    assert (ledger.counts().sent, ledger.counts().answered) == (6, 6)
