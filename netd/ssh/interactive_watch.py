"""watch: runs a verb again and again, and redraws what it says in place.

The rows are drawn over those of the last time; nothing above them is touched, and the last ones stay when it ends.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from wcwidth import clip, strip_sequences, wcswidth

from netd.console.arguments import DurationOption, Wrong
from netd.console.command import NOT_PERMITTED, OK, UNKNOWN, USAGE
from netd.console.console import Console
from netd.console.text import printable, show_duration
from netd.ssh.terminal_keys import Key, Pressed, Typed

DEFAULT_INTERVAL = 2.0
"""Seconds between the end of one run and the next, as watch(1) has it."""

SHORTEST_INTERVAL = 0.5
LONGEST_INTERVAL = 3600.0

LONGEST_FRAME = 200
"""Rows kept of one run; terminals are lower."""

Frame = Callable[[bool], Coroutine[Deferred[Any], Any, tuple[int, str]]]
"""Runs the verb, again or for the first time: its exit status and what it wrote."""


class Terminal(Protocol):
    """What is drawn on."""

    width: int
    height: int

    def write(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of watch."""

    words: list[str]
    interval: float


def parse_watch(words: list[str], console: Console) -> Asked:
    """The verb and the interval of a line without its first word "watch"; raises Wrong.

    -n before the verb is always watch's, after it only where the verb has no -n of its own.
    """
    interval = DEFAULT_INTERVAL
    rest = list(words)
    if rest[:1] == ["-n"]:
        interval, rest = _interval(rest[1:2]), rest[2:]
    command = console.find(rest)
    if command is None:
        if rest and rest[0] in console.host_commands:
            raise Wrong(f"{rest[0]} is a command of this host; only verbs are watched")
        raise Wrong(f"{printable(rest[0])}: unknown verb" if rest else "which verb?")
    if command.asks:
        raise Wrong(f"{command.name} is not for repeating")
    own = {name for each in command.parameters for name in each.opts}
    if "-n" not in own and "-n" in rest:
        at = rest.index("-n")
        interval = _interval(rest[at + 1 : at + 2])
        del rest[at : at + 2]
    return Asked(rest, interval)


def _interval(words: list[str]) -> float:
    if not words:
        raise Wrong("-n takes seconds")
    seconds = DurationOption(LONGEST_INTERVAL).convert(words[0], None, None)
    if seconds < SHORTEST_INTERVAL:
        raise Wrong(f"not more often than every {SHORTEST_INTERVAL:g} s")
    return seconds


class Watch:
    """One watch at work. `run` goes on until a key or `end` stops it."""

    def __init__(
        self,
        asked: Asked,
        frame: Frame,
        clock: IReactorTime,
        terminal: Terminal,
    ) -> None:
        self._asked = asked
        self._frame = frame
        self._clock = clock
        self._terminal = terminal
        self._waiting: Deferred[None] | None = None
        self._running: Deferred[tuple[int, str]] | None = None
        self._ended = False
        self._drawn = 0
        self._text = ""
        self._paused = False

    async def run(self) -> int:
        """Draw until it is stopped; returns the exit status: that of a verb that cannot be run at all, else 0."""
        status = await self._look(again=False)
        if status in {USAGE, NOT_PERMITTED, UNKNOWN}:
            self._terminal.write(self._text.replace("\n", "\r\n"))
            return status
        self._terminal.write("\x1b[?25l")
        try:
            while not self._ended:
                self._draw()
                await self._wait()
                if not self._ended and not self._paused:
                    await self._look(again=True)
        finally:
            self._terminal.write("\x1b[?25h")
        return OK

    async def _look(self, *, again: bool) -> int:
        self._running = Deferred.fromCoroutine(self._frame(again))
        try:
            status, self._text = await self._running
        except CancelledError:
            if not self._ended:
                raise
            return OK
        finally:
            self._running = None
        return status

    def press(self, key: Key) -> None:
        """q, Ctrl-C or Ctrl-D: enough; Space or Enter: now."""
        match key:
            case Typed("q" | "Q") | Pressed("C-c" | "C-d"):
                self.end()
            case Typed(" ") | Pressed("Enter"):
                self._go_on()

    def resize(self, _width: int, _height: int) -> None:
        """Draw for the new size. Where the old rows are now nobody knows: the new ones come below."""
        self._drawn = 0
        if self._waiting is not None:
            self._draw()

    def pause(self) -> None:
        """The client does not read: draw nothing."""
        self._paused = True

    def resume(self) -> None:
        """It reads again."""
        self._paused = False

    def end(self) -> None:
        """Draw no more."""
        self._ended = True
        if self._running is not None:
            self._running.cancel()
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    async def _wait(self) -> None:
        timer = self._clock.callLater(self._asked.interval, self._go_on)
        self._waiting = Deferred()
        try:
            await self._waiting
        finally:
            if timer.active():
                timer.cancel()

    def _draw(self) -> None:
        if self._paused or self._ended:
            return
        width, height = self._terminal.width, self._terminal.height
        rows = [f"\x1b[2m{_fitted(self._head(), width)[0]}\x1b[0m"]
        for line in self._text.removesuffix("\n").split("\n")[:LONGEST_FRAME]:
            rows += _fitted(line, width)
        room = max(height - 1, 2)
        if len(rows) > room:
            hidden = len(rows) - room + 1
            rows[room - 1 :] = [f"\x1b[2m{clip(f'… {hidden} more rows', 0, width)}\x1b[0m"]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._terminal.write(f"{up}\r" + "".join(f"{row}\x1b[K\r\n" for row in rows) + "\x1b[J")
        self._drawn = len(rows)

    def _head(self) -> str:
        words = " ".join(self._asked.words)
        now = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
        return f"{now}  {words}, every {show_duration(self._asked.interval)}   Space: now   q: end"


def _fitted(line: str, width: int) -> list[str]:
    """A line as rows of at most `width` columns. One column stays free: a full row would wrap on ESC [ K."""
    room = max(width - 1, 1)
    plain = strip_sequences(line)
    columns = max(wcswidth(plain), 0)
    if columns <= room:
        return [line]
    if plain != line:
        return [clip(line, 0, room)]
    return [clip(line, at, at + room) for at in range(0, columns, room)]
