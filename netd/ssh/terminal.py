"""A line editor without I/O: keys in, text for the terminal and what the operator decided out.

It is readline's Emacs mode as far as hands remember it. `press` changes the line and tells when it is done; `draw`
gives what the terminal must be sent, once for any number of keys.

A paste of several lines is treated as bash and readline 8.1 do: the newlines become part of the line, shown as ^J, and
nothing runs until Enter is pressed; then the lines run one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wcwidth import wcswidth

from netd.ssh.terminal_buffer import Buffer
from netd.ssh.terminal_dumb import DumbScreen
from netd.ssh.terminal_history import History, Recall, Search
from netd.ssh.terminal_keys import Key, Pasted, Pressed, Typed
from netd.ssh.terminal_screen import Cell, Screen, cells_of

LONGEST_LINE = 1024
"""Characters of a line; what does not fit rings the bell. The longest verb has a tenth of them, and a key at the end of
such a line costs a millisecond."""

MOST_LISTED = 100
"""Candidates shown below the line; the others are counted."""

BELL = "\a"

Complete = Callable[[str], Sequence[str]]
"""From the text before the cursor to what its last word may become."""


@dataclass(frozen=True, slots=True)
class Entered:
    """Enter was pressed: the lines to run, none when it was blank."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Ctrl-C: the line is given up."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Ctrl-D on an empty line."""


Event = Entered | Interrupted | Ended


class AnyScreen(Protocol):
    """What shows the line: `Screen`, or `DumbScreen`."""

    width: int

    def resize(self, width: int) -> None: ...
    def begin(self) -> None: ...
    def show(self, cells: Sequence[Cell], cursor: int) -> str: ...
    def leave(self) -> str: ...
    def erase(self) -> str: ...


def nothing(_text: str) -> Sequence[str]:
    """For a line without completion."""
    return ()


class LineEditor:
    """Edits one line after the other: `begin`, then `press` until it returns an Event, then `begin` again."""

    def __init__(self, width: int, history: History, complete: Complete = nothing, *, dumb: bool = False) -> None:
        self._screen: AnyScreen = DumbScreen(width) if dumb else Screen(width)
        self._history = history
        self._complete = complete
        self._buffer = Buffer()
        self._recall = Recall(history)
        self._search: Search | None = None
        self._prompt: list[Cell] = []
        self._written: list[str] = []
        self._tabs = 0
        self.active = False

    # --- the life of a line

    def begin(self, prompt: Sequence[Cell]) -> None:
        """Show the prompt, at the beginning of a row, and edit a new line."""
        self._prompt = list(prompt)
        self._buffer.set("")
        self._recall = Recall(self._history)
        self._search = None
        self._tabs = 0
        self._screen.begin()
        self.active = True

    @property
    def text(self) -> str:
        """The line as it is now."""
        return self._buffer.text

    def resize(self, width: int) -> None:
        """The terminal has another width."""
        self._screen.resize(width)

    def interject(self, text: str) -> None:
        r"""Show lines, which end in "\r\n", above the one being edited."""
        self._written.append(self._screen.erase() + text)

    def draw(self) -> str:
        """What the terminal is to be sent since the last time."""
        if self.active:
            self._written.append(self._show())
        text = "".join(self._written)
        self._written.clear()
        return text if text.count(BELL) < 2 else BELL + text.replace(BELL, "")  # noqa: PLR2004 - one bell is enough

    def _show(self) -> str:
        before, after = self._buffer.before, self._buffer.after
        prompt = self._prompt if self._search is None else cells_of(self._search.prompt)
        left = [*prompt, *cells_of(before)]
        return self._screen.show([*left, *cells_of(after)], len(left))

    def _leave(self, mark: str = "") -> None:
        """End the line where the terminal shows it, followed by `mark`."""
        self._search = None
        self._buffer.end()
        self._written.append(self._show() + mark + ("\r\n" if mark else self._screen.leave()))
        self._screen.begin()
        self.active = False

    def _bell(self) -> None:
        self._written.append(BELL)

    # --- keys

    def press(self, key: Key) -> Event | None:
        """Take a key; an Event means that the line is done."""
        if self._search is not None and self._press_in_search(self._search, key):
            return None
        self._tabs = self._tabs + 1 if key == Pressed("Tab") else 0
        match key:
            case Typed(text):
                self._insert(text)
            case Pasted(text):
                self._insert(text.replace("\t", " "))
            case Pressed("Enter"):
                return self._enter()
            case Pressed("C-c"):
                self._leave("^C")
                return Interrupted()
            case Pressed("C-d") if not self.text:
                self._leave()
                return Ended()
            case Pressed(name):
                self._edit(name)
        return None

    def _insert(self, text: str) -> None:
        if len(self.text) + len(text) > LONGEST_LINE:
            self._bell()
        else:
            self._buffer.insert(text)

    def _enter(self) -> Event:
        lines = tuple(line.strip() for line in self.text.split("\n") if line.strip())
        for line in lines:
            self._history.add(line)
        self._leave()
        return Entered(lines)

    def _edit(self, name: str) -> None:
        if name == "Tab":
            self._tab()
        elif name == "C-l":
            self._screen.resize(self._screen.width)
        elif name == "C-r":
            self._search = Search(self._history.lines(), self.text)
        elif name in _HISTORY_KEYS:
            recalled = self._recall.move(_HISTORY_KEYS[name], self.text)
            if recalled is None:
                self._bell()
            else:
                self._buffer.set(recalled)
        elif not self._buffer.press(name):
            self._bell()

    def _press_in_search(self, search: Search, key: Key) -> bool:
        """Whether the key belonged to the search; any other takes what was found, and is then itself."""
        match key:
            case Typed(text) | Pasted(text):
                found = search.extend(text.replace("\n", " "))
            case Pressed("Backspace"):
                found = search.shorten()
            case Pressed("C-r"):
                found = search.older()
            case Pressed("C-s"):
                found = search.newer()
            case Pressed("C-g"):
                self._search = None
                self._buffer.set(search.original)
                return True
            case _:
                self._search = None
                return False
        if not found:
            self._bell()
        self._buffer.set(search.line, search.at)
        return True

    # --- completion

    def _tab(self) -> None:
        before = self._buffer.before
        word = "" if before[-1:].isspace() else (before.split() or [""])[-1]
        candidates = self._complete(before)
        if not candidates:
            self._bell()
            return
        common = _common_beginning(candidates)
        if len(candidates) == 1:
            self._insert(common[len(word) :] + ("" if self._buffer.after.startswith(" ") else " "))
            self._tabs = 0
        elif len(common) > len(word):
            self._insert(common[len(word) :])
            self._tabs = 0
        elif self._tabs > 1:
            self._list(candidates)
        else:
            self._bell()

    def _list(self, candidates: Sequence[str]) -> None:
        lines = in_columns(candidates[:MOST_LISTED], self._screen.width)
        if len(candidates) > MOST_LISTED:
            lines.append(f"and {len(candidates) - MOST_LISTED} more")
        self._written.append(self._show() + self._screen.leave() + "".join(f"{line}\r\n" for line in lines))


_HISTORY_KEYS = {"Up": -1, "C-p": -1, "Down": 1, "C-n": 1, "M-<": -(10**9), "M->": 10**9}


def _common_beginning(words: Sequence[str]) -> str:
    first, last = min(words), max(words)
    at = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:at]


def in_columns(words: Sequence[str], width: int) -> list[str]:
    """Words in columns, read downwards, as ls lists them."""
    widest = max(max(wcswidth(word), 0) for word in words) + 2
    across = max(1, (width - 1) // widest)
    down = -(-len(words) // across)
    rows = ["".join(word + " " * (widest - wcswidth(word)) for word in words[row::down]) for row in range(down)]
    return [row.rstrip() for row in rows]
