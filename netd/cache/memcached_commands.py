"""memcached's commands: the words of a line → what is to be done, and the form of its reply.

The words are those of protocol.txt, the order of checks and what is said of mistakes are memcached 1.6.18's own
(proto_text.c). Meta commands are in `netd.cache.memcached_meta`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from netd.cache.memcached_forms import (
    DELETED,
    FLUSHED,
    NUMBER,
    SILENT,
    STORED,
    TOO_LARGE,
    TOUCHED,
    Asked,
    Form,
    Instead,
    Said,
    Values,
)
from netd.cache.memcached_meta import (
    LARGEST_SIZE,
    Wrong,
    meta_arithmetic,
    meta_debug,
    meta_delete,
    meta_get,
    meta_set,
    meta_size,
)
from netd.cache.memcached_words import signed, unsigned32, unsigned64
from netd.cache.requests import LONGEST_KEY, Arithmetic, Delete, Fetch, Flush, Mode, Put, Request, item_size

MOST_WORDS = 23
"""Words of a line that are looked at (proto_text.c, MAX_TOKENS); a retrieval may have more."""

VERSION: Final = b"1.6.18"
"""The memcached that this one equals; clients look at it to know what they may use."""

NOTHING = Said(b"")
OK = Said(b"OK\r\n")
ERROR = Said(b"ERROR\r\n")
BAD_FORMAT = Said(b"CLIENT_ERROR bad command line format\r\n")
BAD_EXPTIME = Said(b"CLIENT_ERROR invalid exptime argument\r\n")
BAD_DELTA = Said(b"CLIENT_ERROR invalid numeric delta argument\r\n")
BAD_DELETE = Said(b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n")
BAD_CHUNK = Said(b"CLIENT_ERROR bad data chunk\r\n")

_MODES: Mapping[bytes, Mode] = {
    b"set": "set",
    b"cas": "set",
    b"add": "add",
    b"replace": "replace",
    b"append": "append",
    b"prepend": "prepend",
}
_METAS: Mapping[bytes, Callable[[Sequence[bytes]], tuple[Request, Form]]] = {
    b"mg": meta_get,
    b"md": meta_delete,
    b"ma": meta_arithmetic,
    b"me": meta_debug,
}
_RETRIEVALS = frozenset({b"get", b"gets", b"gat", b"gats", b"bget"})
_NO_HTTP = b"gsacidt"
"""Commands with these first letters are never taken for HTTP."""


class Facts(Protocol):
    """What `stats` tells: names and values, in order."""

    def general(self) -> Iterable[tuple[str, object]]:
        """For `stats`."""

    def settings(self) -> Iterable[tuple[str, object]]:
        """For `stats settings`."""

    def items(self) -> Iterable[tuple[str, object]]:
        """For `stats items`."""

    def slabs(self) -> Iterable[tuple[str, object]]:
        """For `stats slabs`."""

    def sizes(self) -> Iterable[tuple[str, object]]:
        """For `stats sizes`."""

    def connections(self) -> Iterable[tuple[str, object]]:
        """For `stats conns`."""

    def reset(self) -> None:
        """For `stats reset`."""


# --- what a line may ask for


@dataclass(slots=True)
class Ready:
    """A reply, with at most one request before it."""

    form: Form
    request: Request | None = None
    skip: int = 0
    """Bytes that follow and are not looked at: a value that is refused."""
    closes: bool = False


@dataclass(slots=True)
class Awaited:
    """A request whose value follows."""

    put: Put
    size: int
    form: Form
    bad_end: Form = BAD_CHUNK
    """The reply when the value does not end where it should."""


@dataclass(slots=True)
class Retrieval:
    """A get, gets, gat or gats, whose keys may be handed on in portions."""

    keys: list[bytes]
    unique: bool
    touch: int | None
    at: int = 0
    form: Values | None = None
    """Of the last portion."""


Step: TypeAlias = Ready | Awaited | Retrieval

_ERROR = Ready(ERROR)


def _refusal(form: Form, *, quiet: bool) -> Ready:
    return Ready(NOTHING if quiet else form)


def _request(request: Request, form: Form, *, quiet: bool) -> Ready:
    return Ready(SILENT if quiet else form, request)


class MemcachedCommands:
    """Every command, for all connections of a service. Items larger than `max_item_size` are refused."""

    def __init__(self, max_item_size: int, facts: Facts) -> None:
        self.room = max_item_size - item_size(b"", 0, 1)
        """Bytes of key and value that surely fit; a few more may."""
        self._max_item_size = max_item_size
        self._facts = facts
        many = MOST_WORDS
        self._table: Mapping[bytes, tuple[Callable[[list[bytes]], Step], int, int]] = {
            **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend"), (self._store, 5, 6)),
            b"cas": (self._store, 6, 7),
            b"delete": (self._delete, 2, 4),
            **dict.fromkeys((b"incr", b"decr"), (self._count, 3, 4)),
            b"touch": (self._touch, 3, 4),
            **dict.fromkeys((b"mg", b"md", b"ma", b"me"), (self._meta, 1, many)),
            b"ms": (self._meta_store, 1, many),
            b"mn": (lambda _: Ready(Said(b"MN\r\n")), 1, many),
            b"flush_all": (self._flush, 1, 3),
            b"stats": (self._stats, 1, many),
            b"version": (lambda _: Ready(Said(b"VERSION " + VERSION + b"\r\n")), 1, many),
            b"verbosity": (self._verbosity, 2, 3),
            b"quit": (lambda _: Ready(NOTHING, closes=True), 1, many),
            b"shutdown": (lambda _: Ready(Said(b"ERROR: shutdown not enabled\r\n")), 1, many),
        }
        # what parses a command, and how many words it has

    def read(self, line: bytes) -> Step:
        """What a line asks for."""
        if b"\0" in line:  # where C's strings end
            line = line[: line.index(b"\0")]
        words = line.split(b" ")
        if b"" in words:
            words = [word for word in words if word]
        if not words:
            return _ERROR
        name = words[0]
        if name in _RETRIEVALS:
            return self._retrieve(words) if words[1:] else _ERROR
        del words[MOST_WORDS:]
        command = self._table.get(name)
        if command is None:
            closes = name[0] not in _NO_HTTP and words[-1].startswith(b"HTTP/")
            return Ready(NOTHING, closes=True) if closes else _ERROR
        parse, least, most = command
        return parse(words) if least <= len(words) <= most else _ERROR

    def _retrieve(self, words: list[bytes]) -> Step:
        name = words[0]
        touch, keys = None, words[1:]
        if name.startswith(b"gat"):
            touch, keys = signed(words[1]), words[2:]
            if touch is None:
                return Ready(BAD_EXPTIME)
        if keys and max(map(len, keys)) > LONGEST_KEY:
            return Ready(BAD_FORMAT)
        return Retrieval(keys, name.endswith(b"s"), touch)

    def _store(self, words: list[bytes]) -> Step:
        name, key = words[0], words[1]
        quiet = words[-1] == b"noreply"
        flags, exptime, size = unsigned32(words[2]), signed(words[3]), signed(words[4])
        compare = unsigned64(words[5]) if name == b"cas" else None
        if len(key) > LONGEST_KEY or flags is None or exptime is None or size is None:
            return _refusal(BAD_FORMAT, quiet=quiet)
        if not 0 <= size <= LARGEST_SIZE or (compare is None and name == b"cas"):
            return _refusal(BAD_FORMAT, quiet=quiet)
        if item_size(key, size, flags) > self._max_item_size:
            if name != b"set":
                return Ready(NOTHING if quiet else Said(TOO_LARGE), skip=size + 2)
            # memcached would rather have nothing there than what was to be replaced
            return Ready(SILENT if quiet else Instead(TOO_LARGE), Delete(key), skip=size + 2)
        put = Put(key, b"", flags, exptime, _MODES[name], compare)
        return Awaited(put, size, SILENT, NOTHING) if quiet else Awaited(put, size, STORED)

    def _meta_store(self, words: list[bytes]) -> Step:
        skip = 0
        try:
            size = meta_size(words)
            skip = size + 2
            put, form = meta_set(words)
        except Wrong as wrong:
            return Ready(Said(wrong.reply), skip=skip)
        if item_size(put.key, size, put.flags) > self._max_item_size:
            return Ready(Instead(TOO_LARGE), Delete(put.key), skip)
        return Awaited(put, size, form)

    def _meta(self, words: list[bytes]) -> Step:
        try:
            request, form = _METAS[words[0]](words)
        except Wrong as wrong:
            return Ready(Said(wrong.reply))
        return Ready(form, request)

    def _delete(self, words: list[bytes]) -> Step:
        key, *rest = words[1:]
        quiet = bool(rest) and rest[-1] == b"noreply"
        if rest not in ([], [b"0"], [b"noreply"], [b"0", b"noreply"]):
            return _refusal(BAD_DELETE, quiet=quiet)
        if len(key) > LONGEST_KEY:
            return _refusal(BAD_FORMAT, quiet=quiet)
        return _request(Delete(key), DELETED, quiet=quiet)

    def _count(self, words: list[bytes]) -> Step:
        key, delta = words[1], unsigned64(words[2])
        quiet = words[-1] == b"noreply"
        if len(key) > LONGEST_KEY:
            return _refusal(BAD_FORMAT, quiet=quiet)
        if delta is None:
            return _refusal(BAD_DELTA, quiet=quiet)
        return _request(Arithmetic(key, delta, down=words[0] == b"decr"), NUMBER, quiet=quiet)

    def _touch(self, words: list[bytes]) -> Step:
        key, exptime = words[1], signed(words[2])
        quiet = words[-1] == b"noreply"
        if len(key) > LONGEST_KEY:
            return _refusal(BAD_FORMAT, quiet=quiet)
        if exptime is None:
            return _refusal(BAD_EXPTIME, quiet=quiet)
        return _request(Fetch(key, 0, exptime), TOUCHED, quiet=quiet)

    def _flush(self, words: list[bytes]) -> Step:
        quiet = words[-1] == b"noreply"
        delay = signed(words[1]) if len(words) != 1 + quiet else 0
        if delay is None:
            return _refusal(BAD_EXPTIME, quiet=quiet)
        return _request(Flush(delay), FLUSHED, quiet=quiet)

    def _verbosity(self, words: list[bytes]) -> Step:
        return _refusal(BAD_FORMAT if unsigned32(words[1]) is None else OK, quiet=words[-1] == b"noreply")

    def _stats(self, words: list[bytes]) -> Step:
        form: Form = ERROR
        match words[1:]:
            case [] | [b"settings" | b"items" | b"slabs" | b"sizes" | b"conns", *_] as which:
                form = Asked(lambda: _list(self._told(*which[:1])))
            case [b"detail", b"dump", *_]:
                form = Said(_list(()))
            case [b"reset", *_]:
                form = Asked(self._reset)
            case [b"detail", b"on" | b"off", *_]:
                form = OK
            case [b"detail", *_]:
                form = Said(b"CLIENT_ERROR usage: stats detail on|off|dump\r\n")
            case [b"cachedump", *_]:
                form = Said(b"CLIENT_ERROR stats cachedump not allowed\r\n")
        return Ready(form)

    def _told(self, which: bytes = b"") -> Iterable[tuple[str, object]]:
        facts = self._facts
        return {
            b"": facts.general,
            b"settings": facts.settings,
            b"items": facts.items,
            b"slabs": facts.slabs,
            b"sizes": facts.sizes,
            b"conns": facts.connections,
        }[which]()

    def _reset(self) -> bytes:
        self._facts.reset()
        return b"RESET\r\n"


def _list(facts: Iterable[tuple[str, object]]) -> bytes:
    return b"".join(b"STAT %b %b\r\n" % (name.encode(), str(value).encode()) for name, value in facts) + b"END\r\n"
