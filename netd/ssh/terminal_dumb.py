"""What a terminal without cursor motion shows of the line being edited: TERM=dumb, as in an Emacs shell buffer.

Text, backspace and return are all it knows. A line stays on one row as far as netd is concerned.
"""

from collections.abc import Sequence

from netd.ssh.terminal_screen import DEFAULT_WIDTH, Cell


class DumbScreen:
    """The same methods as `netd.ssh.terminal_screen.Screen`."""

    def __init__(self, width: int) -> None:
        self.width = width or DEFAULT_WIDTH
        self._cells: list[Cell] = []
        self._cursor = 0

    def resize(self, width: int) -> None:
        self.width = width or DEFAULT_WIDTH

    def begin(self) -> None:
        self._cells, self._cursor = [], 0

    def show(self, cells: Sequence[Cell], cursor: int) -> str:
        old, new = self._cells, list(cells)
        same = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        written = ""
        if same < len(old) or same < len(new):
            written = self._move(self._cursor, same) + "".join(cell.text for cell in new[same:])
            over = _columns(old[same:]) - _columns(new[same:])
            written += " " * over + "\b" * over if over > 0 else ""
            self._cells, self._cursor = new, len(new)
        written += self._move(self._cursor, cursor)
        self._cursor = cursor
        return written

    def leave(self) -> str:
        self.begin()
        return "\r\n"

    def erase(self) -> str:
        return self.leave()

    def _move(self, before: int, after: int) -> str:
        if after < before:
            return "\b" * _columns(self._cells[after:before])
        return "".join(cell.text for cell in self._cells[before:after])


def _columns(cells: Sequence[Cell]) -> int:
    return sum(cell.columns for cell in cells)
