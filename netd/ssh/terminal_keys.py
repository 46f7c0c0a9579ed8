"""Bytes from a terminal → keys, however they were cut.

Text comes out as `Typed` and `Pasted`, everything else as `Pressed` with a name in the notation of Emacs: "C-a", "M-b",
"Up", "C-Right". A lone Escape waits for the key that it changes: that is how Meta arrives from most terminals.

Escape sequences are ECMA-48's (5.4: parameters 0x30 to 0x3F, intermediates 0x20 to 0x2F, one final byte 0x40 to 0x7E).
A control character within one ends it, so that nothing a terminal or a user sends can lock the keyboard. Unknown ones
are dropped whole. Between the brackets of a paste (xterm's "bracketed paste", mode 2004) nothing is a key but the
closing bracket: a clipboard cannot press Enter, nor Ctrl-C.
"""

import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple

LONGEST_SEQUENCE = 32
"""Characters kept of an escape sequence: the longest key that terminals send has nine. What is longer is dropped."""

LONGEST_REPLY = 256
"""Characters of a terminal's string (its title, a colour) that are swallowed; after that they are text again."""


class Typed(NamedTuple):
    """One character of text."""

    text: str


class Pasted(NamedTuple):
    r"""Text from the clipboard: lines end in "\n", other control characters are gone."""

    text: str


class Pressed(NamedTuple):
    """A key that is no text."""

    name: str


Key = Typed | Pasted | Pressed

PASTE_BEGINS, PASTE_ENDS = "200~", "\x1b[201~"

_CONTROL = {"\r": "Enter", "\n": "Enter", "\t": "Tab", "\x7f": "Backspace", "\x08": "Backspace"}
_META_CONTROL = {"\x7f": "M-Backspace", "\x08": "M-Backspace", "\r": "Enter", "\n": "Enter", "\t": "Tab"}
_FINAL = {"A": "Up", "B": "Down", "C": "Right", "D": "Left", "H": "Home", "F": "End", "M": "Enter", "Z": "S-Tab"}
_NUMBERED = {
    "1": "Home",
    "3": "Delete",
    "4": "End",
    "5": "PageUp",
    "6": "PageDown",
    "7": "Home",
    "8": "End",
}
_MODIFIERS = {"2": "S-", "3": "M-", "4": "M-", "5": "C-", "6": "C-", "7": "C-", "8": "C-"}
_RXVT = {"a": "C-Up", "b": "C-Down", "c": "C-Right", "d": "C-Left"}
_DROPPED_IN_PASTE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class KeyDecoder:
    """Takes bytes as they come; `feed` gives the keys that are complete."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._state = self._ground
        self._sequence = ""
        self._swallowed = 0
        self._after_return = False

    def feed(self, data: bytes) -> Iterator[Key]:
        """The keys that these bytes complete; garbage gives replacement characters or nothing."""
        for character in self._decode(data):
            yield from self._state(character)

    def _ground(self, character: str) -> Iterator[Key]:
        if character == "\x1b":
            self._state = self._escape
        elif character in _CONTROL:
            yield Pressed(_CONTROL[character])
        elif character < " ":
            yield Pressed("C-" + chr(ord(character) + 0x40).lower())
        elif not "\x80" <= character <= "\x9f":  # the C1 controls of ISO 6429: no keyboard sends them in UTF-8
            yield Typed(character)

    def _escape(self, character: str) -> Iterator[Key]:
        self._state = self._ground
        match character:
            case "\x1b":
                self._state = self._escape
            case "[":
                self._sequence, self._state = "", self._control_sequence
            case "O":
                self._state = self._single_shift
            case "]" | "P" | "^" | "_" | "X":
                self._swallowed, self._state = 0, self._string
            case _ if character in _META_CONTROL:
                yield Pressed(_META_CONTROL[character])
            case _ if " " < character < "\x7f":
                yield Pressed("M-" + character)
            case _:
                yield from self._ground(character)

    def _control_sequence(self, character: str) -> Iterator[Key]:
        if character < " " or character > "~":
            self._state = self._ground
            yield from self._ground(character)
        elif character < "@" or (character == "[" and not self._sequence):  # "\x1b[[A" is F1 on the Linux console
            if len(self._sequence) < LONGEST_SEQUENCE:
                self._sequence += character
        elif self._sequence + character == PASTE_BEGINS:
            self._sequence, self._state = "", self._paste
        else:
            self._state = self._ground
            if name := _name_of(self._sequence, character):
                yield Pressed(name)

    def _single_shift(self, character: str) -> Iterator[Key]:
        self._state = self._ground
        if character < " " or character > "~":
            yield from self._ground(character)
        elif name := _FINAL.get(character) or _RXVT.get(character):
            yield Pressed(name)

    def _string(self, character: str) -> Iterator[Key]:
        self._swallowed += 1
        if character == "\x1b":
            self._state = self._escape  # ESC \ ends the string
        elif character < " " or self._swallowed > LONGEST_REPLY:
            self._state = self._ground
            if character != "\x07":
                yield from self._ground(character)

    def _paste(self, character: str) -> Iterator[Key]:
        self._sequence += character
        if self._sequence == PASTE_ENDS:
            self._sequence, self._state = "", self._ground
            self._after_return = False
            return
        while self._sequence and not PASTE_ENDS.startswith(self._sequence):
            first, self._sequence = self._sequence[0], self._sequence[1:]
            doubled = first == "\n" and self._after_return
            self._after_return = first == "\r"
            text = _DROPPED_IN_PASTE.sub("", "\n" if first == "\r" else first)
            if text and not doubled:
                yield Pasted(text)


def _name_of(parameters: str, final: str) -> str:
    """The key of a control sequence, "" when it is none that netd knows."""
    first, _, modifier = parameters.partition(";")
    if final == "~":
        name = _NUMBERED.get(first, "")
    elif final in "^$" and first in _NUMBERED:  # rxvt's Ctrl and Shift
        name, modifier = _NUMBERED[first], {"^": "5", "$": "2"}[final]
    elif first in {"", "1"}:
        name = _FINAL.get(final, "") or _RXVT.get(final, "")
    else:
        name = ""
    if not modifier:
        return name
    return _MODIFIERS.get(modifier, "") + name if name and modifier in _MODIFIERS else ""
