"""Long output, a screenful at a time, as more(1) shows it: nothing is cleared, what was shown stays above."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from wcwidth import strip_sequences, wcswidth

from netd.console.table import cut
from netd.ssh.terminal_keys import Key, Pressed, Typed

FEWEST_ROWS = 3
"""A terminal lower than this is not paged on: there would be more bar than text."""


def rows_of(line: str, width: int) -> int:
    """How many rows of a terminal a line fills."""
    columns = max(wcswidth(strip_sequences(line)), 0)
    return max(1, -(-columns // width))


class Pager:
    """Shows lines until the bottom is reached, then a bar, and waits for a key. `done` fires at the end."""

    def __init__(self, text: str, width: int, height: int, write: Callable[[str], object]) -> None:
        self._lines = text.removesuffix("\n").split("\n")
        self._shown = 0
        self._width = width
        self._height = height
        self._write = write
        self.done: Deferred[None] = Deferred()

    @staticmethod
    def needed(text: str, width: int, height: int) -> bool:
        """Whether a text is longer than a screenful."""
        if height < FEWEST_ROWS:
            return False
        rows = 0
        for line in text.split("\n"):
            rows += rows_of(line, width)
            if rows > height:
                return True
        return False

    def start(self) -> None:
        """Show the first screenful."""
        self._show(self._height - 1)

    def press(self, key: Key) -> None:
        """Space, f or PageDown: a screenful; Enter, j or Down: a line; G or End: the rest; q or Ctrl-C: enough."""
        match key:
            case Typed(" " | "f") | Pressed("PageDown" | "C-f" | "C-v"):
                self._show(self._height - 1)
            case Pressed("Enter" | "Down" | "C-n") | Typed("j"):
                self._show(1)
            case Typed("d") | Pressed("C-d"):
                self._show(self._height // 2)
            case Typed("G") | Pressed("End" | "M->"):
                self._show(sum(rows_of(line, self._width) for line in self._lines[self._shown :]))
            case Typed("q" | "Q") | Pressed("C-c"):
                self.end()

    def resize(self, width: int, height: int) -> None:
        """The next screenful has another size."""
        self._width, self._height = width, height
        self._bar()

    def pause(self) -> None:
        """Without a key it writes nothing."""

    def resume(self) -> None:
        """See `pause`."""

    def end(self) -> None:
        """Show nothing more."""
        if not self.done.called:
            self._write("\r\x1b[K")
            self.done.callback(None)

    def _show(self, rows: int) -> None:
        written = ["\r\x1b[K"]
        while self._shown < len(self._lines) and (rows > 0 or not written[1:]):
            line = self._lines[self._shown]
            rows -= rows_of(line, self._width)
            if rows < 0 and written[1:]:
                break
            written.append(line + "\r\n")
            self._shown += 1
        self._write("".join(written))
        if self._shown == len(self._lines):
            self.end()
        else:
            self._bar()

    def _bar(self) -> None:
        done = 100 * self._shown // len(self._lines)
        bar = cut(f" {done} %   Space: page   Enter: line   G: all   q: quit ", max(self._width - 1, 1))
        self._write(f"\r\x1b[7m{bar}\x1b[0m\x1b[K")
