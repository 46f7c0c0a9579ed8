"""Clients that ask netd again and again, and know what each answer may be.

A caller makes one exchange after another on a connection, and connects again when that breaks. It knows what it asked,
so that it notices an answer that is wrong, somebody else's, too old, or missing. A connection may break; what is said
on it may not be false. `tests/test_fault_callers.py` shows servers that lie to each of them.
"""

import json
import random
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import hiredis

from tests.cache.redis_client import pack
from tests.faults.lines import Client, Consumer, Publisher
from tests.faults.values import ImpossibleValue, Values

SILENCE = 40.0
"""Seconds without an answer that count as none: longer than any fault lasts."""
PAUSE = 0.004
"""Seconds between two exchanges: many clients are to have a turn, not one all of it."""


class WrongAnswer(Exception):
    """What was answered cannot be."""


class Ended(Exception):
    """The connection has ended where an answer was due."""


class Working(Protocol):
    """A client whose work can be watched."""

    def start(self) -> None: ...

    def leave(self) -> None: ...

    def mark(self) -> Callable[[], bool]:
        """Asks later whether something has been done whole that was begun after now."""
        ...


class Caller(Client):
    """One client; what it has found out is in its attributes, which a test may read at any time."""

    pause = PAUSE

    def __init__(self, port: int, seed: int = 0) -> None:
        super().__init__(port)
        self.random = random.Random(seed)
        self.checked = 0
        """Exchanges whose answer was what it had to be."""
        self.bytes = 0
        self.broken = 0
        """Connections that ended in the middle."""
        self.why = ""
        """The last one did."""
        self.refused: Counter[str] = Counter()
        """Answers that said, in the protocol's own words, that it could not be done."""
        self.missed = 0
        """Values that were acknowledged and are not there."""
        self.wrong: list[str] = []
        self.slowest = 0.0
        self._begun = 0.0

    def work(self, connection: socket.socket) -> None:
        connection.settimeout(SILENCE)
        talk = Talk(connection)
        while not self._leaving.is_set() and self.one(lambda: self.exchange(talk)):
            self._leaving.wait(self.pause)

    def one(self, exchange: Callable[[], None]) -> bool:
        """Have an exchange, and note how it went; whether the connection can be used on."""
        began = time.monotonic()
        try:
            exchange()
        except TimeoutError:
            self.wrong.append(f"no answer for {SILENCE:.0f} s")
        except (OSError, Ended) as error:
            self.broken += 1
            self.why = repr(error)
        except (WrongAnswer, ImpossibleValue) as error:
            self.wrong.append(str(error))
        else:
            self.checked += 1
            self._begun = began
            self.slowest = max(self.slowest, time.monotonic() - began)
            return True
        return False

    def exchange(self, talk: "Talk") -> None:
        """Ask and check; raises WrongAnswer, or Ended."""
        raise NotImplementedError

    def mark(self) -> Callable[[], bool]:
        now = time.monotonic()
        return lambda: self._begun >= now


