"""A connection to Redis of a client's own: for MULTI, WATCH, EVAL, SUBSCRIBE, BLPOP and whatever else cannot be shared.

Replies are passed on as they are. They come in the order of requests; what comes beside them, the messages of a
subscription, is recognized and pushed. When the client has gone the connection is RESET and kept for the next one who
needs one.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from netd.cache.redis import BATCH_COST, MOST_BYTES, Upstream, endpoint_of, pack
from netd.cache.redis_raw import NotRedis, RawReplies
from netd.cache.requests import Problem
from netd.cache.resp import Raw

MOST_PINNED = 1000
"""Connections of clients' own at once: Redis allows 10,000 in all by default."""
MOST_IDLE = 16
"""Connections kept for the next who needs one."""

Answers = Callable[[Raw | Problem], None]

_MESSAGES: Final = tuple(
    b"*%d\r\n$%d\r\n%b\r\n" % (count, len(kind), kind)
    for count, kind in ((3, b"message"), (4, b"pmessage"), (3, b"smessage"))
)
PUSHED_MESSAGES: Final = tuple(b">" + message[1:] for message in _MESSAGES)
"""How messages begin in RESP3, where nothing else begins with this sign but what comes beside replies."""
_SUBSCRIPTIONS: Final = tuple(
    b"*3\r\n$%d\r\n%b\r\n" % (len(kind), kind)
    for kind in (b"subscribe", b"psubscribe", b"ssubscribe", b"unsubscribe", b"punsubscribe", b"sunsubscribe")
)
SUBSCRIBES: Final = frozenset(b"SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE".split())


