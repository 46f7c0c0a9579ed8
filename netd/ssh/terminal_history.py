"""The lines an operator has entered, in memory."""

from collections import deque

HISTORY_LINES = 500
"""Lines kept for a user: a day's work; with the longest lines about 2 MB."""


class History:
    """One user's lines, the oldest first; shared by all sessions of the user."""

    def __init__(self, limit: int = HISTORY_LINES) -> None:
        self._lines: deque[str] = deque(maxlen=limit)

    def add(self, line: str) -> None:
        """Remember a line, unless it is blank or repeats the last one."""
        if line.strip() and (not self._lines or self._lines[-1] != line):
            self._lines.append(line)

    def lines(self) -> list[str]:
        """A copy, for one editing of a line: what others add meanwhile does not shift it."""
        return list(self._lines)


class Recall:
    """Goes up and down through the history while a line is edited; what was changed on the way is kept until Enter."""

    def __init__(self, history: History) -> None:
        self._lines = [*history.lines(), ""]
        self._at = len(self._lines) - 1

    def move(self, by: int, current: str) -> str | None:
        """The line that many steps away from the current one, None where there is none further."""
        to = min(max(self._at + by, 0), len(self._lines) - 1)
        if to == self._at:
            return None
        self._lines[self._at] = current
        self._at = to
        return self._lines[to]


class Search:
    """Ctrl-R: finds the last line that contains what is typed."""

    def __init__(self, lines: list[str], original: str) -> None:
        self._lines = [*lines, original]
        self._index = len(self._lines) - 1
        self._failed = False
        self.original = original
        self.query = ""
        self.line = original
        self.at: int | None = None
        """Where in the line the query was found."""

    @property
    def prompt(self) -> str:
        """What stands before the line meanwhile, as readline has it."""
        failed = "failed " if self._failed else ""
        return f"({failed}reverse-i-search)`{self.query}': "

    def extend(self, text: str) -> bool:
        """The query grows; whether it is still found."""
        if len(self.query) + len(text) > LONGEST_QUERY:
            return False
        self.query += text
        return self._find(range(self._index, -1, -1))

    def shorten(self) -> bool:
        """The query loses its last character, and is sought from the newest line on."""
        if not self.query:
            return False
        self.query = self.query[:-1]
        return self._find(range(len(self._lines) - 1, -1, -1))

    def older(self) -> bool:
        """The next line further back."""
        return self._find(range(self._index - 1, -1, -1))

    def newer(self) -> bool:
        """The next line further on."""
        return self._find(range(self._index + 1, len(self._lines)))

    def _find(self, indices: range) -> bool:
        for index in indices:
            at = self._lines[index].rfind(self.query)
            if at >= 0:
                self._index, self.line, self.at, self._failed = index, self._lines[index], at, False
                return True
        self._failed = True
        return False


LONGEST_QUERY = 256
"""Characters sought by Ctrl-R."""