class Talk:
    """A connection that is read by lines and lengths."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._rest = b""

    def say(self, data: bytes) -> None:
        self.connection.sendall(data)

    def more(self) -> bytes:
        data = self.connection.recv(1 << 16)
        if not data:
            raise Ended
        return data

    def line(self) -> bytes:
        """The next line, without its CRLF."""
        while b"\r\n" not in self._rest:
            self._rest += self.more()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def take(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._rest += self.more()
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


class EchoCaller(Caller):
    """Sends random bytes and wants them back, in their order, and nothing else."""

    def exchange(self, talk: Talk) -> None:
        sent = self.random.randbytes(self.random.randint(1, 4096))
        talk.say(sent)
        received = 0
        while received < len(sent):
            data = talk.more()
            if data != sent[received : received + len(data)]:
                raise WrongAnswer(f"at byte {received} of {len(sent)} came {data[:20]!r}…")
            received += len(data)
        self.bytes += received


class CacheCaller(Caller):
    """Writes keys that are its own and reads everybody's, many requests at once."""

    def __init__(self, port: int, values: Values, name: str, seed: int = 0) -> None:
        super().__init__(port, seed)
        self._values = values
        self._own = [values.key(f"{name}.{seed}.{number}") for number in range(4)]
        self._seen: dict[str, int] = {}

    def exchange(self, talk: Talk) -> None:
        asked: list[tuple[str, int, int]] = []
        for _ in range(self.random.randint(1, 8)):
            writes = self.random.random() < 0.4
            key = self.random.choice(self._own if writes else self._values.keys)
            floor = max(self._values.acknowledged(key), self._seen.get(key, 0))
            asked.append((key, self._values.try_next(key) if writes else 0, floor))
        request = b"".join(
            self.to_set(key, self._values.value(key, version)) if version else self.to_get(key)
            for key, version, _ in asked
        )
        talk.say(request)
        self.bytes += len(request)
        for key, version, floor in asked:
            if version:
                self._hear_set(talk, key, version)
            else:
                self._hear_get(talk, key, floor)

    def _hear_set(self, talk: Talk, key: str, version: int) -> None:
        if problem := self.stored(talk):
            self.refused[problem] += 1
        else:
            self._values.acknowledge(key, version)
            self._seen[key] = version

    def _hear_get(self, talk: Talk, key: str, floor: int) -> None:
        value, problem = self.got(talk, key)
        if problem:
            self.refused[problem] += 1
        elif value is None:
            self.missed += floor > 0
        else:
            self.bytes += len(value)
            self._seen[key] = self._values.check(key, value, max(floor, self._seen.get(key, 0)))

    def to_set(self, key: str, value: bytes) -> bytes:
        raise NotImplementedError

    def to_get(self, key: str) -> bytes:
        raise NotImplementedError

    def stored(self, talk: Talk) -> str:
        """Hears that a value is stored; or why not."""
        raise NotImplementedError

    def got(self, talk: Talk, key: str) -> tuple[bytes | None, str]:
        """Hears a value, or None if there is none; or why not."""
        raise NotImplementedError


class MemcachedCaller(CacheCaller):
    def to_set(self, key: str, value: bytes) -> bytes:
        return b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(value), value)

    def to_get(self, key: str) -> bytes:
        return b"get %s\r\n" % key.encode()

    def stored(self, talk: Talk) -> str:
        line = talk.line()
        return "" if line == b"STORED" else self._problem(line, "set")

    def got(self, talk: Talk, key: str) -> tuple[bytes | None, str]:
        line = talk.line()
        if line == b"END":
            return None, ""
        words = line.split(b" ")
        if words[0] != b"VALUE":
            return None, self._problem(line, f"get {key}")
        if words[1:3] != [key.encode(), b"0"]:
            raise WrongAnswer(f"{line!r} to get {key}")
        value = talk.take(int(words[3]))
        if (end := talk.take(7)) != b"\r\nEND\r\n":
            raise WrongAnswer(f"{end!r} after the value of {key}")
        return value, ""

    @staticmethod
    def _problem(line: bytes, request: str) -> str:
        if not line.startswith(b"SERVER_ERROR "):
            raise WrongAnswer(f"{line!r} to {request}")
        return line.decode()


class RedisCaller(CacheCaller):
    def work(self, connection: socket.socket) -> None:
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        super().work(connection)

    def to_set(self, key: str, value: bytes) -> bytes:
        return pack("SET", key, value)

    def to_get(self, key: str) -> bytes:
        return pack("GET", key)

    def _reply(self, talk: Talk) -> object:
        while True:
            try:
                if (reply := self._reader.gets()) is not Ellipsis:
                    return reply
            except hiredis.ProtocolError as error:
                raise WrongAnswer(f"no RESP: {error}") from None
            self._reader.feed(talk.more())

    def stored(self, talk: Talk) -> str:
        reply = self._reply(talk)
        if isinstance(reply, hiredis.ReplyError):
            return str(reply)
        if reply != b"OK":
            raise WrongAnswer(f"{reply!r} to SET")
        return ""

    def got(self, talk: Talk, key: str) -> tuple[bytes | None, str]:
        reply = self._reply(talk)
        if isinstance(reply, hiredis.ReplyError):
            return None, str(reply)
        if reply is not None and not isinstance(reply, bytes):
            raise WrongAnswer(f"{reply!r} to GET {key}")
        return reply, ""


