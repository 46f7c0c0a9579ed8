"""How long netd waits before it tries to reach Redis once more: longer and longer, never all alike, never given up."""

import random
from collections.abc import Iterator
from typing import cast

import pytest
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import ClientFactory
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from netd.cache.redis import DELAY_FACTOR, DELAY_JITTER, FIRST_DELAY, LONGEST_DELAY, Greeting, Upstream
from netd.runtime import Reactor
from netd.settings import Secret
from tests.fakes import MemoryNetwork, result_of

STEP = 1 / 1024
"""Seconds that the clock goes on at once: a fraction that sums up exactly."""

GREETING: Greeting = ([(b"PING",)], lambda _: "")


class Transport(StringTransport):
    """To a Redis that accepts a connection."""

    protocol: IProtocol

    def abortConnection(self) -> None:
        self.disconnecting = True


class Redis:
    """The Redis at the end of a unix socket, and the attempts to reach it."""

    def __init__(self, store: str = "redis+unix:///redis.sock") -> None:
        self.network = MemoryNetwork()
        self.upstream = Upstream(Secret(text=store), 1.0, cast("Reactor", self.network))
        self._answered = 0

    @property
    def _attempts(self) -> int:
        return len(self.network.unixClients) - self._answered

    @property
    def _factory(self) -> ClientFactory:
        """Of the attempt that is under way."""
        assert self._attempts == 1
        return cast("ClientFactory", self.network.unixClients[-1][1])

    def refuse(self) -> None:
        """Nobody is there."""
        factory, self._answered = self._factory, self._answered + 1
        factory.clientConnectionFailed(None, Failure(ConnectError()))  # type: ignore[arg-type]  # nobody looks at it

    def accept(self) -> Transport:
        factory, self._answered = self._factory, self._answered + 1
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        transport = Transport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        self.network.advance(0)
        return transport

    def hang_up(self, transport: Transport) -> None:
        transport.protocol.connectionLost(Failure(ConnectionLost()))

    def wait(self) -> float:
        """Let time pass until the next attempt; how much that was."""
        began = self.network.seconds()
        while not self._attempts:
            self.network.advance(STEP)
            assert self.network.seconds() - began < 10 * LONGEST_DELAY, "it has given up"
        return self.network.seconds() - began


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    redis = Redis()
    _take_over(redis, monkeypatch)
    redis.upstream.start()
    yield redis
    result_of(redis.upstream.stop())


def _take_over(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the reactor that txredisapi and its ClientService find by themselves."""
    monkeypatch.setattr("twisted.internet.reactor", redis.network)
    monkeypatch.setattr("txredisapi.reactor", redis.network)


@pytest.fixture
def jitter(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Each delay as it would be without jitter, and by how much it would have varied: it does not, here."""
    asked: list[tuple[float, float]] = []

    def exactly(middle: float, spread: float) -> float:
        asked.append((middle, spread))
        return middle

    monkeypatch.setattr(random, "normalvariate", exactly)
    return asked


def test_the_first_attempt_is_made_at_once_and_each_further_one_waits_twice_as_long_up_to_a_limit(
    redis: Redis, jitter: list[tuple[float, float]]
) -> None:
    assert redis.wait() == 0
    waited = []
    for _ in range(8):
        redis.refuse()
        waited.append(redis.wait())
    expected = [min(FIRST_DELAY * DELAY_FACTOR**number, LONGEST_DELAY) for number in range(8)]
    assert waited == pytest.approx(expected, abs=2 * STEP)
    assert waited[-1] == pytest.approx(2.0, abs=2 * STEP)
    assert [spread for _, spread in jitter] == pytest.approx([DELAY_JITTER * each for each in expected])


def test_after_a_hundred_attempts_it_is_still_tried_every_two_seconds(
    redis: Redis, jitter: list[tuple[float, float]]
) -> None:
    for _ in range(100):
        redis.wait()
        redis.refuse()
    assert redis.wait() == pytest.approx(LONGEST_DELAY, abs=2 * STEP)
    assert len(jitter) == 100


def test_many_daemons_that_lost_the_same_redis_do_not_come_back_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited = []
    for _ in range(30):
        redis = Redis()
        _take_over(redis, monkeypatch)
        redis.upstream.start()
        for _ in range(6):
            redis.refuse()
            last = redis.wait()
        waited.append(last)
        result_of(redis.upstream.stop())
    assert max(waited) - min(waited) > LONGEST_DELAY * DELAY_JITTER, "they come back together"
    assert all(0 < each < 2 * LONGEST_DELAY for each in waited)


def test_a_redis_that_accepts_and_hangs_up_is_tried_no_sooner_than_one_that_refuses(
    redis: Redis, jitter: list[tuple[float, float]]
) -> None:
    redis.upstream.greetings = [GREETING]
    for number in range(6):
        redis.hang_up(redis.accept())
        redis.wait()
        assert jitter[-1][0] == pytest.approx(min(FIRST_DELAY * DELAY_FACTOR**number, LONGEST_DELAY))


def test_once_redis_was_there_the_next_wait_is_short_again(redis: Redis, jitter: list[tuple[float, float]]) -> None:
    for _ in range(6):
        redis.refuse()
        redis.wait()
    redis.upstream.greetings = [GREETING]
    for number in range(4):
        transport = redis.accept()
        transport.protocol.dataReceived(b"+PONG\r\n")
        assert redis.upstream.link is not None
        redis.hang_up(transport)
        assert redis.upstream.link is None
        assert redis.wait() == pytest.approx(FIRST_DELAY, abs=2 * STEP)
        assert len(jitter) == 7 + number


def test_a_redis_that_accepts_and_says_nothing_is_given_up_after_the_timeout_and_tried_again(
    redis: Redis, jitter: list[tuple[float, float]]
) -> None:
    redis.upstream.greetings = [GREETING]
    transport = redis.accept()
    redis.network.advance(0.99)
    assert not transport.disconnecting
    redis.network.advance(0.02)
    assert transport.disconnecting
    assert redis.upstream.problem == "Redis accepts connections and does not answer"
    redis.hang_up(transport)
    redis.wait()
    assert len(jitter) == 1
