"""TCP transports that hold what is written until the turn ends, then send it with one system call.

Stock Twisted queues a write, asks epoll for writability, and sends on the next trip through the event loop. For a
server that answers what it reads this doubles the work: two events, two `epoll_ctl` calls and two log contexts a
message. Here a write is *held*, and sent

- when `dataReceived` returns, for what the protocol wrote to its own transport meanwhile;
- when timers have run and when a turn's events are served, for what was written from anywhere else (a timer, another
  connection's data).

Holding joins many small replies into one `send`; trying each write at once would be slower than stock for them. What is
held is capped at the transport's `bufferSize`, so that a flood is handed on early and producers are paused as ever.

The fast state. A transport is `_fast` while nothing stands in Twisted's own buffers and nothing unusual goes on. It
leaves that state when the kernel does not take everything, for a pull producer, half-close, TLS on the same transport
and abort; then what is held moves to the stock buffer, in order, and stock code does the rest. `doWrite` returns to
the fast state once the stock buffer is empty. So each rule of Twisted that is not about speed stays Twisted's.

Closing. `loseConnection` with nothing in the stock buffer ends the connection when what is held has left, in the same
turn: no wait for writability. As in stock, `connectionLost` is never called from within `loseConnection`.

Reading. All transports share one large buffer: reads never nest, the reactor has one thread. A message is copied out
of it once. Large reads make bulk transfer cheap, and the kernel's receive buffer bounds them anyway. Where the last
read was large the next goes into bytes of its own: to make those costs more than to copy a message, and less than to
copy a quarter of a megabyte.

The private attributes of Twisted that this relies on are listed in tests/fastio/test_assumptions.py.
"""

import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python import log
from twisted.python.failure import Failure

READ_SIZE = 256 * 1024
"""Bytes read at once: measured, 2.6 GB/s in bulk against 1.4 with reads that adapt, and cheaper for small ones."""

LARGE_READ = 64 * 1024
"""Bytes of a read after which the next is likely large, too: bulk costs a sixth less."""

ACCEPTS_AT_ONCE = 64
"""Connections accepted in one go at most, so that a storm of them does not starve who is connected."""

IPV4_TUPLE = 2
"""Members of an IPv4 socket address; an IPv6 one has four."""

_BUFFER = bytearray(READ_SIZE)
_VIEW = memoryview(_BUFFER)
_PORT_LOG = Logger("twisted.internet.tcp")  # what the stock accept loop says stays under its own name
_CLOSED = Failure(CONNECTION_DONE)


