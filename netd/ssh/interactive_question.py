"""A question that a verb asks before it does what cannot be undone."""

from collections.abc import Callable

from twisted.internet.defer import Deferred

from netd.ssh.terminal import Entered, LineEditor
from netd.ssh.terminal_history import History
from netd.ssh.terminal_keys import Key
from netd.ssh.terminal_screen import cells_of


class Question:
    """Waits for a line: "y" or "yes" is yes, anything else no. `done` fires with the answer."""

    def __init__(self, text: str, width: int, write: Callable[[str], object], *, dumb: bool) -> None:
        self._editor = LineEditor(width, History(), dumb=dumb)
        self._write = write
        self.done: Deferred[bool] = Deferred(self._take_back)
        self._editor.begin(cells_of(f"{text} [y/N] "))
        self._write(self._editor.draw())

    def _take_back(self, _done: Deferred[bool]) -> None:
        self._write("\r\n")

    def press(self, key: Key) -> None:
        """A key of the answer; Ctrl-C and Ctrl-D say no."""
        if self.done.called:
            return
        event = self._editor.press(key)
        self._write(self._editor.draw())
        if event is not None:
            yes = isinstance(event, Entered) and bool(event.lines) and event.lines[0].strip().lower() in {"y", "yes"}
            self.done.callback(yes)

    def resize(self, width: int, _height: int) -> None:
        """The terminal has another width."""
        self._editor.resize(width)
        self._write(self._editor.draw())

    def pause(self) -> None:
        """Without a key it writes nothing."""

    def resume(self) -> None:
        """See `pause`."""

    def end(self) -> None:
        """No answer will come."""
        if not self.done.called:
            self._write("\r\n")
            self.done.callback(False)
