"""The proxy of `make faults`: that it does to connections what it says, and nothing else."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.faults.proxy import FaultProxy

PATIENCE = 60.0
Pair = tuple[socket.socket, socket.socket]


class Service:
    """A proxy before a listening socket: connections come as pairs, the client's end and the server's."""

    def __init__(self, listening: socket.socket, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self._listening = listening

    @contextmanager
    def connection(self) -> Iterator[Pair]:
        with closing(socket.create_connection(("127.0.0.1", self.proxy.port), PATIENCE)) as client:
            server, _ = self._listening.accept()
            server.settimeout(PATIENCE)
            with closing(server):
                yield client, server


@pytest.fixture
def service() -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        with FaultProxy(listening.getsockname()[1]) as proxy:
            yield Service(listening, proxy)


def take(end: socket.socket, count: int) -> bytes:
    taken = b""
    while len(taken) < count and (data := end.recv(count - len(taken))):
        taken += data
    return taken


def has_nothing_to_read(end: socket.socket) -> bool:
    end.settimeout(0.2)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(PATIENCE)
    return False


def test_bytes_and_ends_go_both_ways_unchanged(service: Service) -> None:
    data = bytes(range(256)) * 4096
    with service.connection() as (client, server):
        for one, other in ((client, server), (server, client)):
            sending = threading.Thread(target=one.sendall, args=(data,))
            sending.start()
            assert take(other, len(data)) == data
            sending.join()
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.sendall(b"still here")
        assert take(client, 10) == b"still here"
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert (service.proxy.up.passed, service.proxy.down.passed) == (len(data), len(data) + 10)


def test_latency_holds_one_way_alone(service: Service) -> None:
    with service.connection() as (client, server):
        service.proxy.up.late(0.3)
        began = time.monotonic()
        client.sendall(b"x")
        assert take(server, 1) == b"x"
        assert time.monotonic() - began >= 0.3
        assert service.proxy.down.latency == 0
        server.sendall(b"y")
        assert take(client, 1) == b"y"


def test_slices_arrive_one_by_one(service: Service) -> None:
    with service.connection() as (client, server):
        service.proxy.down.sliced(1, gap=0.02)
        began = time.monotonic()
        server.sendall(b"0123456789")
        pieces: list[bytes] = []
        while len(b"".join(pieces)) < 10:
            pieces.append(client.recv(100))
        assert b"".join(pieces) == b"0123456789"
        assert len(pieces) > 1, "one at a time, but for those that a slow reader finds together"
        assert time.monotonic() - began > 0.15


def test_what_is_stalled_waits_and_is_not_lost(service: Service) -> None:
    with service.connection() as (client, server):
        service.proxy.stall(service.proxy.up)
        client.sendall(b"later")
        assert has_nothing_to_read(server)
        server.sendall(b"now")
        assert take(client, 3) == b"now"
        service.proxy.clear()
        assert take(server, 5) == b"later"


def test_a_reset_overtakes_what_is_stalled(service: Service) -> None:
    with service.connection() as (client, server):
        service.proxy.stall(service.proxy.up)
        client.sendall(b"given up")
        assert has_nothing_to_read(server)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        deadline = time.monotonic() + PATIENCE
        while service.proxy.open and time.monotonic() < deadline:
            service.proxy.clear()
            time.sleep(0.01)
        with pytest.raises(ConnectionResetError):
            server.recv(1)


def test_a_reset_breaks_both_sides(service: Service) -> None:
    with service.connection() as (client, server):
        client.sendall(b"x")
        assert take(server, 1) == b"x"
        service.proxy.reset()
        for end in (client, server):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
    with service.connection() as (client, server):
        client.sendall(b"and the next one works")
        assert take(server, 22) == b"and the next one works"


def test_half_a_connection_ends_and_the_other_half_goes_on(service: Service) -> None:
    with service.connection() as (client, server):
        client.sendall(b"x")
        assert take(server, 1) == b"x"
        service.proxy.half_close(service.proxy.up)
        assert server.recv(1) == b""
        client.sendall(b"into the void")
        server.sendall(b"heard")
        assert take(client, 5) == b"heard"
        assert has_nothing_to_read(client)


def test_a_cut_ends_both_ways_after_so_many_bytes(service: Service) -> None:
    with service.connection() as (client, server):
        server.sendall(b"unread by the client, and no reset for the server")
        assert take(client, 6) == b"unread"
        service.proxy.truncate(service.proxy.up, 3)
        client.sendall(b"12345")
        assert take(server, 100) == b"123"
        assert take(client, 100) == b" by the client, and no reset for the server"


def test_no_server_is_a_reset() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with (
            FaultProxy(nobody.getsockname()[1]) as proxy,
            pytest.raises(ConnectionResetError),  # which may come before one is connected
            socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as client,
        ):
            client.recv(1)
