"""What people see of an answer: lines, paragraphs and tables, fitted to the width of their terminal.

A verb runs on the reactor's thread, between two requests of somebody else: a table of a hundred rows is laid out in one
millisecond (rich 15 takes thirty-six).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from wcwidth import wcswidth, wcwidth, wrap

from netd.console.text import printable

PARAGRAPH_WIDTH = 80
"""Columns of running text where there is no terminal, and at most where there is one."""

LONGEST_TEXT = 8192
"""Characters of a cell or a paragraph, as of a line of the log; the rest is cut. A cache's key may have a million, and
comes from whoever may write there."""

GAP = "  "

Style = Literal["", "bold", "dim", "good", "bad", "warn", "name"]

_SGR: dict[str, str] = {"bold": "1", "dim": "2", "good": "32", "bad": "1;31", "warn": "33", "name": "36"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A word or two of a line or a table, with what it means: colours follow from that."""

    text: str
    style: Style = ""


@dataclass(frozen=True, slots=True)
class Line:
    """Cells behind one another. What is longer than the terminal is wide is cut, broken at spaces, or left whole."""

    cells: Sequence[Cell]
    fit: Literal["cut", "wrap", "whole"] = "cut"
    indent: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """A column. Where room is short the one with the highest `spare` goes first; those with 0 stay, and shrink."""

    head: str
    right: bool = False
    spare: int = 0


@dataclass(slots=True)
class Table:
    """Rows under heads. A last column of text that is too long is broken at spaces; other cells are cut."""

    columns: Sequence[Column]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    indent: int = 0
    heads: bool = True

    def add(self, *cells: Cell | str) -> None:
        """A row."""
        self.rows.append([each if isinstance(each, Cell) else Cell(each) for each in cells])


Part = Line | Table | str


def render(parts: Sequence[Part], width: int, *, colour: bool) -> str:
    r"""The text of an answer, lines ending in "\n", for a terminal of `width` columns; 0: as wide as need be."""
    lines: list[str] = []
    for part in parts:
        match part:
            case str():
                lines += _paragraph(Line([Cell(part)], fit="wrap"), width, colour)
            case Line(fit="wrap"):
                lines += _paragraph(part, width, colour)
            case Line():
                lines.append(_line(part, width, colour))
            case Table():
                lines += _table(part, width, colour)
    return "".join(line + "\n" for line in lines)


def paint(text: str, style: Style, *, colour: bool) -> str:
    """The text in its style."""
    return f"\x1b[{_SGR[style]}m{text}\x1b[0m" if colour and style and text else text


def columns_of(text: str) -> int:
    """How many columns a printable text takes."""
    return len(text) if text.isascii() else max(wcswidth(text), 0)


def cut(text: str, width: int) -> str:
    """The text if it fits, else its beginning and an ellipsis."""
    if columns_of(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += max(wcwidth(character), 0)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…" if width > 0 else ""


def _paragraph(line: Line, width: int, colour: bool) -> list[str]:
    text = _shown("".join(cell.text for cell in line.cells))
    style = line.cells[0].style if len(line.cells) == 1 else ""
    room = min(width or PARAGRAPH_WIDTH, PARAGRAPH_WIDTH)
    indent = " " * line.indent
    if text and text.isascii() and line.indent + len(text) <= room:
        return [paint(indent + text, style, colour=colour)]
    wrapped = _wrap(text, max(room, 20), indent)
    return [paint(each, style, colour=colour) for each in wrapped] or [""]


def _shown(text: str) -> str:
    return printable(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…")


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most so many columns, broken at spaces where there are any.

    Words longer than a line are broken beforehand: the time wcwidth takes grows with the square of a word's length.
    """
    room = width - len(indent)
    words = [piece for word in text.split(" ") for piece in _broken(word, room)]
    return wrap(" ".join(words), width, initial_indent=indent, subsequent_indent=indent)


def _broken(word: str, width: int) -> list[str]:
    if columns_of(word) <= width:
        return [word]
    pieces, begin, used = [], 0, 0
    for at, character in enumerate(word):
        columns = max(wcwidth(character), 0)
        if used + columns > width and at > begin:
            pieces.append(word[begin:at])
            begin, used = at, 0
        used += columns
    return [*pieces, word[begin:]]


def _line(line: Line, width: int, colour: bool) -> str:
    pieces = [" " * line.indent]
    left = width - line.indent if width and line.fit == "cut" else None
    for cell in line.cells:
        text = printable(cell.text) if line.fit == "whole" else _shown(cell.text)
        if left is not None:
            text = cut(text, left)
            left -= columns_of(text)
        pieces.append(paint(text, cell.style, colour=colour))
    return "".join(pieces).rstrip(" ")


def _table(table: Table, width: int, colour: bool) -> Iterator[str]:
    head = [Cell(column.head, "bold") for column in table.columns]
    rows = [[Cell(_shown(cell.text), cell.style) for cell in row] for row in table.rows]
    if table.heads:
        rows.insert(0, head)
    widths = [max((columns_of(row[at].text) for row in rows), default=0) for at in range(len(head))]
    shown = _fit(table.columns, widths, width - table.indent if width else 0)
    last = shown[-1]
    for row in rows:
        rest: list[Cell] = []
        if not table.columns[last].right and columns_of(row[last].text) > widths[last]:
            style = row[last].style
            first, *more = _wrap(row[last].text, widths[last]) or [""]
            row[last], rest = Cell(first, style), [Cell(each, style) for each in more]
        pieces = [_pad(row[at], widths[at], table.columns[at].right, colour) for at in shown]
        yield (" " * table.indent + GAP.join(pieces)).rstrip(" ")
        hanging = " " * (table.indent + sum(widths[at] + len(GAP) for at in shown[:-1]))
        yield from (hanging + paint(each.text, each.style, colour=colour) for each in rest)


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Which columns are shown; `widths` shrink in place where dropping columns is not enough."""
    shown = list(range(len(columns)))
    if not width:
        return shown

    def excess() -> int:
        return sum(widths[at] for at in shown) + len(GAP) * (len(shown) - 1) - width

    for at in sorted(shown, key=lambda at: -columns[at].spare):
        if excess() <= 0 or not columns[at].spare:
            break
        shown.remove(at)
    while (over := excess()) > 0:
        widest = max(shown, key=lambda at: widths[at])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= min(over, max(1, widths[widest] - NARROWEST))
    return shown


NARROWEST = 4
"""Columns below which a cell says nothing."""


def _pad(cell: Cell, width: int, right: bool, colour: bool) -> str:
    text = cut(cell.text, width)
    space = " " * (width - columns_of(text))
    painted = paint(text, cell.style, colour=colour)
    return space + painted if right else painted + space
