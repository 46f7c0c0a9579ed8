"""The arguments of Redis commands: numbers, options and times, read as Redis reads them, with its own error texts."""

import re
from fractions import Fraction
from typing import Final

from netd.cache.requests import Problem

FLUSHES: Final = frozenset({b"FLUSHDB", b"FLUSHALL"})
LARGEST, SMALLEST = 2**63 - 1, -(2**63)
"""Redis's integers have 64 bits with a sign."""
LONGEST_EXPONENT = 4900
"""Decimal digits before the point that a C long double can have."""
MANTISSA = 64
"""Bits of a C long double on x86-64."""


class Refused(Exception):
    """A command cannot be done; the reply says why."""

    def __init__(self, text: str, code: bytes = b"ERR") -> None:
        super().__init__(text)
        self.problem = Problem(text.encode("latin-1"), code)


NOT_AN_INTEGER: Final = "value is not an integer or out of range"
SYNTAX: Final = "syntax error"
TOO_LARGE: Final = "string exceeds maximum allowed size (proto-max-bulk-len)"
OVERFLOW: Final = "increment or decrement would overflow"

_INTEGER = re.compile(rb"-?[1-9][0-9]{0,18}|0")
_FLOAT = re.compile(rb"[+-]?(?:[0-9]{1,4096}\.?[0-9]{0,4096}|\.[0-9]{1,4096})(?:[eE]([+-]?[0-9]{1,5}))?")
_INFINITE = re.compile(rb"[+-]?inf(inity)?", re.IGNORECASE)


def integer(word: bytes, problem: str = NOT_AN_INTEGER) -> int:
    """A number of 64 bits (util.c, string2ll): no spaces, plus signs or leading zeros."""
    if _INTEGER.fullmatch(word) and SMALLEST <= (number := int(word)) <= LARGEST:
        return number
    raise Refused(problem)


def upper(word: bytes) -> str:
    """An option's name."""
    return word.decode("latin-1").upper()


def wrong_arity(name: str) -> Refused:
    """What a command says that was given too few words or too many."""
    return Refused(f"wrong number of arguments for '{name.lower()}' command")


# --- times


def milliseconds(word: bytes, unit: str, now: int, name: str) -> int:
    """The Unix time in milliseconds of an option EX, PX, EXAT or PXAT (t_string.c, getExpireMillisecondsOrReply)."""
    when = integer(word)
    seconds = unit.startswith("EX")
    base = 0 if unit.endswith("AT") else now
    if when <= 0 or (seconds and when > LARGEST // 1000):
        raise invalid_expire(name)
    when = when * 1000 if seconds else when
    if when > LARGEST - base:
        raise invalid_expire(name)
    return when + base


def invalid_expire(name: str) -> Refused:
    """What a command says whose time to live is none."""
    return Refused(f"invalid expire time in '{name.lower()}' command")


# --- doubles, as INCRBYFLOAT adds them


def long_double(word: bytes) -> Fraction:
    """A number as strtold reads it, rounded to what a long double can hold."""
    if _INFINITE.fullmatch(word):
        raise Refused("increment would produce NaN or Infinity")
    match = _FLOAT.fullmatch(word)
    if match is None or abs(int(match[1] or 0)) > LONGEST_EXPONENT:
        raise Refused("value is not a valid float")
    return _rounded(Fraction(word.decode()))


def add(first: Fraction, second: Fraction) -> bytes:
    """The sum as Redis writes it: at most 17 digits after the point, no zeros at the end (util.c, ld2string)."""
    total = _rounded(first + second)
    digits = f"{abs(round(total * 10**17)):018d}"
    whole, fraction = digits[:-17], digits[-17:].rstrip("0")
    text = f"{whole}.{fraction}" if fraction else whole
    return (f"-{text}" if total < 0 and text != "0" else text).encode()


def _rounded(number: Fraction) -> Fraction:
    if not number:
        return number
    shift = MANTISSA - (number.numerator.bit_length() - number.denominator.bit_length())
    scale = Fraction(2) ** shift
    if abs(number * scale) >= 2**MANTISSA:
        scale /= 2
    return Fraction(round(number * scale)) / scale


# --- patterns

LONGEST_PATTERN = 4096
"""Bytes of a pattern; Redis has no limit. It takes 30 ms at most to prepare; one of a megabyte would take minutes."""


def glob(pattern: bytes) -> re.Pattern[bytes]:
    """What KEYS and SCAN … MATCH match with (util.c, stringmatchlen): * ? [a-z] [^a] and a backslash before any.

    What stands between two stars is looked for once, from the left, and never again: no pattern takes long. Raises
    Refused.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise Refused(f"pattern is longer than {LONGEST_PATTERN} bytes")
    pieces: list[bytes] = [b""]
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        at += 1
        if byte == b"*":
            pieces.append(b"")
            continue
        if byte == b"?":
            part = b"."
        elif byte == b"[":
            part, at = _one_of(pattern, at)
        else:
            if byte == b"\\" and at < len(pattern):
                byte = pattern[at : at + 1]
                at += 1
            part = re.escape(byte)
        pieces[-1] += part
    first, *between = pieces
    last = b".*" + between.pop() if between else b""
    return re.compile(first + b"".join(b"(?>.*?%b)" % each for each in between if each) + last, re.DOTALL)


def _one_of(pattern: bytes, at: int) -> tuple[bytes, int]:
    """A bracket expression from behind its bracket, and where it ends: unclosed, with the pattern."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    allowed: set[int] = set()
    while at < len(pattern) and pattern[at] != ord("]"):
        if pattern[at] == ord("\\") and at + 1 < len(pattern):
            allowed.add(pattern[at + 1])
            at += 2
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            allowed.update(range(low, high + 1))
            at += 3
        else:
            allowed.add(pattern[at])
            at += 1
    members = b"".join(b"\\x%02x" % byte for byte in sorted(allowed))
    if not members:
        return (b"." if negated else b"(?!)"), at + 1
    return b"[%b%b]" % (b"^" if negated else b"", members), at + 1
