"""Many clients that each ask something of their own and must be answered just that."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cache.redis_client import pack
from tests.servers import HOST


def ask_memcached(number: int, turn: int) -> tuple[bytes, bytes]:
    value = b"%d.%d" % (number, turn)
    key = b"crowd.%d" % number
    return (
        b"set %s 0 60 %d\r\n%s\r\nget %s\r\n" % (key, len(value), value, key),
        b"STORED\r\nVALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(value), value),
    )


def ask_redis(number: int, turn: int) -> tuple[bytes, bytes]:
    value = b"%d.%d" % (number, turn)
    key = b"crowd.r.%d" % number
    return pack("SET", key, value, "EX", 60) + pack("GET", key), b"+OK\r\n$%d\r\n%s\r\n" % (len(value), value)


def ask_echo(number: int, turn: int) -> tuple[bytes, bytes]:
    data = b"%d.%d, and thirty bytes more or less" % (number, turn)
    return data, data


QUESTIONS: dict[str, Callable[[int, int], tuple[bytes, bytes]]] = {
    "echo": ask_echo,
    "memcached": ask_memcached,
    "redis": ask_redis,
    "publish": lambda number, turn: (b"crowd%d %d\n" % (number, turn), b"+OK %d\n" % turn),
}
"""What a member of the crowd asks at each door, the first time and the others, and what it must be answered."""


REFUSALS = {b"SERVER_ERROR Redis did not answer in time", b"-ERR Redis did not answer in time"}
"""What may be said to both requests of a question to the cache, when everybody asks at once on a busy machine."""


class Member:
    """One of the crowd."""

    def __init__(self, door: str, port: int, number: int) -> None:
        self.door, self.number = door, number
        self.socket = socket.create_connection((HOST, port), 60)
        self.wanted = self.heard = b""
        self.refused = False

    def ask(self, turn: int) -> None:
        self.socket.sendall(self.prepare(turn))

    def prepare(self, turn: int) -> bytes:
        """What it is to ask."""
        request, self.wanted = QUESTIONS[self.door](self.number, turn)
        self.heard = b""
        self.refused = False
        return request

    def hear(self) -> bool:
        """Whether the answer is there; it is the right one as far as it is, or says that Redis is late."""
        data = self.socket.recv(1 << 16)
        assert data, f"{self.door} {self.number} was closed"
        self.heard += data
        if self.wanted.startswith(self.heard):
            return self.heard == self.wanted
        *lines, rest = self.heard.split(b"\r\n")
        told = any(line in REFUSALS for line in lines) or any(each.startswith(rest) for each in REFUSALS if rest)
        fits = all(line in REFUSALS or line in self.wanted.split(b"\r\n") for line in lines)
        if not (told and fits):
            raise AssertionError(f"{self.door} {self.number}: {self.heard!r}, not {self.wanted!r}")
        self.refused = len(lines) >= 2 and not rest
        return self.refused


def build_storm(directory: Path) -> Path:
    """The program that makes storms of connections; see storm.c."""
    program = directory / "storm"
    source = Path(__file__).with_name("storm.c")
    subprocess.run(["cc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    return program
