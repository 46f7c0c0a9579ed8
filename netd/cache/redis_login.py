"""AUTH: who may use the redis port. Passwords are checked in two threads; the reactor never waits for a hash."""

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from netd import passwords
from netd.cache.config import CacheUserSettings
from netd.runtime import Reactor

HASHES_AT_ONCE = 2
"""Each takes 19 MiB and a core for 22 ms: more at once would only take them from everybody else."""
MOST_WAITING = 512
"""Passwords that may wait to be checked: eleven seconds' worth; who comes then is refused without a check."""

_log = Logger()


class LogIn:
    """The users of one service. Without any, nobody has to log in."""

    def __init__(self, users: Mapping[str, CacheUserSettings], reactor: Reactor) -> None:
        self._users = users
        self._reactor = reactor
        self._threads: ThreadPool | None = None
        self._waiting = 0

    @property
    def required(self) -> bool:
        """Whether a client must log in before anything else."""
        return bool(self._users)

    def know(self, users: Mapping[str, CacheUserSettings]) -> None:
        """Have other users from now on; who is logged in stays."""
        self._users = users

    def check(self, user: str, password: bytes) -> Deferred[bool]:
        """Whether this is the user's password. An unknown user costs as much time as a known one."""
        if self._threads is None:
            self._threads = ThreadPool(0, HASHES_AT_ONCE, name="cache-hashes")
            self._threads.start()
        self._waiting += 1
        settings = self._users.get(user)
        checked: Deferred[bool] = deferToThreadPool(
            self._reactor, self._threads, _check, settings, password, self._waiting > MOST_WAITING
        )
        return checked.addErrback(self._unusable, user).addCallback(self._checked)

    def _unusable(self, failure: Failure, user: str) -> bool:
        _log.warn("users.{user}.password_hash: {why}", user=user, why=failure.getErrorMessage())
        return False

    def _checked(self, right: bool) -> bool:
        self._waiting -= 1
        return right

    def stop(self) -> None:
        """Let the threads go."""
        if self._threads is not None:
            self._threads.stop()
            self._threads = None


def _check(settings: CacheUserSettings | None, password: bytes, hopeless: bool) -> bool:
    """In a thread: read the hash anew, and compare."""
    if hopeless:
        return False
    text = settings.password_hash.read() if settings else passwords.UNKNOWN_USER
    return passwords.verify(password, passwords.check_hash(text)) and settings is not None
