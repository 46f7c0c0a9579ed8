"""Clients of every service, for as long as a soak lasts, each of which checks what it is answered.

netd itself is never stopped, so a connection that breaks is a failure of it, as a wrong answer is. Only where a backend
is hurt a client may be told so, in its protocol's words. The bridge's clients are those of `tests.faults.lines`.
"""

import asyncio
import json
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import asyncssh
import hiredis

from netd.admin import client as netdctl
from tests.cache.redis_client import RedisClient
from tests.servers import HOST

TIMEOUT = 30.0
"""Seconds for an answer: what takes so long on a busy machine is broken."""
KEYS, LARGEST = 400, 8000
"""A cache client's keys, and bytes of its largest value: together more than the near cache may hold."""
CLOSED = "cache connections closed"
RESET = struct.pack("ii", 1, 0)


class Wrong(Exception):
    """An answer that should not be."""


class Load(threading.Thread):
    """Does the same again and again, until it is enough or something is wrong."""

    pause = 0.02
    """Seconds between two turns."""

    def __init__(self, seed: int, enough: threading.Event) -> None:
        super().__init__(daemon=True)
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        """What was done, by the words for it."""
        self.failure = ""
        self._enough = enough

    def run(self) -> None:
        try:
            while not self._enough.is_set():
                self.visit()
        except Exception as error:  # noqa: BLE001 - whatever it was, this client asks nothing any more
            self.failure = f"{type(self).__name__}: {error!r}"

    def visit(self) -> None:
        """Connect, work for a while, leave."""
        raise NotImplementedError

    def turns(self, count: int) -> Iterator[int]:
        """So many turns with pauses, fewer when it is enough."""
        for number in range(count):
            if self._enough.wait(self.pause):
                return
            yield number


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), TIMEOUT)


def read(connection: socket.socket, size: int) -> bytes:
    """So many bytes; raises EOFError."""
    found = b""
    while len(found) < size:
        if not (data := connection.recv(1 << 20)):
            raise EOFError(f"closed after {len(found)} of {size} bytes")
        found += data
    return found


class Echoes(Load):
    """Sends all sorts of lengths and compares what comes back."""

    def __init__(self, seed: int, enough: threading.Event, port: int, *, upper: bool) -> None:
        super().__init__(seed, enough)
        self._port = port
        self._upper = upper

    def visit(self) -> None:
        with connect(self._port) as client:
            for _ in self.turns(100):
                data = self.random.randbytes(self.random.choice([1, 10, 100, 1000, 20_000]))
                client.sendall(data)
                if read(client, len(data)) != (data.upper() if self._upper else data):
                    raise Wrong("another echo")
                self.done["echoes"] += 1


class Passers(Load):
    """Come by one after another at all ports, say something or nothing or nonsense, and leave in good or bad order."""

    def __init__(self, seed: int, enough: threading.Event, ports: Sequence[int]) -> None:
        super().__init__(seed, enough)
        self._ports = ports

    def visit(self) -> None:
        for _ in self.turns(100):
            with connect(self.random.choice(self._ports)) as client:
                if self.random.random() < 0.7:
                    client.sendall(self.random.randbytes(self.random.choice([1, 50, 3000])))
                if self.random.random() < 0.3:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.done["visits"] += 1


class Cached(Load):
    """Writes and reads its own keys, by both protocols in turn, and knows what each may hold.

    A write whose outcome is unknown, as Redis was away, may happen at any time: its key is given up for another. So are
    all keys when a reload that replaces the cache ends the connection: what waits for an answer then is as unknown.
    """

    pause = 0.005

    def __init__(self, seed: int, enough: threading.Event, memcached: int, redis: int, name: str) -> None:
        super().__init__(seed, enough)
        self._ports = (memcached, redis)
        self._name = name
        self._names = self._new_names()
        self._values: dict[str, bytes | None] = {}
        self._written = 0

    def _new_names(self) -> list[str]:
        return [f"{self._name}.{self.done[CLOSED]}.{number}" for number in range(KEYS)]

    def visit(self) -> None:
        with connect(self._ports[0]) as self._memcached, closing(RedisClient(self._ports[1])) as self._redis:
            self._redis.socket.settimeout(TIMEOUT)
            with self._memcached.makefile("rb") as self._file:
                try:
                    for _ in self.turns(500):
                        self._work()
                except (EOFError, ConnectionError):
                    self.done[CLOSED] += 1
                    self._names = self._new_names()
                    self._values = {}

    def _work(self) -> None:
        place = self.random.randrange(KEYS)
        if self.random.random() < 0.3:
            self._write(place)
        else:
            self._read(self._names[place])

    def _write(self, place: int) -> None:
        key = self._names[place]
        self._written += 1
        value = b"%d " % self._written + b"v" * self.random.randrange(LARGEST)
        if self.random.random() < 0.5:
            answer = self._ask_memcached(b"set %b 0 0 %d\r\n%b" % (key.encode(), len(value), value))
            stored = answer == b"STORED"
            refused = answer.startswith(b"SERVER_ERROR")
        else:
            reply = self._redis.ask("SET", key, value)
            stored, refused = reply == b"OK", isinstance(reply, hiredis.ReplyError)
        if stored:
            self._values[key] = value
            self.done["cache writes"] += 1
        elif refused:
            self._names[place] += "+"
            self.done["cache writes refused"] += 1
        else:
            raise Wrong("neither stored nor refused")

    def _read(self, key: str) -> None:
        if self.random.random() < 0.5:
            answer = self._ask_memcached(b"get %b" % key.encode())
            if answer.startswith(b"SERVER_ERROR"):
                self.done["cache reads refused"] += 1
                return
            value = None
            if answer != b"END":
                value = self._file.read(int(answer.split()[3]) + 2)[:-2]
                self._file.readline()
        else:
            reply = self._redis.ask("GET", key)
            if isinstance(reply, hiredis.ReplyError):
                self.done["cache reads refused"] += 1
                return
            value = reply if isinstance(reply, bytes) else None
        if value is not None and value != self._values.get(key):  # a Redis that was killed has forgotten all
            raise Wrong(f"{key} holds {value[:20]!r}, not {(self._values.get(key) or b'nothing')[:20]!r}")
        self.done["cache reads"] += 1

    def _ask_memcached(self, request: bytes) -> bytes:
        self._memcached.sendall(request + b"\r\n")
        if not (line := self._file.readline()):
            raise EOFError("memcached's port closed")
        return line.rstrip()


