"""Protocols that note what happens to them, and reactors of a test's own to run them on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from netd.fastio.reactor import FastReactor

REACTORS = [FastReactor, EPollReactor]
TIMEOUT = 60.0
"""Seconds after which a test whose connections have not ended is given up."""

Doing = Callable[[Any], object]


class Talker(Protocol):
    """Notes what it hears and what happens to it, and does what it was made to do then."""

    transport: Any

    def __init__(self, made: Doing | None = None, data: Doing | None = None, lost: Doing | None = None) -> None:
        self.heard = bytearray()
        self.events: list[str] = []
        self.ended: Deferred[None] = Deferred()
        self.busy = False
        self._doing = {"made": made, "data": data, "lost": lost}

    def connectionMade(self) -> None:
        self.note("made")

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self.note("data")

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.busy:
            self.events.append("called from within")
        self.events.append(type(reason.value).__name__)
        try:
            self.note("lost")
        finally:
            if not self.ended.called:
                self.ended.callback(None)

    def note(self, event: str) -> None:
        """An event comes: do what is to be done then, during which no other may come."""
        if event != "data" or "data" not in self.events[-1:]:
            self.events.append(event)
        doing = self._doing.get(event)
        if doing is not None:
            self.busy = True
            try:
                doing(self)
            finally:
                self.busy = False


@implementer(IHalfCloseableProtocol)
class HalfTalker(Talker):
    """Goes on when one direction has closed."""

    def __init__(self, *, reads_lost: Doing | None = None, writes_lost: Doing | None = None, **doing: Any) -> None:
        super().__init__(**doing)
        self._doing |= {"reads lost": reads_lost, "writes lost": writes_lost}

    def readConnectionLost(self) -> None:
        self.note("reads lost")

    def writeConnectionLost(self) -> None:
        self.note("writes lost")


class Maker(Factory):
    """Makes the protocols it was given, one after the other, and none after that."""

    noisy = False

    def __init__(self, *protocols: Protocol) -> None:
        self.left = list(protocols)

    def buildProtocol(self, address: object) -> Protocol | None:
        return self.left.pop(0) if self.left else None


class ClientMaker(Maker, ClientFactory):
    """The same for `connectTCP`; notes why a connection was not made."""

    failed: Failure | None = None

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.failed = reason


class Stage:
    """A reactor of one test, and what is logged while it runs."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.logged: list[LogEvent] = []

    @property
    def errors(self) -> list[str]:
        """The names of exceptions that were logged."""
        failures = [event.get("log_failure") or event.get("failure") for event in self.logged]
        return [failure.type.__name__ for failure in failures if failure is not None]

    def listen(self, *servers: Protocol) -> int:
        """Open a port for these protocols; returns its number."""
        return int(self.reactor.listenTCP(0, Maker(*servers), 500, "127.0.0.1").getHost().port)

    def connect(self, port: int, client: Protocol) -> None:
        """Connect a protocol to a port."""
        self.reactor.connectTCP("127.0.0.1", port, ClientMaker(client))

    def talk(self, server: Talker, client: Talker) -> None:
        """Connect both and run until both have lost their connection."""
        self.connect(self.listen(server), client)
        self.run(server, client)

    def run(self, *talkers: Talker) -> None:
        """Run until these have lost their connections."""
        overdue = self.reactor.callLater(TIMEOUT, self.reactor.stop)

        def stop(_: object) -> None:
            overdue.cancel()
            self.reactor.callWhenRunning(self.reactor.stop)

        gatherResults([talker.ended for talker in talkers]).addCallback(stop)
        self.reactor.run(installSignalHandlers=False)
        assert not overdue.called, [talker.events for talker in talkers]


@contextmanager
def stage(make_reactor: Callable[[], Any]) -> Iterator[Stage]:
    """A new reactor, whose descriptors are closed afterwards."""
    reactor = make_reactor()
    made = Stage(reactor)
    observer = cast("ILogObserver", made.logged.append)
    globalLogPublisher.addObserver(observer)
    try:
        yield made
    finally:
        globalLogPublisher.removeObserver(observer)
        reactor.disconnectAll()
        for reader in list(reactor._internalReaders):
            reactor.removeReader(reader)
            reader.connectionLost(None)
        reactor._poller.close()
