"""memcached's meta commands: words → a request and the form of its reply (protocol.txt, "Meta Commands").

A command is a key and flags, each flag a letter with or without a token behind it. What memcached 1.6.18 says of a
wrong flag depends on the command; the sentences here are its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from netd.cache.memcached_forms import Form, MetaCounted, MetaDebugged, MetaForm, MetaGot, MetaStored, MetaTold
from netd.cache.memcached_words import decode_key, signed, unsigned32, unsigned64
from netd.cache.requests import (
    HISTORY,
    LONGEST_KEY,
    TTL,
    UNIQUE,
    VALUE,
    Arithmetic,
    Delete,
    Fetch,
    Mode,
    Put,
)

REMEMBERED = 1024
"""Sets of flags whose meaning is remembered: clients use few, and a line has at most two KiB."""
MOST_WORDS = 19
"""Words of a meta command, the command itself included (proto_text.c, MFLAG_MAX_OPT_LENGTH)."""
LONGEST_OPAQUE = 32
"""Bytes of an opaque token with its O (proto_text.c, MFLAG_MAX_OPAQUE_LENGTH)."""

BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"
BAD_TOKEN = b"CLIENT_ERROR bad token in command line format\r\n"
BAD_FLAG = b"CLIENT_ERROR invalid or duplicate flag\r\n"
BAD_OPAQUE = b"CLIENT_ERROR opaque token too long\r\n"

_NUMBERS: Mapping[int, tuple[str, Callable[[bytes], int | None], bytes]] = {
    ord("N"): ("vivify", signed, BAD_TOKEN),
    ord("T"): ("touch", signed, BAD_TOKEN),
    ord("R"): ("recache", signed, BAD_TOKEN),
    ord("C"): ("compare", unsigned64, BAD_TOKEN),
    ord("E"): ("unique", unsigned64, BAD_TOKEN),
    ord("F"): ("flags", unsigned32, b""),
    ord("J"): ("initial", unsigned64, b"CLIENT_ERROR invalid numeric initial value\r\n"),
    ord("D"): ("delta", unsigned64, b"CLIENT_ERROR invalid numeric delta value\r\n"),
}
"""Flags with a number: what they set, how it is read, and what is said of one that cannot be."""
_OTHERS = frozenset(b"blOPLkstcfvhuqI")
"""Flags without a token, or with one that is only given back."""
_ASCII = 127

_STORE_MODES: Mapping[bytes, Mode] = {
    b"": "set",
    b"S": "set",
    b"E": "add",
    b"A": "append",
    b"P": "prepend",
    b"R": "replace",
}
_COUNT_MODES: Mapping[bytes, bool] = {b"": False, b"I": False, b"+": False, b"D": True, b"-": True}
"""Whether it goes down."""


class Wrong(Exception):
    """The words are not a command; `reply` is what memcached says."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass(slots=True)
class Flags:
    """What the flags of a command say. Shared by all commands with the same ones: never changed once read."""

    numbers: dict[str, int] = field(default_factory=dict)
    given: dict[int, int] = field(default_factory=dict)
    """Each letter, and which word it was."""
    mode: bytes = b""
    wrong: bool = False
    complaint: bytes = BAD_FORMAT
    """What is said when they are wrong; later mistakes hide earlier ones, as in memcached."""
    complaint_after_key: bytes = b""
    """The last one behind the flag that says how the key is spelled: it hides a mistake in the key."""

    wants: int = 0
    """What has to be known of an item to reply."""
    binary: bool = False
    quiet: bool = False

    def complain(self, complaint: bytes) -> None:
        """Note a mistake; some have no words of their own."""
        self.wrong = True
        if complaint:
            self.complaint = complaint
            if self.has("b"):
                self.complaint_after_key = complaint

    def has(self, letter: str) -> bool:
        """Whether a flag was given."""
        return ord(letter) in self.given

    def before(self, first: str, second: str) -> bool:
        """Whether both were given, in this order."""
        one, two = self.given.get(ord(first)), self.given.get(ord(second))
        return one is not None and two is not None and one < two

    def key(self, spelled: bytes) -> bytes:
        """The key that a client spelled in plain or in base64; raises Wrong, also for a mistake in the flags."""
        if self.binary:
            key = decode_key(spelled)
            if key is None:
                raise Wrong(self.complaint_after_key or b"CLIENT_ERROR error decoding key\r\n")
        else:
            key = spelled
        if self.wrong:
            raise Wrong(self.complaint)
        return key


