"""A port where lines come in: each becomes a message of its lane, and is answered for.

What is read is accepted at once, as the share of a block; the reply follows when the lane says what became of it.
Replies never hold up lines: where the client does not read, the newest `+OK` stands for all before it.

Reading pauses, each for a reason of its own and as long as one of them holds, when too much waits for a commit, when
the spool takes nothing (then the client is told: `*WAIT`, `*GO`), when a client that does not read has been answered
with many errors, and when too much of it waits for the broker's confirm.
"""

from collections import deque
from enum import Flag, auto

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from netd.bridge import lines
from netd.bridge.config import PublishSettings
from netd.bridge.lane import MOST_SHARES, Lane
from netd.bridge.lines import Incoming, NotForBrowsers, Received, Rules
from netd.bridge.messages import Route
from netd.bridge.shares import Share
from netd.bridge.spool import Spool
from netd.listener import Connection

ERRORS_LIMIT = 64 << 10
"""Bytes of `-ERR` that may wait for a client that does not read, before it is read no further."""


class Pause(Flag):
    """Why a client is not read."""

    PRESSURE = auto()
    SPOOL = auto()
    ERRORS = auto()
    CONFIRMS = auto()
    ENDING = auto()


class PublishPort:
    """What the connections of one port have in common."""

    def __init__(self, name: str, settings: PublishSettings) -> None:
        self.name = name
        self.settings = settings
        self.route = Route(
            name,
            settings.exchange,
            settings.routing_key,
            settings.content_type,
            settings.priority,
            round(settings.expiration * 1000) if settings.expiration is not None else None,
        )
        self.rules = Rules(
            settings.framing,
            settings.max_line,
            settings.may_name,
            routing_key=settings.routing_key.encode(),
            key_required=not settings.exchange and not settings.routing_key,
        )
        self.confirmed = settings.reply == "confirmed"
        self.replies = settings.reply != "off"
        self.lane: Lane
        self.spool: Spool
        self.talkers: set[PublishConnection]

    def open(self, lane: Lane, spool: Spool, talkers: "set[PublishConnection]") -> None:
        """The spool is there: before that no client can be. Of `talkers` are those who pause for its commits."""
        self.lane = lane
        self.spool = spool
        self.talkers = talkers


@implementer(IHalfCloseableProtocol, IPushProducer)
class PublishConnection(Connection):
    """A client that sends lines."""

    __slots__ = ("_congested", "_ended", "_errors", "_incoming", "_newest", "_pauses", "_pending", "_port")

    def __init__(self, port: PublishPort) -> None:
        super().__init__()
        self._port = port
        self._pending: deque[Share] = deque()
        self._pauses = Pause(0)
        self._congested = False
        self._ended = False
        self._newest = 0
        self._errors: list[bytes] = []

    def connectionMade(self) -> None:
        peer = self.peer if self._port.settings.peer_header else ""
        self._incoming = Incoming(self._port.rules, peer)
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]  # a stream transport is an IConsumer
        self.spool_changed()

    @property
    def publish_port(self) -> PublishPort:
        """The port it came by."""
        return self._port

    # --- lines

    def dataReceived(self, data: bytes) -> None:
        size = len(data)
        self.bytes_in += size
        if self._ended:
            return
        try:
            received = self._incoming.receive(data)
        except NotForBrowsers:
            self._say_error(lines.NO_HTTP)
            self.close()
            return
        self._take(received, size)
        if self._port.spool.pressure:
            self._port.talkers.add(self)
            self._pause(Pause.PRESSURE)

    def _take(self, received: Received, size: int) -> None:
        for number, bad in received.errors:
            self._say_error(lines.err(number, bad.code, bad.text))
        if received.bodies:
            share = self._port.lane.accept(received, size, self, confirmed=self._port.confirmed)
            self._pending.append(share)
            if self._port.confirmed and len(self._pending) >= MOST_SHARES:
                self._pause(Pause.CONFIRMS)
        elif self._pending:
            self._pending[-1].upto = received.upto
        elif received.upto > self._newest:
            self._say_ok(received.upto)

    def share_done(self, share: Share) -> None:
        share.done = True
        newest = 0
        while self._pending and self._pending[0].done:
            newest = self._pending.popleft().upto
        if newest:
            self._say_ok(newest)
            if self._pauses & Pause.CONFIRMS and len(self._pending) < MOST_SHARES // 2:
                self._resume(Pause.CONFIRMS)
            if self._ended and not self._pending:
                self._finish()

    def message_dead(self, number: int, reason: str) -> None:
        self._say_error(lines.err(number, "DEAD", reason))

    # --- replies

    def _say_ok(self, number: int) -> None:
        self._newest = number
        if not self._congested:
            self._say(lines.ok(number))

    def _say_error(self, reply: bytes) -> None:
        if not self._congested:
            self._say(reply)
            return
        if self._port.replies:
            self._errors.append(reply)
            if sum(map(len, self._errors)) > ERRORS_LIMIT:
                self._pause(Pause.ERRORS)

    def _say(self, reply: bytes) -> None:
        if self._port.replies and self.connected:
            self.bytes_out += len(reply)
            self.transport.write(reply)

    def pauseProducing(self) -> None:
        """The client does not read: what is said from now on waits."""
        self._congested = True
        self._newest = 0

    def resumeProducing(self) -> None:
        """It reads again."""
        self._congested = False
        errors, self._errors = self._errors, []
        if errors:
            self._say(b"".join(errors))
        if self._newest:
            self._say(lines.ok(self._newest))
        self._resume(Pause.ERRORS)

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` tells."""

    # --- reading stops and goes on

    def spool_changed(self) -> None:
        """Whether the spool takes lines may have changed."""
        problem = self._port.spool.problem
        if problem and not self._pauses & Pause.SPOOL:
            self._pause(Pause.SPOOL)
            self._say(lines.wait(problem))
        elif not problem and self._pauses & Pause.SPOOL:
            self._say(lines.GO)
            self._resume(Pause.SPOOL)

    def pressure_over(self) -> None:
        """There is room for more."""
        self._resume(Pause.PRESSURE)

    def pause_for_pressure(self) -> None:
        """There is no room at all."""
        self._port.talkers.add(self)
        self._pause(Pause.PRESSURE)

    def _pause(self, why: Pause) -> None:
        if not self._pauses:
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # a transport is a push producer
        self._pauses |= why

    def _resume(self, why: Pause) -> None:
        if self._pauses and not self._pauses & ~why and self.connected:
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # as above
        self._pauses &= ~why

    # --- the end

    def readConnectionLost(self) -> None:
        """The client has sent all it had."""
        if self._incoming.tail:
            if self._port.settings.tail == "publish":
                self._take(self._incoming.finish(), self._port.settings.max_line)
            else:
                self._bury_tail("the last line has no LF")
        self.close()

    def writeConnectionLost(self) -> None:
        """Nothing can be answered any more: netd itself never half-closes."""
        self.abort()

    def close(self) -> None:
        """Read no more, say what is to be said, then close."""
        self._ended = True
        if not self._pauses & Pause.ENDING:
            self._pause(Pause.ENDING)
        if not self._pending and not self.closing:
            self._finish()

    def _finish(self) -> None:
        if self._congested and self._port.replies:
            self.resumeProducing()
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # a stream transport is an IConsumer
        super().close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._port.talkers.discard(self)
        if self._incoming.tail:
            self._bury_tail(f"cut off: {reason.getErrorMessage()}")
        self._pending.clear()
        super().connectionLost(reason)

    def _bury_tail(self, reason: str) -> None:
        if tail := self._incoming.cut():
            self._port.lane.bury_cut_line(tail, reason)
