"""A terminal in memory: pyte shows what a person would see."""

import pyte

from netd.ssh.terminal import Complete, Event, LineEditor, nothing
from netd.ssh.terminal_history import History
from netd.ssh.terminal_keys import KeyDecoder
from netd.ssh.terminal_screen import cells_of

HEIGHT = 24


class Terminal:
    """What the screen of a pyte terminal shows."""

    def __init__(self, width: int = 40, height: int = HEIGHT) -> None:
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.Stream(self.screen)
        self.bells = 0
        self.received = ""

    def write(self, text: str) -> None:
        self.received += text
        self.bells += text.count("\a")
        self._stream.feed(text)

    @property
    def rows(self) -> list[str]:
        """The rows down to the last that is not blank."""
        rows = [row.rstrip() for row in self.screen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def cursor(self) -> tuple[int, int]:
        return self.screen.cursor.y, self.screen.cursor.x


class Typist:
    """Types at a line editor and sees its terminal."""

    def __init__(
        self,
        width: int = 40,
        history: History | None = None,
        complete: Complete = nothing,
        height: int = HEIGHT,
        *,
        dumb: bool = False,
    ) -> None:
        self.terminal = Terminal(width, height)
        self.editor = LineEditor(width, history or History(), complete, dumb=dumb)
        self.decoder = KeyDecoder()
        self.events: list[Event] = []
        self.begin()

    def begin(self) -> None:
        self.editor.begin(cells_of("> ", "1"))
        self.terminal.write(self.editor.draw())

    def type(self, keys: str | bytes) -> "Typist":
        for key in self.decoder.feed(keys.encode() if isinstance(keys, str) else keys):
            if not self.editor.active:
                self.begin()
            event = self.editor.press(key)
            if event is not None:
                self.events.append(event)
        self.terminal.write(self.editor.draw())
        return self
