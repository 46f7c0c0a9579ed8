"""A service's ports: who may connect, how many, for how long, and the table of who is connected.

Every connection of netd, whatever its protocol, is a `Connection` in a `Listener`'s table. What is refused is refused
in `buildProtocol`, before a transport exists: Twisted then closes the socket at once.

The hot path keeps two integers per connection, bytes in and bytes out, counted by its protocol. Everything else is read
from them: totals when somebody asks, idleness by one sweep a second that compares them with the last sweep's.
"""

import ipaddress
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHandshakeListener, IProtocol, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from netd.log import Repeated
from netd.ports import OpenPort
from netd.runtime import CannotStart, Runtime
from netd.settings import Address, ListenerSettings, Network
from netd.source import source_of
from netd.tls import TlsUnusable, make_context

SWEEP_INTERVAL = 1.0
"""Seconds between two looks at which connections are idle."""

HANDSHAKE_TIMEOUT = 20.0
"""Seconds a TLS handshake may take; sshd gives a log-in 120, web servers 60, and a real one is done within two."""

LINGER = 30.0
"""Seconds a connection that is being closed may go without its peer taking a byte; then it is aborted."""

TCP_INFO_BYTES_ACKED = struct.Struct("120xQ")
"""Where tcpi_bytes_acked stands in linux/tcp.h's struct tcp_info."""

TCP_CLOSE = 7
"""tcpi_state, the first byte of it, of a connection that has been reset (linux/tcp.h)."""

DRAIN_TICK = 0.2
"""Seconds without a byte either way after which a connection counts as having nothing in flight while draining."""

Refusal = Literal[
    "allow",
    "max_connections",
    "max_connections_per_host",
    "balancers",
    "proxy_header",
    "descriptors",
    "startups",
    "startups_per_host",
    "penalty",
]
"""Why a connection is not made; the last three are ssh's, see netd/ssh/gate.py."""

_log = Logger()


@implementer(IHandshakeListener)
class Connection(Protocol):
    """A protocol in a listener's table. Whoever reads or writes bytes adds them to `bytes_in` and `bytes_out`."""

    # Ten thousand of these are to cost little: no instance dictionary comes to be.
    __slots__ = (
        "bytes_in",
        "bytes_out",
        "closing",
        "connected",
        "handshaken",
        "host",
        "id",
        "listener",
        "port",
        "quiet_since",
        "seen",
        "since",
        "transport",
    )

    transport: ITransport

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.closing = False
        self.handshaken = False

    def admitted(self, listener: "Listener", number: int, host: str, port: int, now: float) -> None:
        """Told by the listener before the connection is made. `host` is "" for a unix socket.

        Behind a load balancer `host` and `port` are the client's, and `transport.getPeer()` is the balancer.
        """
        self.listener = listener
        self.id = number
        self.host = host
        self.port = port
        self.since = self.quiet_since = now
        self.seen = 0

    def makeConnection(self, transport: ITransport) -> None:
        self.listener.opened(self)
        super().makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leaves the table. Who overrides this calls it."""
        self.listener.closed(self, reason)

    def handshakeCompleted(self) -> None:
        """Told by Twisted when TLS is up."""
        self.handshaken = True

    @property
    def peer(self) -> str:
        """Who is connected, for a person: "192.0.2.1:4711", "[2001:db8::1]:4711" or "unix"."""
        if not self.host:
            return "unix"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def close(self) -> None:
        """Send what is written, then close; once the peer takes nothing for LINGER seconds, abort.

        Who registered a producer overrides this to let it go first, or the transport waits for it.
        """
        self.closing = True
        self.listener.closing = True
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once; what is not sent is lost."""
        self.transport.abortConnection()  # type: ignore[attr-defined]  # TCP, unix and TLS transports all have it


@dataclass(frozen=True, slots=True)
class Port:
    """A key of the configuration that names addresses, and what is spoken there."""

    key: str
    addresses: Sequence[Address]
    build: Callable[[], Connection]
    segment: int = 0
    """Bytes of a TCP segment that is sent at most; 0: what the path takes."""
    last: bool = False
    """Whether its clients may take the last file descriptors of the daemon, too."""


class _Nothing(Factory):
    """Stands where a TLS factory expects the factory it wraps; `_Tls` hands it protocols instead."""

    noisy = False


class _TlsTransport(BufferingTLSTransport):
    """Twisted's, but that a client who says by close_notify that it has said all is answered, and then let go."""

    transport: Any

    def _shutdownTLS(self) -> None:
        self._aggregator.flush()  # small answers of this turn, which would come too late
        super()._shutdownTLS()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        # No producer has more to send: the transport, which waits for one that is paused, would do so for ever.
        self.transport.producerPaused = False
        super()._tlsShutdownFinished(reason)


class _Tls:
    """Wraps the connections of a listener in TLS."""

    def __init__(self, context: CertificateOptions) -> None:
        self._factory = TLSMemoryBIOFactory(context, False, _Nothing())

    def wrap(self, connection: Connection) -> IProtocol:
        """What a transport is given in place of the connection."""
        return cast("IProtocol", _TlsTransport(self._factory, connection))


