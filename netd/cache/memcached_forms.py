"""How memcached's replies look: one form for each command that a client gave.

A form takes as many answers as its command had requests and appends the bytes of its reply. Commands that are answered
without a store, errors among them, have a form that takes none. Forms without anything of their own are made once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from netd.cache import requests
from netd.cache.layout import read
from netd.cache.requests import Answer, Counted, Hit, Outcome, Problem, Written

Answers = Iterator[Answer]

TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
NO_ROOM = b"SERVER_ERROR out of memory storing object\r\n"
NOT_A_NUMBER = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
NOT_ALLOWED = b"CLIENT_ERROR flush_all not allowed\r\n"

EVERYWHERE: Mapping[Outcome, bytes] = {
    Outcome.TOO_LARGE: TOO_LARGE,
    Outcome.NO_ROOM: NO_ROOM,
    Outcome.NOT_A_NUMBER: NOT_A_NUMBER,
    Outcome.NOT_ALLOWED: NOT_ALLOWED,
    Outcome.EXISTS: b"EXISTS\r\n",
    Outcome.NOT_FOUND: b"NOT_FOUND\r\n",
    Outcome.NOT_STORED: b"NOT_STORED\r\n",
}
"""What outcomes are called in every classic command."""


class Writer(Protocol):
    """The reply to one command."""

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        """Take this command's answers and append the bytes of its reply."""


Form: TypeAlias = Writer | Mapping[Any, bytes]
"""A writer, or what each outcome is called."""


def problem(answer: object) -> bytes:
    """The reply in place of an answer that a store could not give."""
    if isinstance(answer, Problem):
        if answer.code == b"OOM":
            return NO_ROOM
        return b"SERVER_ERROR " + answer.text + b"\r\n"
    raise TypeError(f"a store answered with {type(answer).__name__}")


class Said:
    """A reply that needs no store."""

    __slots__ = ("_text",)

    def __init__(self, text: bytes) -> None:
        self._text = text

    def write(self, _answers: Answers, out: list[bytes], /) -> None:
        out.append(self._text)


class Asked:
    """A reply made when its turn comes, such as statistics."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make

    def write(self, _answers: Answers, out: list[bytes], /) -> None:
        out.append(self._make())


class Touched:
    """Whether an item was there."""

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        match next(answers):
            case Hit():
                out.append(b"TOUCHED\r\n")
            case None:
                out.append(b"NOT_FOUND\r\n")
            case answer:
                out.append(problem(answer))


class Number:
    """What incr and decr made."""

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        match next(answers):
            case Counted(number):
                out.append(b"%d\r\n" % number)
            case Outcome.NO_ROOM:
                out.append(b"SERVER_ERROR out of memory\r\n")
            case Outcome() as outcome:
                out.append(EVERYWHERE[outcome])
            case answer:
                out.append(problem(answer))


class Silent:
    """Nothing: `noreply`."""

    __slots__ = ()

    def write(self, answers: Answers, _out: list[bytes], /) -> None:
        next(answers)


class Instead:
    """A reply that does not depend on the answer: what had to be done beside it was."""

    __slots__ = ("_text",)

    def __init__(self, text: bytes) -> None:
        self._text = text

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        next(answers)
        out.append(self._text)


class Values:
    """The hits of a retrieval, in the order of its keys; the last of several portions `ends` it.

    A store's problem takes the place of what has not been sent yet of the whole reply.
    """

    __slots__ = ("_after", "_ends", "_keys", "_unique", "failed")

    def __init__(
        self, keys: Sequence[bytes], *, unique: bool = False, ends: bool = True, after: "Values | None" = None
    ) -> None:
        self._keys = keys
        self._unique = unique
        self._ends = ends
        self._after = after
        self.failed = False

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        found = [next(answers) for _ in self._keys]
        if self._after is not None and self._after.failed:
            self.failed = True
            return
        for key, answer in zip(self._keys, found, strict=True):
            if answer is None:
                continue
            if isinstance(answer, bytes):
                value, flags, _ = read(answer)
                out.append(b"VALUE %b %d %d\r\n%b\r\n" % (key, flags, len(value), value))
            elif isinstance(answer, Hit):
                unique = b" %d" % answer.unique if self._unique else b""
                out.append(b"VALUE %b %d %d%b\r\n" % (key, answer.flags, len(answer.value), unique))
                out += (answer.value, b"\r\n")
            else:
                self.failed = True
                out.append(problem(answer))
                return
        if self._ends:
            out.append(b"END\r\n")


class MetaForm(ABC):
    """What meta replies share: the flags that come back, in the order in which they were given.

    `words` are the flags of the request; `key` is as the client spelled it, base64 or not.
    """

    __slots__ = ("binary", "key", "quiet", "words")

    def __init__(self, words: Sequence[bytes], key: bytes, *, binary: bool, quiet: bool) -> None:
        self.words = words
        self.key = key
        self.binary = binary
        self.quiet = quiet

    @abstractmethod
    def write(self, answers: Answers, out: list[bytes], /) -> None:
        """As every form."""

    def echo(self) -> bytes:
        """Opaque and key, for replies that have nothing else to tell."""
        return b"".join(self.echoed(word) for word in self.words)

    def echoed(self, word: bytes) -> bytes:
        """What comes back of a flag whatever happened."""
        match word[:1]:
            case b"O":
                return b" " + word
            case b"k":
                return b" k" + self.key + (b" b" if self.binary else b"")
        return b""


def _ttl_after(word: bytes, hit: Hit | Counted, ttl: int) -> int:
    """The TTL as it is once a flag has taken effect: flags work in the order of the client's words."""
    return hit.ttl if word[:1] == b"T" or (word[:1] == b"N" and hit.made) else ttl


