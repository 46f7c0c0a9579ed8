"""Allowed commands: from the line a client sends to the argv that is run, or to nothing.

No shell, no quoting, no expansion anywhere: the line is split on spaces, and its words must be the configured ones. A
word with {name} in it is matched whole by a regular expression of the configuration. A value that begins a word never
begins with "-", so that no client makes an option out of an argument. The bare name of a command that leaves nothing
to choose runs it whole: `df` for ["df", "-h"].
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LONGEST_LINE = 4096
"""Bytes of an exec request: a command of the configuration and its arguments fit ten times over."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command: fixed, or a pattern for what the user may put there."""

    text: str
    pattern: re.Pattern[str] | None = None

    def allows(self, word: str) -> bool:
        """Whether the user's word will do."""
        if self.pattern is None:
            return word == self.text
        if word.startswith("-") and not self.text.startswith("-"):
            return False
        return self.pattern.fullmatch(word) is not None


def parse_words(argv: Sequence[str], args: Mapping[str, str]) -> tuple[Word, ...]:
    """The words of a configured command; raises ValueError with what is wrong with them."""
    for name, pattern in args.items():
        _compile(f"(?:{pattern})", f"args.{name}")
    used: set[str] = set()
    words = []
    for index, text in enumerate(argv):
        if not text or not text.isprintable():
            raise ValueError(f"argv[{index}]: a word is not empty and has no control characters")
        names = _PLACEHOLDER.findall(text)
        if names and index == 0:
            raise ValueError("argv[0]: the program itself is not for the user to choose")
        if missing := [name for name in names if name not in args]:
            raise ValueError(f"argv[{index}]: args does not say what {{{missing[0]}}} may be")
        used.update(names)
        words.append(Word(text, _compile(_join(text, args), f"argv[{index}]")) if names else Word(text))
    if unused := [name for name in args if name not in used]:
        raise ValueError(f"args.{unused[0]}: argv has no {{{unused[0]}}}")
    return tuple(words)


def _compile(pattern: str, key: str) -> re.Pattern[str]:
    """What is doubtful to Python, as in "[[a-z]", is told rather than guessed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ValueError(f"{key}: not a regular expression: {error}") from None


def _join(text: str, args: Mapping[str, str]) -> str:
    pattern = ""
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        pattern += re.escape(text[end : match.start()]) + f"(?:{args[match[1]]})"
        end = match.end()
    return pattern + re.escape(text[end:])


def split_line(line: bytes) -> list[str] | None:
    """The words of an exec request; None when no command and no verb can be meant by it."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return [word for word in text.split(" ") if word] if text.isprintable() else None


def match_words(name: str, words: Sequence[Word], given: Sequence[str]) -> list[str] | None:
    """The argv of the command `name` for the words that a user gave, its name first; None when they do not fit."""
    if not given or given[0] != name:
        return None
    if len(given) == 1 and all(word.pattern is None for word in words):
        return [word.text for word in words]
    rest = given[1:]
    if len(rest) != len(words) - 1 or not all(word.allows(each) for word, each in zip(words[1:], rest, strict=True)):
        return None
    return [words[0].text, *rest]
