"""Connections that a load balancer makes for its clients, at `haproxy:` endpoints.

Each begins with a header that names the client (see `netd.proxy`). Until it is there, the connection is in no
listener's table; then the gate is asked about the *client*, and from there on everything is as if the client had
connected by itself: the transport is handed over, and nothing stands between it and the client's protocol. Who sends no
header within HEADER_TIMEOUT is cut, and of those who might there are never more than MOST_WAITING.
"""

from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IReactorTime, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from netd.gate import Gate
from netd.proxy import NoHeader, read_header

HEADER_TIMEOUT = 5.0
"""Seconds; a balancer sends the header with its first packet, and one that is lost comes again after 1 and after 3."""

LAST_CALL = 0.2
"""Seconds for headers that are under way when the port is closed."""

MOST_WAITING = 1024
"""Connections on one port that may be without their header at once."""


class BalancedPort(Factory):
    """Stands at the port, whoever serves it."""

    noisy = False
    gate: Gate | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.waiting: set[HeaderReader] = set()
        self._settled: Deferred[None] | None = None

    def buildProtocol(self, address: IAddress) -> IProtocol | None:  # type: ignore[override]  # Factory's says Protocol
        if self.gate is None or not self.gate.believes(address):
            return None
        if len(self.waiting) >= MOST_WAITING:
            self.gate.no_header(address)
            return None
        return cast("IProtocol", HeaderReader(self, address))

    def settle(self) -> "Deferred[None] | None":
        """The port is closed: wait for the headers under way, for LAST_CALL, and forget the gate."""
        if not self.waiting:
            self.gate = None
            return None
        self._settled = Deferred()
        for reader in self.waiting:
            reader.hurry()
        return self._settled

    def left(self, reader: "HeaderReader") -> None:
        """One has got its header, or has gone without."""
        self.waiting.discard(reader)
        if self._settled is not None and not self.waiting:
            settled, self._settled = self._settled, None
            self.gate = None
            settled.callback(None)


class HeaderReader(Protocol):
    """One connection until its header is there."""

    transport: ITransport

    def __init__(self, port: BalancedPort, address: IAddress) -> None:
        self._port = port
        self._address = address
        self._data = b""
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._port.waiting.add(self)
        self._timer = self._port.clock.callLater(HEADER_TIMEOUT, self._give_up)

    def hurry(self) -> None:
        """Give it no more than LAST_CALL from now."""
        if self._timer is not None:
            self._timer.reset(min(LAST_CALL, self._timer.getTime() - self._port.clock.seconds()))

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            header = read_header(self._data)
        except NoHeader:
            self._give_up()
            return
        if header is None:
            return
        address = self._address
        if header.host:
            kind = IPv6Address if ":" in header.host else IPv4Address
            address = cast("IAddress", kind("TCP", header.host, header.port))
        protocol = self._port.gate.admit(address) if self._port.gate is not None else None
        if protocol is None:
            self.transport.loseConnection()
        else:
            self._hand_over(protocol, self._data[header.size :])
        self._leave()

    def _hand_over(self, protocol: IProtocol, data: bytes) -> None:
        """From here on the transport is the protocol's, as with the transport of a connection of the client's own."""
        self.transport.protocol = protocol  # type: ignore[attr-defined]  # what TCP and unix transports call
        protocol.makeConnection(self.transport)
        if data:
            protocol.dataReceived(data)

    def _give_up(self) -> None:
        if self._port.gate is not None:
            self._port.gate.no_header(self._address)
        self.transport.abortConnection()  # type: ignore[attr-defined]  # TCP and unix transports have it
        self._leave()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - none is worth a line
        self._leave()

    def _leave(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._port.left(self)