class Nowhere(Load):
    """Publishes lines that no queue takes; the operator sweeps the dead letters away."""

    pause = 0.2

    def __init__(self, seed: int, enough: threading.Event, port: int) -> None:
        super().__init__(seed, enough)
        self._port = port

    def visit(self) -> None:
        with connect(self._port) as client, client.makefile("rb") as answers:
            for _ in self.turns(20):
                client.sendall(b"nobody wants this\n")
                while not (answer := answers.readline()).startswith(b"+OK"):
                    if not answer.startswith(b"*"):
                        raise Wrong(f"{answer!r} for a line")
                self.done["lines to nowhere"] += 1


class Operator(Load):
    """Reads /metrics, /status, the page and its events, and runs verbs as netdctl does."""

    pause = 0.1
    PATHS = ("/metrics", "/status", "/livez", "/readyz", "/", "/events")
    VERBS = (
        ["status", "--json"],
        ["stats", "--over", "1s"],
        ["connections"],
        ["bridge", "status"],
        ["cache", "status"],
        ["sessions"],
        ["log", "tail"],
        ["config", "show"],
        ["bridge", "dead", "list", "--json"],
    )

    def __init__(self, seed: int, enough: threading.Event, port: int, path: Path) -> None:
        super().__init__(seed, enough)
        self._port = port
        self._path = path

    def visit(self) -> None:
        for _ in self.turns(10):
            self._fetch(self.random.choice(self.PATHS))
        self._verb(self.random.choice(self.VERBS))
        if json.loads(self._verb(["bridge", "dead", "list", "--json"]))["total"]:
            self._verb(["bridge", "dead", "drop", "--all", "--yes"])

    def _fetch(self, path: str) -> None:
        with closing(HTTPConnection(HOST, self._port, timeout=TIMEOUT)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(2000) if path == "/events" else answer.read()
            if answer.status not in {200, 503} or (not body and path != "/livez"):
                raise Wrong(f"{path}: {answer.status}, {len(body)} bytes")
        self.done["pages"] += 1

    def _verb(self, words: list[str]) -> str:
        said: list[str] = []
        status = netdctl.run(self._path, words, said.append, said.append)
        text = "".join(said)
        if status and "no dead letters" not in text:
            raise Wrong(f"{' '.join(words)}: {status}: {text}")
        self.done["verbs"] += 1
        return text


class Sessions(Load):
    """Logs in, runs commands and verbs, talks to the console at a terminal, and leaves, with or without a word."""

    pause = 0.3

    def __init__(self, seed: int, enough: threading.Event, port: int, key: Path) -> None:
        super().__init__(seed, enough)
        self._port = port
        self._key = key

    def visit(self) -> None:
        for _ in self.turns(1):
            asyncio.run(asyncio.wait_for(self._log_in(), 2 * TIMEOUT))

    async def _log_in(self) -> None:
        async with asyncssh.connect(
            HOST, self._port, username="ops", client_keys=[str(self._key)], known_hosts=None, config=None
        ) as connection:
            self.done["log-ins"] += 1
            for line, size in (("zeros -c 200000 /dev/zero", 200_000), ("df", 100), ("status", 100)):
                done = await connection.run(line, encoding=None)
                if done.exit_status != 0 or len(done.stdout or b"") < size:
                    raise Wrong(f"{line}: {done.exit_status}, {len(done.stdout or b'')} bytes, {done.stderr!r}")
                self.done["ssh commands"] += 1
            console = await connection.create_process(term_type="xterm", term_size=(80, 200))  # nothing to page
            await console.stdout.readuntil("# ")
            for line in ("status", "help", "connections"):
                console.stdin.write(f"{line}\r")
                await console.stdout.readuntil("# ")
                self.done["console lines"] += 1
            if self.random.random() < 0.5:
                console.stdin.write("exit\r")
                await console.wait()