@lru_cache(REMEMBERED)
def read_flags(words: tuple[bytes, ...]) -> Flags:
    """Take flags apart (proto_text.c, _meta_flag_preparse)."""
    flags = Flags()
    _read(flags, words)
    flags.binary, flags.quiet = flags.has("b"), flags.has("q")
    flags.wants = VALUE * (flags.has("v") or flags.has("s")) | UNIQUE * flags.has("c")
    flags.wants |= TTL * flags.has("t") | HISTORY * (flags.has("h") or flags.has("l"))
    return flags


def _read(flags: Flags, words: tuple[bytes, ...]) -> None:
    for at, word in enumerate(words):
        letter = word[0]
        if letter >= _ASCII or letter in flags.given:
            flags.complain(b"CLIENT_ERROR duplicate flag\r\n")
            return
        flags.given[letter] = at
        if letter in _NUMBERS:
            name, parse, complaint = _NUMBERS[letter]
            number = parse(word[1:])
            if number is None:
                flags.complain(complaint)
            else:
                flags.numbers[name] = number
        elif letter == ord("M"):
            flags.mode = word[1:]
            if len(flags.mode) != 1:
                flags.complain(b"CLIENT_ERROR incorrect length for M token\r\n")
        elif letter not in _OTHERS:
            flags.complain(b"CLIENT_ERROR invalid flag\r\n")
            return


def _form(kind: type[MetaForm], flags: Flags, words: Sequence[bytes], spelled: bytes) -> MetaForm:
    return kind(words, spelled, binary=flags.binary, quiet=flags.quiet)


def _check_opaque(flags: Flags, words: Sequence[bytes]) -> None:
    at = flags.given.get(ord("O"))
    if at is not None and len(words[at]) > LONGEST_OPAQUE:
        raise Wrong(BAD_OPAQUE)


def _check(words: Sequence[bytes], too_long: bytes) -> bytes:
    """The key of a command that has one; raises Wrong."""
    if not words[1:]:
        raise Wrong(b"ERROR\r\n")
    if len(words[1]) > LONGEST_KEY:
        raise Wrong(BAD_FORMAT)
    if len(words) > MOST_WORDS:
        raise Wrong(too_long)
    return words[1]


def meta_get(words: Sequence[bytes]) -> tuple[Fetch, Form]:
    """A metaget: mg."""
    spelled = _check(words, b"CLIENT_ERROR options flags are too long\r\n")
    rest = tuple(words[2:])
    flags = read_flags(rest)
    key = flags.key(spelled)
    _check_opaque(flags, rest)
    form = _form(MetaGot, flags, rest, spelled)
    numbers = flags.numbers
    if not numbers:
        return Fetch(key, flags.wants, peek=flags.has("u")), form
    touch, vivify = numbers.get("touch"), numbers.get("vivify")
    if vivify is not None and flags.before("N", "T"):
        vivify = touch
    fetch = Fetch(
        key,
        flags.wants if touch is None else flags.wants | VALUE,  # a mere touch knows nothing of flags and marks
        touch,
        vivify,
        numbers.get("recache"),
        numbers.get("unique"),
        touch_first=not flags.before("R", "T"),
        peek=flags.has("u"),
    )
    return fetch, form


