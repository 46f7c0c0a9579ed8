r"""Redis's wire protocol as a server speaks it: RESP2, RESP3 and inline requests, without any I/O.

Requests are parsed as Redis parses them (networking.c, processMultibulkBuffer and processInlineBuffer), its error texts
included. A request that arrives in pieces is taken up where it was left, so that bytes that trickle in cost no more
than bytes that come at once; what was parsed of it is bounded by one budget, whatever it announces.

A read that holds plain GETs and nothing else, the most frequent one by far, does not pass here: `gets` takes it apart
with a few calls for all of it.

Which protocol replies are in is the client's choice, by HELLO. It changes where the answer to HELLO is rendered
(`Switched`), so that what was asked before it is still answered in the old one.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isinf, isnan
from typing import Final, cast

from netd.cache.batch import Batch, Pairs, Results, Wired
from netd.cache.layout import MARK, keep, value_of
from netd.cache.redis_words import FLUSHES
from netd.cache.requests import STORED, Answer, Command, Outcome, Problem, Reply, Request, Status, item_size

LONGEST_LINE = 64 << 10
"""Bytes of an inline request, or of a number that announces something: PROTO_INLINE_MAX_SIZE of Redis's server.h."""
MOST_WORDS = 1 << 20
"""Words of one request: Redis's limit up to version 6; the budget for bytes cuts in long before."""
WORD_COST = 64
"""Bytes that a word takes beside its own, in Python."""
REQUEST_ROOM = 16 << 20
"""Bytes one request may take beyond the largest item: a large MSET or MGET, and still bounded."""
STRANGERS_WORDS, STRANGERS_WORD = 10, 16384
"""The limits for a client that has yet to log in (processMultibulkBuffer)."""
LARGE_REMAINDER = 16 << 10
"""Bytes left over above which they are gathered in place; joining small ones anew is cheaper."""

_GET: Final = frozenset({b"*2\r\n$3\r\nGET\r\n$", b"*2\r\n$3\r\nget\r\n$"})
_SET: Final = frozenset({b"*3\r\n$3\r\nSET\r\n$", b"*3\r\n$3\r\nset\r\n$"})
_PLAIN_SET = re.compile(rb"\*3\r\n\$3\r\n(?:SET|set)\r\n\$([0-9]{1,3})\r\n([^\r]*)\r\n\$(0|[1-9][0-9]{0,8})\r\n").match
"""What stands before the value of a SET with an ordinary key: an expression takes half the time of looking for ends."""
_UPPER_SET: Final = b"*3\r\n$3\r\nSET\r\n$"
_HEAD: Final = 14
"""Bytes of these."""
_SMALL_SET: Final = 1024
"""Bytes of a first SET up to which it is worth looking for the ends of all lines of a read at once."""
_GET_LINES, _SET_LINES = 5, 7
_CACHED: Final = 1024
_SIZES: Final = tuple(b"%d" % size for size in range(_CACHED))
_ANNOUNCED: Final = tuple(b"$" + size for size in _SIZES)
_NUMBERS: Final = {text: number for number, text in enumerate(_SIZES)}
_NUMBER = re.compile(rb"-?[1-9][0-9]{0,17}|0")
_STAR, _DOLLAR = b"*$"


class ProtocolError(Exception):
    """A client's bytes are no request; the text is Redis's own. The connection cannot go on."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text.encode("latin-1", "replace")


@dataclass(frozen=True, slots=True)
class Switched:
    """The answer to a request that changes the protocol: this reply, and those after it, are in `version`."""

    version: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Raw:
    """A reply that is on the wire already, in the client's version."""

    data: bytes


