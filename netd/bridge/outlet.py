"""One lane's way into RabbitMQ: a channel with confirms, and its ledger.

What the broker says about a message, and what becomes of it:

- basic.ack: CONFIRMED. basic.nack: REFUSED.
- basic.return, which comes before the ack of the same message: RETURNED. It is found by its header `x-netd-id`; one
  that cannot be found ends the connection, because the ack after it would count a message as delivered that is not.
- Channel.Close. The exchange is missing or forbidden: all that was on its way had that exchange and is RETURNED. Else,
  if a message was the reason, it is one of those on their way, and the broker does not say which. They are LOST, and
  then published again a half at a time, by halves of halves, until the one that closes the channel alone is RETURNED;
  each part that is confirmed whole doubles the next. Any other reason (the broker's own troubles): LOST.
- The connection ends: LOST.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from netd.bridge.amqp import AmqpConnection, Channel, ChannelClosed, ConnectionEnded
from netd.bridge.broker import Outcome, Sender
from netd.bridge.envelope import Envelope
from netd.bridge.fields import FieldError, Properties, Reader
from netd.bridge.frames import Content, Event
from netd.bridge.ledger import Ledger, NeverSent, Range
from netd.bridge.link import Link
from netd.bridge.messages import ID_HEADER, Block, Route
from netd.bridge.opening import Opening
from netd.runtime import Reactor

FORBIDDEN, NOT_FOUND, PRECONDITION_FAILED, CONTENT_TOO_LARGE = 403, 404, 406, 311
BLAMES_A_MESSAGE = frozenset({FORBIDDEN, NOT_FOUND, PRECONDITION_FAILED, CONTENT_TOO_LARGE})
"""Codes of Channel.Close after which publishing the same again would end the same way."""

UNRESTRICTED = 1024
"""When so many messages in a row were confirmed, the search for a culprit is over."""

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds until a channel is opened again that the broker closes for its own reasons."""

_Told = list[tuple[int, int, Outcome, str]]


