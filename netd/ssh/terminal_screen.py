r"""What the terminal shows of the line being edited, and how to make it show another.

The line and its prompt are a run of cells that wraps at the terminal's edge. To show a new run, the cells that both
have in common at the beginning stay, the cursor goes to the first that differs, the rest is written, what is left over
is erased, and the cursor goes to its place. So a character typed at the end costs that character and no more, and a
line redrawn costs one burst.

Nothing above the prompt is ever touched, and nothing is asked of the terminal. Three things are not left to chance:

- After the last column terminals hold the cursor back until the next character (the VT100's "last column flag"), and
  differ in what a motion does then. So a row that is full is always followed by a character: the next cell or, at the
  end, a space and a return.
- A wide character that does not fit into the last column goes to the next row, by "\r\n": terminals differ here too.
- A cluster, a character with the combining ones that follow, is one cell, as wide as wcwidth says of the first. Where a
  terminal thinks otherwise of an emoji, the line shows a gap there until the next prompt.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from wcwidth import wcwidth

LEAST_WIDTH = 2
"""Columns: a wide character needs two."""

DEFAULT_WIDTH = 80
"""For a client that does not know its terminal's width and says 0 (RFC 4254, section 6.2)."""


class Cell(NamedTuple):
    """A character with its combining ones, as it is written: `columns` wide, in an SGR style such as "1;32"."""

    text: str
    columns: int
    style: str = ""


class Place(NamedTuple):
    """A position below and right of where the prompt begins."""

    row: int
    column: int


def cells_of(text: str, style: str = "") -> list[Cell]:
    r"""The cells of a text, one for each cluster; what does not print is shown as "^C" or "\u202e"."""
    return [cell for cluster in clusters(text) for cell in _cells_of_cluster(cluster, style)]


@lru_cache(maxsize=4096)
def _cells_of_cluster(cluster: str, style: str) -> tuple[Cell, ...]:
    first = cluster[0]
    if not first.isprintable():
        return tuple(Cell(each, 1, "7") for character in cluster for each in _visible(character))
    if wcwidth(first) <= 0:
        return (Cell("\N{DOTTED CIRCLE}" + cluster, 1, style),)
    return (Cell(cluster, wcwidth(first), style),)


def clusters(text: str) -> Iterator[str]:
    """The text cut where the cursor may stand: before each character but a combining one."""
    if text.isascii():
        yield from text
        return
    begin = 0
    for at in range(1, len(text)):
        if not is_combining(text[at]) or not text[begin].isprintable():
            yield text[begin:at]
            begin = at
    if text:
        yield text[begin:]


def is_combining(character: str) -> bool:
    """Whether a character is drawn over the one before it."""
    return character > "\x7f" and character.isprintable() and wcwidth(character) == 0


def _visible(character: str) -> str:
    if character < " ":
        return "^" + chr(ord(character) + 0x40)
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def lay_out(cells: Sequence[Cell], width: int) -> list[Place]:
    """Where each cell begins, and, one more, where the next would."""
    places = []
    row = column = 0
    for cell in cells:
        if column + cell.columns > width:
            row, column = row + 1, 0
        places.append(Place(row, column))
        column += cell.columns
    if column >= width:
        row, column = row + 1, 0
    places.append(Place(row, column))
    return places


class Screen:
    """Knows what stands below the prompt's first column; its methods return the bytes, as text, that change it."""

    def __init__(self, width: int) -> None:
        self._at = Place(0, 0)
        self.width = DEFAULT_WIDTH
        self.resize(width)
        self.begin()

    def resize(self, width: int) -> None:
        """The terminal's width from now on; what it shows is redrawn by the next `show`.

        Some terminals wrap what they show anew, others do not: the prompt is sought in the lower of the two rows where
        it may be, so that what stands above it survives. A copy of it may be left there.
        """
        before, self.width = self.width, max(width, LEAST_WIDTH) if width > 0 else DEFAULT_WIDTH
        row, column = self._at
        self._at = Place(min(row, (row * before + column) // self.width), column)
        self._stale = True

    def begin(self) -> None:
        """The cursor stands in the first column of a row that is free."""
        self._cells: list[Cell] = []
        self._end = self._at = Place(0, 0)
        self._stale = False

    def show(self, cells: Sequence[Cell], cursor: int) -> str:
        """Show these cells and put the cursor on one, or behind the last."""
        old, new = self._cells, list(cells)
        places = lay_out(new, self.width)
        same = 0
        if not self._stale:
            same = next(
                (at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
            )
        written = ""
        if self._stale or same < len(old) or same < len(new):
            start = places[0] if not same else _behind(new[same - 1], places[same - 1], self.width)
            written = self._go(start) + ("\r" if self._stale else "")
            written += _draw(new[same:], places[same:], start, self.width)
            self._at = places[-1]
            if self._stale:
                written += "\x1b[J"
            elif same < len(old) and self._end > places[-1]:
                written += "\x1b[K" if self._end.row == places[-1].row else "\x1b[J"
        self._cells, self._end, self._stale = new, places[-1], False
        return written + self._go(places[cursor])

    def leave(self) -> str:
        """Put the cursor below what is shown, in the first column, and forget it."""
        written = self._go(self._end) + ("\r\n" if self._end.column or not self._cells else "")
        self.begin()
        return written

    def erase(self) -> str:
        """Take away what is shown, the prompt too."""
        written = self._go(Place(0, 0)) + "\x1b[J"
        self.begin()
        return written

    def _go(self, place: Place) -> str:
        row, column = self._at
        self._at = place
        vertical = place.row - row
        moves = f"\x1b[{-vertical}A" if vertical < 0 else f"\x1b[{vertical}B" if vertical > 0 else ""
        if place.column == column:
            return moves
        if place.column == 0:
            return moves + "\r"
        if place.column > column:
            return moves + f"\x1b[{place.column - column}C"
        back = column - place.column
        return moves + ("\b" * back if back <= 4 else f"\x1b[{back}D")  # noqa: PLR2004 - the sequence is as long


def _behind(cell: Cell, place: Place, width: int) -> Place:
    """The place behind a cell, where a narrow one would go."""
    column = place.column + cell.columns
    return Place(place.row, column) if column < width else Place(place.row + 1, 0)


def _draw(cells: Sequence[Cell], places: Sequence[Place], start: Place, width: int) -> str:
    """Write cells at their places, with the cursor at `start`; it ends at the last place."""
    pieces: list[str] = []
    style = ""
    row, column = start
    for cell, place in zip(cells, places, strict=False):
        if place.row > row and column < width:
            pieces.append(("\x1b[0m" if style else "") + "\x1b[K\r\n")
            style = ""
        if cell.style != style:
            pieces.append(f"\x1b[0;{cell.style}m" if cell.style else "\x1b[0m")
            style = cell.style
        pieces.append(cell.text)
        row, column = place.row, place.column + cell.columns
    if style:
        pieces.append("\x1b[0m")
    if cells and places[len(cells)].row > row:
        pieces.append(" \r\x1b[K")
    return "".join(pieces)
