"""The thread on which a spool works: one, so that what is asked for is done in order."""

from collections.abc import Callable
from typing import TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class SpoolThread:
    """Does one thing after the other, while the reactor goes on."""

    def __init__(self, reactor: IReactorFromThreads, name: str) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(1, 1, name)

    def start(self) -> None:
        """Before the first call."""
        self._pool.start()

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """Do it on the thread."""
        return cast("Deferred[T]", deferToThreadPool(self._reactor, self._pool, work))

    def stop(self) -> None:
        """Wait for what is being done."""
        self._pool.stop()
