"""Hashes of passwords: Argon2id is made, Argon2id and bcrypt's `$2b$` are checked.

A check takes tens of milliseconds by design, so the daemon makes it in a thread: both libraries let other threads run
meanwhile. Nothing here imports Twisted.
"""

import os
import re
from collections.abc import Iterable

import bcrypt
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from netd.settings import Secret

MEMORY_KIB, ITERATIONS, LANES = 19456, 2, 1
"""OWASP's first recommendation for Argon2id, 2026: 19 MiB, two passes; 22 ms on one core of a small server."""
SALT_BYTES, HASH_BYTES = 16, 32
"""RFC 9106, section 3.1: 128 bits of salt, 256 bits of tag."""

LARGEST_MEMORY_KIB = 1 << 20
"""A hash that asks for more than 1 GiB a check would be a way to stop the daemon, not to protect a password."""
LARGEST_COST = 16
"""Of bcrypt, four seconds; each step doubles it."""

LONGEST_PASSWORD = 1024
"""Bytes; a longer one is wrong without being hashed."""
BCRYPT_BYTES = 72
"""bcrypt looks at no more; its other implementations cut where this library refuses."""

_ARGON2ID = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,8}),t=(\d{1,4}),p=(\d{1,3})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,86}"
)
_BCRYPT = re.compile(r"\$2b\$(\d\d)\$[./A-Za-z0-9]{53}")


def hash_password(password: str) -> str:
    """The Argon2id hash of a password, as the configuration wants it; raises ValueError for one that cannot be used."""
    raw = password.encode()
    if not raw or len(raw) > LONGEST_PASSWORD:
        raise ValueError(f"a password has 1 to {LONGEST_PASSWORD} bytes")
    salted = Argon2id(
        salt=os.urandom(SALT_BYTES), length=HASH_BYTES, iterations=ITERATIONS, lanes=LANES, memory_cost=MEMORY_KIB
    )
    return salted.derive_phc_encoded(raw)


def check_hash(text: str) -> str:
    """The text if it is a hash that `verify` can check; raises ValueError, which never shows the text."""
    if match := _ARGON2ID.fullmatch(text):
        memory, iterations, lanes = map(int, match.groups())
        if 8 * lanes <= memory <= LARGEST_MEMORY_KIB and iterations and lanes:
            return text
        raise ValueError("an Argon2id hash whose cost is out of bounds: make it with `netdctl hash-password`")
    if match := _BCRYPT.fullmatch(text):
        if 4 <= int(match[1]) <= LARGEST_COST:  # noqa: PLR2004 - bcrypt's own least cost
            return text
        raise ValueError(f"a bcrypt hash whose cost is not 4 to {LARGEST_COST}")
    raise ValueError('expected a hash that begins with "$argon2id$" or "$2b$": make it with `netdctl hash-password`')


def verify(password: bytes, text: str) -> bool:
    """Whether this is the password of a hash. It takes the hash's time: call it in a thread."""
    if not password or len(password) > LONGEST_PASSWORD or b"\0" in password:
        return False
    if text.startswith("$2b$"):
        return bcrypt.checkpw(password[:BCRYPT_BYTES], text.encode())
    try:
        Argon2id.verify_phc_encoded(password, text)
    except InvalidKey:
        return False
    return True


_NO_ARGON2ID = "$bm8gc3VjaCB1c2VyICAgIA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
_NO_BCRYPT = "." * 53
"""A salt, and what no password comes to with it."""
UNKNOWN_USER = f"$argon2id$v=19$m={MEMORY_KIB},t={ITERATIONS},p={LANES}{_NO_ARGON2ID}"
"""A hash that no password has, as costly as those that are made here."""


def decoy(name: str, hashes: Iterable[Secret]) -> str:
    """What the password of an unknown user is checked against, so that timing tells no names.

    No password has this hash, and it costs what one of the users' costs. Where theirs differ, a name always gets the
    same, which nobody else can foresee: Python's hash() is keyed anew in each process.
    """
    costs = [found for each in hashes if (found := _of_nobody(each))]
    return costs[hash(name) % len(costs)] if costs else UNKNOWN_USER


def _of_nobody(secret: Secret) -> str:
    """A hash with its cost and without its password; "" when it cannot be read or used."""
    try:
        text = check_hash(secret.read())
    except (OSError, ValueError):
        return ""
    if match := _BCRYPT.fullmatch(text):
        return f"$2b${match[1]}${_NO_BCRYPT}"
    return "$".join(text.split("$")[:4]) + _NO_ARGON2ID
