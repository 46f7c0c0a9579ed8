"""One client's connection, whatever its dialect: reads → codec → batches → replies, in the order of the requests.

The common cases are short. A read that is nothing but plain gets, or plain sets, from a client that is owed nothing,
goes to the store as it is, and is answered by one write.

Everything else goes through *turns*. A batch that the store answers later is a turn, and so is whatever is asked behind
it, answered already or not: replies leave when it is their turn. What may pile up is bounded, and then the client is no
longer read from, so that its own socket fills up. It is paused

- when it does not take its replies: the transport's buffer is full. What is answered meanwhile waits to be said;
- when it is owed as many replies as make a batch, or TURNS batches, or the reply to a flush;
- when it has asked for REQUESTS things at once, until the reactor has looked after the others.

What it has sent by then waits in the codec, at most one read. How many requests make a batch follows the size of their
replies, so that a client that asks for a thousand large values gets them by and by, as it takes them: and so that
others, who share a link to Redis with it, do not wait behind a gigabyte that it asked for.

A client that has said all it had (half-close, `quit`) is answered whole before the connection ends.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from netd.cache.batch import Batch, Codec
from netd.cache.requests import Answer
from netd.cache.sample import Sample
from netd.cache.store import Session
from netd.listener import Connection

BATCH = 128
"""Requests of a batch at most: the fixed costs of one are spread thin by then."""
FIRST_BATCH = 4
"""Before it is known how large the replies are."""
REPLIES = 256 << 10
"""Bytes of replies that a batch aims at: some four times what a transport takes before it says stop."""
TURNS = 64
"""Batches under way for one client: more than a store can be late with, and little to remember."""
REQUESTS = 1024
"""Requests of one client handled before others get their turn: a few milliseconds."""

_log = Logger()


@implementer(IHalfCloseableProtocol, IPushProducer)
class Conversation(Connection):
    """A client's connection. `open_session` is called once it is there."""

    __slots__ = (
        "_again",
        "_blocked",
        "_clock",
        "_codec",
        "_ending",
        "_limit",
        "_more",
        "_open_session",
        "_owed",
        "_sample",
        "_session",
        "_turns",
    )

    _session: Session

    def __init__(
        self,
        codec: Codec,
        open_session: Callable[["Conversation"], Session],
        clock: IReactorTime,
        sample: Sample,
    ) -> None:
        super().__init__()
        self._codec = codec
        self._open_session = open_session
        self._clock = clock
        self._sample = sample
        self._turns: deque[_Turn] | None = None  # owed replies; None while none was ever late
        self._owed = 0  # requests of these
        self._limit = FIRST_BATCH
        self._blocked = False  # the transport takes no more
        self._more = False  # the codec may have more requests, and reading is paused
        self._ending = False  # close when nothing is owed any more
        self._again: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]  # a stream transport is an IConsumer
        self._session = self._open_session(self)

    # --- from the client

    def dataReceived(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if not (self._more or self._turns or self._ending):
            codec = self._codec
            if (keys := codec.gets(data)) is not None and len(keys) <= self._limit:
                if self._sample.counters:
                    self._sample.note(keys)
                values = self._session.lookup(keys, self._arrived)
                if values is None:
                    self._wait(_Turn(self, codec.found, keys, len(keys)))
                else:
                    self._say(codec.found(keys, values), len(keys))
                return
            if (pairs := codec.sets(data)) is not None:
                if self._sample.counters:
                    self._sample.note(pairs)
                count = len(pairs)
                results = self._session.write(pairs, self._arrived)
                if results is None:
                    self._wait(_Turn(self, lambda _, late: codec.stored(late), (), count))
                else:
                    self._say(codec.stored(results), count)
                return
        if self._ending:
            return
        self._codec.feed(data)
        if not self._more:
            self._go_on()

    def _arrived(self, answers: Sequence[Any]) -> None:
        """The store's callback on the hot paths: nothing was owed when it was asked, so that its turn is the first."""
        turns = self._turns
        if not turns:
            return
        if len(turns) > 1 or self._blocked or self._more or self._ending:
            turns[0].done(answers)
            return
        turn = turns.pop()
        self._owed = 0
        try:
            self._say(turn.say(turn.asked, answers), turn.count)
        except Exception:  # noqa: BLE001 - as in `_Turn.done`
            self.fail()

    def readConnectionLost(self) -> None:
        """The client has sent all it had; what it asked is still answered."""
        self._end()

    def writeConnectionLost(self) -> None:
        """Nothing can be answered any more: netd itself never half-closes."""
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._ending = True
        if self._turns:
            self._turns.clear()
        self._owed = 0
        self._cancel_again()
        self._session.close()

    # --- to the store

    def _go_on(self) -> None:
        """Hand on what the codec has understood, as long as there is room for the replies."""
        handled = 0
        while not self._blocked and self._may_ask():
            batch = self._codec.next(self._limit)
            if batch is None:
                self._rest()
                return
            self._ask(batch)
            if batch.closes:
                self._more = False
                self._end()
                return
            handled += len(batch.forms)
            if handled >= REQUESTS:
                self._again = self._again or self._clock.callLater(0, self._resume)
                break
        if not self._more:
            self._more = True
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # a stream transport is a producer

    def _may_ask(self) -> bool:
        """Whether it is owed so little that it may ask for more."""
        turns = self._turns
        return not turns or (self._owed < self._limit and len(turns) < TURNS and not turns[-1].holds)

    def _rest(self) -> None:
        """All that was read is handed on: read more, or end."""
        if self._more:
            self._more = False
            if not self._ending:
                self.transport.resumeProducing()  # type: ignore[attr-defined]  # a stream transport is a producer
        if self._ending and not self._turns:
            self.close()

    def _ask(self, batch: Batch) -> None:
        if self._sample.counters:
            self._sample.note(batch.requests)
        turn = _Turn(self, self._codec.render, batch, len(batch.forms))
        answers = self._session.execute(batch.requests, turn.done) if batch.requests else ()
        if answers is None or self._turns:
            turn.answers = answers
            turn.holds = batch.holds
            self._wait(turn)
        else:
            self._say(self._codec.render(batch, answers), len(batch.forms))

    def _wait(self, turn: "_Turn") -> None:
        """A reply is owed from now on, its answers may be there already."""
        if self._turns is None:
            self._turns = deque()
        self._turns.append(turn)
        self._owed += turn.count

    # --- to the client

    def _say(self, reply: bytes, count: int) -> None:
        size = len(reply)
        self.bytes_out += size
        self.transport.write(reply)
        if size > REPLIES:
            self._limit = max(1, REPLIES * count // size)
        elif count >= self._limit < BATCH:
            self._limit *= 2

    @property
    def blocked(self) -> bool:
        """Whether the client does not take what it is sent."""
        return self._blocked

    def push(self, data: bytes, *, at_once: bool = False) -> None:
        """Send what was not asked for, such as a message of a subscription, behind what is owed if not at once."""
        if self._turns and not at_once:
            turn = _Turn(self, _as_it_is, data, 1)
            turn.answers = ()
            self._wait(turn)
        else:
            self._say(data, 1)

    def turn_answered(self) -> None:
        """A turn has its answers: say what is no longer owed, in few writes."""
        turns = self._turns
        if not turns or turns[0].answers is None or self._blocked:
            return
        while turns and turns[0].answers is not None and not self._blocked:
            self._say_some(turns)
        if self._more:
            self._go_on()
        elif self._ending and not turns:
            self.close()

    def _say_some(self, turns: "deque[_Turn]") -> None:
        """Say what is answered, some REPLIES bytes of it."""
        replies: list[bytes] = []
        count = size = 0
        while turns and (answers := turns[0].answers) is not None and size <= REPLIES:
            turn = turns.popleft()
            reply = turn.say(turn.asked, answers)
            replies.append(reply)
            count += turn.count
            size += len(reply)
        self._owed -= count
        self._say(replies[0] if len(replies) == 1 else b"".join(replies), count)

    def fail(self) -> None:
        """Let the client go for which a mistake of ours was met, which is logged."""
        _log.failure("connection {id} made netd fail", id=self.id)
        self.abort()

    # --- the transport's producer

    def pauseProducing(self) -> None:
        """The client does not take its replies."""
        self._blocked = True
        if not self._more:
            self._more = True
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # a stream transport is a producer

    def resumeProducing(self) -> None:
        """It takes them again."""
        self._blocked = False
        self.turn_answered()
        self._resume()

    def stopProducing(self) -> None:
        """The connection is gone, as connectionLost tells."""

    def _resume(self) -> None:
        self._cancel_again()
        if self._more and self.connected:
            self._go_on()

    def _cancel_again(self) -> None:
        if self._again is not None and self._again.active():
            self._again.cancel()
        self._again = None

    # --- the end

    def _end(self) -> None:
        """Close once nothing is owed and nothing waits in the codec."""
        self._ending = True
        if not self._more and not self._turns:
            self.close()

    def close(self) -> None:
        """Answer what is under way, send what is left, then close."""
        self._ending = True
        if not self._turns and not self.closing:
            self.transport.unregisterProducer()  # type: ignore[attr-defined]  # a stream transport is an IConsumer
            super().close()

    def hang_up(self) -> None:
        """Send what is said already, then close, whatever else is owed or was asked."""
        if self._turns:
            self._turns.clear()
            self._owed = 0
        self.close()


def _as_it_is(data: bytes, _: Sequence[Answer]) -> bytes:
    return data


class _Turn:
    """A reply that is owed: what was asked, what makes a reply of it, and the answers once they are there."""

    __slots__ = ("_conversation", "answers", "asked", "count", "holds", "say")

    def __init__(self, conversation: Conversation, say: Callable[[Any, Any], bytes], asked: Any, count: int) -> None:
        self._conversation = conversation
        self.say = say
        self.asked = asked
        self.count = count
        self.holds = False
        self.answers: Sequence[Any] | None = None

    def done(self, answers: Sequence[Any]) -> None:
        """The store's callback. A mistake of ours must not fall back on the store, and those who wait behind it."""
        self.answers = answers
        conversation = self._conversation
        try:
            conversation.turn_answered()
        except Exception:  # noqa: BLE001 - as above
            conversation.fail()
