"""In-memory stand-ins for what lies outside netd: the reactor, the network."""

from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from netd.config import Config, parse
from netd.listener import Connection, Listener, Port
from netd.log import LogOutput, render_json
from netd.ports import Ports
from netd.runtime import Reactor, Runtime

T = TypeVar("T")


class Client(StringTransport):
    """The server's transport to a client that lives in memory.

    With `reads = False` the client takes nothing: what is written stays, and `loseConnection` waits for ever.
    """

    def __init__(self, protocol: IProtocol, address: IAddress) -> None:
        super().__init__(peerAddress=address)
        self.protocol = protocol
        self.reads = True
        self.gone = False
        protocol.makeConnection(self)

    def send(self, data: bytes) -> bytes:
        """Send bytes to the server; returns what it has answered to them so far."""
        self.clear()
        self.protocol.dataReceived(data)
        return cast("bytes", self.value())

    def loseConnection(self) -> None:
        super().loseConnection()
        if self.reads:
            self.leave(ConnectionDone())

    def abortConnection(self) -> None:
        super().abortConnection()
        self.leave(ConnectionAborted())

    def leave(self, reason: Exception | None = None) -> None:
        """The connection ends, by the client's doing when no reason is given."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))


class MemoryNetwork(MemoryReactorClock):
    """A reactor whose ports are reached by `connect`, and whose time passes by `advance`."""

    def __init__(self) -> None:
        super().__init__()
        self._from_threads: deque[Callable[[], object]] = deque()

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Have it called in the test's thread, as time passes."""
        self._from_threads.append(partial(function, *arguments))

    def advance(self, amount: float) -> None:
        while self._from_threads:
            self._from_threads.popleft()()
        super().advance(amount)

    def seconds(self) -> float:
        return self.rightNow

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> IListeningPort:
        listening = super().listenTCP(port, factory, backlog, interface)
        entry = self.tcpServers[-1]
        listening.stopListening = lambda: self.tcpServers.remove(entry)
        return cast("IListeningPort", listening)

    def connect(self, host: str = "127.0.0.1", *, port: int = 0) -> Client | None:
        """A client of the `port`-th TCP port that is open; None when it is refused."""
        factory = cast("Factory", self.tcpServers[port][1])
        address = IPv4Address("TCP", host, 40000)
        protocol = factory.buildProtocol(address)
        return Client(cast("IProtocol", protocol), address) if protocol is not None else None

    def client(self, host: str = "127.0.0.1", *, port: int = 0) -> Client:
        """The same for a client that surely is let in."""
        client = self.connect(host, port=port)
        assert client is not None, f"{host} was refused"
        return client


def runtime_on(network: MemoryNetwork) -> Runtime:
    """What a daemon would lend its services, on a network in memory."""
    log = LogOutput(lambda _: None, render_json, "info")
    return Runtime(cast("Reactor", network), log, Path("/nowhere"), Ports(network))


def configure(text: str) -> Config:
    """The configuration that a TOML text means."""
    return parse(text.encode(), Path("/etc/netd/netd.toml"), {})


def listener_on(network: MemoryNetwork, text: str, build: Callable[[], Connection]) -> Listener:
    """The open ports of the one service of a configuration, with connections of the test's own."""
    config = configure(text).services[0]
    ports = [Port(f"{config.key}.{name}", addresses, build) for name, addresses in config.settings.listens().items()]
    listener = Listener(config.key, ports, config.settings, runtime_on(network))
    serve = result_of(listener.prepare())
    serve()
    return listener


def result_of(awaited: Coroutine[Deferred[T], object, T] | Deferred[T]) -> T:
    """The result of what has come to an end already; its exception is raised."""
    deferred = awaited if isinstance(awaited, Deferred) else Deferred.fromCoroutine(awaited)
    results: list[T] = []
    failures: list[Failure] = []
    deferred.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    assert results, "still waiting"
    return results[0]
