"""A service's ports: who may connect, how many, for how long, and the table of who is connected.

Every connection of netd, whatever its protocol, is a `Connection` in a `Listener`'s table. What is refused is refused
in `buildProtocol`, before a transport exists: Twisted then closes the socket at once.

The hot path keeps two integers per connection, bytes in and bytes out, counted by its protocol. Everything else is read
from them: totals when somebody asks, idleness by one sweep a second that compares them with the last sweep's.
"""

import ipaddress
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT
from functools import partial
from typing import Literal, cast, get_args

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IListeningPort,
    IProtocol,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from netd.config import Config
from netd.log import Repeated
from netd.runtime import CannotStart, Runtime
from netd.settings import Address, ListenerSettings
from netd.tls import TlsUnusable, make_context

BACKLOG = 4096
"""Connections the kernel may hold before they are accepted; net.core.somaxconn, 4096 on current kernels, caps it."""

SWEEP_INTERVAL = 1.0
"""Seconds between two looks at which connections are idle."""

HANDSHAKE_TIMEOUT = 20.0
"""Seconds a TLS handshake may take; sshd gives a log-in 120, web servers 60, and a real one is done within two."""

LINGER = 30.0
"""Seconds a connection that is being closed may go without its peer taking a byte; then it is aborted."""

TCP_INFO_BYTES_ACKED = struct.Struct("120xQ")
"""Where tcpi_bytes_acked stands in linux/tcp.h's struct tcp_info."""

DRAIN_TICK = 0.2
"""Seconds without a byte either way after which a connection counts as having nothing in flight while draining."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 60, 15, 4
"""Seconds of silence, seconds between probes, probes: a peer that vanished is noticed after two minutes (tcp(7))."""

FIRST_FREE_PORT = 1024
"""The first TCP port that a program without privileges may bind."""

UNIX_MODE = "660"
"""Of a unix socket that names none: a port that only files' permissions protect is not for everybody."""

Refusal = Literal["allow", "max_connections", "max_connections_per_host", "startups", "startups_per_host", "penalty"]
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

    def admitted(self, listener: "Listener", number: int, host: str, now: float) -> None:
        """Told by the listener before the connection is made. `host` is "" for a unix socket."""
        self.listener = listener
        self.id = number
        self.host = host
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
        return _show_peer(self.transport.getPeer())

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


class Listener:
    """The ports of one service with their common limits and the table of their connections."""

    def __init__(self, service: str, ports: Sequence[Port], settings: ListenerSettings, runtime: Runtime) -> None:
        self.connections: dict[int, Connection] = {}
        self.closing = False
        self.accepted = 0
        self.refused: Counter[Refusal] = Counter()
        self.bound: list[str] = []
        self._service = service
        self._ports = ports
        self._settings = settings
        self._runtime = runtime
        self._clock = runtime.reactor
        self._per_host: dict[str, int] = {}
        self._finished = [0, 0]
        self._listening: list[IListeningPort] = []
        self._sweeping: LoopingCall | None = None
        self._taken: dict[int, int] = {}
        self._refusals = {
            reason: Repeated(self._clock, partial(self._report_refused, reason)) for reason in get_args(Refusal)
        }
        self._last_refused = ""

    # --- life

    async def bind(self) -> None:
        """Open every port; raises CannotStart, with none left open, when one cannot be."""
        context = None
        if self._settings.tls is not None:
            try:
                context = make_context(self._settings.tls)
            except TlsUnusable as error:
                raise CannotStart(f"{self._service}.tls.{error}") from None
        try:
            for port in self._ports:
                for address in port.addresses:
                    factory = _Gate(self, port, context, refuse_late=address.text.startswith("haproxy:"))
                    await self._bind(port, address, factory)
        except CannotStart:
            await self.stop()
            raise
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = self._clock
        self._sweeping.start(SWEEP_INTERVAL, now=False).addErrback(
            lambda failure: _log.failure("the sweep for idle connections stopped", failure, service=self._service)
        )

    async def _bind(self, port: Port, address: Address, factory: Factory) -> None:
        try:
            try:
                listening = await endpoint_for(address, self._runtime.reactor).listen(factory)
            except CannotListenError as error:
                if address.text[0] != ":" or error.socketError.errno not in {EAFNOSUPPORT, EADDRNOTAVAIL}:
                    raise
                ipv4 = TCP4ServerEndpoint(self._runtime.reactor, address.port, BACKLOG, "0.0.0.0")  # noqa: S104 - asked for as ":port"
                listening = await ipv4.listen(factory)
        except CannotListenError as error:
            raise CannotStart(f"{port.key}: {address}: {_bind_problem(address, error.socketError)}") from None
        except Exception as error:  # noqa: BLE001 - an endpoint plug-in may raise anything; the port is not open
            raise CannotStart(f"{port.key}: {address}: {error or type(error).__name__}") from None
        self._listening.append(listening)
        self._set_options(getattr(listening, "socket", None), port.segment)
        shown = _show_peer(listening.getHost()) if not address.endpoint else address.text
        self.bound.append(shown)
        _log.info("listening on {address}", address=shown, service=self._service)

    def _set_options(self, listening: socket.socket | None, segment: int) -> None:
        """Set on the listening socket what accepted ones inherit from it on Linux (tcp(7))."""
        if listening is None or listening.family not in {socket.AF_INET, socket.AF_INET6}:
            return
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if segment:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        if self._settings.tcp_keepalive:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)

    async def stop_listening(self) -> None:
        """Close the ports; connections go on."""
        ports, self._listening = self._listening, []
        await gatherResults([maybeDeferred(port.stopListening) for port in ports])

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
        if settings.max_connections_per_host and self._per_host.get(host, 0) >= settings.max_connections_per_host:
            return "max_connections_per_host"
        if settings.allow is not None:
            address = ipaddress.ip_address(host)
            if not any(address in network for network in settings.allow):
                return "allow"
        return None

    def admit(self, port: Port, address: IAddress) -> Connection | None:
        """The connection for a client at `address`, or None when it is refused."""
        host = _host_of(address)
        reason = self.refusal(host)
        if reason is not None:
            self.refused[reason] += 1
            self._last_refused = host
            self._refusals[reason].happened()
            return None
        connection = port.build()
        connection.admitted(self, next(self._runtime.connection_ids), host, self._clock.seconds())
        return connection

    def opened(self, connection: Connection) -> None:
        """A connection enters the table."""
        self.accepted += 1
        self.connections[connection.id] = connection
        if connection.host:
            self._per_host[connection.host] = self._per_host.get(connection.host, 0) + 1
        if self._runtime.log.debug:
            _log.debug("connection {id} from {host}", id=connection.id, host=connection.host, service=self._service)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """A connection leaves the table; its bytes stay in the totals."""
        del self.connections[connection.id]
        self._taken.pop(connection.id, None)
        self._finished[0] += connection.bytes_in
        self._finished[1] += connection.bytes_out
        if connection.host:
            left = self._per_host[connection.host] - 1
            if left:
                self._per_host[connection.host] = left
            else:
                del self._per_host[connection.host]
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


