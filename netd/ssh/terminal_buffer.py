"""The text of the line being edited, its cursor, and what the editing keys do to them."""

from collections.abc import Callable

from netd.ssh.terminal_screen import clusters


class Buffer:
    """Clusters, a cursor between two of them, and the text that was last killed."""

    def __init__(self) -> None:
        self._clusters: list[str] = []
        self._at = 0
        self._killed = ""
        self._killing = False
        self._keys: dict[str, Callable[[], bool]] = {
            "C-a": lambda: self._move_to(0),
            "Home": lambda: self._move_to(0),
            "C-e": self.end,
            "End": self.end,
            "C-b": lambda: self._move_to(self._at - 1),
            "Left": lambda: self._move_to(self._at - 1),
            "C-f": lambda: self._move_to(self._at + 1),
            "Right": lambda: self._move_to(self._at + 1),
            "M-b": lambda: self._move_to(self._word_before()),
            "C-Left": lambda: self._move_to(self._word_before()),
            "M-Left": lambda: self._move_to(self._word_before()),
            "M-f": lambda: self._move_to(self._word_after()),
            "C-Right": lambda: self._move_to(self._word_after()),
            "M-Right": lambda: self._move_to(self._word_after()),
            "Backspace": lambda: self._delete(self._at - 1, self._at),
            "C-d": lambda: self._delete(self._at, self._at + 1),
            "Delete": lambda: self._delete(self._at, self._at + 1),
            "C-t": self._transpose,
            "C-y": lambda: self.insert(self._killed),
            "C-k": lambda: self._kill(self._at, len(self._clusters)),
            "C-u": lambda: self._kill(0, self._at),
            "C-w": lambda: self._kill(self._space_before(), self._at),
            "M-Backspace": lambda: self._kill(self._word_before(), self._at),
            "M-d": lambda: self._kill(self._at, self._word_after()),
            "C-Delete": lambda: self._kill(self._at, self._word_after()),
        }

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._clusters)

    @property
    def before(self) -> str:
        """The text before the cursor."""
        return "".join(self._clusters[: self._at])

    @property
    def after(self) -> str:
        """The text from the cursor on."""
        return "".join(self._clusters[self._at :])

    def set(self, text: str, at: int | None = None) -> None:
        """Another text, with the cursor before its character `at`, or at the end."""
        self._killing = False
        self._clusters = list(clusters(text))
        self._at = len(self._clusters) if at is None else len(list(clusters(text[:at])))

    def end(self) -> bool:
        """The cursor goes to the end."""
        return self._move_to(len(self._clusters))

    def insert(self, text: str) -> bool:
        """Insert at the cursor; a combining character joins the one before it."""
        self._killing = False
        around = slice(max(self._at - 1, 0), self._at + 1)
        before = "".join(self._clusters[around.start : self._at])
        after = "".join(self._clusters[self._at : around.stop])
        self._at = around.start + len(list(clusters(before + text)))
        self._clusters[around] = clusters(before + text + after)
        self._at = min(self._at, len(self._clusters))
        return bool(text)

    def press(self, name: str) -> bool:
        """Do what a key does; False when it does nothing."""
        action = self._keys.get(name)
        killing, self._killing = self._killing, False
        if action is None:
            return False
        if name in _KILLS:
            self._killing = killing
        return action()

    def _move_to(self, at: int) -> bool:
        before, self._at = self._at, min(max(at, 0), len(self._clusters))
        return self._at == at or self._at != before

    def _delete(self, begin: int, end: int) -> bool:
        if begin < 0 or end > len(self._clusters) or begin == end:
            return False
        del self._clusters[begin:end]
        self._at = begin
        self._rejoin()
        return True

    def _rejoin(self) -> None:
        """What is left on both sides of the cursor may form one cluster now: lone combining characters do."""
        before, text = self.before, self.text
        self._clusters = list(clusters(text))
        self._at = min(len(list(clusters(before))), len(self._clusters))

    def _kill(self, begin: int, end: int) -> bool:
        text = "".join(self._clusters[begin:end])
        backwards = end == self._at and begin != self._at
        if not self._delete(begin, end):
            return False
        if self._killing:
            self._killed = text + self._killed if backwards else self._killed + text
        else:
            self._killed = text
        self._killing = True
        return True

    def _transpose(self) -> bool:
        at = min(self._at, len(self._clusters) - 1)
        if at < 1:
            return False
        self._clusters[at - 1 : at + 1] = self._clusters[at], self._clusters[at - 1]
        self._at = at + 1
        self._rejoin()
        return True

    def _word_before(self) -> int:
        at = self._at
        while at > 0 and not self._clusters[at - 1][0].isalnum():
            at -= 1
        while at > 0 and self._clusters[at - 1][0].isalnum():
            at -= 1
        return at

    def _word_after(self) -> int:
        at = self._at
        while at < len(self._clusters) and not self._clusters[at][0].isalnum():
            at += 1
        while at < len(self._clusters) and self._clusters[at][0].isalnum():
            at += 1
        return at

    def _space_before(self) -> int:
        at = self._at
        while at > 0 and self._clusters[at - 1].isspace():
            at -= 1
        while at > 0 and not self._clusters[at - 1].isspace():
            at -= 1
        return at


_KILLS = frozenset({"C-k", "C-u", "C-w", "M-Backspace", "M-d", "C-Delete"})
