"""Config → running services: start in order, follow the file, drain together, stop in reverse.

The way up. Every service is prepared, in the order of the file, and none serves before all are. A service that cannot
start takes those down that have, and the daemon leaves with the reason.

A reload is the same for what is new; see `netd.reload`. What is removed, or replaced by a new service of the same name,
drains beside the others and goes.

The way down. The first request to stop drains every service at once: no new connections, what is in flight goes on.
When nothing is left, or `drain_timeout` is over, or a second request comes, the services are stopped in reverse order,
and operators' ways in last of all.
"""

import os
import stat
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar, cast

from twisted.application.service import MultiService
from twisted.application.service import Service as TwistedService
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.config import Config, ConfigError, ServiceConfig, load
from netd.kinds import kind_of
from netd.log import LogOutput
from netd.ports import Ports, check_endpoints
from netd.reload import CannotReload, Difference, compare
from netd.runtime import CannotStart, Reactor, Runtime
from netd.service import Service

STATE_DIRECTORY_MODE = 0o700

Phase = Literal["ready", "reloading", "stopping"]

Announce = Callable[[Phase, str], object]
"""Hears of each phase the daemon comes to, with its state in a line: the service manager, see `netd.systemd`."""

T = TypeVar("T")

_log = Logger()


def _to_the_end(work: Coroutine[Any, Any, T]) -> "Deferred[T]":
    """Work that is not left half done when who waits for it goes away, as netdctl at Ctrl-C."""
    waiting: Deferred[T] = Deferred()
    Deferred.fromCoroutine(work).addCallbacks(waiting.callback, waiting.errback)
    return waiting


