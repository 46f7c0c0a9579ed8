"""AMQP 0-9-1's notation of values: short strings, field tables, and the properties of a message.

The letters of field types are RabbitMQ's, which differ from the specification's and are what every client uses
(https://www.rabbitmq.com/amqp-0-9-1-errata, section 3).
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Field: TypeAlias = "bool | int | float | str | bytes | Sequence[Field] | Mapping[str, Field] | None"
"""A value in a table. Decimals are read as strings, timestamps as integers; bytes are what is not UTF-8."""

SHORT_STRING = 255
"""Bytes of a short string at most: routing keys, names of headers, most properties."""

DEEPEST = 32
"""Tables and lists within one another at most; RabbitMQ's own x-death is two deep."""

PERSISTENT = 2
"""The delivery mode of a message that a broker keeps on disk."""


class FieldError(Exception):
    """A value that AMQP cannot carry, or bytes that are no AMQP values."""


# --- writing

_INT32, _INT64 = 1 << 31, 1 << 63


def short_string(text: str | bytes) -> bytes:
    """A string of at most 255 bytes behind its length."""
    data = text.encode() if isinstance(text, str) else text
    if len(data) > SHORT_STRING:
        raise FieldError(f"is {len(data)} bytes long; AMQP's limit is {SHORT_STRING}")
    return bytes([len(data)]) + data


def long_string(data: bytes) -> bytes:
    """Bytes behind their length."""
    return struct.pack(">I", len(data)) + data


def table(fields: Mapping[str, Field], depth: int = 1) -> bytes:
    """A field table; FieldError names the header that cannot be carried."""
    parts = []
    for name, value in fields.items():
        try:
            parts += [short_string(name), _field(value, depth)]
        except FieldError as error:
            raise FieldError(f"header {name[:40]!r}: {error}") from None
        except UnicodeEncodeError:
            raise FieldError("a header is not Unicode: it has half of a surrogate pair") from None
    return long_string(b"".join(parts))


def _field(value: Field, depth: int) -> bytes:
    match value:
        case None:
            return b"V"
        case bool() | int() | float():
            return _number(value)
        case str():
            return b"S" + long_string(value.encode())
        case bytes():
            return b"x" + long_string(value)
    if depth == DEEPEST:
        raise FieldError(f"is nested deeper than {DEEPEST}")
    if isinstance(value, Mapping):
        return b"F" + table(value, depth + 1)
    return b"A" + long_string(b"".join(_field(each, depth + 1) for each in value))


def _number(value: float) -> bytes:
    match value:
        case bool():
            return b"t\1" if value else b"t\0"
        case int() if -_INT32 <= value < _INT32:
            return b"I" + struct.pack(">i", value)
        case int() if -_INT64 <= value < _INT64:
            return b"l" + struct.pack(">q", value)
        case int():
            raise FieldError("is an integer of more than 64 bits")
    return b"d" + struct.pack(">d", value)


# --- reading

_NUMBERS: Mapping[bytes, struct.Struct] = {
    letter: struct.Struct(">" + form)
    for letter, form in {
        b"b": "b",
        b"B": "B",
        b"s": "h",
        b"u": "H",
        b"I": "i",
        b"i": "I",
        b"l": "q",
        b"L": "q",
        b"T": "Q",
        b"f": "f",
        b"d": "d",
    }.items()
}
_DECIMAL = struct.Struct(">Bi")


class Reader:
    """Reads values from front to back; FieldError when the bytes are none, or too few."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.left:
            raise FieldError("ends in the middle of a value")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, form: struct.Struct) -> Any:
        """A number of this form."""
        return form.unpack(self.take(form.size))[0]

    def octet(self) -> int:
        """A number of one byte."""
        return self.take(1)[0]

    def short_string(self) -> str:
        """A string behind one byte of length; bytes that are not UTF-8 come as U+FFFD."""
        return self.take(self.octet()).decode(errors="replace")

    def long_string(self) -> bytes:
        """Bytes behind four bytes of length."""
        return self.take(int.from_bytes(self.take(4), "big"))

    def table(self, depth: int = 1) -> dict[str, Field]:
        """A field table."""
        inner = Reader(self.long_string())
        fields: dict[str, Field] = {}
        while inner.left:
            name = inner.short_string()
            fields[name] = inner.field(depth)
        return fields

    def field(self, depth: int) -> Field:
        """A value behind the letter of its type."""
        letter = self.take(1)
        if form := _NUMBERS.get(letter):
            number: int | float = self.number(form)
            return number
        value: Field = None
        match letter:
            case b"V":
                pass
            case b"t":
                value = self.octet() != 0
            case b"S" | b"x":
                value = _text(self.long_string())
            case b"D":
                value = _decimal(*_DECIMAL.unpack(self.take(_DECIMAL.size)))
            case b"F" | b"A" if depth == DEEPEST:
                raise FieldError(f"is nested deeper than {DEEPEST}")
            case b"F":
                value = self.table(depth + 1)
            case b"A":
                value = self._list(depth + 1)
            case _:
                raise FieldError(f"has a value of the unknown type {letter!r}")
        return value

    def _list(self, depth: int) -> list[Field]:
        inner = Reader(self.long_string())
        items: list[Field] = []
        while inner.left:
            items.append(inner.field(depth))
        return items


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _decimal(scale: int, value: int) -> str:
    if not scale:
        return str(value)
    digits = str(abs(value)).rjust(scale + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"


# --- the properties of a message


@dataclass(frozen=True, slots=True)
class Properties:
    """What a message carries beside its body (class basic); None is not given."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Field] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None

    def encode(self) -> bytes:
        """Flags and values, as they stand in a content header."""
        flags, parts = 0, []
        for bit, (name, kind) in _PROPERTIES.items():
            value = getattr(self, name)
            if value is not None:
                flags |= bit
                parts.append(_write_property(name, kind, value))
        return b"".join((struct.pack(">H", flags), *parts))

    @classmethod
    def decode(cls, data: bytes, at: int = 0) -> "Properties":
        """Read them; FieldError when the bytes are none."""
        reader = Reader(data, at)
        flags = reader.number(_FLAGS)
        if flags & ~sum(_PROPERTIES):
            raise FieldError("has properties that AMQP 0-9-1 does not know")
        given: dict[str, Any] = {}
        for bit, (name, kind) in _PROPERTIES.items():
            if flags & bit:
                given[name] = _read_property(reader, kind)
        return cls(**given)


_FLAGS = struct.Struct(">H")
_OCTET, _TIMESTAMP = struct.Struct(">B"), struct.Struct(">Q")
_KINDS: Mapping[str, struct.Struct | type] = {
    "headers": dict,
    "delivery_mode": _OCTET,
    "priority": _OCTET,
    "timestamp": _TIMESTAMP,
}
_PROPERTIES: Mapping[int, tuple[str, struct.Struct | type]] = {
    1 << (15 - index): (name, _KINDS.get(name, str)) for index, name in enumerate(Properties.__slots__)
}
"""The bit of each property's flag, in the order of their values."""


def _write_property(name: str, kind: struct.Struct | type, value: Any) -> bytes:
    try:
        if kind is dict:
            return table(value)
        return kind.pack(value) if isinstance(kind, struct.Struct) else short_string(value)
    except FieldError as error:
        raise error if kind is dict else FieldError(f"{name} {error}") from None
    except (struct.error, UnicodeEncodeError):
        raise FieldError(f"{name} cannot be {value!r}") from None


def _read_property(reader: Reader, kind: struct.Struct | type) -> Any:
    if kind is dict:
        return reader.table()
    return reader.number(kind) if isinstance(kind, struct.Struct) else reader.short_string()
