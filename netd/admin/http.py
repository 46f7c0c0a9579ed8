"""HTTP on a listener's connection: twisted.web's channel and request with the limits that it leaves open.

What twisted.web limits already: a header's size and the number of them. Here besides: the size of a body, how long a
request may take to arrive as a whole (a byte now and then does not extend it), how long a connection may wait for its
next request, and how long a client may not read what it asked for. And requests take turns, one at a time, however many
arrive at once: twisted.web answers all of a read before it looks after anybody else.
"""

import socket
import struct
from collections.abc import Callable
from io import BytesIO
from math import inf
from typing import Any, cast

from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request, datetimeToString
from twisted.web.http_headers import Headers

from netd.listener import Connection
from netd.turns import Turns

LARGEST_BODY = 64 * 1024
"""Bytes: a verb and its words, with much room."""

MOST_HEADERS = 100
"""Browsers send about twenty."""

REQUEST_TIMEOUT = 10.0
"""Seconds from a request's first byte, or the connection's start, to the request's last; nginx gives 60 twice."""

KEEPALIVE_TIMEOUT = 75.0
"""Seconds between two requests of a connection, as nginx has it: longer than Prometheus's default interval of 60."""

MOST_WAITING = 16 * 1024
"""Bytes of further requests that may wait for their turn, before no more are read."""

STALL_TIMEOUT = 30.0
"""Seconds a client may read nothing while something waits to be sent to it."""

PEER_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"Content-Security-Policy", _POLICY),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"X-Content-Type-Options", b"nosniff"),
)
"""Of every answer: nothing from elsewhere is loaded, nothing is shown within another page, nothing is guessed."""

_REASONS = {413: b"Content Too Large", 421: b"Misdirected Request"}
"""Of RFC 9110; twisted.web does not know them by these names."""

TEXT = b"text/plain; charset=utf-8"

_log = Logger()


class AdminRequest(Request):
    """One request. `answer` gets it once it is there as a whole."""

    channel: "HttpConnection"
    path: bytes
    content: BytesIO  # there from `gotLength` on

    def __init__(self, channel: "HttpConnection", answer: "Callable[[AdminRequest], None]") -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)
        self._answer = answer
        self._refused = False

    # --- called by the channel as the request arrives

    def gotLength(self, length: int | None) -> None:
        """The headers are there. `length` is None for a body in chunks."""
        self.content = BytesIO()
        if length is not None and length > LARGEST_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        if self.content.tell() + len(data) > LARGEST_BODY:
            self._refuse()
        else:
            self.content.write(data)

    def _refuse(self) -> None:
        self._refused = True
        self.channel.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.channel.loseConnection()

    def process(self) -> None:
        if self._refused:
            return
        self.channel.request_arrived()
        for name, value in HEADERS:
            self.responseHeaders.setRawHeaders(name, [value])
        self.responseHeaders.setRawHeaders(b"Date", [datetimeToString()])
        try:
            self._answer(self)
        except Exception:  # noqa: BLE001 - a page with a mistake in it must not take the connection down
            _log.failure("answering {path} failed", path=self.path.decode("ascii", "backslashreplace"))
            if not self.startedWriting:
                self.respond(500, b"internal error; the daemon's log says more\n")
            else:
                self.channel.abort()

    # --- for whoever answers

    def respond(self, status: int, body: bytes, content_type: bytes = TEXT, **headers: str) -> None:
        """Answer and be done. `headers` are named as in `Cache_Control="no-store"`."""
        self.start(status, content_type, **headers)
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def start(self, status: int, content_type: bytes, **headers: str) -> None:
        """Say what kind of answer follows; `write` it, then `finish`."""
        self.setResponseCode(status, _REASONS.get(status))
        self.setHeader(b"Content-Type", content_type)
        self.setHeader(b"Cache-Control", b"no-store")
        for name, value in headers.items():
            self.setHeader(name.replace("_", "-"), value)