class HoldingMixin:
    """Before `tcp.Connection` among a transport's bases: holds writes while the transport is in the fast state."""

    _fast = False
    _large = False  # the last read was large
    _broken = False  # a send has failed for good
    _held: Any = None  # None: nothing, and nobody will look; else bytes or a bytearray that will be sent

    def doRead(self) -> Exception | None:
        try:
            if self._large:
                data = self.socket.recv(READ_SIZE)
                self._large = len(data) >= LARGE_READ
            else:
                size = self.socket.recv_into(_BUFFER)
                data = _VIEW[:size].tobytes()
                if size >= LARGE_READ:
                    self._large = True
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_LOST if self._broken else CONNECTION_DONE
        if self._held is None:
            self._held = b""
        self.protocol.dataReceived(data)
        held = self._held
        self._held = None
        if held and (sent := self._send(held)) != len(held):
            self._overflow(held, sent)
        elif self.disconnecting and self._fast:
            self.connectionLost(_CLOSED)
        return None

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:  # doWrite finds out, as in stock Twisted, or doRead, which the kernel no longer tells
            self._broken = True
            return 0

    def write(self, data: bytes) -> None:
        if not self._fast or data.__class__ is not bytes:
            self._give_up_holding()
            super().write(data)
            return
        held = self._held
        if held:
            if held.__class__ is bytes:
                self._held = held = bytearray(held)
            held += data
            if len(held) > self.bufferSize:
                self._hand_on(held)
        elif held is not None:
            self._held = data
            if len(data) > self.bufferSize:
                self._hand_on(data)
        elif len(data) > self.bufferSize:  # from elsewhere, and large: Twisted paces it, and its producer
            self._fast = False
            super().write(data)
        elif data:
            self._held = data
            self.reactor.hold(self)

    def writeSequence(self, iovec: Any) -> None:
        try:
            data = b"".join(iovec)
        except TypeError:
            raise TypeError("Data must be bytes") from None
        self.write(data)

    def _hand_on(self, held: bytes | bytearray) -> None:
        """Send what is held now, before the turn ends; what the kernel does not take goes to the stock buffer."""
        self._held = bytearray()  # empty, and other than b"": see registerProducer
        sent = self._send(held)
        if sent != len(held):
            self._overflow(held, sent)

    def release(self) -> None:
        """The turn ends: send what is held, and close if that was asked for."""
        held = self._held
        self._held = None
        if held and (sent := self._send(held)) != len(held):
            self._overflow(held, sent)
        elif self.disconnecting and self._fast:
            self.connectionLost(_CLOSED)

    def _overflow(self, held: bytes | bytearray, sent: int) -> None:
        self._fast = False
        super().write(bytes(memoryview(held)[sent:]))

    def _give_up_holding(self) -> None:
        """Leave the fast state: what is held goes to the stock buffer, and a wish to close to stock Twisted."""
        if not self._fast:
            return
        self._fast = False
        held = self._held
        if held:
            self._held = b""
            super().write(bytes(held))
        if self.disconnecting:
            self.startWriting()

    def doWrite(self) -> Any:
        result = super().doWrite()
        if result is None and self._at_rest():
            self._fast = True
        return result

    def _at_rest(self) -> bool:
        """Whether stock Twisted has nothing to do for this transport, so that the fast state may begin again."""
        return bool(
            self.connected
            and not self._tempDataLen
            and self.offset == len(self.dataBuffer)
            and not self.TLS
            and not (self.disconnecting or self._aborting)
            and not (self._writeDisconnecting or self._writeDisconnected)
            and (self.producer is None or self.streamingProducer)
        )

    def loseConnection(self) -> None:
        if not self._fast or (self.producer is not None and self.producerPaused):
            self._give_up_holding()
            super().loseConnection()
        elif not self.disconnecting:
            self.disconnecting = True
            self.stopReading()
            if self._held is None:
                self._held = b""
                self.reactor.hold(self)

    def loseWriteConnection(self) -> None:
        self._give_up_holding()
        super().loseWriteConnection()

    def abortConnection(self) -> None:
        self._drop_held()
        super().abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        self._drop_held()
        super().connectionLost(reason)

    def _drop_held(self) -> None:
        self._fast = False
        if self._held:
            self._held = b""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if not streaming:
            handed_on = self._fast and self._held.__class__ is bytearray and not self._held
            self._give_up_holding()
            if handed_on:  # stock Twisted would have yet to send it, and then ask a pull producer for more
                self.startWriting()
        super().registerProducer(producer, streaming)

    def startTLS(self, *args: Any, **kwargs: Any) -> None:
        self._give_up_holding()
        super().startTLS(*args, **kwargs)


