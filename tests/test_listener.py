"""Who may connect, how many, for how long; what the table of connections says."""

from collections.abc import Callable

import pytest
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred

from netd.listener import LINGER, Connection, Listener, Port
from netd.ports import check_endpoints
from tests.fakes import MemoryNetwork, configure, listener_on, result_of


class Talker(Connection):
    """Counts what it hears and answers nothing."""

    def dataReceived(self, data: bytes) -> None:
        self.bytes_in += len(data)


Bind = Callable[[str], Listener]


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
def bind(network: MemoryNetwork) -> Bind:
    def bind_with(settings: str) -> Listener:
        return listener_on(network, f'[echo.plain]\nlisten = ["127.0.0.1:8001", "127.0.0.1:8002"]\n{settings}', Talker)

    return bind_with


def test_the_table_says_who_is_connected_since_when_and_how_much_was_said(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    network.advance(5)
    client = network.client("192.0.2.1")
    client.send(b"hello")
    (connection,) = listener.connections.values()
    assert (connection.id, connection.peer, connection.since) == (1, "192.0.2.1:40000", 5)
    assert (connection.bytes_in, connection.bytes_out) == (5, 0)
    client.leave()
    assert not listener.connections


def test_numbers_of_connections_are_unique_across_ports_and_never_used_again(
    network: MemoryNetwork, bind: Bind
) -> None:
    listener = bind("")
    first = network.client(port=0)
    network.client(port=1)
    first.leave()
    network.client(port=0)
    assert sorted(listener.connections) == [2, 3]


def test_bytes_of_ended_connections_stay_in_the_totals(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    first, second = network.client(), network.client()
    first.send(b"123")
    first.leave()
    second.send(b"45")
    assert listener.bytes_total() == (5, 0)
    assert listener.accepted == 2


def test_more_connections_than_allowed_are_refused_until_one_leaves(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("max_connections = 2")
    first = network.client(port=0)
    network.client(port=1)
    assert network.connect() is None
    assert listener.refused["max_connections"] == 1
    first.leave()
    assert network.connect() is not None


def test_one_host_cannot_take_every_place(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("max_connections_per_host = 1")
    greedy = network.client("192.0.2.1")
    assert network.connect("192.0.2.1") is None
    assert network.connect("192.0.2.2") is not None
    greedy.leave()
    assert network.connect("192.0.2.1") is not None
    assert listener.refused["max_connections_per_host"] == 1


def test_a_network_of_ipv6_is_one_host(network: MemoryNetwork, bind: Bind) -> None:
    bind("max_connections_per_host = 1")
    greedy = network.client("2001:db8::1")
    assert network.connect("2001:db8::ffff:2") is None
    assert network.connect("2001:db8:0:1::1") is not None
    greedy.leave()
    assert network.connect("2001:db8::ffff:2") is not None


def test_only_allowed_networks_connect(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind('allow = ["10.0.0.0/8", "2001:db8::/32"]')
    assert network.connect("10.9.9.9") is not None
    assert network.connect("11.0.0.1") is None
    assert listener.refusal("2001:db8::7") is None
    assert listener.refusal("fe80::1%eth0") == "allow"


def test_an_ipv4_client_on_an_ipv6_port_counts_as_ipv4(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind('allow = ["10.0.0.0/8"]')
    port = Port("echo.plain.listen", [], Talker)
    assert listener.admit(port, IPv6Address("TCP", "::ffff:10.0.0.1", 1)) is not None
    assert listener.admit(port, IPv6Address("TCP", "::ffff:11.0.0.1", 1)) is None
    assert listener.admit(port, IPv6Address("TCP", "::ffff:1:2:3", 1)) is None  # no IPv4 address, though it looks it


def test_a_silent_connection_is_closed_after_the_idle_timeout_and_a_busy_one_is_not(
    network: MemoryNetwork, bind: Bind
) -> None:
    bind('idle_timeout = "10s"')
    silent, busy = network.client(), network.client()
    for _ in range(12):
        network.advance(1)
        busy.send(b".")
    assert silent.gone
    assert not busy.gone


def test_no_idle_timeout_means_never(network: MemoryNetwork, bind: Bind) -> None:
    bind("idle_timeout = 0")
    silent = network.client()
    for _ in range(100):
        network.advance(60)
    assert not silent.gone


def test_a_client_that_takes_nothing_cannot_keep_a_closed_connection(network: MemoryNetwork, bind: Bind) -> None:
    bind('idle_timeout = "10s"')
    stuck = network.client()
    stuck.reads = False
    for _ in range(11):
        network.advance(1)
    assert not stuck.gone
    for _ in range(int(LINGER) + 2):
        network.advance(1)
    assert stuck.gone


def test_drain_closes_ports_at_once_and_connections_when_nothing_moves_on_them(
    network: MemoryNetwork, bind: Bind
) -> None:
    listener = bind("")
    quiet, busy = network.client(), network.client()
    drained = Deferred.fromCoroutine(listener.drain())
    for _ in range(5):
        busy.send(b"more")
        network.advance(0.2)
    assert quiet.gone
    assert not busy.gone
    assert not drained.called
    network.pump([0.2, 0.2])
    assert busy.gone
    assert drained.called


def test_stop_aborts_what_is_left(network: MemoryNetwork, bind: Bind) -> None:
    listener = bind("")
    client = network.client()
    client.reads = False
    result_of(listener.stop())
    assert client.gone
    assert not listener.connections
    assert not network.getDelayedCalls()


def test_endpoint_strings_that_twisted_does_not_understand_are_mistakes() -> None:
    config = configure('[echo.plain]\nlisten = ["nosuch:1", "tcp:x:interface=127.0.0.1", "unix:/a"]\nopen = true\n')
    first, second = check_endpoints(config)
    assert first.startswith("/etc/netd/netd.toml: echo.plain.listen: nosuch:1: Unknown endpoint type: 'nosuch'")
    assert second.startswith("/etc/netd/netd.toml: echo.plain.listen: tcp:x:interface=127.0.0.1: invalid literal")
