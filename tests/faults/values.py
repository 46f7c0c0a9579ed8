"""What is known of cached values, by all clients together: which version of a key was written, and by whom it is seen.

A value names its key and its version, and is as long as its version says. So a value that is cut, mixed, or another
key's shows; and each key has one writer, so that its versions only rise, whoever looks.
"""

import threading


class ImpossibleValue(Exception):
    """A value that nobody wrote, or one that is older than what was acknowledged."""


class Values:
    """The versions of keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._lock = threading.Lock()
        self._tried: dict[str, int] = {}
        self._acknowledged: dict[str, int] = {}

    def key(self, name: str) -> str:
        """Make a key known; it is its name."""
        with self._lock:
            self.keys.append(name)
            self._tried[name] = self._acknowledged[name] = 0
        return name

    def try_next(self, key: str) -> int:
        """The version that its writer is about to write."""
        self._tried[key] += 1
        return self._tried[key]

    def acknowledge(self, key: str, version: int) -> None:
        """The writer was told that it is stored."""
        self._acknowledged[key] = version

    def acknowledged(self, key: str) -> int:
        """The newest version that was; who asks from now on must not be given an older one."""
        return self._acknowledged[key]

    @staticmethod
    def value(key: str, version: int) -> bytes:
        """What is written."""
        return b"%s:%d:" % (key.encode(), version) + b"%c" % (97 + version % 26) * (version * 7919 % 3000)

    def check(self, key: str, value: bytes, floor: int) -> int:
        """Which version a value is; raises ImpossibleValue."""
        try:
            version = int(value.split(b":", 2)[1])
        except (ValueError, IndexError):
            raise ImpossibleValue(f"{key} is {value[:40]!r}…") from None
        if value != self.value(key, version):
            raise ImpossibleValue(f"{key} is {value[:40]!r}… of {len(value)} bytes")
        if not floor <= version <= self._tried[key]:
            raise ImpossibleValue(f"{key} is of version {version}, not {floor} to {self._tried[key]}")
        return version
