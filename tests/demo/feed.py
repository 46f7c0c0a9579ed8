"""Who sends lines and who reads them: clients of netd's port, and a reader of RabbitMQ that knows nothing of netd."""

import re
import select
import socket
import threading
import time
from contextlib import suppress

import pika
from pika.exceptions import AMQPError

from tests.demo.ledger import Ledger, Line
from tests.servers import HOST, VirtualHost

WINDOW = 4000
"""Lines that a client has on the way without an answer."""
PIECE = 500
"""Lines that it writes at once, at most."""
PADDING = b"." * 360
PREFETCH = 4000

_OK = re.compile(rb"\+OK (\d+)")
_LINE = re.compile(rb"<(\d+)\.(\d+)>")


def wire(line: Line) -> bytes:
    """A line as it is sent."""
    return b"<%d.%d>%b\n" % (*line, PADDING)


def line_of(body: bytes) -> Line:
    """The same read back; raises ValueError."""
    if (found := _LINE.match(body)) is None:
        raise ValueError(f"not a line of this demonstration: {body[:40]!r}")
    return int(found[1]), int(found[2])


class Feed(threading.Thread):
    """Sends numbered lines and, after a broken connection, those that were not answered again."""

    def __init__(self, port: int, number: int, ledger: Ledger) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.waiting = ""
        """What netd has said, while it reads no further."""
        self._port = port
        self._ledger = ledger
        self._leaving = threading.Event()
        self._goal = 0
        self._rate = 0.0
        self._since = (0.0, 0)
        self._next = 1
        self._answered = 0

    def send(self, count: int, rate: float = 0) -> None:
        """From now on send so many more lines, so many a second or as fast as they are taken."""
        self._since = (time.monotonic(), self._next)
        self._rate = rate
        self._goal += count

    @property
    def done(self) -> bool:
        """Whether all that was to be sent is answered."""
        return self._answered >= self._goal

    def leave(self) -> None:
        self._leaving.set()
        self.join(20)

    def run(self) -> None:
        while not self._leaving.is_set():
            with suppress(OSError), socket.create_connection((HOST, self._port), 5) as connection:
                connection.setblocking(False)
                self._talk(connection)
            self.waiting = ""
            self._leaving.wait(0.05)

    def _talk(self, connection: socket.socket) -> None:
        first, reached = self._answered + 1, self._answered
        written, rest = b"", b""
        self._since = (time.monotonic(), self._next)
        while not self._leaving.is_set():
            if not written:
                piece = self._piece(reached)
                self._ledger.send((self.number, number) for number in piece)
                written = b"".join(wire((self.number, number)) for number in piece)
                reached = max(reached, piece.stop - 1)
                self._next = max(self._next, piece.stop)
            readable, writable, _ = select.select([connection], [connection] if written else [], [], 0.02)
            if writable:
                written = written[connection.send(written) :]
            if readable:
                if not (received := connection.recv(65536)):
                    return
                *answers, rest = (rest + received).split(b"\n")
                for answer in answers:
                    self._hear(answer, first)

    def _piece(self, reached: int) -> range:
        """The numbers to send next."""
        began, base = self._since
        goal = self._goal
        if self._rate:
            goal = min(goal, base + int(self._rate * (time.monotonic() - began)))
        last = min(max(goal, self._next - 1), self._answered + WINDOW, reached + PIECE)
        return range(reached + 1, max(reached, last) + 1)

    def _hear(self, answer: bytes, first: int) -> None:
        if found := _OK.fullmatch(answer):
            upto = first + int(found[1]) - 1
            self._ledger.answer((self.number, number) for number in range(self._answered + 1, upto + 1))
            self._answered = max(self._answered, upto)
        elif answer.startswith(b"*WAIT "):
            self.waiting = answer[6:].decode()
        elif answer == b"*GO":
            self.waiting = ""
        else:
            self._ledger.refuse(answer.decode(errors="replace"))


def converse(port: int, number: int, count: int, ledger: Ledger) -> None:
    """Send short lines, three at a time, and wait for the answer to each three: what a trace can be read of."""
    with socket.create_connection((HOST, port), 20) as client, client.makefile("rb") as answers:
        for start in range(1, count, 3):
            lines: list[Line] = [(number, start + at) for at in range(3)]
            ledger.send(lines)
            client.sendall(b"".join(b"<%d.%d>\n" % line for line in lines))
            while (answer := answers.readline()) != b"+OK %d\n" % (start + 2):
                if not _OK.fullmatch(answer.rstrip()):
                    raise OSError(f"netd said {answer!r}")
            ledger.answer(lines)


class Reader(threading.Thread):
    """Takes everything out of a queue by pika, and connects again whenever the broker was away."""

    def __init__(self, vhost: VirtualHost, queue: str, ledger: Ledger) -> None:
        super().__init__(daemon=True)
        self.strange = ""
        """A message that is none of this demonstration."""
        self.empty = False
        """Whether the broker said that nothing is left in the queue, and nothing has come since."""
        self._parameters = pika.URLParameters(f"{vhost.url}?connection_attempts=1&socket_timeout=5&heartbeat=10")
        self._queue = queue
        self._ledger = ledger
        self._leaving = threading.Event()

    def leave(self) -> None:
        self._leaving.set()
        self.join(20)

    def run(self) -> None:
        while not self._leaving.is_set():
            with suppress(AMQPError, OSError):
                self._read()
            self._leaving.wait(0.2)

    def _read(self) -> None:
        connection = pika.BlockingConnection(self._parameters)
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=PREFETCH)
            last = unsettled = 0
            for method, properties, body in channel.consume(self._queue, inactivity_timeout=0.1):
                if method is not None:
                    self.empty = False
                    self._note(properties.headers or {}, body)
                    last, unsettled = method.delivery_tag, unsettled + 1
                if unsettled >= PREFETCH // 8 or (unsettled and method is None):
                    channel.basic_ack(last, multiple=True)
                    unsettled = 0
                if method is None:
                    self.empty = channel.queue_declare(self._queue, passive=True).method.message_count == 0
                if self._leaving.is_set():
                    return
        finally:
            self.empty = False
            with suppress(AMQPError, OSError):
                connection.close()

    def _note(self, headers: dict[str, object], body: bytes) -> None:
        try:
            self._ledger.find(line_of(body), str(headers["x-netd-id"]))
        except (ValueError, KeyError) as error:
            self.strange = repr(error)