def meta_debug(words: Sequence[bytes]) -> tuple[Fetch, Form]:
    """A meta debug: me."""
    if not words[1:] or len(words[1]) > LONGEST_KEY:
        raise Wrong(BAD_FORMAT)
    key: bytes | None = words[1]
    if words[2:3] == [b"b"]:
        key = decode_key(words[1])
    if key is None:
        raise Wrong(BAD_FORMAT)
    wants = UNIQUE | TTL | HISTORY
    return Fetch(key, wants, peek=True), MetaDebugged((), words[1], binary=False, quiet=False)


def meta_delete(words: Sequence[bytes]) -> tuple[Delete, Form]:
    """A metadelete: md."""
    spelled = _check(words, b"CLIENT_ERROR options flags too long\r\n")
    rest = tuple(words[2:])
    flags = read_flags(rest)
    try:
        key = flags.key(spelled)
    except Wrong:
        raise Wrong(BAD_FLAG) from None
    _check_opaque(flags, rest)
    numbers = flags.numbers
    delete = Delete(
        key,
        numbers.get("compare"),
        invalidate=flags.has("I"),
        touch=numbers.get("touch"),
        unique=numbers.get("unique"),
    )
    return delete, _form(MetaTold, flags, rest, spelled)


def meta_arithmetic(words: Sequence[bytes]) -> tuple[Arithmetic, Form]:
    """A metaarithmetic: ma."""
    spelled = _check(words, b"CLIENT_ERROR options flags too long\r\n")
    rest = tuple(words[2:])
    flags = read_flags(rest)
    try:
        key = flags.key(spelled)
    except Wrong:
        raise Wrong(BAD_FLAG) from None
    if flags.mode not in _COUNT_MODES:
        raise Wrong(b"CLIENT_ERROR invalid mode for ma M token\r\n")
    _check_opaque(flags, rest)
    numbers = flags.numbers
    touch, vivify = numbers.get("touch"), numbers.get("vivify")
    if vivify is not None and flags.before("N", "T"):
        vivify = touch
    request = Arithmetic(
        key,
        numbers.get("delta", 1),
        down=_COUNT_MODES[flags.mode],
        compare=numbers.get("compare") or None,
        vivify=vivify,
        initial=numbers.get("initial", 0),
        touch=touch,
        unique=numbers.get("unique"),
    )
    return request, _form(MetaCounted, flags, rest, spelled)


def meta_size(words: Sequence[bytes]) -> int:
    """The size of the value that follows ms; raises Wrong when there is none to skip either."""
    if not words[1:]:
        raise Wrong(b"ERROR\r\n")
    if not words[2:] or len(words[1]) > LONGEST_KEY:
        raise Wrong(BAD_FORMAT)
    if len(words) > MOST_WORDS:
        raise Wrong(b"CLIENT_ERROR options flags too long\r\n")
    size = signed(words[2])
    if size is None or not 0 <= size <= LARGEST_SIZE:
        raise Wrong(BAD_FORMAT)
    return size


LARGEST_SIZE = 2**31 - 3
"""Bytes of a value in a command; more cannot be meant (proto_text.c, INT_MAX - 2)."""


def meta_set(words: Sequence[bytes]) -> tuple[Put, Form]:
    """ms, without its value, which follows; raises Wrong when the value is to be skipped."""
    spelled, rest = words[1], tuple(words[3:])
    flags = read_flags(rest)
    key = flags.key(spelled)
    mode = _STORE_MODES.get(flags.mode)
    if mode is None:
        raise Wrong(b"CLIENT_ERROR invalid mode for ms M token\r\n")
    _check_opaque(flags, rest)
    numbers = flags.numbers
    compare = numbers.get("compare")
    if compare is not None and mode in {"set", "replace"}:
        mode = "set"  # with a CAS unique the two are the same
    elif mode in {"append", "prepend"}:
        compare = compare or None
    else:
        compare = None
    put = Put(
        key,
        b"",
        numbers.get("flags", 0),
        numbers.get("touch", 0),
        mode,
        compare,
        invalidate=flags.has("I") and compare is not None and mode == "set",
        unique=numbers.get("unique"),
        wants=UNIQUE * flags.has("c"),
    )
    return put, _form(MetaStored, flags, rest, spelled)