class AdminCaller(Caller):
    """Asks the admin port, several times on a connection."""

    pause = 0.05
    _PATHS = ("/livez", "/status", "/metrics")

    def exchange(self, talk: Talk) -> None:
        path = self.random.choice(self._PATHS)
        talk.say(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
        status = talk.line()
        headers = {}
        while line := talk.line():
            name, _, value = line.partition(b": ")
            headers[name.lower()] = value
        if not status.startswith(b"HTTP/1.1 200 ") or b"content-length" not in headers:
            raise WrongAnswer(f"{status!r} {headers} to {path}")
        body = talk.take(int(headers[b"content-length"]))
        self.bytes += len(body)
        if not self._fits(path, body):
            raise WrongAnswer(f"{body[:60]!r}… {body[-60:]!r} to {path}")

    @staticmethod
    def _fits(path: str, body: bytes) -> bool:
        if path == "/status":
            try:
                return set(json.loads(body)) >= {"clock", "services"}
            except ValueError:
                return False
        if path == "/metrics":
            return body.startswith(b"# HELP ") and body.endswith(b"\n") and b"netd_" in body
        return body == b"alive\n"


class SshCaller(Caller):
    """Runs commands with OpenSSH's client: so many lines, an exit status, and bytes there and back."""

    pause = 0.05
    UNUSABLE = 255
    """What `ssh` exits with when the connection failed; it says nothing of the command."""

    def __init__(self, command: Sequence[str], seed: int = 0, longest: int = 4000) -> None:
        super().__init__(0, seed)
        self._command = command
        self._longest = longest

    def run(self) -> None:
        while not self._leaving.is_set():
            self.one(self._run_one)
            self._leaving.wait(self.pause)

    def _run_one(self) -> None:
        if self.random.random() < 0.5:
            lines, status = self.random.randint(1, self._longest), self.random.randint(0, 9)
            self._run(
                f"count {lines} {status}", b"", b"".join(b"%d\n" % number for number in range(1, lines + 1)), status
            )
        else:
            data = self.random.randbytes(self.random.randint(1, 5 * self._longest))
            self._run("cat", data, data, 0)

    def _run(self, line: str, data: bytes, wanted: bytes, status: int) -> None:
        command = [*self._command, line]
        try:
            done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=SILENCE)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        self.bytes += len(done.stdout)
        if done.returncode == self.UNUSABLE:
            if not wanted.startswith(done.stdout):
                raise WrongAnswer(f"{line}: other output than there is, before the connection broke")
            raise Ended(done.stderr[-200:])
        if (done.returncode, done.stdout) != (status, wanted):
            said = f"status {done.returncode}, {len(done.stdout)} bytes, {done.stderr[-80:]!r}"
            raise WrongAnswer(f"{line}: {said}; not status {status}, {len(wanted)} bytes")


class LineCaller(Publisher):
    """Publishes numbered lines."""

    def mark(self) -> Callable[[], bool]:
        number = self._next
        return lambda: bool(self.answered) and self.answered[-1][1] >= number


class LineReader(Consumer):
    """Takes the lines of some publishers."""

    def __init__(self, port: int, queue: str, publishers: Sequence[LineCaller]) -> None:
        super().__init__(port, queue)
        self._publishers = publishers

    def mark(self) -> Callable[[], bool]:
        begun = len(self.received)
        numbers = {publisher.name: publisher._next for publisher in self._publishers}
        return lambda: any(number >= numbers.get(name, number + 1) for name, number, _ in self.received[begun:][-500:])
