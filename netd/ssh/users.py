"""Who may log in: users of the configuration, with their keys as the files are now."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twisted.logger import Logger

from netd.console.command import Role
from netd.settings import Secret
from netd.ssh.authorized import LONGEST_FILE, OTHERS_WRITE, AuthorizedKey, parse_file
from netd.ssh.config import UserSettings

_log = Logger()


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in."""

    name: str
    role: Role
    password_hash: Secret | None
    keys: Sequence["KeyFile"]

    def find_key(self, blob: bytes) -> AuthorizedKey | None:
        """The line of one of the user's files that has this key."""
        return next((key for file in self.keys for key in file.read() if key.blob == blob), None)


class KeyFile:
    """An authorized_keys file, read again when it has changed."""

    def __init__(self, path: Path, service: str) -> None:
        self._path = path
        self._service = service
        self._stamp: tuple[int, ...] | None = None
        self._keys: list[AuthorizedKey] = []

    def read(self) -> Sequence[AuthorizedKey]:
        """The keys in it now; none, and a warning in the log once, when it cannot be used."""
        try:
            status = self._path.stat()
        except OSError as error:
            self._refuse((error.errno or 0,), f"cannot be read: {error.strerror}")
            return self._keys
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode, status.st_uid)
        if stamp == self._stamp:
            return self._keys
        if status.st_mode & OTHERS_WRITE or status.st_uid not in {0, os.geteuid()}:
            self._refuse(stamp, "others may write it: nobody logs in with it before it is chmod 644 and ours or root's")
        elif status.st_size > LONGEST_FILE:
            self._refuse(stamp, f"is larger than {LONGEST_FILE} bytes")
        else:
            self._load(stamp)
        return self._keys

    def _load(self, stamp: tuple[int, ...]) -> None:
        try:
            raw = self._path.read_bytes()
        except OSError as error:
            self._refuse((error.errno or 0,), f"cannot be read: {error.strerror}")
            return
        self._stamp = stamp
        self._keys, complaints = parse_file(raw)
        for complaint in complaints:
            _log.warn("{path}: {complaint}", path=str(self._path), complaint=complaint, service=self._service)

    def _refuse(self, stamp: tuple[int, ...], why: str) -> None:
        self._keys = []
        if stamp != self._stamp:
            self._stamp = stamp
            _log.warn("{path}: {why}", path=str(self._path), why=why, service=self._service)


def make_users(settings: Mapping[str, UserSettings], throwaway: Mapping[str, Path], service: str) -> dict[str, User]:
    """The users by name; `throwaway` has public keys that were made for some of them."""
    users = {}
    for name, user in settings.items():
        paths = [path for path in (user.authorized_keys_file, throwaway.get(name)) if path is not None]
        keys = [KeyFile(path, service) for path in paths]
        users[name] = User(name, Role.parse(user.role), user.password_hash, keys)
    return users
