"""The bridge's wire: lines from clients to messages, messages to lines, and the replies between them.

A publish port's lines are numbered from 1 by their LF, empty ones too. `Incoming` turns bytes into messages and into
the errors of lines that are none; how the bytes are cut never matters. docs/lines.md describes the grammar.
"""

import base64
import json
import math
import re
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from netd.bridge.messages import Delivery, Extra, HeaderValue

Framing = Literal["raw", "key-tab", "json"]
OutFraming = Literal["raw", "escaped", "json"]

LONGEST_SHORT = 255
"""Bytes of a routing key, a header's name, a message's id: AMQP's shortstr."""
HEADERS_LIMIT = 64 << 10
"""Bytes of a message's headers, names and values: the properties of a message must fit in one frame, of which RabbitMQ
takes 128 KiB."""
MOST_HEADERS = 256
KNOWN_KEYS = 4096
"""Routing keys whose check is remembered: clients name the same few again and again."""
FORBIDDEN_HEADERS = frozenset({"cc", "bcc"})
"""RabbitMQ routes to the keys that these name as well, past `key_patterns`."""
RESERVED_HEADERS = "x-netd-"
LOWEST_INTEGER, HIGHEST_INTEGER = -(1 << 63), (1 << 63) - 1
LONGEST_COMMAND = 64
"""Bytes of a line from a subscriber: "NACK" and a number."""

_HTTP = re.compile(rb"[A-Z]{3,16} \S+ HTTP/[0-9.]{1,3}")

_JSON_FIELDS = frozenset({"key", "body", "body_base64", "headers", "message_id"})


def is_http(line: bytes) -> bool:
    """Whether a line is the first of an HTTP request.

    A web page can have its visitor's browser send such to any port of the visitor's machine, with lines of the page's
    choice behind it. A client that begins so is a browser, and is heard no further; Redis does the same.
    """
    return _HTTP.fullmatch(line) is not None


class NotForBrowsers(Exception):
    """A client begins with an HTTP request."""


class BadLine(Exception):
    """A line that is no message: a word for programs and a few for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


# --- replies


def ok(number: int) -> bytes:
    """Every line up to this one is done, except those answered otherwise before."""
    return b"+OK %d\n" % number


def err(number: int, code: str, text: str) -> bytes:
    """The line was not, and never will be, published."""
    return f"-ERR {number} {code} {_one_line(text)}\n".encode()


def wait(text: str) -> bytes:
    """Reading has stopped."""
    return f"*WAIT {_one_line(text)}\n".encode()


GO = b"*GO\n"
"""Reading goes on."""


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


NO_HTTP = err(1, "HTTP", "this port speaks lines, and is not for browsers")
"""Then the connection ends."""


# --- lines


class LineReader:
    """Bytes → lines, without their LF or CRLF. A line that is too long is dropped up to its LF, and stands as None."""

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self._begun = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """The lines that these bytes complete."""
        lines: list[bytes | None] = list(data.split(b"\n"))
        rest = lines.pop() or b""
        if not lines:
            self._hold(rest)
            return lines
        if self._skipping:
            lines[0] = None
        elif self._begun:
            lines[0] = bytes(self._begun) + (lines[0] or b"")
        self._begun.clear()
        self._skipping = False
        if rest:
            self._hold(rest)
        if b"\r" in data or (lines[0] is not None and lines[0].endswith(b"\r")):
            lines = [line[:-1] if line is not None and line.endswith(b"\r") else line for line in lines]
        longest = self._max
        if lines[0] is None or max(map(len, lines)) > longest:  # type: ignore[arg-type]  # only the first can be None
            lines = [line if line is not None and len(line) <= longest else None for line in lines]
        return lines

    def _hold(self, rest: bytes) -> None:
        if self._skipping:
            return
        self._begun += rest
        if len(self._begun) > self._max + 1:  # a CR may follow the longest line
            self._begun.clear()
            self._skipping = True

    @property
    def begun(self) -> bool:
        """Whether a line has begun that has no LF yet."""
        return self._skipping or bool(self._begun)

    def finish(self) -> bytes | None:
        """The line that has begun and will have no LF; None when it is too long."""
        tail = bytes(self._begun)
        skipped = self._skipping
        self._begun.clear()
        self._skipping = False
        return tail if not skipped and len(tail) <= self._max else None


# --- lines in


@dataclass(frozen=True, slots=True)
class Received:
    """What some bytes came to. `bodies`, `keys` and `numbers` go together."""

    upto: int
    """The number of the last line that is complete."""
    bodies: Sequence[bytes] = ()
    keys: Sequence[bytes] | None = None
    """The routing key of each message; None: they name none."""
    extras: Mapping[int, Extra] | None = None
    """By index into `bodies`."""
    numbers: Sequence[int] = ()
    """The line of each message."""
    errors: Sequence[tuple[int, BadLine]] = ()
    """Lines that are no messages."""


@dataclass(frozen=True, slots=True)
class Message:
    """What one line says."""

    body: bytes
    key: bytes = b""
    """"": the port's."""
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """How a publish port reads its lines."""

    framing: Framing
    max_line: int
    may_name: Callable[[str], bool]
    """Whether a line may have this routing key."""
    routing_key: bytes = b""
    """Of lines that name none."""
    key_required: bool = False
    """Whether an empty key cannot be meant: the default exchange has no queue for it."""
    known: dict[bytes, None] = field(default_factory=dict)
    """Keys that were found good, for all connections of the port."""

    def check_key(self, key: bytes) -> bytes:
        """The routing key to use for what a line names; raises BadLine."""
        if key in self.known:
            return key
        if not key:
            if self.key_required:
                raise BadLine("KEY", "none, and the port has no routing_key")
            return self.routing_key
        if len(key) > LONGEST_SHORT:
            raise BadLine("KEY", f"longer than {LONGEST_SHORT} bytes")
        try:
            text = key.decode("utf-8")
        except UnicodeDecodeError:
            raise BadLine("KEY", "not UTF-8") from None
        if not self.may_name(text):
            raise BadLine("KEY", "not one that this port may name (key_patterns)")
        if len(self.known) >= KNOWN_KEYS:
            self.known.clear()
        self.known[key] = None
        return key


