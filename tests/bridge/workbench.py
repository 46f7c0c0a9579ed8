"""A spool and a lane in slow motion: the test says when the spool's thread does its next work, and how that ends.

The file is real. A crash is the file as it is at that moment, found by whoever comes next.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from netd.bridge.broker import Broker, Outcome, Sender
from netd.bridge.lane import Lane
from netd.bridge.lines import Incoming, Rules
from netd.bridge.messages import Block, Route
from netd.bridge.shares import Share
from netd.bridge.spool import Spool
from netd.bridge.spoolfile import DeadLetter, SpoolFailed, SpoolFile

ROUTE = Route("lines", "", "work")


@contextmanager
def warnings() -> Iterator[list[str]]:
    """What is logged as a warning meanwhile."""
    told: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"] is LogLevel.warn:
            told.append(str(formatEvent(event)))

    observer = cast("ILogObserver", observe)
    globalLogPublisher.addObserver(observer)
    try:
        yield told
    finally:
        globalLogPublisher.removeObserver(observer)


class SlowThread:
    """Does what it is asked when the test says so."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()

    def call(self, work: Callable[[], Any]) -> "Deferred[Any]":
        done: Deferred[Any] = Deferred()
        self.jobs.append((work, done))
        return done

    def run(self, failing: str = "") -> None:
        """Do the next piece of work. failing: "before": it comes to nothing; "after": it is done, and fails."""
        work, done = self.jobs.popleft()
        try:
            if failing == "before":
                raise SpoolFailed("disk I/O error (SQLITE_IOERR_WRITE)")
            result = work()
            if failing == "after":
                raise SpoolFailed("disk I/O error (SQLITE_IOERR_FSYNC)")
        except Exception:  # noqa: BLE001 - as a thread pool does
            done.errback(Failure())
        else:
            done.callback(result)


class Teller:
    """A client that notes what it is told."""

    def __init__(self) -> None:
        self.sent = 0
        self.done: list[int] = []
        self.dead: list[tuple[int, str]] = []

    def share_done(self, share: Share) -> None:
        self.done.append(share.upto)

    def message_dead(self, number: int, reason: str) -> None:
        self.dead.append((number, reason))


class Wire:
    """An outlet that notes what it is given, and has the test answer for it."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.ready = True
        self.problem = ""
        self.published: list[tuple[str, bytes]] = []
        """Every message that was given to it, with its id."""
        self.keys: list[bytes] = []
        """Their routing keys."""
        self.unsettled: dict[int, tuple[str, bytes]] = {}

    def publish(self, block: Block, start: int, stop: int) -> None:
        assert self.ready
        assert start < stop
        for index in range(start, stop):
            message = block.netd_id(index), block.bodies[index]
            assert block.first + index not in self.unsettled, "given twice"
            self.published.append(message)
            self.keys.append(block.keys[index] if block.keys is not None else block.route.routing_key.encode())
            self.unsettled[block.first + index] = message

    def settle(self, first: int, last: int, outcome: Outcome, reason: str = "") -> list[tuple[str, bytes]]:
        """Answer for a range."""
        settled = [self.unsettled.pop(number) for number in range(first, last + 1)]
        self.sender.settled(first, last, outcome, reason)
        return settled

    def lose(self) -> None:
        """The connection ends."""
        self.ready = False
        for first, last in ranges(sorted(self.unsettled)):
            self.settle(first, last, Outcome.LOST, "connection lost")

    def open(self) -> None:
        """It is there again."""
        self.ready = True
        self.sender.opened()

    def close(self) -> None:
        """Nothing is told from now on."""


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The runs of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


class OneWire:
    """As much of a broker as a lane sees."""

    def __init__(self) -> None:
        self.wire: Wire

    def outlet(self, route: Route, sender: Sender) -> Wire:
        self.wire = Wire(sender)
        return self.wire


class Workbench:
    """One incarnation of netd on a spool."""

    def __init__(self, path: Path, *, confirmed: bool = False, limit: int = 0) -> None:
        self.path = path
        self.closed = False
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.thread = SlowThread()
        self.changes = 0
        self.spool = Spool(path, limit, self.clock, self.thread.call, self._changed)
        opening = Deferred.fromCoroutine(self.spool.open())
        rows: list[Any] = []
        opening.addCallback(rows.append)
        self.finish()
        assert rows, "did not open"
        making = self.spool.read(lambda file: file.lane_for(ROUTE))
        making.addCallback(rows.append)
        self.finish()
        self.lane = Lane(rows[1], self.spool, self.clock, wall=self.clock.seconds)
        self._confirmed = confirmed
        self.client = Teller()
        self.incoming = Incoming(Rules("raw", 1 << 20, lambda key: True))
        broker: Any = OneWire()
        self._open(broker)
        self.wire: Wire = broker.wire

    def _open(self, broker: Broker) -> None:
        self.lane.open(broker)

    def _changed(self) -> None:
        self.changes += 1

    def send(self, *bodies: bytes) -> None:
        """Lines of a client arrive."""
        data = b"".join(body + b"\n" for body in bodies)
        self.lane.accept(self.incoming.receive(data), len(data), self.client, confirmed=self._confirmed)
        self.client.sent += len(bodies)

    def turn(self, seconds: float = 0.0) -> None:
        """The reactor goes round."""
        self.clock.advance(seconds)

    def finish(self, seconds: float = 0.0) -> None:
        """Everything that is under way is done, as is what comes of it."""
        self.turn(seconds)
        while self.thread.jobs:
            self.thread.run()
            self.turn()

    def crash(self, path: Path, **options: Any) -> "Workbench":
        """netd dies here; the next one finds the files as they are."""
        for suffix in ("", "-wal"):
            source = Path(f"{self.path}{suffix}")
            if source.exists():
                shutil.copy(source, f"{path}{suffix}")
        self.close()
        return Workbench(path, **options)

    def close(self) -> None:
        """Let go of the file."""
        self.thread.jobs.clear()
        if not self.closed:
            self.closed = True
            self.spool.file.close()

    def dead(self) -> list[DeadLetter]:
        """The dead letters on disk."""
        return self.spool.file.dead(limit=1 << 20)

    def rows(self) -> int:
        """Blocks on disk."""
        (count,) = self.spool.file.db.execute("SELECT count(*) FROM block").fetchone()
        return int(count)

    def on_disk(self, body: bytes) -> bool:
        """Whether a second reader, as after a crash, finds a line there."""
        found: list[Any] = self.spool.file.read(self.lane.row.id, 0, 1 << 30)
        return any(body in block.bodies for block in found)


__all__ = ["ROUTE", "SpoolFile", "Workbench", "ranges", "warnings"]