class Requests:
    """What a client sends → the words of its requests, however it is cut."""

    def __init__(self, largest: int) -> None:
        self.stranger = False
        """Whether the client has yet to log in, so that Redis's small limits hold."""
        self._largest = largest
        self._data: bytes | bytearray = b""
        self._at = 0
        self._words: list[bytes] = []
        self._missing = 0
        self._size = -1
        self._room = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is left of what was fed."""
        return self._at == len(self._data) and not self._missing

    def feed(self, data: bytes) -> None:
        """Take bytes, to be asked for by `next`."""
        left = len(self._data) - self._at
        if not left:
            self._data, self._at = data, 0
        elif left <= LARGE_REMAINDER:
            self._data, self._at = self._data[self._at :] + data, 0
        else:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            del self._data[: self._at]
            self._data += data
            self._at = 0

    def next(self) -> list[bytes] | None:
        """The words of the next request, none for one that asks nothing; None: more bytes are needed.

        Raises ProtocolError.
        """
        if not self._missing:
            if self._at == len(self._data):
                return None
            if self._data[self._at] != _STAR:
                return self._inline()
            count = self._number("too big mbulk count string", "invalid multibulk length")
            if count is None:
                return None
            if count > MOST_WORDS:
                raise ProtocolError("Protocol error: invalid multibulk length")
            if count > STRANGERS_WORDS and self.stranger:
                raise ProtocolError("Protocol error: unauthenticated multibulk length")
            if count <= 0:
                return []
            self._missing, self._words, self._room = count, [], self._largest
        return self._bulks()

    def _bulks(self) -> list[bytes] | None:
        data, words, size = self._data, self._words, self._size
        self._size = -1
        while self._missing:
            if size < 0:
                if self._at == len(data):
                    return None
                if data[self._at] != _DOLLAR:
                    raise ProtocolError(f"Protocol error: expected '$', got '{chr(data[self._at])}'")
                number = self._number("too big bulk count string", "invalid bulk length")
                if number is None:
                    return None
                size = self._admit(number)
            start = self._at
            end = start + size
            if end + 2 > len(data):
                self._size = size
                return None
            words.append(bytes(data[start:end]))
            self._at = end + 2
            self._missing -= 1
            size = -1
        self._words = []
        return words

    def _admit(self, size: int) -> int:
        self._room -= size + WORD_COST
        if size < 0 or self._room < 0:
            raise ProtocolError("Protocol error: invalid bulk length")
        if size > STRANGERS_WORD and self.stranger:
            raise ProtocolError("Protocol error: unauthenticated bulk length")
        return size

    def _number(self, too_long: str, invalid: str) -> int | None:
        """The number of a line such as "*3" or "$11"; None when its end is not there yet."""
        data, start = self._data, self._at + 1
        end = data.find(b"\r", start, start + LONGEST_LINE + 1)
        if end < 0 or end + 2 > len(data):
            if end < 0 and len(data) - start > LONGEST_LINE:
                raise ProtocolError(f"Protocol error: {too_long}")
            return None
        text = bytes(data[start:end])
        self._at = end + 2
        number = _NUMBERS.get(text)
        if number is not None:
            return number
        if not _NUMBER.fullmatch(text):
            raise ProtocolError(f"Protocol error: {invalid}")
        return int(text)

    def _inline(self) -> list[bytes] | None:
        data = self._data
        end = data.find(b"\n", self._at, self._at + LONGEST_LINE + 1)
        if end < 0:
            if len(data) - self._at > LONGEST_LINE:
                raise ProtocolError("Protocol error: too big inline request")
            return None
        line = bytes(data[self._at : end])
        self._at = end + 1
        return split_words(line[:-1] if line.endswith(b"\r") else line)


_SPACE: Final = b" \n\r\t\v\f\0"
_BARE = re.compile(rb"[^\"' \n\r\t\v\f\0]+")
_QUOTED = re.compile(rb'(?:[^"\\]|\\.)*+"', re.DOTALL)
_SINGLE = re.compile(rb"(?:\\'|[^'])*+'", re.DOTALL)
"""Up to the closing quote. Each byte can be matched in one way only, and what was matched is never given back: else a
line of escapes without an end would take for ever."""
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_words(line: bytes) -> list[bytes]:
    r"""The words of an inline request: as sds.c's sdssplitargs, with "…" and its \x41 \n \", and '…' with its \'."""
    words: list[bytes] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at] in _SPACE:
            at += 1
        if at == end:
            return words
        word = b""
        while at < end and line[at] not in _SPACE:
            if line[at] in b"\"'":
                part, at = _quoted(line, at)
                word += part
                break
            bare = cast("re.Match[bytes]", _BARE.match(line, at))
            word += bare[0]
            at = bare.end()
        words.append(word)


