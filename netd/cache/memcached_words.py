"""The words of memcached's text protocol: numbers as C reads them, and keys in base64.

memcached 1.6 reads numbers by strtol(3) and its sisters and cuts them to the width it wants (util.c, safe_strtol).
Equal answers need the same: a leading plus sign, `5<TAB>x` for 5, 4294967301 for 5 where 32 bits are kept.
"""

import re
from binascii import a2b_base64

_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)(?:[ \t\n\v\f\r\0]|\Z)")
_OTHER_THAN_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]")

_INT32, _UINT32, _INT64, _UINT64 = 1 << 31, 1 << 32, 1 << 63, 1 << 64

MOST_DIGITS = 400
"""Characters of a number that are looked at; what is longer cannot be one that fits."""


def signed(word: bytes) -> int | None:
    """As safe_strtol: 64 bits, cut to 32 with a sign; None when it is no number."""
    if word.isdigit() and len(word) < 10:  # noqa: PLR2004 - below 2**31 nothing is cut: the usual case
        return int(word)
    match = _NUMBER.match(word[:MOST_DIGITS])
    if match is None:
        return None
    value = int(match[2]) * (-1 if match[1] == b"-" else 1)
    if not -_INT64 <= value < _INT64:
        return None
    return (value + _INT32) % _UINT32 - _INT32


def unsigned64(word: bytes) -> int | None:
    """As safe_strtoull: 64 bits without a sign."""
    if word.isdigit() and len(word) < 19:  # noqa: PLR2004 - below 2**63: the usual case
        return int(word)
    match = _NUMBER.match(word[:MOST_DIGITS])
    if match is None or (value := int(match[2])) >= _UINT64:
        return None
    if match[1] == b"-":
        value = -value % _UINT64
    # C lets a negative number pass as long as it looks positive, and then sees it
    if value >= _INT64 and b"-" in word:
        return None
    return value


def unsigned32(word: bytes) -> int | None:
    """As safe_strtoul: 64 bits, cut to 32."""
    value = unsigned64(word)
    return None if value is None else value % _UINT32


def decode_key(word: bytes) -> bytes | None:
    """A key given in base64; None when it is not.

    As memcached's base64.c: other characters are skipped, the first group that is padded is the last.
    """
    text = _OTHER_THAN_BASE64.sub(b"", word)
    if not text or len(text) % 4:
        return None
    decoded = b""
    for at in range(0, len(text), 4):
        group = text[at : at + 4]
        padding = group.count(b"=")
        if padding > 2:  # noqa: PLR2004 - three of four would leave six bits
            return None
        decoded += a2b_base64(group.replace(b"=", b"A"))[: 3 - padding]
        if padding:
            break
    return decoded