class _Gate(Factory):
    """Twisted's way to a listener: admits or refuses, and wraps in TLS what is admitted."""

    noisy = False

    def __init__(
        self, listener: Listener, port: Port, context: CertificateOptions | None, *, refuse_late: bool
    ) -> None:
        self._listener = listener
        self._port = port
        self._refuse_late = refuse_late
        self._tls = TLSMemoryBIOFactory(context, False, _Nothing()) if context is not None else None

    def buildProtocol(self, address: IAddress) -> IProtocol | None:  # type: ignore[override]  # Factory's says Protocol
        connection = self._listener.admit(self._port, address)
        if connection is None:
            return _Refused() if self._refuse_late else None
        if self._tls is not None:
            return cast("IProtocol", self._tls.protocol(self._tls, connection))
        return connection


class _Nothing(Factory):
    """Stands where a TLS factory expects the factory it wraps; `_Gate` hands it protocols instead."""

    noisy = False


class _Refused(Protocol):
    """For endpoints that wrap protocols, such as haproxy:, and cannot take None for one."""

    def connectionMade(self) -> None:
        cast("ITransport", self.transport).loseConnection()


# --- addresses


def endpoint_for(address: Address, reactor: object) -> IStreamServerEndpoint:
    """The Twisted endpoint of an address; raises ValueError for an endpoint string that Twisted does not understand."""
    if not address.endpoint:
        tcp = TCP6ServerEndpoint if ":" in address.host else TCP4ServerEndpoint
        return cast("IStreamServerEndpoint", tcp(reactor, address.port, BACKLOG, address.host))
    text = address.endpoint
    if text.startswith("unix:") and ":mode=" not in text:
        text += f":mode={UNIX_MODE}"
    return cast("IStreamServerEndpoint", serverFromString(reactor, text))


def check_endpoints(config: Config) -> list[str]:
    """Mistakes in endpoint strings, a line each, as far as they show without opening anything."""
    mistakes = []
    for key, address in config.addresses():
        if not address.endpoint or address.endpoint.startswith("systemd:"):
            continue  # systemd's descriptors are there when it starts the daemon, and only then
        try:
            endpoint_for(address, object())
        except (ValueError, TypeError) as error:
            mistakes.append(f"{config.path}: {key}: {address}: {error}")
    return mistakes


def _host_of(address: IAddress) -> str:
    if isinstance(address, IPv4Address | IPv6Address):
        return str(address.host).removeprefix("::ffff:")
    return ""


def _show_peer(address: object) -> str:
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        host = str(address.host)
        mapped = host.removeprefix("::ffff:")
        return f"[{host}]:{address.port}" if mapped == host else f"{mapped}:{address.port}"
    return "unix"


def bytes_taken(transport: ITransport) -> int:
    """How many bytes the peer's kernel has acknowledged; 0 where the kernel does not say, as for unix sockets."""
    connected = getattr(transport, "socket", None)
    if connected is None or connected.family == socket.AF_UNIX:
        return 0
    info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES_ACKED.size)
    return int(TCP_INFO_BYTES_ACKED.unpack(info)[0])


def _bind_problem(address: Address, error: OSError | str) -> str:
    if isinstance(error, str):  # a unix socket's lock file names a process that lives
        return "Address already in use; a running process holds its .lock file"
    reason = os.strerror(error.errno) if error.errno else str(error)
    match error.errno:
        case code if code == EADDRINUSE:
            find = f"ss -ltnp 'sport = :{address.port}'" if address.port else "ss -lxp"
            return f"{reason}; find out by whom: {find}"
        case code if code == EACCES and 0 < address.port < FIRST_FREE_PORT:
            return f"{reason}; ports below {FIRST_FREE_PORT} need root, CAP_NET_BIND_SERVICE or socket activation"
    return reason
