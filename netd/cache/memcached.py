"""memcached's text protocol: the codec of one connection (protocol.txt of memcached 1.6).

Answers are byte for byte those of memcached 1.6.18, down to what it says of mistakes; docs/protocols.md lists where
they are not, and why. A differential test holds the two side by side.

A command is a line of words; a value that follows it is a run of bytes of the size that the line says. What is not
whole yet is kept in one bytearray, be it a line or a value: bytes that come one by one cost no more than a copy each.
"""

import re
from collections.abc import Sequence

from netd.cache.batch import Batch, Found, Pairs, Results
from netd.cache.layout import MARK, keep
from netd.cache.memcached_commands import Awaited, MemcachedCommands, Ready, Retrieval
from netd.cache.memcached_forms import SILENT, STORED, Values, problem
from netd.cache.requests import STORED as DONE
from netd.cache.requests import UNIQUE, VALUE, Answer, Fetch, Flush

LONGEST_LINE = 2048
"""Bytes of a line; who sends more is cut off, as memcached does (proto_text.c, try_read_command_ascii)."""
LONGEST_GET = 1 << 20
"""Bytes of the line of a retrieval, which memcached does not bound: 4,000 keys of the longest kind."""
MOST_BLANKS = 100
"""Blanks before a long retrieval (proto_text.c)."""

BINARY_PROTOCOL = 0x80
"""What a connection begins with that speaks the binary protocol, which memcached has deprecated and netd does not
know."""

_ONE_GET = re.compile(rb"get ([^ \n\0]{1,250})\r\n").fullmatch
_GETS = re.compile(rb"(?:get [^ \n\0]{1,250}\r\n)+").fullmatch
"""A read of plain gets, LONGEST_KEY in each: expressions take a quarter of the time of looking bit by bit."""
_SET = re.compile(rb"set ([^ \n\0]{1,250}) ([0-9]{1,9}) 0 ([0-9]{1,8})( noreply)?\r\n").match
"""The line of a set without anything unusual."""
_BEGINNING_OF_SET = re.compile(rb"set [^\n]{0,300}\Z").match

SMALL = 1024
"""Bytes of values whose lines are made beforehand."""
_ENDS = [b" 0 %d\r\n" % size for size in range(SMALL)]
"""How the line of a value without flags ends, by its size."""

_LONG = (b"get ", b"gets ", b"gat ", b"gats ")


