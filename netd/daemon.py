"""Config → running services: start in order, drain together, stop in reverse.

The way down. The first request to stop drains every service at once: no new connections, what is in flight goes on.
When nothing is left, or `drain_timeout` is over, or a second request comes, the services are stopped in reverse order,
so that the first of the file, an operator's console say, goes last.

A service that cannot start takes those down that have, and the daemon leaves with the reason.
"""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import MultiService
from twisted.application.service import Service as TwistedService
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.config import Config
from netd.kinds import KINDS
from netd.log import LogOutput
from netd.ports import Ports
from netd.runtime import CannotStart, Reactor, Runtime
from netd.service import Service

STATE_DIRECTORY_MODE = 0o700

_log = Logger()


class Daemon(MultiService):
    """The tree of services made from a configuration.

    `leave` is called once, when everything has stopped: with None after a stop that was asked for, else with the one
    line that says why the daemon could not start.
    """

    def __init__(
        self, config: Config, log: LogOutput, reactor: Reactor, leave: Callable[[CannotStart | None], object]
    ) -> None:
        super().__init__()
        self._config = config
        self._reactor = reactor
        self._leave = leave
        self._starting: Deferred[None] | None = None
        self._draining: Deferred[list[tuple[bool, Any]]] | None = None
        self._stopping: Deferred[None] | None = None
        runtime = Runtime(reactor, log, config.state_dir, Ports(reactor))
        for each in config.services:
            KINDS[each.kind].load_service()(each, runtime).setServiceParent(self)
        runtime.services = tuple(self)

    def __iter__(self) -> Iterator[Service]:
        return (each for each in super().__iter__() if isinstance(each, Service))

    # --- the way up

    def startService(self) -> None:
        """Start once the reactor runs, so that a failure can still be told by the exit status."""
        TwistedService.startService(self)
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self._started, lambda failure: Deferred.fromCoroutine(self._start_failed(failure)))

    async def _start(self) -> None:
        for warning in self._config.warnings:
            _log.warn("{warning}", warning=warning)
        self._make_state_directory()
        for service in self:
            await service.startService()

    def _started(self, _: None) -> None:
        self._starting = None
        ports = sum(len(listener.bound) for service in self for listener in service.listeners)
        _log.info("ready: {services} service(s) on {ports} port(s)", services=len(self.services), ports=ports)

    async def _start_failed(self, failure: Failure) -> None:
        self._starting = None
        if failure.check(CancelledError):
            await self._go(None)
            return
        reason = failure.value
        if not isinstance(reason, CannotStart):
            _log.failure("unexpected error while starting", failure)
            reason = CannotStart(f"unexpected error: {failure.getErrorMessage()}")
        _log.critical("cannot start: {reason}", reason=str(reason))
        await self._go(reason)

    def _make_state_directory(self) -> None:
        path = self._config.state_dir
        try:
            path.mkdir(mode=STATE_DIRECTORY_MODE, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise CannotStart(f"daemon.state_dir: {path}: not writable: {error.strerror}") from None

    # --- the way down

    def request_stop(self, reason: str) -> None:
        """Drain, stop and leave; asked a second time, cut what is still draining."""
        if self._draining is not None:
            _log.info("{reason} again: cutting what is left", reason=reason)
            self._draining.cancel()
        elif self._starting is not None:
            self._starting.cancel()
        elif self._stopping is None:
            _log.info(
                "{reason}: draining {connections} connection(s) for at most {seconds:g} s",
                reason=reason,
                connections=self._connections(),
                seconds=self._config.daemon.drain_timeout,
            )
            going = Deferred.fromCoroutine(self._drain_and_go())
            going.addErrback(lambda failure: _log.failure("unexpected error while stopping", failure))

    async def _drain_and_go(self) -> None:
        draining: Deferred[list[tuple[bool, Any]]] = DeferredList(
            [Deferred.fromCoroutine(each.drain()) for each in self], consumeErrors=True
        )
        self._draining = draining
        timeout = self._config.daemon.drain_timeout
        timer = self._reactor.callLater(timeout, draining.cancel) if timeout else None
        outcomes = await draining
        if timer is not None and timer.active():
            timer.cancel()
        for service, (done, failure) in zip(self, outcomes, strict=True):
            if not done and not failure.check(CancelledError):
                _log.failure("draining failed", failure, service=service.key)
        if left := self._connections():
            _log.warn("cutting {connections} connection(s) that did not finish", connections=left)
        await self._go(None)

    def _connections(self) -> int:
        return sum(len(listener.connections) for service in self for listener in service.listeners)

    async def _go(self, reason: CannotStart | None) -> None:
        await self.stopService()
        self._leave(reason)

    def stopService(self) -> Deferred[None]:
        """Stop every service at once, in reverse order; asked again, wait for the same end."""
        stopped: Deferred[None] = Deferred()
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop())
        self._stopping.addCallback(stopped.callback)
        return stopped

    async def _stop(self) -> None:
        TwistedService.stopService(self)
        for service in reversed(list(self)):
            if not service.running:
                continue
            try:
                await service.stopService()
            except Exception:  # noqa: BLE001 - one service that fails to stop must not keep the others open
                _log.failure("stopping failed", service=service.key)
        _log.info("stopped")