class Incoming:
    """One client's bytes → messages."""

    def __init__(self, rules: Rules, peer: str = "") -> None:
        self._rules = rules
        self._reader = LineReader(rules.max_line)
        self._count = 0
        self._peer = Extra(peer=peer) if peer else None

    @property
    def tail(self) -> bool:
        """Whether a line has begun that has no LF yet."""
        return self._reader.begun

    def receive(self, data: bytes) -> Received:
        """The lines that these bytes complete. Raises NotForBrowsers; nothing more can be read then."""
        lines = self._reader.feed(data)
        if not self._count and lines and is_http(lines[0] or b""):
            self._reader.finish()
            raise NotForBrowsers
        return self._decode(lines)

    def finish(self) -> Received:
        """The last line, although it has no LF."""
        return self._decode([self._reader.finish()])

    def cut(self) -> bytes:
        """The bytes of the line that has begun, which is given up; b"" when it was too long already."""
        return self._reader.finish() or b""

    def _decode(self, lines: list[bytes | None]) -> Received:
        first = self._count + 1
        self._count = upto = self._count + len(lines)
        if self._rules.framing == "raw" and self._peer is None and None not in lines and b"" not in lines:
            return Received(upto, lines, numbers=range(first, upto + 1))  # type: ignore[arg-type]  # none is None
        return self._decode_each(lines, first)

    def _decode_each(self, lines: Sequence[bytes | None], first: int) -> Received:
        bodies: list[bytes] = []
        keys: list[bytes] = []
        extras: dict[int, Extra] = {}
        numbers: list[int] = []
        errors: list[tuple[int, BadLine]] = []
        decode = _DECODERS[self._rules.framing]
        for number, line in enumerate(lines, first):
            if line == b"":
                continue
            try:
                if line is None:
                    raise BadLine("TOOLONG", f"longer than {self._rules.max_line} bytes")
                message = decode(line, self._rules)
            except BadLine as bad:
                errors.append((number, bad))
                continue
            extra = message.extra
            if self._peer is not None:
                extra = self._peer if extra is None else Extra(extra.headers, extra.message_id, self._peer.peer)
            if extra is not None:
                extras[len(bodies)] = extra
            bodies.append(message.body)
            keys.append(message.key)
            numbers.append(number)
        upto = first + len(lines) - 1
        return Received(upto, bodies, keys if self._rules.framing != "raw" else None, extras or None, numbers, errors)


def _decode_raw(line: bytes, _: Rules) -> Message:
    return Message(line)


def _decode_key_tab(line: bytes, rules: Rules) -> Message:
    key, tab, body = line.partition(b"\t")
    if not tab:
        raise BadLine("KEY", "no tab: a line is a routing key, a tab and the body")
    return Message(body, rules.check_key(key))