def _quoted(line: bytes, at: int) -> tuple[bytes, int]:
    """What stands in the quotes that begin at `at`, and where it goes on."""
    double = line[at] == ord('"')
    match = (_QUOTED if double else _SINGLE).match(line, at + 1)
    if match is None or (match.end() < len(line) and line[match.end()] not in _SPACE):
        raise ProtocolError("Protocol error: unbalanced quotes in request")
    inside = match[0][:-1]
    return (_ESCAPE.sub(_unescape, inside) if double else inside.replace(b"\\'", b"'")), match.end()


def _unescape(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    if len(escape) > 1:
        return bytes.fromhex(escape[1:].decode())
    return _ESCAPES.get(escape, escape)


# --- replies

RESP3: Final = 3
NULL2: Final = b"$-1\r\n"
NULL3: Final = b"_\r\n"


def encode(reply: Reply, version: int) -> bytes:
    """A reply on the wire, in RESP2 or RESP3."""
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, dict):
        head = b"%%%d\r\n" % len(reply) if version == RESP3 else b"*%d\r\n" % (2 * len(reply))
        pairs = (encode(each, version) for pair in reply.items() for each in pair)
        return head + b"".join(pairs)
    if isinstance(reply, Sequence):
        return b"*%d\r\n" % len(reply) + b"".join([encode(each, version) for each in reply])
    return _encode_scalar(reply, version)


def _encode_scalar(reply: float | Status | Problem | None, version: int) -> bytes:
    match reply:
        case None:
            return NULL3 if version == RESP3 else NULL2
        case bool() if version == RESP3:
            return b"#t\r\n" if reply else b"#f\r\n"
        case int():
            return b":%d\r\n" % reply
        case Status(text):
            return b"+%b\r\n" % text
        case Problem():
            return _problem(reply)
        case float():
            text = show_float(reply)
            return b",%b\r\n" % text if version == RESP3 else b"$%d\r\n%b\r\n" % (len(text), text)


def _problem(problem: Problem) -> bytes:
    text = problem.text.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"-%b %b\r\n" % (problem.code, text) if problem.code else b"-%b\r\n" % text


def show_float(number: float) -> bytes:
    """A double as Redis writes it."""
    if isinf(number):
        return b"inf" if number > 0 else b"-inf"
    if isnan(number):
        return b"nan"
    return b"%d" % number if number == int(number) and abs(number) < 1e17 else repr(number).encode()  # noqa: PLR2004 - as "%.17g" would


# --- the codec

_KEPT, _SET_DONE, _WORDS = "kept", "set", "words"
"""Forms of a batch, by their answers: a value as kept, the result of a plain SET, a reply. Bytes go as they are."""

_CROSS_PROTOCOL: Final = frozenset({b"POST", b"HOST:"})
"""A browser that was talked into speaking to this port; Redis hangs up on it too (networking.c, processCommand)."""


