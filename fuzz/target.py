"""What a target is, and what its checks have in common.

A target is a module of `fuzz.targets`, named after its codec. Its `check` gives bytes to the codec: it lets the errors
pass that are documented, asserts what must hold, and raises for everything else. `WORDS` are what the codec's language
is made of.
"""

import random
import resource
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Protocol, cast

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogBeginner, globalLogPublisher
from zope.interface import implementer

TARGETS = Path(__file__).parent / "targets"

PATIENCE = 1.0
"""Seconds of processor time that an input of a few kilobytes may take."""

MOST_MEMORY = 1 << 30
"""Bytes of address space beside what the process has already."""

MOST_PIECES = 8
"""Pieces that an input is cut into, where it is not cut into bytes."""
BYTEWISE = 200
"""Bytes of inputs that every fourth time are cut into single ones."""


class Target(Protocol):
    """A module of `fuzz.targets`."""

    WORDS: Sequence[bytes]
    LONGEST: int
    """Bytes of an input: few where they take long, so that there are hundreds a second."""

    def check(self, data: bytes) -> None:
        """Give an input to the codec; raises when anything but what is documented happens."""


class Hang(BaseException):
    """An input took longer than it may. No Exception, as code under test may well catch those."""


def be_quiet() -> None:
    """Twisted shows failures on stderr as long as nobody has begun to log."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)


def names() -> list[str]:
    """Every target."""
    return sorted(path.stem for path in TARGETS.glob("[a-z]*.py"))


def load(name: str) -> Target:
    """A target by its name."""
    return cast("Target", import_module(f"fuzz.targets.{name}"))


def pieces(data: bytes) -> list[bytes]:
    """The input cut at places that follow from it, so that what was found is found again."""
    chance = random.Random(zlib.crc32(data))  # noqa: S311 - no secret
    if len(data) <= BYTEWISE and chance.random() < 0.25:  # noqa: PLR2004 - every fourth
        return [data[at : at + 1] for at in range(len(data))]
    places = sorted(chance.randint(0, len(data)) for _ in range(chance.randrange(MOST_PIECES)))
    edges = [0, *places, len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


@contextmanager
def nothing_fails() -> Iterator[None]:
    """What netd catches by itself and logs as its own failure is one."""
    failures: list[LogEvent] = []

    @implementer(ILogObserver)
    def watch(event: LogEvent) -> None:
        if event["log_level"] in {LogLevel.error, LogLevel.critical}:
            failures.append(event)

    globalLogPublisher.addObserver(watch)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(watch)
    for event in failures:
        if failure := event.get("log_failure"):
            failure.raiseException()
        raise AssertionError(event.get("log_format"))


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Who asks for more than MOST_MEMORY gets a MemoryError, which is a finding."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def examine(check: Callable[[bytes], None], data: bytes, patience: float = PATIENCE) -> BaseException | None:
    """What came of an input that must not come; None when all is well."""
    previous = signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, patience)
    try:
        check(data)
    except (Exception, Hang) as error:  # noqa: BLE001 - whatever it is, it is a finding
        return error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
    return None


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise Hang("it takes too long")


def describe(error: BaseException) -> str:
    """A finding in a line: the error, and where in the code under test, or in the target, it was raised."""
    at = error.__traceback__
    place = ""
    while at is not None:
        path = at.tb_frame.f_code.co_filename
        for root in ("/netd/", "/fuzz/targets/"):
            if root in path:
                place = f"{root.strip('/')}/{path.rpartition(root)[2]}:{at.tb_frame.f_code.co_name}"
        at = at.tb_next
    return f"{type(error).__name__} in {place or 'fuzz'}"
