"""The connections to Redis: txredisapi connects, reconnects and logs in; what is asked on them goes a shorter way.

A `Link` is one connection. `submit` takes requests that are ready to be sent and calls back once with all of their
replies: no Deferred, no timer, no parser in Python per command. Replies come in the order of requests, and nothing else
ties them together: never can a reply be taken for another request's.

What waits on a link is bounded in bytes. Time is counted in ticks, a fixed number to the timeout: a batch bears the
tick in which it was sent, and each tick looks at the oldest batches alone. One that is late is answered with a
`Problem`. As long as Redis is talking, it is late because of what was asked before it, and its replies are passed over
when they come; once Redis has been silent for as long, the link is cut, and so fails everything asked on it. A link on
which nothing is asked is asked PING, so that a Redis that has vanished is noticed before a client does.

An `Upstream` keeps one link up, with back-off and jitter. Its address and password are read anew for every attempt; and
whatever goes wrong in logging in, a password that is wrong today may be right tomorrow, so it never gives up.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, cast

import hiredis
import txredisapi
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from netd.cache.config import RedisTarget, parse_store
from netd.cache.requests import Problem, Reply
from netd.log import Repeated
from netd.runtime import Reactor
from netd.settings import Secret
from netd.stats import Histogram

TICKS = 8
"""Parts that a timeout is counted in: a batch is given up between seven and eight parts after it was sent."""
IDLE_TICKS = 8
"""Ticks without anything asked after which a link is asked PING."""
HEARTBEAT = 0.25
"""Seconds between two PINGs on a link that listens."""
MOST_BYTES = 64 << 20
"""Bytes of requests that may wait on a link: half a second of a gigabit network."""
BUSY = b"Redis is too slow: too much waits for it already"
HELD = 1 << 20
"""Bytes that one turn's batches may have together to leave in one write: more than sixty clients' large values."""
BATCH_COST = 512
"""Bytes that a batch counts for beside its requests: about what it and who waits for it take."""

FIRST_DELAY, LONGEST_DELAY, DELAY_FACTOR, DELAY_JITTER = 0.1, 2.0, 2.0, 0.2
"""Seconds before another attempt: the first, the longest, what the next is multiplied with, how much it varies."""

LATE = "Redis did not answer in time"

NO_REPLIES = (hiredis.ProtocolError, TypeError, MemoryError)
"""What hiredis raises at bytes that no Redis sends: garbage, a map with a list for a key, more elements than there is
memory for."""

Replies = Sequence[Reply]
Done = Callable[[Replies], None]

_log = Logger()


def problem_of(text: str) -> Problem:
    """What Redis said in an error reply."""
    code, _, rest = text.partition(" ")
    if code.isupper():
        return Problem(rest.encode("utf-8", "replace"), code.encode())
    return Problem(text.encode("utf-8", "replace"))


def pack(*words: bytes) -> bytes:
    """A request on the wire."""
    return cast("bytes", hiredis.pack_command(words))  # type: ignore[arg-type]  # it is annotated for one word


def _describe(error: BaseException | None) -> str:
    """Why a connection has ended, in words."""
    match error:
        case VerificationError():
            return "TLS: the certificate that Redis shows is for another host name"
        case SSL.Error() if error.args and error.args[0]:
            return f"TLS: {', '.join(each[2] for each in error.args[0])}"
    return "the connection to Redis was lost"


class Link(txredisapi.RedisProtocol):  # type: ignore[misc]  # has no annotations
    """One connection to Redis. Usable from `ready`, which its upstream is told, until `lost`."""

    factory: "Upstream"

    def connectionMade(self) -> None:
        self.transport.bufferSize = HELD
        self.lost = ""
        self._batches: deque[tuple[int, Done, int, int, float]] = deque()
        self._got: list[Reply] = []
        self._bytes = 0
        self._tick = self._quiet = self._heard_at = 0
        self._timed = False
        self._now = self.factory.reactor.seconds
        self._replies: Any = None
        self._ticking: LoopingCall | None = None
        self._late: IDelayedCall | None = self.factory.reactor.callLater(self.factory.timeout, self._log_in_late)
        Deferred.fromCoroutine(self._log_in()).addErrback(
            lambda failure: _log.failure("unexpected error while logging in to Redis", failure)
        )

    async def _log_in(self) -> None:
        try:
            if self.password is not None:
                await self.auth(self.password, self.username)
            if self.dbid:
                await self.select(self.dbid)
        except txredisapi.RedisError as error:
            if not self.lost:
                self.cut(f"Redis refuses the log-in: {error}")
            return
        # From here on txredisapi is not asked any more, and its parser gives way to a bare one.
        self._replies = hiredis.Reader(
            replyError=problem_of,  # type: ignore[arg-type]  # anything may stand for an error
            notEnoughData=Ellipsis,
        )
        for greeting, check in self.factory.greetings:
            replies: Deferred[Replies] = Deferred()
            self.submit(b"".join(pack(*words) for words in greeting), len(greeting), replies.callback)
            problem = check(await replies)
            if problem:
                if not self.lost:
                    self.cut(problem)
                return
        if not self.lost:
            self._become_ready()

    def _become_ready(self) -> None:
        self._no_longer_late()
        self._ticking = LoopingCall(self._count)
        self._ticking.clock = self.factory.reactor
        self._ticking.start(self.factory.timeout / TICKS, now=False).addErrback(
            lambda failure: _log.failure("the clock of a link to Redis stopped", failure)
        )
        # As in txredisapi's own connectionMade; its factory and its back-off wait for these.
        self.connected, self._ready = 1, True
        waiting: list[Deferred[Any]] = list(self._waiting_for_connect)
        self._waiting_for_connect.clear()
        for each in waiting:
            each.callback(self)
        self.factory.ready(self)

    def _log_in_late(self) -> None:
        self._late = None
        self.cut("Redis accepts connections and does not answer")

    def _no_longer_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    # --- asking

    def submit(self, data: bytes, count: int, done: Done) -> None:
        """Send `count` requests; `done` is called once with their replies, later, with Problems if the link is lost.

        The link must not be lost already.
        """
        size = len(data) + BATCH_COST
        if self._bytes > MOST_BYTES:
            busy = [Problem(BUSY)] * count
            self.factory.reactor.callLater(0, done, busy)
            return
        self._bytes += size
        since = 0.0
        if not self._timed:  # one batch at a time is
            self._timed = True
            since = self._now()
        self._batches.append((count, done, size, self._tick, since))
        self.transport.write(data)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        replies = self._replies
        if replies is None:
            super().dataReceived(data, unpause)
            return
        self._heard_at = self._tick
        replies.feed(data)
        next_reply = replies.gets
        batches = self._batches
        got = self._got
        try:
            while batches:
                reply = next_reply()
                if reply is Ellipsis:
                    return
                got.append(reply)
                count, done, size, _, since = batches[0]
                while len(got) < count:
                    reply = next_reply()
                    if reply is Ellipsis:
                        return
                    got.append(reply)
                del batches[0]
                self._bytes -= size
                answers, self._got = got, (got := [])
                if since:
                    self.factory.seconds.observe(self._now() - since)
                    self._timed = False
                try:
                    done(answers)
                except Exception:  # noqa: BLE001 - our mistake with one batch must not end the link that serves all
                    _log.failure("a batch of replies made netd fail")
            if next_reply() is not Ellipsis:
                self.cut("Redis answered what nobody asked")
        except NO_REPLIES:
            self.cut("what stands at the address is no Redis")

    # --- the end

    def cut(self, why: str) -> None:
        """Give the link up: whatever it was asked is answered with a Problem."""
        if not self.lost:
            self.transport.abortConnection()
            self._end(why)

    def connectionLost(self, why: Failure) -> None:
        self._end(_describe(why.value))
        self._no_longer_late()
        if self._ticking is not None and self._ticking.running:
            self._ticking.stop()
        super().connectionLost(why)

    def _end(self, why: str) -> None:
        """Nothing more can be asked here; whatever was, is answered."""
        if self.lost:
            return
        self.lost = why
        self.factory.gone(self)
        failed = list(self._batches)
        self._batches.clear()
        self._got, self._bytes = [], 0
        problem = Problem(why.encode("utf-8", "replace"))
        for count, done, _, _, _ in failed:
            _answer(done, [problem] * count)

    def _give_up(self, late: int) -> None:
        """Answer the batches sent up to this tick; nobody waits for their replies any more."""
        overdue = list(takewhile(lambda batch: batch[3] <= late, self._batches))
        for at, (count, _, size, sent, since) in enumerate(overdue):
            self._batches[at] = count, _ignore, size, sent, since
        problem = Problem(LATE.encode())
        for count, done, *_ in overdue:
            _answer(done, [problem] * count)

    def _count(self) -> None:
        self._tick += 1
        if self._batches:
            self._quiet = 0
            late = self._tick - (TICKS - 1)
            if self._batches[0][3] <= late:
                if self._heard_at <= late:
                    self.cut(LATE)
                else:
                    self._give_up(late)
        else:
            self._quiet += 1
            if self._quiet >= IDLE_TICKS:
                self.submit(pack(b"PING"), 1, _ignore)


def _answer(done: Done, replies: Replies) -> None:
    try:
        done(replies)
    except Exception:  # noqa: BLE001 - our mistake with one batch must not end the link that serves all
        _log.failure("a batch of replies made netd fail")


def _ignore(_: Replies) -> None:
    """Nobody waits for these."""


Greeting = tuple[Sequence[Sequence[bytes]], Callable[[Replies], str]]
"""Requests to every new link before it is used, and what their replies mean: why it is unusable, or ""."""


class ListeningLink(Link):
    """A link that is subscribed to one channel, last thing of its greetings, and hears of nothing else from then on.

    It is asked PING all the time; what came before a PONG had come before Redis read its PING.
    """

    factory: "Listener"

    def _become_ready(self) -> None:
        self._pings: deque[float] = deque()
        self._heard = self._replies
        super()._become_ready()

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        if not self._ready:
            super().dataReceived(data, unpause)
            if not self._ready:
                return
            data = b""  # type: ignore[unreachable]  # it has become ready meanwhile
        self._heard.feed(data)
        try:
            while (heard := self._heard.gets()) is not Ellipsis and not self.lost:
                match heard:
                    case [b"message", _, message]:
                        self.factory.heard(message)
                    case [b"pong", _] if self._pings:
                        self.factory.alive(self._pings.popleft())
        except NO_REPLIES:
            self.cut("what stands at the address is no Redis")

    def _count(self) -> None:
        now = self.factory.reactor.seconds()
        if self._pings and now - self._pings[0] >= self.factory.timeout:
            self.cut(LATE)
        elif not self._pings or now - self._pings[-1] >= HEARTBEAT:
            self._pings.append(now)
            self.transport.write(pack(b"PING"))


class Upstream(txredisapi.RedisFactory):  # type: ignore[misc]  # has no annotations
    """Keeps one link to the Redis of a `store` setting up. `link` is it while there is one."""

    protocol = Link
    purpose = "for requests"
    initialDelay, maxDelay, factor, jitter = FIRST_DELAY, LONGEST_DELAY, DELAY_FACTOR, DELAY_JITTER

    def __init__(
        self,
        store: Secret,
        timeout: float,
        reactor: Reactor,
        *,
        greetings: Sequence[Greeting] = (),
        changed: Callable[[], None] = lambda: None,
        service: str = "",
    ) -> None:
        super().__init__(None, None, 1, isLazy=True, charset=None, convertNumbers=False)
        self.timeout = timeout
        self.reactor = reactor
        self.greetings = greetings
        self.link: Link | None = None
        self.problem = "Redis has not been reached yet"
        """Why there is no link."""
        self.connects = 0
        self.seconds = Histogram("Redis answers a batch in")
        self._place = ""
        self._store = store
        self._changed = changed
        self._service = service
        self._logged = ""
        self._stopping = False
        self._losses = Repeated(reactor, self._report)

    def start(self) -> None:
        """Connect, now and whenever the link is lost."""
        self.startConnecting(_Endpoint(self))

    async def stop(self) -> None:
        """Let go of Redis."""
        self._stopping = True
        if self.link is not None:
            self.link.cut("netd is stopping")
        with suppress(CancelledError):
            await self.disconnect()
        self._losses.stop()

    def target(self) -> RedisTarget:
        """Where Redis is, read anew; raises OSError or ValueError."""
        target = parse_store(self._store.read())
        if target is None:
            raise ValueError("the store's file says embedded: now; restart netd")
        self.username, self.password = target.user or None, target.password or None
        self.dbid = target.database or None
        self._place = target.place
        return target

    def stopTrying(self) -> None:
        """Txredisapi asks for it after a failed log-in; what failed may be put right, so it is tried again."""

    # --- told by links

    def ready(self, link: Link) -> None:
        """A link may be used from now on."""
        self.link = link
        self.connects += 1
        self.problem = self._logged = ""
        _log.info(
            "connected to Redis at {place}, {purpose}", place=self._place, purpose=self.purpose, service=self._service
        )
        self._changed()

    def gone(self, link: Link) -> None:
        """A link is lost, or has never been."""
        was_up = link is self.link
        if was_up:
            self.link = None
        self.failed(link.lost)
        if was_up:
            self._changed()

    def failed(self, why: str) -> None:
        """There is no link, and this is why: the log tells it once as long as it stays the same."""
        self.problem = why
        if not self._stopping and why != self._logged:
            self._logged = why
            self._losses.happened()

    def _report(self, count: int) -> None:
        if self.link is None:  # else it has come back before the log's turn
            _log.warn(
                "Redis is away, {purpose}: {why}",
                purpose=self.purpose,
                why=self.problem,
                count=count,
                service=self._service,
            )


class Listener(Upstream):
    """Keeps one link up that is subscribed to a channel.

    `heard` is told its messages, `alive` when the PING was sent that has just been answered.
    """

    protocol = ListeningLink
    purpose = "for what changes"

    def __init__(
        self, *arguments: Any, heard: Callable[[Reply], None], alive: Callable[[float], None], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.heard = heard
        self.alive = alive


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Where Redis is, looked up anew for every attempt to connect."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        upstream = self._upstream
        try:
            endpoint = endpoint_of(upstream.target(), upstream.reactor, upstream.timeout)
        except (OSError, ValueError) as error:
            upstream.failed(f"the store's address cannot be used: {error}")
            return fail(error)
        connecting: Deferred[Any] = endpoint.connect(factory)
        return connecting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(ConnectError, DNSLookupError):
            self._upstream.failed(f"cannot connect to Redis: {failure.getErrorMessage()}")
        elif not failure.check(CancelledError):
            self._upstream.failed(f"cannot connect to Redis: {failure.value!r}")
        return failure


def endpoint_of(target: RedisTarget, reactor: Any, timeout: float) -> IStreamClientEndpoint:
    """The endpoint that connects to a Redis."""
    if target.path:
        return cast("IStreamClientEndpoint", UNIXClientEndpoint(reactor, target.path, timeout=timeout))
    endpoint = HostnameEndpoint(reactor, target.host, target.port, timeout=timeout)
    if target.tls:
        return wrapClientTLS(optionsForClientTLS(target.host), endpoint)
    return endpoint