def _decode_json(line: bytes, rules: Rules) -> Message:
    try:
        found = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BadLine("JSON", "not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadLine("JSON", str(error)) from None
    if not isinstance(found, dict):
        raise BadLine("JSON", "not an object")
    if unknown := found.keys() - _JSON_FIELDS:
        raise BadLine("JSON", f"unknown field {_quote(min(unknown))}")
    return Message(_body_of(found), rules.check_key(_text_of(found, "key")), _extra_of(found))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _body_of(found: Mapping[str, Any]) -> bytes:
    if ("body" in found) == ("body_base64" in found):
        raise BadLine("JSON", "body or body_base64, one of them")
    if "body" in found:
        return _text_of(found, "body")
    text = _text_of(found, "body_base64")
    try:
        return base64.b64decode(text, validate=True)
    except Base64Error as error:
        raise BadLine("JSON", f"body_base64: {error}") from None


def _text_of(found: Mapping[str, Any], name: str) -> bytes:
    text = found.get(name, "")
    if not isinstance(text, str):
        raise BadLine("JSON", f"{name}: not a string")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadLine("JSON", f"{name}: half a surrogate pair") from None


def _extra_of(found: Mapping[str, Any]) -> Extra | None:
    message_id = _text_of(found, "message_id")
    if len(message_id) > LONGEST_SHORT:
        raise BadLine("JSON", f"message_id: longer than {LONGEST_SHORT} bytes")
    headers = found.get("headers", {})
    if not isinstance(headers, dict):
        raise BadLine("JSON", "headers: not an object")
    if len(headers) > MOST_HEADERS:
        raise BadLine("JSON", f"headers: more than {MOST_HEADERS}")
    if sum(_check_header(name, value) for name, value in headers.items()) > HEADERS_LIMIT:
        raise BadLine("JSON", f"headers: more than {HEADERS_LIMIT >> 10} KiB")
    return Extra(headers, message_id.decode()) if headers or message_id else None


def _check_header(name: str, value: HeaderValue) -> int:
    """About how many bytes a header takes; raises BadLine."""
    try:
        length = len(name.encode("utf-8"))
        size = length + (len(value.encode("utf-8")) if isinstance(value, str) else 0)
    except UnicodeEncodeError:
        raise BadLine("JSON", "headers: half a surrogate pair") from None
    if not 0 < length <= LONGEST_SHORT:
        raise BadLine("JSON", f"headers: a name has 1 to {LONGEST_SHORT} bytes")
    if name.lower() in FORBIDDEN_HEADERS or name.lower().startswith(RESERVED_HEADERS):
        raise BadLine("JSON", f"headers: {_quote(name)} is not for clients")
    if value is not None and not isinstance(value, str | int | float):
        raise BadLine("JSON", f"headers: {_quote(name)}: neither text, number, true, false nor null")
    if isinstance(value, int) and not LOWEST_INTEGER <= value <= HIGHEST_INTEGER:
        raise BadLine("JSON", f"headers: {_quote(name)}: more than 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadLine("JSON", f"headers: {_quote(name)}: larger than a number of 64 bits can be")
    return size + 16


def _quote(text: str) -> str:
    return ascii(text if len(text) <= 32 else text[:31] + "…")  # noqa: PLR2004 - enough to find it by


_DECODERS: Mapping[Framing, Callable[[bytes, Rules], Message]] = {
    "raw": _decode_raw,
    "key-tab": _decode_key_tab,
    "json": _decode_json,
}


# --- lines out


def raw_line(delivery: Delivery) -> bytes:
    """The body as it is."""
    return delivery.body + b"\n"


def escaped_line(delivery: Delivery) -> bytes:
    r"""The body with LF as \n and backslash as \\, so that a line is a message whatever is in it."""
    return delivery.body.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") + b"\n"


def json_line(delivery: Delivery) -> bytes:
    """An object: key, headers, body or body_base64, redelivered."""
    details = delivery.details()
    document: dict[str, object] = {"key": details.key, "headers": details.headers}
    try:
        document["body"] = delivery.body.decode("utf-8")
    except UnicodeDecodeError:
        document["body_base64"] = base64.b64encode(delivery.body).decode()
    document["redelivered"] = delivery.redelivered
    try:
        return _dump(document)
    except ValueError:  # NaN or an infinity, which AMQP can carry
        document["headers"] = _finite(details.headers)
        return _dump(document)


def _dump(document: Mapping[str, object]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=_plain, allow_nan=False)
    return text.encode("utf-8", "replace") + b"\n"


def _plain(value: object) -> str:
    """What JSON has no word for: bytes."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _finite(value: object) -> object:
    """The same with numbers as text that are none to JSON."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case Mapping():
            return {name: _finite(each) for name, each in value.items()}
        case list():
            return [_finite(each) for each in value]
    return value


ENCODERS: Mapping[OutFraming, Callable[[Delivery], bytes]] = {
    "raw": raw_line,
    "escaped": escaped_line,
    "json": json_line,
}


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a subscriber says of what it was sent."""

    verb: Literal["ACK", "NACK"]
    id: int
    all_up_to: bool = False


def parse_settlement(line: bytes | None) -> Settlement:
    """From "ACK 7", "ACK *7" or "NACK 7"; raises BadLine."""
    if line is None:
        raise BadLine("TOOLONG", f"longer than {LONGEST_COMMAND} bytes")
    verb, _, number = line.decode("utf-8", "replace").strip().partition(" ")
    all_up_to = number.startswith("*")
    digits = number.removeprefix("*")
    if verb not in {"ACK", "NACK"} or (all_up_to and verb == "NACK"):
        raise BadLine("COMMAND", "expected ACK id, ACK *id or NACK id")
    if not (digits.isascii() and digits.isdigit()):
        raise BadLine("COMMAND", "no id: it stands at the beginning of each line")
    return Settlement("ACK" if verb == "ACK" else "NACK", int(digits), all_up_to)