class RabbitOutlet:
    """See `netd.bridge.broker.Outlet`."""

    def __init__(self, link: Link, route: Route, sender: Sender, reactor: Reactor) -> None:
        self._link = link
        self._route = route
        self._sender = sender
        self._reactor = reactor
        self._channel: Channel | None = None
        self._opening = Opening(link, self, reactor)
        self._closures = 0  # of the channel, since the last confirm
        self._ledger = Ledger()
        self._envelope = Envelope(route, 0, 0)
        self._origin = ""
        self._retried: dict[str, int] = {}  # the ids, and numbers, of dead letters on their way again
        self._limit = 0  # while a culprit is sought, how many messages may be on their way; 0: any
        self._held: deque[tuple[Block, int, int]] = deque()  # what that limit keeps here, in order
        self._trouble = ""
        self._telling = False
        self._closed = False
        link.join(self)

    @property
    def ready(self) -> bool:
        """Whether it takes messages now."""
        return self._channel is not None and not self._telling and not self._blocked()

    def _blocked(self) -> str:
        return self._link.connection.blocked if self._link.connection is not None else ""

    @property
    def problem(self) -> str:
        """What is wrong, in a line."""
        state = self._link.state
        return state.reason if state.state != "up" else self._trouble

    def close(self) -> None:
        """Nothing is told from now on."""
        self._closed = True
        self._link.leave(self)
        self._opening.cancel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    # --- its channel

    def connected(self, connection: AmqpConnection) -> None:
        """There is a connection: open a channel on it."""
        if self._channel is None:
            self._opening.begin(connection)

    async def set_up(self, channel: Channel) -> None:
        """Have it confirm what is published."""
        await channel.confirm()

    def opened(self, channel: Channel) -> None:
        """The channel can be used."""
        self._channel = channel
        self._ledger = Ledger()
        self._envelope = Envelope(self._route, channel.number, channel.largest_frame)
        self.flow_changed()

    def not_opened(self, reason: str) -> None:
        """Another try is due."""
        self._reopen(reason)

    def flow_changed(self) -> None:
        """The broker takes messages again, or no more."""
        if self.ready and not self._closed:
            self._send_held()
            self._sender.opened()

    def _reopen(self, trouble: str = "") -> None:
        """Open a channel again, at once unless the broker had trouble of its own."""
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._closures, 20)) if trouble else 0
        self._closures += 1
        self._trouble = trouble or self._trouble
        if not self._closed:
            self._opening.again(wait)

    def cancelled(self) -> None:
        """There is no consumer on this channel."""

    def closed(self, reason: ChannelClosed | ConnectionEnded) -> None:
        """The broker has closed the channel, or the connection has ended."""
        if self._channel is None:
            return
        self._channel = None
        told: _Told = []
        waited = self._ledger.waiting
        on_their_way = self._ledger.settle_all()
        held = self._take_held()
        self._retried.clear()
        trouble = ""
        outcome = Outcome.LOST
        if isinstance(reason, ChannelClosed) and reason.code in BLAMES_A_MESSAGE and waited:
            if waited == 1 or self._is_about_exchange(reason):
                outcome = Outcome.RETURNED
            else:
                self._limit = waited // 2
            self._trouble = str(reason)
        else:
            trouble = str(reason)
        _tell(told, on_their_way, outcome, str(reason))
        _tell(told, held, Outcome.LOST, str(reason))
        self._reopen(trouble)
        self._report(told)

    def _is_about_exchange(self, reason: ChannelClosed) -> bool:
        """Whether the broker names the exchange that all messages of this outlet go to, and no routing key."""
        name = self._route.exchange or "amq.default"
        return f"exchange '{name}'" in reason.text and "topic '" not in reason.text

    # --- messages

    def publish(self, block: Block, start: int, stop: int) -> None:
        """Send the messages of a block from index `start` up to, not including, `stop`. Only while it is ready."""
        if self._limit or self._held:  # nothing overtakes what is held
            self._held.append((block, start, stop))
            self._reactor.callLater(0, self._send_held)
        else:
            self._send(block, start, stop)

    def _send(self, block: Block, start: int, stop: int) -> None:
        first, last = block.first + start, block.first + stop - 1
        if self._channel is None:
            self._reactor.callLater(0, self._report, [(first, last, Outcome.LOST, self.problem)])
            return
        try:
            frames = self._envelope.encode(block, start, stop)
        except FieldError as error:
            self._send_apart(block, start, stop, str(error))
            return
        self._origin = block.origin
        self._ledger.sent(first, last)
        if block.extras is not None:
            self._note_retried(block, start, stop)
        self._channel.write(frames)

    def _send_apart(self, block: Block, start: int, stop: int, error: str) -> None:
        """One of these cannot be sent."""
        if stop - start == 1:
            only = block.first + start
            self._reactor.callLater(0, self._report, [(only, only, Outcome.RETURNED, error)])
            return
        middle = (start + stop) // 2
        self._send(block, start, middle)
        self._send(block, middle, stop)

    def _note_retried(self, block: Block, start: int, stop: int) -> None:
        for index, extra in (block.extras or {}).items():
            if start <= index < stop and extra.netd_id:
                self._retried[extra.netd_id] = block.first + index
        if len(self._retried) > 2 * self._ledger.waiting + stop - start:
            self._retried = {each: number for each, number in self._retried.items() if self._ledger.waits(number)}

    def _send_held(self) -> None:
        """While a culprit is sought: send as much as may be on its way, once nothing is."""
        while self._held and self._channel is not None and not self._blocked():
            room = self._limit - self._ledger.waiting if self._limit else len(self._held[0][0])
            if room <= 0:
                return
            block, start, stop = self._held.popleft()
            middle = min(stop, start + room)
            if middle < stop:
                self._held.appendleft((block, middle, stop))
            self._send(block, start, middle)

    def _take_held(self) -> list[Range]:
        """Hold nothing any more; returns what was held."""
        held = [(block.first + start, block.first + stop - 1) for block, start, stop in self._held]
        self._held.clear()
        return held

    # --- what becomes of them

    def received(self, events: Sequence[Event]) -> None:
        """The broker has spoken about messages."""
        self._closures = 0
        told: _Told = []
        single: list[int] = []  # tags of acks for one message, told together
        ledger = self._ledger
        try:
            for event in events:
                if event[0] == "ack" and not event[3]:
                    single.append(event[2])
                    continue
                if single:
                    _tell(told, ledger.settle(single), Outcome.CONFIRMED)
                    single.clear()
                if event[0] == "ack":
                    _tell(told, ledger.settle_up_to(event[2]), Outcome.CONFIRMED)
                elif event[0] == "nack":
                    settled = ledger.settle_up_to(event[2]) if event[3] else ledger.settle([event[2]])
                    _tell(told, settled, Outcome.REFUSED, "refused: the queue is full or cannot answer")
                elif event[0] == "return":
                    self._returned(event, told)
            if single:
                _tell(told, ledger.settle(single), Outcome.CONFIRMED)
        except NeverSent as error:
            self._abort(f"the broker speaks of what was never published: {error}")
        self._report(told)

    def _returned(self, event: Content, told: _Told) -> None:
        try:
            arguments = Reader(event[2])
            reason = f"{int.from_bytes(arguments.take(2), 'big')} {arguments.short_string()}"
            netd_id = str((Properties.decode(event[3]).headers or {}).get(ID_HEADER))
        except FieldError as error:
            raise NeverSent(f"a message that came back {error}") from None
        number = self._retried.pop(netd_id, None)
        origin, _, digits = netd_id.rpartition("-")
        if number is None and origin == self._origin and digits.isdecimal():
            number = int(digits)
        if number is None or not self._ledger.settle_number(number):
            raise NeverSent(f"a message that came back has the id {netd_id[:80]!r}")
        _tell(told, [(number, number)], Outcome.RETURNED, reason)

    def _abort(self, reason: str) -> None:
        if self._link.connection is not None:
            self._link.connection.abort(reason)

    def _report(self, told: _Told) -> None:
        if not told:
            return
        last = told[-1]
        if last[2] is not Outcome.LOST:
            self._trouble = last[3]
        if self._limit and not self._ledger.waiting and last[2] is Outcome.CONFIRMED:
            self._limit = self._limit * 2 if self._limit < UNRESTRICTED else 0
        if refusal := next((reason for _, _, outcome, reason in told if outcome is Outcome.REFUSED), ""):
            _tell(told, self._take_held(), Outcome.LOST, refusal)  # to be published after what was refused
        try:
            for at, (first, last_one, outcome, reason) in enumerate(told, 1):
                self._telling = at < len(told)  # nothing new overtakes a refusal that is yet to be told
                if not self._closed:
                    self._sender.settled(first, last_one, outcome, reason)
        finally:
            self._telling = False
        if self._held:
            self._send_held()


def _tell(told: _Told, ranges: Iterable[Range], outcome: Outcome, reason: str = "") -> None:
    """Add ranges to what will be told, the last one made longer where that says the same."""
    for first, last in ranges:
        if told and told[-1][1] == first - 1 and told[-1][2:] == (outcome, reason):
            told[-1] = (told[-1][0], last, outcome, reason)
        else:
            told.append((first, last, outcome, reason))
