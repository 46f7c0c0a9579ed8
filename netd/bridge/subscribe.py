"""A port where a queue's messages go out: a line each, to clients that compete for them.

`ack = "tcp"`: a message is done with when the client's kernel has acknowledged its bytes. The kernel counts them
(TCP_INFO) and does not say when: netd looks, soon after it has written and then less and less often.

`ack = "client"`: a line begins with an id and how often the message was delivered, and the client answers with it.

What a client may have that is not done with is bounded by `prefetch`, and so is what waits in memory for a client that
reads slowly. One that makes no progress at all for `ack_timeout` gives its messages back to the queue.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime, ITransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from netd.bridge import lines
from netd.bridge.broker import Broker, Subscription
from netd.bridge.config import SubscribeSettings
from netd.bridge.lines import LONGEST_COMMAND, BadLine, LineReader
from netd.bridge.messages import Delivery
from netd.listener import Connection, bytes_taken, has_gone

FIRST_LOOK, LATEST_LOOK = 0.002, 0.25
"""Seconds after which netd looks what the client's kernel has acknowledged, doubled while nothing changes."""

SEGMENT = 1448
"""Bytes of a TCP segment at most, as on Ethernet. A kernel acknowledges every second full segment at once, and less
than that after 40 ms; over loopback a segment has 64 KiB. Measured: 151,000 messages a second, not 61,000."""

_log = Logger()


@dataclass(slots=True)
class SubscribeCounts:
    """Messages of a port since the start, whatever its settings were."""

    delivered: int = 0
    acknowledged: int = 0
    given_back: int = 0