class HttpConnection(Connection, HTTPChannel):
    """A client. `trusted` is one who came by the unix socket."""

    requestFactory: Callable[..., AdminRequest]  # type: ignore[assignment]  # the channel calls it with two arguments
    totalHeadersSize = 16 * 1024
    maxHeaders = MOST_HEADERS
    timeOut = None  # deadlines are kept here, by `tick`

    def __init__(
        self,
        answer: Callable[[AdminRequest], None],
        now: Callable[[], float],
        turns: Turns,
        *,
        trusted: bool = False,
    ) -> None:
        Connection.__init__(self)
        HTTPChannel.__init__(self)
        self.trusted = trusted
        self.requestFactory = lambda channel, _queued: AdminRequest(channel, answer)
        self._now = now
        self._turns = turns
        self._between = True
        self._deadline = now() + REQUEST_TIMEOUT
        self._stalled_since = inf
        self._unread = b""
        self._waits = False
        """For its turn."""
        self._asked = False
        """A request is there as a whole, and is not answered yet."""
        self._full = False
        """Too much is unread: nothing more is taken from the network."""

    # --- bytes, and their deadlines

    def dataReceived(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self._unread += data
        self._go_on()

    def _go_on(self) -> None:
        """Have what is unread looked at when it is this connection's turn."""
        if self._unread and not self._waits and not self._asked and self._stalled_since == inf:
            self._waits = True
            self._turns.take(self._read)
        self._hold()

    def _hold(self) -> None:
        full = len(self._unread) > MOST_WAITING
        if full or self._full:
            self._full = full
            change = self.transport.pauseProducing if full else self.transport.resumeProducing  # type: ignore[attr-defined]  # a stream transport is a producer
            change()

    def _read(self) -> None:
        """Take one request of what is unread, or as much of it as is there."""
        self._waits = False
        if self.closing:
            return
        if self._between:
            self._between = False
            self._deadline = self._now() + REQUEST_TIMEOUT
        data, self._unread = self._unread, b""
        self.paused = False
        try:
            LineReceiver.dataReceived(self, data)
        except Exception:  # noqa: BLE001 - a mistake of ours must cost this connection, and no other
            _log.failure("connection {id} made netd fail", id=self.id)
            self.abort()
            return
        self._unread = self.clearLineBuffer() + self._unread if self.paused else self._unread
        self._go_on()

    def setLineMode(self, extra: bytes = b"") -> None:
        """Told by the channel what came behind a request that is answered."""
        self.line_mode = 1
        self._unread = extra + self._unread

    def request_arrived(self) -> None:
        """A request is there as a whole: it takes as long to answer as it takes, and the next waits."""
        self._deadline = inf
        self._asked = self.paused = True

    def requestDone(self, request: Request) -> None:
        self._asked = False
        self._between = True
        self._deadline = self._now() + KEEPALIVE_TIMEOUT
        super().requestDone(request)
        if not self.closing:
            self._go_on()

    def tick(self, now: float) -> None:
        """Once a second: cut a client that is too slow."""
        if now >= self._stalled_since + STALL_TIMEOUT:
            self.abort()
        elif now >= self._deadline and not self.closing:
            self.loseConnection()

    def pauseProducing(self) -> None:
        self._stalled_since = self._now()
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._stalled_since = inf
        super().resumeProducing()
        self._go_on()

    def write(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self.transport.write(data)

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        lines = [b"%b %b %b" % (version, code, reason)]
        lines += [b"%b: %b" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self.write(b"\r\n".join([*lines, b"", b""]))

    # --- the end

    def loseConnection(self) -> None:
        """Send what is written, then close."""
        self.closing = True
        self.listener.closing = True
        super().loseConnection()

    def close(self) -> None:
        self.loseConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # twisted.web gives it no default
        self.closing = True
        HTTPChannel.connectionLost(self, reason)
        Connection.connectionLost(self, reason)

    # --- who it is

    @property
    def user(self) -> str:
        """The local user behind a unix socket: "root", "uid 1000", or "" where the kernel does not say."""
        connected = cast("socket.socket | None", getattr(self.transport, "socket", None))
        if connected is None or connected.family != socket.AF_UNIX:
            return ""
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
        uid = PEER_CREDENTIALS.unpack(raw)[1]
        return f"uid {uid}" if uid else "root"
