"""An epoll reactor that calls a ready transport directly.

Stock Twisted wraps each event in a log context and a chain of calls. For transports of `netd.fastio.transport` this one
calls `doRead` straight from the loop, under the same context: one is pushed for all events of a turn, and names the
transport only when something is logged. Everything else (other descriptors, writability, hang-ups) takes the stock way.

Time is monotonic: setting the machine's clock neither fires nor holds up a timer.
"""

import socket
import time
from select import EPOLLIN, EPOLLOUT
from typing import Any, Self

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import context, log
from twisted.python.log import ILogContext

from netd.fastio.transport import FastClient, FastConnector, FastPort, FastServer

EVENTS_AT_ONCE = 512
"""Events taken from epoll in one go; the rest are ready next time, and timers and threads get their turn between."""

_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})
_FAST = frozenset({FastServer, FastClient, FastPort})


class _LogContext(dict[str, Any]):
    """What `callWithLogger` would set for the transport at work, its name made when somebody asks.

    Entered once for all events of a turn.
    """

    transport: Any = None

    def __enter__(self) -> Self:
        self._contexts = context.theContextTracker.currentContext().contexts
        self._contexts.append({ILogContext: self})
        return self

    def __exit__(self, *_: object) -> None:
        self._contexts.pop()

    def __bool__(self) -> bool:  # an empty context would be passed over
        return True

    def __missing__(self, key: str) -> Any:
        return self.copy()[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self.copy().get(key, default)

    def copy(self) -> dict[str, Any]:
        try:
            return {"system": self.transport.logPrefix() if self.transport is not None else "-"}
        except Exception:  # noqa: BLE001 - a protocol's own logPrefix: as in callWithLogger, it must not spoil the logging
            return {"system": "(buggy logPrefix method)"}


class FastReactor(EPollReactor):
    """`EPollReactor` with a direct way to fast transports, which it makes for TCP servers and clients."""

    seconds = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._readers: dict[int, Any] = {}
        self._holding: list[Any] = []
        super().__init__()

    # --- the loop

    def hold(self, transport: Any) -> None:
        """Have a transport send what it holds when this turn ends."""
        self._holding.append(transport)

    def runUntilCurrent(self) -> None:
        """Run timers and calls from threads, and send what they wrote: after this, the time to sleep is reckoned."""
        super().runUntilCurrent()
        if self._holding:
            with _LogContext() as here:
                self._release(here)

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events at most `timeout` seconds, serve them, and send what transports hold."""
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, EVENTS_AT_ONCE)
        except InterruptedError:
            return
        with _LogContext() as here:
            self._serve(events, here)
            if self._holding:
                self._release(here)

    doIteration = doPoll

    def _serve(self, events: list[tuple[int, int]], here: _LogContext) -> None:
        readers = self._readers
        for fd, event in events:
            transport = readers.get(fd)
            if transport is not None and event == EPOLLIN:
                here.transport = transport
                try:
                    why = transport.doRead()
                except BaseException as error:  # noqa: BLE001 - as stock Twisted: logged, and the connection ends
                    log.err()
                    self._lose(transport, error, reading=False)
                else:
                    if why is not None:
                        self._lose(transport, why, reading=True)
            else:
                selectable = self._selectables.get(fd)
                if selectable is not None:
                    log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)

    def _lose(self, transport: Any, why: BaseException, *, reading: bool) -> None:
        try:
            self._disconnectSelectable(transport, why, reading)
        except BaseException:  # noqa: BLE001 - as callWithLogger does
            log.err()

    def _release(self, here: _LogContext) -> None:
        while self._holding:
            holding, self._holding = self._holding, []
            for transport in holding:
                here.transport = transport
                try:
                    transport.release()
                except BaseException:  # noqa: BLE001 - as callWithLogger does
                    log.err()

    # --- who is watched

    def addReader(self, reader: Any) -> None:
        if type(reader) not in _FAST:
            super().addReader(reader)
            return
        fd = reader.fileno()
        if fd in self._reads:
            return
        if fd in self._writes:
            self._poller.modify(fd, EPOLLIN | EPOLLOUT)
        else:
            self._poller.register(fd, EPOLLIN)
        self._reads.add(fd)
        self._selectables[fd] = self._readers[fd] = reader

    def removeReader(self, reader: Any) -> None:
        if type(reader) not in _FAST:
            super().removeReader(reader)
            return
        fd = reader.fileno()
        if self._readers.get(fd) is not reader:
            return
        del self._readers[fd]
        self._reads.remove(fd)
        if fd in self._writes:
            self._poller.modify(fd, EPOLLOUT)
        else:
            del self._selectables[fd]
            self._poller.unregister(fd)

    def removeWriter(self, writer: Any) -> None:
        if type(writer) not in _FAST or writer.fileno() in self._writes:
            super().removeWriter(writer)

    # --- fast transports for TCP

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> FastPort:
        listening = FastPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        connector = FastConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily not in _INTERNET:
            return super().adoptStreamPort(fileDescriptor, addressFamily, factory)
        listening = FastPort._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        listening.startListening()
        return listening

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily not in _INTERNET:
            return super().adoptStreamConnection(fileDescriptor, addressFamily, factory)
        return FastServer._fromConnectedSocket(fileDescriptor, addressFamily, factory, self)


def install() -> FastReactor:
    """Make a `FastReactor` the global reactor."""
    reactor = FastReactor()
    installReactor(reactor)
    return reactor
