"""One consumer at a RabbitMQ queue: a channel with a prefetch, whose end gives back all that is not settled.

A channel's delivery tags begin at 1, a subscription's never begin again: those of each channel go on where the last
one's ended. What ends a channel (the connection, the queue, the broker's limit on how long a message may stay
unacknowledged) interrupts the subscription; it then tries again, for as long as it takes, until the queue is there.
A consumer that the broker cancels keeps its channel and what was delivered there; the channel is closed, so that it all
comes again from wherever the queue is now.
"""

import struct
from collections.abc import Mapping, Sequence
from random import uniform
from typing import cast

from twisted.logger import Logger

from netd.bridge.amqp import AmqpConnection, Channel, ChannelClosed, ConnectionEnded
from netd.bridge.broker import Consumer
from netd.bridge.declaring import Declaring
from netd.bridge.fields import FieldError, Properties, Reader
from netd.bridge.frames import BASIC_ACK, BASIC_NACK, FRAME_END, METHOD, Content, Event
from netd.bridge.ledger import Ledger
from netd.bridge.link import Link
from netd.bridge.messages import Delivery, Details
from netd.bridge.opening import Opening
from netd.runtime import Reactor

FIRST_WAIT, LONGEST_WAIT = 0.25, 5.0
"""Seconds between two looks for a queue that is not there."""

MULTIPLE, REQUEUE = 1, 2
"""Bits of basic.ack and basic.nack."""

_SETTLE = struct.Struct(">BHI4sQBB")
_TAG = struct.Struct(">QB")

_log = Logger()


class RabbitDelivery:
    """See `netd.bridge.messages.Delivery`."""

    __slots__ = ("_arguments", "_properties", "body", "redelivered", "tag")

    def __init__(self, tag: int, body: bytes, redelivered: bool, arguments: bytes, properties: bytes) -> None:
        self.tag = tag
        self.body = body
        self.redelivered = redelivered
        self._arguments = arguments
        self._properties = properties

    def details(self) -> Details:
        """The rest; what cannot be read is left out."""
        try:
            arguments = Reader(self._arguments)
            arguments.short_string()  # the consumer's tag
            arguments.take(_TAG.size)
            arguments.short_string()  # the exchange
            key = arguments.short_string()
            properties = Properties.decode(self._properties)
        except FieldError:
            return Details("", {}, 1 + self.redelivered)
        headers = cast("Mapping[str, object]", properties.headers or {})
        before = headers.get("x-delivery-count")  # of quorum queues
        deliveries = 1 + (before if isinstance(before, int) and before >= 0 else self.redelivered)
        return Details(key, headers, deliveries)


class RabbitSubscription:
    """See `netd.bridge.broker.Subscription`."""

    def __init__(
        self,
        link: Link,
        consumer: Consumer,
        reactor: Reactor,
        *,
        queue: str,
        prefetch: int,
        declaring: Declaring,
    ) -> None:
        self._link = link
        self._queue = queue
        self._prefetch = prefetch
        self._declaring = declaring
        self._consumer = consumer
        self._channel: Channel | None = None
        self._opening = Opening(link, self, reactor)
        self._failures = 0
        self._trouble = "not connected yet"
        self._base = 0  # a delivery's tag on the channel is its tag less this
        self._ledger = Ledger()
        link.join(self)

    @property
    def problem(self) -> str:
        """Why nothing can come, in a line."""
        if self._channel is not None:
            return ""
        return self._link.state.reason if self._link.connection is None else self._trouble

    def close(self) -> None:
        """What is not settled goes back to the queue. Nothing is told from now on."""
        self._link.leave(self)
        self._opening.cancel()
        self._leave_channel()

    def _leave_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    # --- its channel

    def connected(self, connection: AmqpConnection) -> None:
        """There is a connection: consume on it."""
        if self._channel is None:
            self._opening.begin(connection)

    def flow_changed(self) -> None:
        """Alarms hold up those who publish, not those who consume."""

    async def set_up(self, channel: Channel) -> None:
        """Consume the queue, once it is there."""
        await channel.prefetch(self._prefetch)
        declaration = self._declaring.wanted.get(self._queue)  # as it is now: a reload may have changed it
        if declaration is None:
            await channel.check_queue(self._queue)
        else:
            await channel.declare_queue(self._queue, declaration)
        await channel.consume(self._queue)

    def opened(self, channel: Channel) -> None:
        """Messages come."""
        self._channel = channel
        self._failures = 0

    def not_opened(self, reason: str) -> None:
        """Another try is due."""
        self._try_again(reason)

    def _try_again(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.info("nothing comes from queue {queue}: {reason}", queue=self._queue, reason=trouble)
        self._trouble = trouble
        if self._link.connection is not None:
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures, 20))
            self._failures += 1
            self._opening.again(uniform(wait / 2, wait))  # noqa: S311 - no secret

    def cancelled(self) -> None:
        """The queue is gone, or has moved to another node of the broker."""
        self._leave_channel()
        self._interrupt("the broker has cancelled the consumer: the queue was deleted or moves")

    def closed(self, reason: ChannelClosed | ConnectionEnded) -> None:
        """The channel is no more."""
        if self._channel is not None:
            self._channel = None
            self._interrupt(str(reason))

    def _interrupt(self, reason: str) -> None:
        self._base += self._ledger.last_tag
        self._ledger = Ledger()
        self._try_again(reason)
        self._consumer.interrupted(reason)

    # --- messages

    def received(self, events: Sequence[Event]) -> None:
        """Messages have come."""
        deliveries: list[Delivery] = []
        base, last = self._base, 0
        for event in cast("Sequence[Content]", events):
            _, _, arguments, properties, body = event
            try:
                last, redelivered = _TAG.unpack_from(arguments, 1 + arguments[0])
            except (IndexError, struct.error):
                if self._link.connection is not None:
                    self._link.connection.abort("the broker sent a delivery that cannot be read")
                return
            deliveries.append(RabbitDelivery(base + last, body, redelivered != 0, arguments, properties))
        self._ledger.sent(base + last - len(deliveries) + 1, base + last)
        self._consumer.delivered(deliveries)

    def acknowledge(self, tag: int, *, all_up_to: bool = False) -> None:
        """The message is done with."""
        self._settle(BASIC_ACK, 0, tag, all_up_to)

    def give_back(self, tag: int, *, all_up_to: bool = False) -> None:
        """The message goes back to its queue."""
        self._settle(BASIC_NACK, REQUEUE, tag, all_up_to)

    def _settle(self, method: bytes, flags: int, tag: int, all_up_to: bool) -> None:
        """Tell the broker; a message that is not on this channel, or was settled, would make it close the channel."""
        tag -= self._base
        if self._channel is None or not 0 < tag <= self._ledger.last_tag:
            return
        if all_up_to:
            flags |= MULTIPLE
        if self._ledger.settle_up_to(tag) if all_up_to else self._ledger.settle([tag]):
            self._channel.write(_SETTLE.pack(METHOD, self._channel.number, 13, method, tag, flags, FRAME_END))