class FastServer(HoldingMixin, tcp.Server):
    """The server's side of a TCP connection. Names for logs are made when somebody asks."""

    server: Any
    _ended: Any = None  # the protocol that connectionLost is letting go of, then its name
    _shouldShutdown = False  # the descriptor is ours alone (accept4 sets CLOEXEC), so that close() alone ends it

    def __init__(
        self,
        sock: socket.socket,
        protocol: Any,
        client: tuple[Any, ...],
        server: "FastPort | None",
        sessionno: int,
        reactor: Any,
    ) -> None:
        # What the constructors of Server, Connection and FileDescriptor set, without the strings they format: at ten
        # thousand connections these are megabytes, and in a storm of short ones a tenth of the time.
        self.reactor = reactor
        self.socket = sock
        self.fileno = sock.fileno
        self.protocol = protocol
        self.client = client
        self.server = server
        self.sessionno = sessionno
        self._tempDataBuffer = []
        self._tempDataLen = 0
        self._held = None
        self._fast = True
        self.connected = 1
        self.disconnecting = 0
        self.producer = None
        if len(client) != IPV4_TUPLE:
            self._addressType = IPv6Address
        sock.setblocking(False)
        self.startReading()

    @property
    def hostname(self) -> str:
        """The peer's address."""
        return str(self.client[0])

    @property
    def logstr(self) -> str:
        """The prefix of log lines that Twisted itself writes about this connection."""
        return f"{self._name(self._getLogPrefix)},{self.sessionno},{self.hostname}"

    def _name(self, name: Callable[[Any], str]) -> str:
        ended = self._ended
        return ended if ended.__class__ is str else name(ended or self.protocol)

    def connectionLost(self, reason: Failure) -> None:
        if not self.connected:
            return
        protocol = self._ended = self.protocol
        try:
            super().connectionLost(reason)
        finally:
            self._ended = type(protocol).__name__

    def __repr__(self) -> str:
        if self.server is None:  # adopted, and given its name by stock Twisted
            return self.repstr
        name = self._name(lambda protocol: type(protocol).__name__)
        return f"<{name} #{self.sessionno} on {self.server._realPortNumber}>"


class FastClient(HoldingMixin, tcp.Client):
    """The client's side of a TCP connection."""

    def _connectDone(self) -> None:
        self._fast = True
        self.setTcpNoDelay(True)
        super()._connectDone()


class FastConnector(tcp.Connector):
    """Connects with a `FastClient`."""

    def _makeTransport(self) -> FastClient:
        return FastClient(self.host, self.port, self.bindAddress, self, self.reactor)


class FastPort(tcp.Port):
    """A listening port whose connections are `FastServer`s."""

    transport = FastServer
    keep_from = sys.maxsize
    """Who would get a file descriptor of this number or above is handed to `no_descriptor` instead, and closed. The
    kernel gives the lowest number that is free (open(2)), so by then as many are open."""
    no_descriptor: Callable[[IAddress], object] | None = None
    _expected = 1  # how many are tried: by what came last time, since a try too many costs a system call

    @property
    def _logger(self) -> Logger:
        return _PORT_LOG

    def startListening(self) -> None:
        super().startListening()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what is accepted (tcp(7))

    def doRead(self) -> None:
        """Accept what waits. What `accept` complains of, a lack of descriptors say, is stock Twisted's to handle."""
        accepted = 0
        try:
            while accepted < self._expected:
                try:
                    descriptor, address = self.socket._accept()
                except BlockingIOError:
                    break
                except OSError:
                    super().doRead()
                    return
                accepted += 1
                # What socket.accept() does, without asking anew for what this port knows of its socket.
                sock = socket.socket(self.addressFamily, self.socketType, 0, descriptor)
                self._accepted(sock, address)
        except BaseException:  # noqa: BLE001 - as in stock Twisted: a factory's error must not close the port
            log.err()
        self._expected = min(2 * accepted, ACCEPTS_AT_ONCE) if accepted == self._expected else max(1, accepted)

    def _accepted(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        if len(address) != IPV4_TUPLE:
            address = tcp._getrealname(address)
        peer = self._buildAddr(address)
        if sock.fileno() >= self.keep_from:
            sock.close()
            if self.no_descriptor is not None:
                self.no_descriptor(peer)
            return
        protocol = self.factory.buildProtocol(peer)
        if protocol is None:
            sock.close()
            return
        number = self.sessionno
        self.sessionno = number + 1
        protocol.makeConnection(self.transport(sock, protocol, address, self, number, self.reactor))
