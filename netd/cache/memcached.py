"""memcached's text protocol: the codec of one connection (protocol.txt of memcached 1.6).

Answers are byte for byte those of memcached 1.6.18, down to what it says of mistakes; docs/protocols.md lists where
they are not, and why. A differential test holds the two side by side.

A command is a line of words; a value that follows it is a run of bytes of the size that the line says. What is not
whole yet is kept in one bytearray, be it a line or a value: bytes that come one by one cost no more than a copy each.
"""

from collections.abc import Sequence

from netd.cache.batch import Batch, Found
from netd.cache.layout import MARK
from netd.cache.memcached_commands import Awaited, MemcachedCommands, Ready, Retrieval
from netd.cache.memcached_forms import Values
from netd.cache.requests import LONGEST_KEY, UNIQUE, VALUE, Answer, Fetch

LONGEST_LINE = 2048
"""Bytes of a line; who sends more is cut off, as memcached does (proto_text.c, try_read_command_ascii)."""
LONGEST_GET = 1 << 20
"""Bytes of the line of a retrieval, which memcached does not bound: 4,000 keys of the longest kind."""
MOST_BLANKS = 100
"""Blanks before a long retrieval (proto_text.c)."""

BINARY_PROTOCOL = 0x80
"""What a command of the binary protocol begins with, which memcached has deprecated and netd does not speak."""

_LONG = (b"get ", b"gets ", b"gat ", b"gats ")


class MemcachedCodec:
    """The wire format of one connection."""

    __slots__ = (
        "_at",
        "_awaited",
        "_closes",
        "_commands",
        "_data",
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
        self._whole = True  # nothing is left over, so that a read may be all gets
        self._kept: bytearray | None = None  # the beginning of a line or of a value
        self._awaited: Awaited | None = None
        self._missing = 0  # bytes of its value that have not come yet, with CR LF
        self._skip = 0  # bytes of a refused value that have not come yet
        self._retrieval: Retrieval | None = None  # what has not been handed on whole
        self._closes = False

    # --- the hot path

    def gets(self, data: bytes) -> list[bytes] | None:
        if not self._whole or not data.startswith(b"get ") or not data.endswith(b"\r\n"):
            return None
        keys = data[4:-2].split(b"\r\nget ")
        count = len(keys)
        if data.count(b" ") != count or data.count(b"\n") != count or b"\0" in data or b"" in keys:
            return None
        return keys if max(map(len, keys)) <= LONGEST_KEY else None

    def found(self, keys: list[bytes], values: Found) -> bytes:
        out: list[bytes] = []
        for key, kept in zip(keys, values, strict=True):
            if kept is None:
                out.append(b"END\r\n")
            elif isinstance(kept, bytes) and not kept.startswith(MARK):
                out.append(b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(kept), kept))
            else:
                Values((key,)).write(iter((kept,)), out)
        return out[0] if len(out) == 1 else b"".join(out)

    # --- bytes to requests

    def feed(self, data: bytes) -> None:
        if self._at < len(self._data):
            data = self._data[self._at :] + data
        self._data = data
        self._at = 0
        if self._whole and data[0] == BINARY_PROTOCOL:
            self._closes = True
        self._whole = False

    def next(self, limit: int) -> Batch | None:
        batch = Batch([], [])
        while len(batch.forms) < limit and len(batch.requests) < limit and self._go_on(batch, limit):
            pass
        if self._closes and len(batch.forms) < limit:
            batch.closes = True
            return batch
        if batch.forms:
            return batch
        self._data, self._at = b"", 0  # all of it is understood or kept
        self._whole = self._kept is None and self._awaited is None and not self._skip
        return None

    def _go_on(self, batch: Batch, limit: int) -> bool:
        """Do the next thing there is to do; False when there is nothing without more bytes."""
        if self._closes:
            return False
        if self._retrieval is not None:
            self._retrieve(self._retrieval, batch, limit)
            return True
        if self._awaited is not None:
            return self._take_value(self._awaited, batch)
        if self._skip:
            return self._skip_some()
        line = self._take_line()
        if line is None:
            return False
        match self._commands.read(line):
            case Awaited(_, size) as awaited:
                self._awaited = awaited
                self._missing = size + 2
            case Ready(form, request, skip, closes):
                batch.forms.append(form)
                if request is not None:
                    batch.requests.append(request)
                self._skip = skip
                self._closes = closes
            case Retrieval() as retrieval:
                self._retrieve(retrieval, batch, limit)
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
            form.write(each, out)
        return out[0] if len(out) == 1 else b"".join(out)


def _may_be_long(line: bytearray) -> bool:
    beginning = bytes(line[: MOST_BLANKS + len(_LONG[-1])])
    words = beginning.lstrip(b" ")
    return len(line) <= LONGEST_GET and len(beginning) - len(words) <= MOST_BLANKS and words.startswith(_LONG)