class MetaGot(MetaForm):
    """The reply to mg."""

    __slots__ = ()

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        answer = next(answers)
        if answer is None:
            if not self.quiet:
                out.append(b"EN" + self.echo() + b"\r\n")
        elif isinstance(answer, Hit):
            self._write_hit(answer, out)
        else:
            out.append(problem(answer))

    def _write_hit(self, hit: Hit, out: list[bytes]) -> None:
        size = len(hit.value)
        line = [b"HD"]
        ttl = hit.old_ttl
        with_value = False
        for word in self.words:
            match word[:1]:
                case b"v":
                    with_value = True
                    line[0] = b"VA %d" % size
                case b"s":
                    line.append(b" s%d" % size)
                case b"t":
                    line.append(b" t%d" % ttl)
                case b"c":
                    line.append(b" c%d" % hit.unique)
                case b"f":
                    line.append(b" f%d" % hit.flags)
                case b"l":
                    line.append(b" l%d" % hit.idle)
                case b"h":
                    line.append(b" h%d" % hit.fetched)
                case _:
                    line.append(self.echoed(word))
            ttl = _ttl_after(word, hit, ttl)
        line.append(b" Z" * hit.taken + b" X" * hit.stale + b" W" * hit.won + b"\r\n")
        out.append(b"".join(line))
        if with_value:
            out += (hit.value, b"\r\n")


class MetaStored(MetaForm):
    """The reply to ms."""

    __slots__ = ()

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        answer = next(answers)
        unique = answer.unique if isinstance(answer, Written) else 0
        if isinstance(answer, Written):
            answer = Outcome.DONE
        code = META_CODES.get(answer) if isinstance(answer, Outcome) else None
        if code is None:
            out.append(EVERYWHERE[answer] if isinstance(answer, Outcome) else problem(answer))
        elif not (self.quiet and code == b"HD"):
            flags = b"".join(b" c%d" % unique if word[:1] == b"c" else self.echoed(word) for word in self.words)
            out.append(code + flags + b"\r\n")


class MetaTold(MetaForm):
    """The reply to md."""

    __slots__ = ()

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        answer = next(answers)
        code = META_CODES.get(answer) if isinstance(answer, Outcome) else None
        if code is None:
            out.append(problem(answer))
        elif not (self.quiet and code == b"HD"):
            out.append(code + self.echo() + b"\r\n")


class MetaCounted(MetaForm):
    """The reply to ma."""

    __slots__ = ()

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        answer = next(answers)
        if isinstance(answer, Counted):
            if answer.made or not self.quiet:
                out.append(self._count(answer))
        elif answer is Outcome.NO_ROOM:
            out.append(b"SERVER_ERROR Out of memory allocating new item\r\n")
        elif isinstance(answer, Outcome):
            code = META_CODES.get(answer)
            out.append(EVERYWHERE[answer] if code is None else code + self.echo() + b"\r\n")
        else:
            out.append(problem(answer))

    def _count(self, answer: Counted) -> bytes:
        number = b"%d" % answer.number
        line = [b"HD"]
        ttl = answer.old_ttl
        end = b"\r\n"
        for word in self.words:
            match word[:1]:
                case b"v":
                    line[0] = b"VA %d" % len(number)
                    end = b"\r\n" + number + b"\r\n"
                case b"t":
                    line.append(b" t%d" % ttl)
                case b"c":
                    line.append(b" c%d" % answer.unique)
                case _:
                    line.append(self.echoed(word))
            ttl = _ttl_after(word, answer, ttl)
        return b"".join(line) + end


class MetaDebugged(MetaForm):
    """The reply to me."""

    __slots__ = ()

    def write(self, answers: Answers, out: list[bytes], /) -> None:
        answer = next(answers)
        if answer is None:
            out.append(b"EN\r\n")
        elif isinstance(answer, Hit):
            # memcached 1.6.18 prints the time left with a minus sign
            left = -1 if answer.ttl < 0 else -answer.ttl
            facts = (self.key, left, answer.idle, answer.unique, b"yes" if answer.fetched else b"no", answer.size)
            out.append(b"ME %b exp=%d la=%d cas=%d fetch=%b cls=1 size=%d\r\n" % facts)
        else:
            out.append(problem(answer))


META_CODES: Mapping[Outcome, bytes] = {
    Outcome.DONE: b"HD",
    Outcome.NOT_STORED: b"NS",
    Outcome.EXISTS: b"EX",
    Outcome.NOT_FOUND: b"NF",
}

SILENT = Silent()
# The words that a classic command has for outcomes are a form, too: one answer, no more to say.
STORED: Mapping[Any, bytes] = {**EVERYWHERE, Outcome.DONE: b"STORED\r\n", requests.STORED: b"STORED\r\n"}
DELETED = {**EVERYWHERE, Outcome.DONE: b"DELETED\r\n"}
FLUSHED = {**EVERYWHERE, Outcome.DONE: b"OK\r\n"}
TOUCHED = Touched()
NUMBER = Number()
