"""AUTH: who may use the redis port. Passwords are checked in two threads; the reactor never waits for a hash.

Addresses take turns: whoever sends passwords from one of them, a thousand connections at once, waits for himself.
"""

from collections import deque
from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from netd import passwords
from netd.cache.config import CacheUserSettings
from netd.runtime import Reactor
from netd.source import source_of

HASHES_AT_ONCE = 2
"""Each takes 19 MiB and a core for 22 ms: more at once would only take them from everybody else."""
MOST_WAITING = 512
"""Passwords of one address that may wait to be checked: six seconds' worth; the next is refused without a check."""
MOST_WRONG = 6
"""Wrong passwords of one connection, as sshd_config(5) has it in MaxAuthTries; then it is closed."""

_log = Logger()


class LogIn:
    """The users of one service. Without any, nobody has to log in."""

    def __init__(self, users: Mapping[str, CacheUserSettings], reactor: Reactor) -> None:
        self._users = users
        self._reactor = reactor
        self._threads: ThreadPool | None = None
        self._waiting: dict[str, deque[tuple[str, bytes, Deferred[bool]]]] = {}
        """By address, the one whose turn it is first."""
        self._running = 0

    @property
    def required(self) -> bool:
        """Whether a client must log in before anything else."""
        return bool(self._users)

    def know(self, users: Mapping[str, CacheUserSettings]) -> None:
        """Have other users from now on; who is logged in stays."""
        self._users = users

    def check(self, host: str, user: str, password: bytes) -> Deferred[bool]:
        """Whether this is the user's password; `host` is the client's. An unknown user costs as much as a known one."""
        answer: Deferred[bool] = Deferred()
        waiting = self._waiting.setdefault(source_of(host), deque())
        if len(waiting) >= MOST_WAITING:
            answer.callback(False)
        else:
            waiting.append((user, password[: passwords.LONGEST_PASSWORD + 1], answer))
            self._go_on()
        return answer

    def _go_on(self) -> None:
        while self._waiting and self._running < HASHES_AT_ONCE:
            source, waiting = next(iter(self._waiting.items()))
            del self._waiting[source]
            user, password, answer = waiting.popleft()
            if waiting:
                self._waiting[source] = waiting  # behind the others
            self._running += 1
            checked: Deferred[bool] = deferToThreadPool(
                self._reactor, self._running_threads(), _check, self._users, user, password
            )
            checked.addErrback(self._unusable, user).addCallback(self._checked, answer)

    def _running_threads(self) -> ThreadPool:
        if self._threads is None:
            self._threads = ThreadPool(0, HASHES_AT_ONCE, name="cache-hashes")
            self._threads.start()
        return self._threads

    def _unusable(self, failure: Failure, user: str) -> bool:
        _log.warn("users.{user}.password_hash: {why}", user=user, why=failure.getErrorMessage())
        return False

    def _checked(self, right: bool, answer: Deferred[bool]) -> None:
        self._running -= 1
        self._go_on()
        answer.callback(right)

    def stop(self) -> None:
        """Let the threads go, and what waits for them."""
        self._waiting.clear()
        if self._threads is not None:
            self._threads.stop()
            self._threads = None


def _check(users: Mapping[str, CacheUserSettings], user: str, password: bytes) -> bool:
    """In a thread: read the hash anew, and compare."""
    settings = users.get(user)
    if settings is None:
        passwords.verify(password, passwords.decoy(user, [each.password_hash for each in users.values()]))
        return False
    return passwords.verify(password, passwords.check_hash(settings.password_hash.read()))