class Pinned(Protocol):
    """One connection. `push` is given what was not asked for, `lost` is called when it has gone."""

    transport: Any

    def __init__(self, pool: "PinnedPool") -> None:
        self.version = 2
        self.push: Callable[[bytes], None] = _nobody
        self.lost: Callable[[str], None] = _nobody
        self.gone = ""
        self._pool = pool
        self._replies = RawReplies()
        self._asked: deque[tuple[Answers, bool, bool, int]] = deque()
        self._subscribed = False
        self._resets = 0
        self._late: IDelayedCall | None = None

    def ask(self, data: bytes, answer: Answers, *, patient: bool = False, subscribes: bool = False) -> None:
        """Send one command; `answer` gets its reply. `patient`: it may take as long as it likes."""
        if self.gone:
            self._pool.reactor.callLater(0, answer, Problem(self.gone.encode()))
            return
        size = len(data) + BATCH_COST
        self._pool.waiting += size
        self._asked.append((answer, patient, subscribes, size))
        if len(self._asked) == 1:
            self._hurry()
        self.transport.write(data)

    def reset(self, answer: Answers) -> None:
        """Have transactions and subscriptions forgotten; messages that are on their way still are for nobody."""
        self._resets += 1

        def forgotten(reply: Raw | Problem) -> None:
            self._resets -= 1
            self._subscribed = False
            answer(reply)

        self.ask(pack(b"RESET"), forgotten)

    def _hurry(self) -> None:
        """Give the command that is to be answered next its time."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._asked and not self._asked[0][1]:
            self._late = self._pool.reactor.callLater(self._pool.upstream.timeout, self._too_late)

    def _too_late(self) -> None:
        self._late = None
        self.end("Redis did not answer in time")

    def dataReceived(self, data: bytes) -> None:
        try:
            for reply in self._replies.feed(data):
                if self._is_pushed(reply):
                    if not self._resets:
                        self.push(reply)
                else:
                    answer, _, _, size = self._asked.popleft()
                    self._pool.waiting -= size
                    self._hurry()
                    answer(Raw(reply))
        except NotRedis as error:
            self.end(str(error))

    def _is_pushed(self, reply: bytes) -> bool:
        subscribes = bool(self._asked) and self._asked[0][2]
        if (subscribes or self._subscribed) and reply.startswith(_SUBSCRIPTIONS):
            self._subscribed = not reply.endswith(b"\r\n:0\r\n")
        if not self._asked:
            return True
        if subscribes and reply.startswith((b">", *_SUBSCRIPTIONS)):
            return False  # the answer to a SUBSCRIBE
        # In RESP2 only who has subscribed can tell a message from an array that begins with this word.
        return reply.startswith(b">") or (self._subscribed and reply.startswith(_MESSAGES))

    def end(self, why: str) -> None:
        """Let go of the connection; what was asked is answered with a Problem."""
        if self.gone:
            return
        self.gone = why
        self.transport.abortConnection()
        asked = list(self._asked)
        self._asked.clear()
        self._hurry()
        self._pool.ended(self)
        self._pool.waiting -= sum(size for _, _, _, size in asked)
        for answer, _, _, _ in asked:
            answer(Problem(why.encode("utf-8", "replace")))
        self.lost(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - they are all the same
        self.end("the connection to Redis was lost")

    def release(self) -> None:
        """The client has gone: be ready for another, or end."""
        if self._asked or self.gone or not self._pool.room:
            self.push = self.lost = _nobody
            self.end("released")
        else:
            self.lost = _nobody
            self.reset(self._released)

    def _released(self, reply: Raw | Problem) -> None:
        if isinstance(reply, Raw) and reply.data == b"+RESET\r\n":
            self.version = 2
            self.push = _nobody
            self._pool.idle.append(self)
        else:
            self.end("Redis refuses RESET")


def _refusal(reply: Raw | Problem) -> str | None:
    """Why Redis does not do it; None when it does."""
    if isinstance(reply, Problem):
        return reply.text.decode("utf-8", "replace")
    return reply.data[1:-2].decode("utf-8", "replace") if reply.data.startswith(b"-") else None


def _nobody(_: Any) -> None:
    """Nobody is told."""


class PinnedPool:
    """The connections of clients' own, to the Redis of an `Upstream`."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.reactor = upstream.reactor
        self.idle: list[Pinned] = []
        self.waiting = 0
        """Bytes of requests that wait on all of them."""
        self._all: set[Pinned] = set()
        self._opening = 0

    @property
    def room(self) -> bool:
        """Whether one more may be idle."""
        return len(self.idle) < MOST_IDLE

    @property
    def crowded(self) -> bool:
        """Whether Redis has as much to do as may wait for it."""
        return self.waiting > MOST_BYTES

    def __len__(self) -> int:
        """How many there are, those included that wait for a client."""
        return len(self._all)

    async def take(self, version: int) -> Pinned:
        """A connection that speaks this version of the protocol; raises Unavailable."""
        if self.idle:
            pinned = self.idle.pop()
        else:
            if len(self._all) + self._opening >= MOST_PINNED:
                raise Unavailable("too many clients need a connection of their own")
            pinned = await self._open()
        for words in self._greetings(pinned, version):
            said: Deferred[Raw | Problem] = Deferred()
            pinned.ask(pack(*words), said.callback)
            if (refusal := _refusal(await said)) is not None:
                pinned.end("refused")
                raise Unavailable(f"Redis refuses the log-in: {refusal}")
        pinned.version = version
        return pinned

    def renew(self, pinned: Pinned) -> None:
        """Have a connection as it was when it was taken, by a client that speaks version 2, after what it was asked."""

        def check(reply: Raw | Problem) -> None:
            if _refusal(reply) is not None:
                pinned.end("Redis refuses RESET")

        try:
            pinned.version = 2
            pinned.reset(check)
            for words in self._greetings(pinned, 2):
                pinned.ask(pack(*words), check)
        except Unavailable as error:
            pinned.end(str(error))

    def _greetings(self, pinned: Pinned, version: int) -> Iterator[Sequence[bytes]]:
        """What a fresh connection says first; raises Unavailable."""
        try:
            target = self.upstream.target()
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from None
        if target.password:
            user = (target.user.encode(),) if target.user else ()
            yield (b"AUTH", *user, target.password.encode())
        if version != pinned.version:
            yield (b"HELLO", b"%d" % version)
        if target.database:
            yield (b"SELECT", b"%d" % target.database)

    async def _open(self) -> Pinned:
        self._opening += 1
        try:
            endpoint = endpoint_of(self.upstream.target(), self.reactor, self.upstream.timeout)
            pinned: Any = await endpoint.connect(Factory.forProtocol(lambda: Pinned(self)))
        except Exception as error:  # noqa: BLE001 - whatever keeps it from connecting
            raise Unavailable(f"cannot connect to Redis: {error}") from None
        finally:
            self._opening -= 1
        self._all.add(pinned)
        return pinned  # type: ignore[no-any-return]  # an endpoint returns the protocol it was given

    def ended(self, pinned: Pinned) -> None:
        """A connection is no more."""
        self._all.discard(pinned)
        if pinned in self.idle:
            self.idle.remove(pinned)

    def stop(self) -> None:
        """Let go of all of them."""
        for pinned in list(self._all):
            pinned.end("netd is stopping")


class Unavailable(Exception):
    """There is no connection to be had, and the text says why."""