class SubscribePort:
    """What the connections of one port have in common."""

    def __init__(
        self,
        name: str,
        settings: SubscribeSettings,
        clock: IReactorTime,
        counts: SubscribeCounts | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        self.taken: Callable[[ITransport], int] = bytes_taken
        """How many bytes of what was written a client's kernel has acknowledged."""
        self.gone: Callable[[ITransport], bool] = has_gone
        """Whether a client's kernel has refused what was written."""
        self.encode = lines.ENCODERS[settings.framing]
        self.counts = counts or SubscribeCounts()
        self.taps: list[Callable[[Sequence[bytes]], object]] = []
        """Who looks on: called with the bodies that are delivered."""
        self.broker: Broker

    def open(self, broker: Broker) -> None:
        """The broker is there: before that no client can be."""
        self.broker = broker


@implementer(IHalfCloseableProtocol)
class SubscribeConnection(Connection, ABC):
    """A client that takes messages."""

    __slots__ = ("_port", "_progress", "_subscription", "_timer")

    _subscription: Subscription

    def __init__(self, port: SubscribePort) -> None:
        super().__init__()
        self._port = port
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        settings = self._port.settings
        self._progress = self._port.clock.seconds()
        self._subscription = self._port.broker.subscribe(settings.queue, settings.prefetch, self)

    @property
    def subscribe_port(self) -> SubscribePort:
        """The port it came by."""
        return self._port

    @property
    def problem(self) -> str:
        """Why nothing can come to it."""
        return self._subscription.problem

    def dataReceived(self, data: bytes) -> None:
        """What a client says who is not asked."""
        self.bytes_in += len(data)

    @abstractmethod
    def delivered(self, deliveries: Sequence[Delivery]) -> None:
        """Messages have come: see `netd.bridge.broker.Consumer`."""

    @abstractmethod
    def interrupted(self, reason: str) -> None:
        """What is not settled comes again."""

    def _write(self, data: bytes, deliveries: Sequence[Delivery]) -> None:
        self.bytes_out += len(data)
        self._port.counts.delivered += len(deliveries)
        self.transport.write(data)
        for tap in self._port.taps:
            tap([delivery.body for delivery in deliveries])

    def _look_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._port.clock.callLater(seconds, self._look_now)

    def _look_now(self) -> None:
        self._timer = None
        self._look()

    @abstractmethod
    def _look(self) -> None:
        """See what the client has done meanwhile."""

    def _late(self) -> bool:
        timeout = self._port.settings.ack_timeout
        return bool(timeout) and self._port.clock.seconds() - self._progress >= timeout

    def readConnectionLost(self) -> None:
        """The client has nothing to say; it may listen all the same."""

    def writeConnectionLost(self) -> None:
        """Nothing can be delivered any more: netd itself never half-closes."""
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._port.counts.given_back += len(self._unsettled)
        self._subscription.close()
        super().connectionLost(reason)

    @property
    @abstractmethod
    def _unsettled(self) -> Sized:
        """What the client has that is not done with."""


class TcpSubscriber(SubscribeConnection):
    """A client whose kernel acknowledges."""

    __slots__ = ("_interval", "_taken", "_unacknowledged", "_written")

    def __init__(self, port: SubscribePort) -> None:
        super().__init__(port)
        self._written = 0
        self._taken = 0
        self._interval = FIRST_LOOK
        self._unacknowledged: deque[tuple[int, int]] = deque()
        """For each message the byte after its last, and its tag."""

    def delivered(self, deliveries: Sequence[Delivery]) -> None:
        encode = self._port.encode
        found = []
        if not self._unacknowledged:
            self._progress = self._port.clock.seconds()
        for delivery in deliveries:
            line = encode(delivery)
            found.append(line)
            self._written += len(line)
            self._unacknowledged.append((self._written, delivery.tag))
        self._write(b"".join(found), deliveries)
        self._interval = FIRST_LOOK
        self._look_in(FIRST_LOOK)

    @property
    def _unsettled(self) -> Sized:
        return self._unacknowledged

    def interrupted(self, reason: str) -> None:  # noqa: ARG002 - the broker logs it
        self._unacknowledged.clear()

    def _look(self) -> None:
        """Acknowledge what has arrived."""
        if not self._unacknowledged:
            return
        taken = self._port.taken(self.transport)
        if taken > self._taken:
            self._taken = taken
            self._progress = self._port.clock.seconds()
            self._interval = FIRST_LOOK
            self._acknowledge(taken)
        elif self._port.gone(self.transport):
            self.abort()
            return
        elif self._late():
            _log.warn(
                "{peer} of {port} has taken nothing for {seconds:g} s: its messages go back to the queue",
                peer=self.peer,
                port=self._port.name,
                seconds=self._port.settings.ack_timeout,
            )
            self.abort()
            return
        if self._unacknowledged:
            self._look_in(self._interval)
            self._interval = min(2 * self._interval, LATEST_LOOK)

    def _acknowledge(self, taken: int) -> None:
        waiting = self._unacknowledged
        tag = 0
        before = len(waiting)
        while waiting and waiting[0][0] <= taken:
            tag = waiting.popleft()[1]
        if tag:
            self._port.counts.acknowledged += before - len(waiting)
            self._subscription.acknowledge(tag, all_up_to=True)

    def readConnectionLost(self) -> None:
        """The client has nothing to say; or it has gone, and its kernel has told the last it took."""
        self._look()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.bytes_in == len(data) and lines.is_http(data.partition(b"\n")[0].rstrip(b"\r")):
            self.abort()


class AnsweringSubscriber(SubscribeConnection):
    """A client that says ACK and NACK."""

    __slots__ = ("_half_closed", "_lines", "_number", "_reader", "_unanswered")

    def __init__(self, port: SubscribePort) -> None:
        super().__init__(port)
        self._reader = LineReader(LONGEST_COMMAND)
        self._number = 0
        self._unanswered: dict[int, None] = {}
        self._half_closed = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, True)  # type: ignore[attr-defined]  # who does not read is not read
        super().connectionMade()

    def delivered(self, deliveries: Sequence[Delivery]) -> None:
        encode = self._port.encode
        if not self._unanswered:
            self._progress = self._port.clock.seconds()
        found = []
        for delivery in deliveries:
            self._unanswered[delivery.tag] = None
            found.append(b"%d\t%d\t%b" % (delivery.tag, delivery.details().deliveries, encode(delivery)))
        self._write(b"".join(found), deliveries)
        self._wait()

    @property
    def _unsettled(self) -> Sized:
        return self._unanswered

    def interrupted(self, reason: str) -> None:  # noqa: ARG002 - the broker logs it
        self._unanswered.clear()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.closing:
            return
        for line in self._reader.feed(data):
            self._number += 1
            if self._number == 1 and (line is None or lines.is_http(line)):
                self._say(lines.NO_HTTP)
                self.close()
                return
            if line == b"":
                continue
            try:
                self._settle(line)
            except BadLine as bad:
                self._say(lines.err(self._number, bad.code, bad.text))

    def _say(self, reply: bytes) -> None:
        self.bytes_out += len(reply)
        self.transport.write(reply)

    def _settle(self, line: bytes | None) -> None:
        said = lines.parse_settlement(line)
        if said.all_up_to:
            tags = [tag for tag in self._unanswered if tag <= said.id]
        else:
            tags = [said.id] if said.id in self._unanswered else []
        if not tags:
            raise BadLine("ID", "no such message is yours now: it was answered, or has gone back to the queue")
        for tag in tags:
            del self._unanswered[tag]
        self._progress = self._port.clock.seconds()
        if said.verb == "ACK":
            self._port.counts.acknowledged += len(tags)
            self._subscription.acknowledge(tags[-1], all_up_to=said.all_up_to)
        else:
            self._port.counts.given_back += len(tags)
            self._subscription.give_back(tags[-1])

    def _wait(self) -> None:
        if self._port.settings.ack_timeout:
            self._look_in(self._port.settings.ack_timeout)

    def _look(self) -> None:
        """Give back what the client has been silent about for too long."""
        if not self._unanswered:
            return
        if not self._late():
            left = self._progress + self._port.settings.ack_timeout - self._port.clock.seconds()
            self._look_in(max(left, 0.001))
            return
        _log.warn(
            "{peer} of {port} has answered nothing for {seconds:g} s: {count} message(s) go back to the queue",
            peer=self.peer,
            port=self._port.name,
            seconds=self._port.settings.ack_timeout,
            count=len(self._unanswered),
        )
        self._port.counts.given_back += len(self._unanswered)
        newest = max(self._unanswered)
        self._unanswered.clear()
        if self._half_closed:  # nobody can answer any more
            self.close()
        else:
            self._subscription.give_back(newest, all_up_to=True)

    def readConnectionLost(self) -> None:
        """It can answer nothing any more: it gets what it may have at once, and gives it back in the end."""
        self._half_closed = True

    def close(self) -> None:
        """Send what is left, then close."""
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # a stream transport is an IConsumer
        super().close()
