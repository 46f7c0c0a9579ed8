"""A Redis client for tests: bytes out, replies in as bytes, nothing interpreted."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import hiredis

TIMEOUT = 60.0


def pack(*words: bytes | str | int) -> bytes:
    """A request on the wire."""
    raw = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)


def split(text: str) -> list[bytes]:
    """The words of a command as a person writes it."""
    return [word.encode() for word in text.split(" ")]


class RedisClient:
    """One connection; `ask` sends words, or a line of them, and returns the parsed reply, an error as an exception."""

    def __init__(self, port: int, path: str = "") -> None:
        if path:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT)
            self.socket.connect(path)
        else:
            self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> object:
        """The next reply."""
        while (reply := self._reader.gets()) is Ellipsis:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._reader.feed(data)
        return reply

    def read_raw(self, count: int) -> list[bytes]:
        """The next replies as they stand on the wire."""
        data = b""
        while True:
            found: list[bytes] = []
            at = 0
            while len(found) < count and (end := end_of(data, at)) > 0:
                found.append(data[at:end])
                at = end
            if len(found) == count:
                assert at == len(data), data[at:]
                return found
            received = self.socket.recv(1 << 16)
            if not received:
                raise EOFError(data)
            data += received

    def ask(self, *words: bytes | str | int) -> object:
        if len(words) == 1 and isinstance(words[0], str):
            words = tuple(split(words[0]))
        self.send(pack(*words))
        return self.read()

    def ask_all(self, *lines: str) -> list[object]:
        """Several commands in one write, and their replies."""
        self.send(b"".join(pack(*split(line)) for line in lines))
        return [self.read() for _ in lines]

    def close(self) -> None:
        self.socket.close()

    __del__ = close


@contextmanager
def redis_client(port: int, path: str = "") -> Iterator[RedisClient]:
    """A client that is closed afterwards."""
    client = RedisClient(port, path)
    try:
        yield client
    finally:
        client.close()


def end_of(data: bytes, at: int) -> int:
    """Where the reply that begins at `at` ends; 0 when it is not there whole."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return 0
    kind, text = data[at : at + 1], data[at + 1 : line]
    end = line + 2
    if kind in b"$=!" and int(text) >= 0:
        end += int(text) + 2
    elif kind in b"*%~>|":
        for _ in range(int(text) * (2 if kind in b"%|" else 1)):
            end = end_of(data, end)
            if not end:
                return 0
    return end if end <= len(data) else 0


def gets_of(direct: RedisClient) -> str:
    """How often a Redis was asked for GET so far: as often as before, if netd's near cache has answered."""
    return str(re.findall(r"cmdstat_get:calls=(\d+)", str(direct.ask("INFO commandstats"))))