@dataclass(frozen=True, slots=True)
class _PortGate:
    """Answers for a listener what one of its ports asks."""

    listener: "Listener"
    port: Port
    tls: _Tls | None

    def admit(self, address: IAddress) -> IProtocol | None:
        connection = self.listener.admit(self.port, address)
        return connection if self.tls is None or connection is None else self.tls.wrap(connection)

    def no_descriptor(self, address: IAddress) -> None:
        self.listener.refuse("descriptors", _host_of(address))

    def believes(self, address: IAddress) -> bool:
        return self.listener.believes(address)

    def no_header(self, address: IAddress) -> None:
        self.listener.refuse("proxy_header", _host_of(address))


class Listener:
    """The ports of one service with their common limits and the table of their connections."""

    def __init__(self, service: str, ports: Sequence[Port], settings: ListenerSettings, runtime: Runtime) -> None:
        self.connections: dict[int, Connection] = {}
        self.closing = False
        self.accepted = 0
        self.refused: Counter[Refusal] = Counter()
        self._service = service
        self._ports = ports
        self._settings = settings
        self._runtime = runtime
        self._clock = runtime.reactor
        self._per_host: dict[str, int] = {}
        self._finished = [0, 0]
        self._open: list[OpenPort] = []
        self._sweeping: LoopingCall | None = None
        self._taken: dict[int, int] = {}
        self._refusals = {
            reason: Repeated(self._clock, partial(self._report_refused, reason)) for reason in get_args(Refusal)
        }
        self._last_refused = ""

    # --- life

    async def prepare(
        self, ports: Sequence[Port] | None = None, settings: ListenerSettings | None = None
    ) -> Callable[[], None]:
        """Open what these ports and settings need, by default those it has; the answer puts them in force.

        Raises CannotStart. What was opened in vain, and what is no longer served, `Ports.close_unserved` closes.
        """
        ports = self._ports if ports is None else ports
        settings = self._settings if settings is None else settings
        tls = None
        if settings.tls is not None:
            try:
                tls = _Tls(make_context(settings.tls))
            except TlsUnusable as error:
                raise CannotStart(f"{self._service}.tls.{error}") from None
        opened = [
            (port, await self._runtime.ports.open(self._service, port.key, address))
            for port in ports
            for address in port.addresses
        ]
        return partial(self._serve, opened, ports, settings, tls)

    def _serve(
        self,
        opened: Sequence[tuple[Port, OpenPort]],
        ports: Sequence[Port],
        settings: ListenerSettings,
        tls: _Tls | None,
    ) -> None:
        before, self._open = self._open, [each for _, each in opened]
        self._ports, self._settings = ports, settings
        for port, each in opened:
            gate = _PortGate(self, port, tls)
            each.serve(self, gate, keepalive=settings.tcp_keepalive, segment=port.segment, last=port.last)
        for each in before:
            if each.owner is self and each not in self._open:
                each.hold()
        if self._sweeping is None:
            self._sweeping = LoopingCall(self._sweep)
            self._sweeping.clock = self._clock
            self._sweeping.start(SWEEP_INTERVAL, now=False).addErrback(
                lambda failure: _log.failure("the sweep for idle connections stopped", failure, service=self._service)
            )

    @property
    def bound(self) -> list[str]:
        """The addresses it serves, for a person."""
        return [each.shown for each in self._open]

    async def stop_listening(self) -> None:
        """Close the ports, but those that another listener has taken over; connections go on."""
        ports, self._open = self._open, []
        await self._runtime.ports.close([each for each in ports if each.owner is self])

    async def drain(self) -> None:
        """Stop accepting and close each connection once nothing moves on it; ends when none is left, or cancelled."""
        await self.stop_listening()
        moved: dict[int, int] = {}
        while self.connections:
            for connection in list(self.connections.values()):
                total = connection.bytes_in + connection.bytes_out
                if moved.get(connection.id) == total and not connection.closing:
                    connection.close()
                moved[connection.id] = total
            await self._later(DRAIN_TICK)

    async def stop(self) -> None:
        """Stop accepting and abort every connection."""
        await self.stop_listening()
        if self._sweeping is not None and self._sweeping.running:
            self._sweeping.stop()
            self._sweeping = None
        for connection in list(self.connections.values()):
            connection.abort()
        while self.connections:
            await self._later(0)
        for refusals in self._refusals.values():
            refusals.stop()

    def _later(self, seconds: float) -> Deferred[None]:
        return deferLater(self._clock, seconds)

    # --- connections come and go

    def refusal(self, host: str) -> Refusal | None:
        """Why a connection from `host` may not be made, or None."""
        settings = self._settings
        if settings.max_connections and len(self.connections) >= settings.max_connections:
            return "max_connections"
        if not host:
            return None
        most = settings.max_connections_per_host
        if most and self._per_host.get(source_of(host), 0) >= most:
            return "max_connections_per_host"
        if settings.allow is not None and not _within(host, settings.allow):
            return "allow"
        return None

    def believes(self, address: IAddress) -> bool:
        """Whether who connects from an address may say for whom it does."""
        host = _host_of(address)
        if not host or _within(host, self._settings.balancers):
            return True
        self.refuse("balancers", host)
        return False

    def refuse(self, reason: Refusal, host: str) -> None:
        """Count a connection that is not made, and report it."""
        self.refused[reason] += 1
        self._last_refused = host
        self._refusals[reason].happened()

    def admit(self, port: Port, address: IAddress) -> Connection | None:
        """The connection for a client at `address`, or None when it is refused."""
        host = _host_of(address)
        reason = self.refusal(host)
        if reason is not None:
            self.refuse(reason, host)
            return None
        connection = port.build()
        number = next(self._runtime.connection_ids)
        connection.admitted(self, number, host, getattr(address, "port", 0), self._clock.seconds())
        return connection

    def opened(self, connection: Connection) -> None:
        """A connection enters the table."""
        self.accepted += 1
        self.connections[connection.id] = connection
        if connection.host:
            source = source_of(connection.host)
            self._per_host[source] = self._per_host.get(source, 0) + 1
        if self._runtime.log.debug:
            _log.debug("connection {id} from {host}", id=connection.id, host=connection.host, service=self._service)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """A connection leaves the table; its bytes stay in the totals."""
        del self.connections[connection.id]
        self._taken.pop(connection.id, None)
        self._finished[0] += connection.bytes_in
        self._finished[1] += connection.bytes_out
        if connection.host:
            source = source_of(connection.host)
            left = self._per_host[source] - 1
            if left:
                self._per_host[source] = left
            else:
                del self._per_host[source]
        if self._runtime.log.debug:
            _log.debug(
                "connection {id} ended: {why}; {bytes_in} bytes in, {bytes_out} out",
                id=connection.id,
                why=reason.getErrorMessage(),
                bytes_in=connection.bytes_in,
                bytes_out=connection.bytes_out,
                service=self._service,
            )

    def bytes_total(self) -> tuple[int, int]:
        """Bytes in and out since the start, ended connections included."""
        bytes_in, bytes_out = self._finished
        for connection in self.connections.values():
            bytes_in += connection.bytes_in
            bytes_out += connection.bytes_out
        return bytes_in, bytes_out

    # --- once a second

    def _sweep(self) -> None:
        idle = self._settings.idle_timeout
        tls = self._settings.tls is not None
        if not (idle or tls or self.closing):
            return
        now = self._clock.seconds()
        self.closing = False
        for connection in list(self.connections.values()):
            try:
                self._sweep_one(connection, now, idle, tls=tls)
            except Exception:  # noqa: BLE001 - whatever is wrong with one connection, the sweep goes on for the others
                _log.failure("closing connection {id} failed", id=connection.id, service=self._service)
                connection.abort()

    def _sweep_one(self, connection: Connection, now: float, idle: float, *, tls: bool) -> None:
        total = connection.bytes_in + connection.bytes_out
        if total != connection.seen:
            connection.seen = total
            connection.quiet_since = now
        quiet = now - connection.quiet_since
        if connection.closing:
            self.closing = True
            taken = bytes_taken(connection.transport)
            if taken != self._taken.get(connection.id):
                self._taken[connection.id] = taken
                connection.quiet_since = now
            elif quiet >= LINGER:
                connection.abort()
        elif (idle and quiet >= idle) or (tls and not connection.handshaken and quiet >= HANDSHAKE_TIMEOUT):
            connection.quiet_since = now
            connection.close()

    def _report_refused(self, reason: Refusal, count: int) -> None:
        _log.warn(
            "refused {count} connection(s) by {reason}, last from {host}",
            count=count,
            reason=reason,
            host=self._last_refused or "unix",
            service=self._service,
        )


def _within(host: str, networks: Sequence[Network]) -> bool:
    address = ipaddress.ip_address(host)
    return any(address in network for network in networks)


def _host_of(address: IAddress) -> str:
    if isinstance(address, IPv4Address | IPv6Address):
        host = str(address.host)
        return host.removeprefix("::ffff:") if "." in host else host
    return ""


def bytes_taken(transport: ITransport) -> int:
    """How many bytes the peer's kernel has acknowledged; 0 where the kernel does not say, as for unix sockets."""
    connected = getattr(transport, "socket", None)
    if connected is None or connected.family == socket.AF_UNIX:
        return 0
    info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES_ACKED.size)
    return int(TCP_INFO_BYTES_ACKED.unpack(info)[0])


def has_gone(transport: ITransport) -> bool:
    """Whether the peer has reset the connection: where nothing is read any more, nobody else would notice."""
    connected = getattr(transport, "socket", None)
    if connected is None or connected.family == socket.AF_UNIX:
        return False
    return bool(connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE)
