"""Clients of the bridge's ports that keep a ledger: numbered lines in, and out again, through whatever breaks."""

import json
import re
import socket
import struct
import threading
import time
from contextlib import suppress

from tests.servers import HOST

LINES_AT_ONCE, PACE = 20, 0.05
"""Lines that a publisher sends in one piece, and seconds between two pieces: load enough to be in every state."""
MOST_UNANSWERED = 2000

_OK = re.compile(rb"\+OK (\d+)")
_RESET = struct.pack("ii", 1, 0)


class NotUnderstood(Exception):
    """A line of netd's that a client cannot make sense of."""


class Client(threading.Thread):
    """Connects, works until the connection breaks, and connects again, until it is told to leave."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._leaving = threading.Event()
        self._socket: socket.socket | None = None
        self.failed: Exception | None = None

    def run(self) -> None:
        while not self._leaving.is_set():
            with suppress(OSError), socket.create_connection((HOST, self._port), 5) as connection:
                self._socket = connection
                connection.settimeout(0.2)
                try:
                    self.work(connection)
                except NotUnderstood as error:
                    self.failed = error
                    return
            self._leaving.wait(0.05)

    def work(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Break its connection as a crash does."""
        connection = self._socket
        if connection is not None:
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.close()

    def leave(self) -> None:
        self._leaving.set()
        self.join(20)


class Publisher(Client):
    """Sends numbered lines, and none twice."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port)
        self.name = name
        self.answered: list[tuple[int, int]] = []
        """Ranges of the numbers that were answered `+OK`."""
        self.refused: list[bytes] = []
        self._next = 1

    def work(self, connection: socket.socket) -> None:
        first = self._next
        answered = 0
        rest = b""
        while True:
            sent = self._next - first
            if self._leaving.is_set():
                connection.shutdown(socket.SHUT_WR)
            elif sent - answered < MOST_UNANSWERED:
                numbers = range(self._next, self._next + LINES_AT_ONCE)
                self._next = numbers.stop
                connection.sendall(b"".join(b"%s %d\n" % (self.name.encode(), number) for number in numbers))
            self._leaving.wait(PACE)
            with suppress(TimeoutError):
                if not (received := connection.recv(65536)):
                    return
                *lines, rest = (rest + received).split(b"\n")
                self.refused += [line for line in lines if line.startswith(b"-")]
                upto = max((int(found[1]) for line in lines if (found := _OK.fullmatch(line.rstrip()))), default=0)
                if upto > answered:
                    self.answered.append((first + answered, first + upto - 1))
                    answered = upto

    @property
    def sure(self) -> set[int]:
        return {number for first, last in self.answered for number in range(first, last + 1)}


class Consumer(Client):
    """Takes lines, notes them, and only then acknowledges."""

    def __init__(self, port: int, queue: str) -> None:
        super().__init__(port)
        self.queue = queue
        self.received: list[tuple[str, int, str]] = []
        """Publisher, number and `x-netd-id`, in the order they came."""
        self.circumstances: list[tuple[float, int, bool]] = []
        """Of each of them: when it came, by which of the connections, and whether it was said to be redelivered."""
        self._connections = 0
        self.again: set[tuple[str, int]] = set()
        """Those that had been on their way before when they came, or have come again so."""

    def work(self, connection: socket.socket) -> None:
        rest = b""
        self._connections += 1
        while not self._leaving.is_set():
            with suppress(TimeoutError):
                if not (received := connection.recv(65536)):
                    return
                *lines, rest = (rest + received).split(b"\n")
                # An answer for a message that went back to the queue meanwhile is told to have come too late.
                lines = [line for line in lines if not line.startswith(b"-ERR ") or b" ID " not in line]
                for line in lines:
                    self._note(line)
                if lines:
                    connection.sendall(b"ACK *%s\n" % lines[-1].partition(b"\t")[0])

    def _note(self, line: bytes) -> None:
        try:
            _, _, document = line.split(b"\t", 2)
            found = json.loads(document)
            name, number = found["body"].split()
            self.received.append((name, int(number), found["headers"]["x-netd-id"]))
            self.circumstances.append((time.monotonic(), self._connections, found["redelivered"]))
            if found["redelivered"]:
                self.again.add((name, int(number)))
        except (ValueError, KeyError) as error:
            raise NotUnderstood(f"{error!r} in {line!r}") from None