class Daemon(MultiService):
    """The tree of services made from a configuration.

    `leave` is called once, when everything has stopped: with None after a stop that was asked for, else with the one
    line that says why the daemon could not start.
    """

    def __init__(
        self,
        config: Config,
        log: LogOutput,
        reactor: Reactor,
        leave: Callable[[CannotStart | None], object],
        announce: Announce,
    ) -> None:
        super().__init__()
        self._config = config
        self._reactor = reactor
        self._leave = leave
        self._announce = announce
        self._starting: Deferred[None] | None = None
        self._draining: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        self._ending: list[Deferred[None]] = []
        """Of services that a reload has taken out, and that are drained but have not stopped yet."""
        self._log = log
        self._busy = ""
        self._last_reload = ""
        self.runtime = Runtime(reactor, log, config.state_dir, Ports(reactor), config, self)
        for each in config.tables:
            self._build(each).setServiceParent(self)
        self.runtime.services = tuple(self)

    def _build(self, config: ServiceConfig) -> Service:
        return kind_of(config.kind).load_service()(config, self.runtime)

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
            await service.prepare()
        for service in self:
            await service.startService()

    def _started(self, _: None) -> None:
        self._starting = None
        ports = sum(len(listener.bound) for service in self for listener in service.listeners)
        _log.info("ready: {services} service(s) on {ports} port(s)", services=len(self.services), ports=ports)
        self._announce("ready", self._state())

    def _state(self) -> str:
        """What it does, for a person, in a line."""
        ports = sum(len(listener.bound) for service in self.runtime.services for listener in service.listeners)
        state = f"{len(self.runtime.services)} service(s) on {ports} port(s)"
        if drained := [service.key for service in self.runtime.services if service.draining]:
            state += f"; drained: {', '.join(drained)}"
        return f"{state}; {self._last_reload}" if self._last_reload else state

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
        self._announce("stopping", f"cannot start: {reason}")
        await self._go(reason)

    def _make_state_directory(self) -> None:
        path = self._config.state_dir
        try:
            path.mkdir(mode=STATE_DIRECTORY_MODE, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
            status = path.stat()
        except OSError as error:
            raise CannotStart(f"daemon.state_dir: {path}: not writable: {error.strerror}") from None
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CannotStart(f"daemon.state_dir: {path}: others may write to it: chmod 700")
        if status.st_uid not in {0, os.geteuid()}:
            raise CannotStart(f"daemon.state_dir: {path}: belongs to user {status.st_uid}, not to this one: chown it")

    # --- following the file

    async def reload(self) -> Difference:
        """Read the configuration again and go over to it, or change nothing; raises CannotReload with every reason."""
        return await _to_the_end(self._reload())

    async def _reload(self) -> Difference:
        with self._alone("a reload"):
            self._announce("reloading", "reloading")
            try:
                new = load(self._config.path)
                if mistakes := check_endpoints(new):
                    raise ConfigError(mistakes)
                difference = compare(self._config, new)
                await self._go_over(new, difference)
                self._last_reload = f"reloaded: {difference}"
            except (ConfigError, CannotReload) as error:
                reasons = error.mistakes if isinstance(error, ConfigError) else error.reasons
                self._last_reload = f"not reloaded: {reasons[0]}"
                for reason in reasons:
                    _log.error("not reloaded: {reason}", reason=reason)
                raise CannotReload(reasons) from None
        for warning in new.warnings:
            _log.warn("{warning}", warning=warning)
        _log.info("reloaded: {difference}", difference=str(difference))
        return difference

    def request_reload(self, reason: str) -> None:
        """The same for who cannot wait for an answer: the log has it."""
        if busy := self._under_way():
            _log.error("{reason}: not reloaded: {busy}", reason=reason, busy=busy)
            return
        _log.info("{reason}: reloading {path}", reason=reason, path=str(self._config.path))
        reloading = Deferred.fromCoroutine(self.reload())
        reloading.addErrback(lambda failure: failure.trap(CannotReload))
        reloading.addErrback(lambda failure: _log.failure("unexpected error while reloading", failure))

    async def _go_over(self, new: Config, difference: Difference) -> None:
        running = {service.key: service for service in self.runtime.services}
        fresh: list[Service] = []
        commits: list[Callable[[], None]] = []
        reasons: list[str] = []
        for config in [*difference.changed, *difference.added]:
            if config.key in running and running[config.key].draining:
                reasons.append(f"{config.key} is drained: resume it first")
                continue
            try:
                commit = await running[config.key].adapt(config) if config.key in running else None
                if commit is not None:
                    commits.append(commit)
                else:
                    fresh.append(self._build(config))
                    await fresh[-1].prepare()
            except CannotStart as error:
                reasons.append(f"{new.path}: {error}")
            except Exception as error:  # noqa: BLE001 - whatever one raises, what has been prepared is given back
                _log.failure("unexpected error while preparing", service=config.key)
                reasons.append(f"{config.key}: unexpected error: {error or type(error).__name__}; the log has more")
        if self._draining is not None or self._stopping is not None:
            reasons.append("the daemon is stopping")
        if reasons:
            for service in fresh:
                await self._end(service)
            await self.runtime.ports.close_unserved()
            raise CannotReload(reasons)
        self._commit(new, difference, fresh, commits)
        await self.runtime.ports.close_unserved()

    def _commit(
        self, new: Config, difference: Difference, fresh: Sequence[Service], commits: Sequence[Callable[[], None]]
    ) -> None:
        self._config = self.runtime.config = new
        if "log.level" in difference.general:
            self._log.level = new.log.level
        for commit in commits:
            commit()
        gone = {*difference.removed, *(service.key for service in fresh)}
        old = [service for service in self.runtime.services if service.key in gone]
        kept = {service.key: service for service in [*self.runtime.services, *fresh] if service not in old}
        for service in fresh:
            service.setServiceParent(self)  # which starts it
        self.runtime.services = tuple(kept[each.key] for each in new.tables)
        going = [service for service in self if service not in self.runtime.services]  # those of earlier reloads, too
        self.services = [*going, *self.runtime.services]
        for service in old:
            retiring = Deferred.fromCoroutine(self._retire(service))
            retiring.addErrback(lambda failure: _log.failure("unexpected error while a service went", failure))

    async def _retire(self, service: Service) -> None:
        service.draining = True
        await self._drain([service])
        if self._stopping is None:
            ended: Deferred[None] = Deferred()
            self._ending.append(ended)
            try:
                await cast("Awaitable[object]", service.disownServiceParent())
            finally:
                self._ending.remove(ended)
                ended.callback(None)

    async def _end(self, service: Service) -> None:
        """Stop one; that it fails to must not keep the others open."""
        try:
            await (service.stopService() if service.running else service.stop())
        except Exception:  # noqa: BLE001 - whatever it raises
            _log.failure("stopping failed", service=service.key)

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """What changes the set of services goes one at a time."""
        if busy := self._under_way():
            raise CannotReload([busy])
        self._busy = what
        try:
            yield
        finally:
            self._busy = ""
            self._announce("ready", self._state())

    def _under_way(self) -> str:
        """Why the set of services cannot be changed now; "" when it can."""
        going = self._starting is not None or self._draining is not None or self._stopping is not None
        what = self._busy or ("starting or stopping" if going else "")
        return what and f"{what} is under way: try again when it is done"

    # --- taking services out, and back in

    async def drain_services(self, keys: Sequence[str]) -> None:
        """Have these services take nothing new and finish what is in flight, for at most `drain_timeout`."""
        await _to_the_end(self._drain_services(keys))

    async def _drain_services(self, keys: Sequence[str]) -> None:
        with self._alone("a drain"):
            if staying := [service.key for service in self.runtime.services if service.key in keys and service.lasting]:
                raise CannotReload([f"{', '.join(staying)} stays to the end: nobody could ask for it back"])
            services = [service for service in self.runtime.services if service.key in keys and not service.draining]
            for service in services:
                service.draining = True
            await self._drain(services)
            for service in services:
                for connection in [each for listener in service.listeners for each in listener.connections.values()]:
                    connection.abort()

    async def resume_services(self, keys: Sequence[str]) -> None:
        """Open their ports again; raises CannotReload."""
        await _to_the_end(self._resume_services(keys))

    async def _resume_services(self, keys: Sequence[str]) -> None:
        with self._alone("a resume"):
            reasons = []
            for service in [each for each in self.runtime.services if each.key in keys and each.draining]:
                try:
                    await service.resume()
                    service.draining = False
                except CannotStart as error:
                    reasons.append(str(error))
            if reasons:
                await self.runtime.ports.close_unserved()
                raise CannotReload(reasons)

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
            self._announce("stopping", f"{reason}: draining {self._connections()} connection(s)")
            going = Deferred.fromCoroutine(self._drain_and_go())
            going.addErrback(lambda failure: _log.failure("unexpected error while stopping", failure))

    async def _drain_and_go(self) -> None:
        self._draining = Deferred.fromCoroutine(self._drain_all())
        with suppress(CancelledError):
            await self._draining
        if left := self._connections():
            _log.warn("cutting {connections} connection(s) that did not finish", connections=left)
        await self._go(None)

    async def _drain_all(self) -> None:
        """Say that it goes, give who asks the time to hear it, and drain."""
        leaving = [service for service in self if not service.lasting]
        for service in leaving:
            service.draining = True
        if delay := self._config.daemon.drain_delay:
            await deferLater(self._reactor, delay)
        await self._drain(leaving)

    async def _drain(self, services: Sequence[Service]) -> None:
        """Drain services together until all are done, or `drain_timeout` is over."""
        draining: Deferred[list[tuple[bool, Any]]] = DeferredList(
            [Deferred.fromCoroutine(each.drain()) for each in services], consumeErrors=True
        )
        timeout = self._config.daemon.drain_timeout
        timer = self._reactor.callLater(timeout, draining.cancel) if timeout else None
        try:
            outcomes = await draining
        finally:
            if timer is not None and timer.active():
                timer.cancel()
        for service, (done, failure) in zip(services, outcomes, strict=True):
            if not done and not failure.check(CancelledError):
                _log.failure("draining failed", failure, service=service.key)

    def _connections(self) -> int:
        """Connections that a drain waits for."""
        return sum(len(each.connections) for service in self if not service.lasting for each in service.listeners)

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
        backwards = list(self)
        backwards.reverse()
        for service in sorted(backwards, key=lambda each: (each.for_operators, each.lasting)):
            await self._end(service)
        for ended in tuple(self._ending):
            await ended
        await self.runtime.ports.close_unserved()
        _log.info("stopped")