class MemcachedCodec:
    """The wire format of one connection."""

    __slots__ = (
        "_at",
        "_awaited",
        "_closes",
        "_commands",
        "_data",
        "_first",
        "_kept",
        "_missing",
        "_retrieval",
        "_skip",
        "_whole",
    )

    def __init__(self, commands: MemcachedCommands) -> None:
        self._commands = commands
        self._data = b""
        self._at = 0
        self._first = True  # no byte has come
        self._whole = True  # nothing is left over, so that a read may be all gets
        self._kept: bytearray | None = None  # the beginning of a line or of a value
        self._awaited: Awaited | None = None
        self._missing = 0  # bytes of its value that have not come yet, with CR LF
        self._skip = 0  # bytes of a refused value that have not come yet
        self._retrieval: Retrieval | None = None  # what has not been handed on whole
        self._closes = False

    # --- the hot path

    def gets(self, data: bytes) -> list[bytes] | None:
        if not self._whole:
            return None
        if match := _ONE_GET(data):
            self._first = False
            return [match[1]]
        if data[:4] != b"get " or not _GETS(data):
            return None
        self._first = False
        return data[4:-2].split(b"\r\nget ")

    def found(self, keys: list[bytes], values: Found) -> bytes:
        if len(keys) == 1:
            kept = values[0]
            if kept.__class__ is bytes and kept[:4] != MARK:
                return b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (keys[0], len(kept), kept)
        out: list[bytes] = []
        for key, kept in zip(keys, values):  # noqa: B905 - the hot path: they are equally long
            if kept is None:
                out.append(b"END\r\n")
            elif kept.__class__ is bytes and kept[:4] != MARK:
                size = len(kept)
                end = _ENDS[size] if size < SMALL else b" 0 %d\r\n" % size
                out += (b"VALUE ", key, end, kept, b"\r\nEND\r\n")
            else:
                Values((key,)).write(iter((kept,)), out)
        return b"".join(out)

    def sets(self, data: bytes) -> Pairs | None:
        if not self._whole or not data.startswith(b"set "):
            return None
        self._first = False
        pairs: Pairs = []
        at, last = 0, len(data)
        room = self._commands.room
        while match := _SET(data, at):
            key, flags, size, quiet = match.groups()
            start = match.end()
            end = start + int(size)
            if quiet or end - start + len(key) > room:
                return None
            if end + 2 > last:
                break
            if data[end : end + 2] != b"\r\n":
                return None
            value = data[start:end]
            pairs.append((key, value if flags == b"0" and value[:4] != MARK else keep(value, int(flags))))
            at = end + 2
            if at == last:
                return pairs
        if at < last:
            if not pairs or not (match or _BEGINNING_OF_SET(data, at)):
                return None
            self.feed(data[at:])
        return pairs

    def stored(self, results: Results) -> bytes:
        count = len(results)
        if results.count(DONE) == count:
            return b"STORED\r\n" * count
        return b"".join([STORED.get(result) or problem(result) for result in results])

    # --- bytes to requests

    def feed(self, data: bytes) -> None:
        if self._at < len(self._data):
            data = self._data[self._at :] + data
        self._data = data
        self._at = 0
        if self._first and data[0] == BINARY_PROTOCOL:
            self._closes = True
        self._first = self._whole = False

    def next(self, limit: int) -> Batch | None:
        batch = Batch([], [])
        requests, forms = batch.requests, batch.forms
        while len(forms) < limit and len(requests) < limit and not batch.holds:
            if self._retrieval is not None:
                self._retrieve(self._retrieval, batch, limit)
            elif self._closes:
                batch.closes = True
                return batch
            elif self._at == len(self._data) or not self._go_on(batch, limit):
                break
        if forms:
            return batch
        self._data, self._at = b"", 0  # all of it is understood or kept
        self._whole = self._kept is None and self._awaited is None and not self._skip
        return None

    def _go_on(self, batch: Batch, limit: int) -> bool:
        """Look at the bytes that come next; False when nothing can be done without more of them."""
        if self._awaited is not None:
            return self._take_value(self._awaited, batch)
        if self._skip:
            return self._skip_some()
        if self._kept is None and self._take_sets(batch, limit):
            return True
        line = self._take_line()
        if line is None:
            return self._closes
        step = self._commands.read(line)
        if isinstance(step, Ready):
            batch.forms.append(step.form)
            if step.request is not None:
                batch.requests.append(step.request)
                batch.holds = step.request.__class__ is Flush
            self._skip = step.skip
            self._closes = step.closes
        elif isinstance(step, Awaited):
            self._awaited = step
            self._missing = step.size + 2
        else:
            self._retrieve(step, batch, limit)
        return True

    def _take_sets(self, batch: Batch, limit: int) -> bool:
        """Add the sets that come next, as long as they are there whole; False when the next command is none of them."""
        data, at = self._data, self._at
        requests, forms = batch.requests, batch.forms
        room = self._commands.room
        while len(requests) < limit and (match := _SET(data, at)):
            key, flags, size, quiet = match.groups()
            start = match.end()
            end = start + int(size)
            if data[end : end + 2] != b"\r\n" or end - start + len(key) > room:
                break
            requests.append((key, keep(data[start:end], int(flags))))
            forms.append(SILENT if quiet else STORED)
            at = end + 2
        if at == self._at:
            return False
        self._at = at
        return True

    def _take_line(self) -> bytes | None:
        """The next line without its end, None when it has not come whole or is too long."""
        end = self._data.find(b"\n", self._at)
        line = self._data[self._at : end if end >= 0 else None]
        self._at = end + 1 if end >= 0 else len(self._data)
        kept = self._kept
        if kept is not None:
            kept += line
        elif end < 0 or len(line) > LONGEST_LINE:
            kept = bytearray(line)
        if kept is not None:
            if len(kept) > LONGEST_LINE and not _may_be_long(kept):
                self._closes = True
                return None
            if end < 0:
                self._kept = kept or None
                return None
            line = bytes(kept)
            self._kept = None
        return line[:-1] if len(line) > 1 and line.endswith(b"\r") else line

    def _take_value(self, awaited: Awaited, batch: Batch) -> bool:
        """Add the request whose value is awaited to the batch once it has come; False until then."""
        start = self._at
        end = start + self._missing
        kept = self._kept
        if end > len(self._data):
            self._missing = end - len(self._data)
            self._at = len(self._data)
            if kept is None:
                self._kept = bytearray(self._data[start:])
            else:
                kept += self._data[start:]
            return False
        self._at = end
        self._awaited = self._kept = None
        if kept is None:
            tail = self._data[end - 2 : end]
            value = self._data[start : end - 2]
        else:
            kept += self._data[start:end]
            tail = bytes(kept[-2:])
            del kept[-2:]
            value = bytes(kept)
        if tail == b"\r\n":
            awaited.put.value = value
            batch.requests.append(awaited.put)
            batch.forms.append(awaited.form)
        else:
            batch.forms.append(awaited.bad_end)
        return True

    def _skip_some(self) -> bool:
        """Pass over bytes of a value that was refused; False when more are to come."""
        skipped = min(self._skip, len(self._data) - self._at)
        self._skip -= skipped
        self._at += skipped
        return not self._skip

    def _retrieve(self, retrieval: Retrieval, batch: Batch, limit: int) -> None:
        """Add as many keys of a retrieval as the batch takes; the rest come with the next one."""
        portion = limit - len(batch.requests)
        keys = retrieval.keys[retrieval.at : retrieval.at + portion]
        retrieval.at += portion
        ends = retrieval.at >= len(retrieval.keys)
        self._retrieval = None if ends else retrieval
        if retrieval.unique or retrieval.touch is not None:
            wants = VALUE | UNIQUE * retrieval.unique
            batch.requests += [Fetch(key, wants, retrieval.touch) for key in keys]
        else:
            batch.requests += keys
        retrieval.form = Values(keys, unique=retrieval.unique, ends=ends, after=retrieval.form)
        batch.forms.append(retrieval.form)

    # --- answers to bytes

    def render(self, batch: Batch, answers: Sequence[Answer]) -> bytes:
        out: list[bytes] = []
        each = iter(answers)
        for form in batch.forms:
            if form.__class__ is dict:  # outcomes by their words, the most frequent form by far
                answer = next(each)
                out.append(form.get(answer) or problem(answer))
            else:
                form.write(each, out)
        return out[0] if len(out) == 1 else b"".join(out)


def _may_be_long(line: bytearray) -> bool:
    beginning = bytes(line[: MOST_BLANKS + len(_LONG[-1])])
    words = beginning.lstrip(b" ")
    return len(line) <= LONGEST_GET and len(beginning) - len(words) <= MOST_BLANKS and words.startswith(_LONG)