class RespCodec:
    """One connection's requests and replies."""

    def __init__(self, max_item_size: int) -> None:
        self.version = 2
        self.requests = Requests(max_item_size + REQUEST_ROOM)
        self._largest_value = max_item_size - item_size(b"", 0)
        self._ended = False
        self._fed = False  # whether something may be left of what was fed

    def gets(self, data: bytes) -> list[bytes] | None:  # noqa: PLR0911 - ways not to be plain
        """The keys of a read that holds plain GETs and nothing else; None: it is for `feed`."""
        if data[:_HEAD] not in _GET or self._fed:
            return None
        end = data.find(b"\r\n", _HEAD)
        key = data[end + 2 : -2]
        if key and len(key) < _CACHED and data[_HEAD:end] == _SIZES[len(key)] and data[-2:] == b"\r\n":
            return [key]
        lines = data.split(b"\r\n")
        if lines.pop() or len(lines) % _GET_LINES:
            return None
        keys = lines[4::_GET_LINES]
        count = len(keys)
        try:
            sizes = [_ANNOUNCED[len(key)] for key in keys]
        except IndexError:  # longer keys than anybody has
            return None
        if lines[3::_GET_LINES] != sizes:
            return None
        verbs = lines[2::_GET_LINES]
        if (
            lines[::_GET_LINES].count(b"*2") != count
            or lines[1::_GET_LINES].count(b"$3") != count
            or verbs.count(b"GET") + verbs.count(b"get") != count
        ):
            return None
        return Wired(keys, data)

    def found(self, keys: Sequence[bytes], values: Sequence[bytes | Problem | Raw | None]) -> bytes:  # noqa: ARG002 - memcached's replies name the keys
        """The replies to plain GETs, from values as they are kept."""
        if len(values) == 1 and (value := values[0]).__class__ is bytes and value[:4] != MARK:
            return b"$%d\r\n%b\r\n" % (len(value), value)
        parts = []
        for value in values:
            if value.__class__ is bytes:
                bare = value_of(value) if value[:4] == MARK else value
                parts.append(b"$%d\r\n%b\r\n" % (len(bare), bare))
            elif isinstance(value, Raw):
                parts.append(value.data)
            else:
                parts.append(encode(value, self.version))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def sets(self, data: bytes) -> Pairs | None:
        """Keys and values, as they are to be kept, of a read that holds plain SETs and nothing else; None: for `feed`.

        The last one may be there in part: then that part is fed already.
        """
        if data[:_HEAD] not in _SET or self._fed or self.requests.stranger:
            return None
        pairs: Pairs = []
        at, end, largest, bare = 0, len(data), self._largest_value, True
        while match := _PLAIN_SET(data, at):
            announced, key, length = match.groups()
            start = match.end()
            after = start + int(length)
            if (
                _NUMBERS.get(announced) != len(key)
                or data[after : after + 2] != b"\r\n"
                or len(key) + after - start > largest
            ):
                break
            value = data[start:after]
            if value[:4] == MARK:
                value, bare = keep(value), False
            pairs.append((key, value))
            at = after + 2
            if at == end:
                return Wired(pairs, data) if bare and len(pairs) > 1 else pairs
            if at < _SMALL_SET and (whole := self._whole_sets(data)) is not None:
                return whole
        return self._other_sets(data, at, pairs)

    def _other_sets(self, data: bytes, at: int, pairs: Pairs) -> Pairs | None:
        """The same with SETs from `at` on that have strange keys, or are there in part."""
        end = len(data)
        while at < end:
            found = self._set_at(data, at)
            if found is None:
                return None
            if not found:
                break
            at, key, kept = found
            pairs.append((key, kept))
        if at < end and pairs:
            self.feed(data[at:])
        return pairs or None

    def _whole_sets(self, data: bytes) -> Pairs | None:
        """Most reads of many small SETs, taken apart with a few calls for all of it: whole, no line end in a value."""
        lines = data.split(b"\r\n")
        if lines.pop() or len(lines) % _SET_LINES:
            return None
        keys, values, verbs = lines[4::_SET_LINES], lines[6::_SET_LINES], lines[2::_SET_LINES]
        count = len(keys)
        if (
            lines[::_SET_LINES].count(b"*3") != count
            or lines[1::_SET_LINES].count(b"$3") != count
            or verbs.count(b"SET") + verbs.count(b"set") != count
            or lines[3::_SET_LINES] != [_announced(len(key)) for key in keys]
            or lines[5::_SET_LINES] != [_announced(len(value)) for value in values]
            or max(map(len, keys)) + max(map(len, values)) > self._largest_value
        ):
            return None
        if MARK not in data:
            return Wired(zip(keys, values, strict=True), data)
        return [(key, keep(value) if value[:4] == MARK else value) for key, value in zip(keys, values, strict=True)]

    def _set_at(self, data: bytes, at: int) -> tuple[int, bytes, bytes] | tuple[()] | None:  # noqa: PLR0911 - ways not to be one
        """Where the plain SET that begins here ends, key and value to keep; () when it is not whole, None if none."""
        end, find = len(data), data.find
        begin = data[at : at + _HEAD]
        if begin not in _SET:
            return () if len(begin) < _HEAD and _UPPER_SET.startswith(begin) else None
        line = find(b"\r\n", at + _HEAD)
        if line < 0:
            return ()
        size = _NUMBERS.get(data[at + _HEAD : line], -1)
        head = line + size + 5  # the key, its end, and a dollar
        if size < 0 or (head <= end and data[head - 3 : head] != b"\r\n$"):
            return None
        value = find(b"\r\n", head) + 2
        if value < head:
            return ()
        text = data[head : value - 2]
        length = _NUMBERS.get(text, -1)
        if length < 0 and _NUMBER.fullmatch(text):
            length = int(text)
        after = value + length + 2
        if not 0 <= length <= self._largest_value - size or (after <= end and data[after - 2 : after] != b"\r\n"):
            return None
        if after > end:
            return ()
        kept = data[value : after - 2]
        return after, data[line + 2 : line + 2 + size], keep(kept) if kept.startswith(MARK) else kept

    def stored(self, results: Results) -> bytes:
        """The replies to plain SETs."""
        if results.count(STORED) == len(results):
            return b"+OK\r\n" * len(results)
        return b"".join([_stored(result) for result in results])

    def feed(self, data: bytes) -> None:
        """Take any other read."""
        if not self._ended:
            self._fed = True
            self.requests.feed(data)

    def next(self, limit: int) -> Batch | None:
        """The next requests, at most `limit`, that are complete; None: more bytes are needed."""
        requests: list[Request] = []
        forms: list[object] = []
        holds = False
        while len(forms) < limit and not (holds or self._ended):
            try:
                words = self.requests.next()
            except ProtocolError as error:
                forms.append(_problem(Problem(error.text)))
                self._ended = True
                break
            if words is None:
                self._fed = not self.requests.empty
                break
            if words:
                self._sort(words, requests, forms)
                holds = forms[-1:] == [_WORDS] and words[0].upper() in FLUSHES
        return Batch(requests, forms, closes=self._ended, holds=holds) if forms or self._ended else None

    def _sort(self, words: list[bytes], requests: list[Request], forms: list[object]) -> None:
        name = words[0]
        if len(words) == 2 and name in {b"GET", b"get"}:  # noqa: PLR2004 - a key
            requests.append(words[1])
            forms.append(_KEPT)
        elif len(words) == 3 and name in {b"SET", b"set"} and self._fits(words):  # noqa: PLR2004 - key and value
            requests.append((words[1], keep(words[2])))
            forms.append(_SET_DONE)
        elif (upper := name.upper()) == b"QUIT":
            forms.append(b"+OK\r\n")
            self._ended = True
        elif upper in _CROSS_PROTOCOL:
            self._ended = True
        else:
            requests.append(Command(words))
            forms.append(_WORDS)

    def _fits(self, words: list[bytes]) -> bool:
        return len(words[1]) + len(words[2]) <= self._largest_value

    def render(self, batch: Batch, answers: "Sequence[Answer | Raw | Switched]") -> bytes:
        """The replies of a batch, in its order."""
        answer: Iterator[Answer | Raw | Switched] = iter(answers)
        parts = []
        for form in batch.forms:
            if form is _KEPT:
                parts.append(self.found((), (next(answer),)))  # type: ignore[arg-type]  # the answer to a key is a value
            elif form is _SET_DONE:
                parts.append(_stored(next(answer)))  # type: ignore[arg-type]  # the answer to a pair
            elif form is _WORDS:
                parts.append(self._reply(next(answer)))
            else:
                parts.append(form)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _reply(self, answer: "Answer | Raw | Switched") -> bytes:
        if isinstance(answer, Raw):
            return answer.data
        if isinstance(answer, Switched):
            self.version = answer.version
            answer = answer.reply
        return encode(answer, self.version)  # type: ignore[arg-type]  # a Command is answered with a Reply


def _stored(result: bytes | Problem | Outcome | Raw) -> bytes:
    if result == STORED:
        return b"+OK\r\n"
    if isinstance(result, Raw):
        return result.data
    if isinstance(result, Problem):
        return _problem(result)
    return _problem(_OUTCOMES[result])  # type: ignore[index]  # what is left is an Outcome


_OUTCOMES: Final = {
    Outcome.TOO_LARGE: Problem(b"string exceeds maximum allowed size (proto-max-bulk-len)"),
    Outcome.NO_ROOM: Problem(b"command not allowed when used memory > 'maxmemory'.", b"OOM"),
}


def _announced(size: int) -> bytes:
    return _ANNOUNCED[size] if size < _CACHED else b"$%d" % size
