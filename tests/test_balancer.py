"""Clients that come through a load balancer, on a network in memory."""

from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred

from netd.balancer import HEADER_TIMEOUT, LAST_CALL, MOST_WAITING
from netd.listener import SWEEP_INTERVAL, Connection, Listener
from tests.fakes import MemoryNetwork, listener_on

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.9 4711 8001\r\n"


class Echo(Connection):
    """Greets, and sends back what it hears."""

    def connectionMade(self) -> None:
        self.transport.write(b"welcome ")

    def dataReceived(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self.transport.write(data)


Bind = Callable[[str], Listener]


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
def bind(network: MemoryNetwork) -> Bind:
    def bind_with(settings: str) -> Listener:
        return listener_on(network, f'[echo.plain]\nlisten = "haproxy:tcp:8001"\nopen = true\n{settings}', Echo)

    return bind_with


def test_the_table_shows_the_client_and_not_the_balancer(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    balancer = network.client()
    assert not listener.connections
    assert balancer.send(HEADER + b"hello") == b"welcome hello"
    (connection,) = listener.connections.values()
    assert (connection.peer, connection.host) == ("192.0.2.1:4711", "192.0.2.1")
    assert balancer.send(b"more") == b"more"
    balancer.leave()
    assert not listener.connections
    (sweep,) = network.getDelayedCalls()
    assert sweep.getTime() == network.seconds() + SWEEP_INTERVAL


def test_a_client_that_says_nothing_is_greeted_as_soon_as_its_header_is_there(
    network: MemoryNetwork, bind: Bind
) -> None:
    bind("")
    balancer = network.client()
    for index in range(len(HEADER) - 1):
        assert balancer.send(HEADER[index : index + 1]) == b""
    assert balancer.send(HEADER[-1:]) == b"welcome "


def test_allow_is_asked_about_the_client(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind('allow = ["192.0.2.0/24"]')
    let_in, refused = network.client(), network.client()
    assert let_in.send(HEADER) == b"welcome "
    assert refused.send(HEADER.replace(b"192.0.2.1", b"198.51.100.1")) == b""
    assert refused.gone
    assert listener.refused["allow"] == 1


def test_limits_count_clients(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("max_connections_per_host = 1")
    first, second, other = network.client(), network.client(), network.client()
    assert first.send(HEADER) == b"welcome "
    assert second.send(HEADER) == b""
    assert second.gone
    assert other.send(HEADER.replace(b"192.0.2.1", b"192.0.2.2")) == b"welcome "
    assert listener.refused["max_connections_per_host"] == 1


def test_who_is_no_balancer_is_refused_at_once(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind('balancers = ["10.0.0.5"]')
    assert network.connect("10.0.0.5") is not None
    assert network.connect("127.0.0.1") is None
    assert network.connect("192.0.2.1") is None
    assert listener.refused["balancers"] == 2


def test_a_connection_of_the_balancer_s_own_is_under_its_own_address(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    assert network.client().send(b"PROXY UNKNOWN\r\n") == b"welcome "
    (connection,) = listener.connections.values()
    assert connection.peer == "127.0.0.1:40000"


def test_who_sends_no_header_is_cut(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    balancer = network.client()
    network.advance(HEADER_TIMEOUT - 0.1)
    assert not balancer.gone
    network.advance(0.1)
    assert balancer.gone
    assert listener.refused["proxy_header"] == 1


def test_who_sends_something_else_is_cut(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    balancer = network.client()
    assert balancer.send(b"GET / HTTP/1.1\r\n\r\n") == b""
    assert balancer.gone
    assert listener.refused["proxy_header"] == 1


def test_never_more_than_so_many_are_without_a_header(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    waiting = [network.client() for _ in range(MOST_WAITING)]
    assert network.connect() is None
    assert listener.refused["proxy_header"] == 1
    waiting[0].leave()
    assert network.connect() is not None


def test_who_was_on_the_way_in_when_the_port_closed_is_served(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    balancer = network.client()
    stopped = Deferred.fromCoroutine(listener.stop_listening())
    assert not stopped.called
    assert balancer.send(HEADER + b"hello") == b"welcome hello"
    assert stopped.called
    assert len(listener.connections) == 1


def test_closing_a_port_does_not_wait_for_who_sends_no_header(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    balancer = network.client()
    stopped = Deferred.fromCoroutine(listener.stop_listening())
    network.advance(LAST_CALL)
    assert balancer.gone
    assert stopped.called
