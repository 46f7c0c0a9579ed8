"""What a link to Redis does in time: late answers, silence, and whose replies are whose."""

from collections.abc import Iterator

import pytest

from netd.cache.redis import LATE, Link, Replies
from netd.cache.requests import Problem
from tests.cache.memory_redis import Redis, Transport, start

TIMEOUT = 1.0
A_LITTLE = TIMEOUT / 8
LATE_PROBLEM = Problem(LATE.encode())


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    redis = start(monkeypatch, TIMEOUT)
    yield redis
    redis.close()


@pytest.fixture
def transport(redis: Redis) -> Transport:
    return redis.accept()


class Asker:
    """Asks on a link, and remembers the answers by what was asked."""

    def __init__(self, redis: Redis) -> None:
        assert redis.upstream.link is not None
        self._link: Link = redis.upstream.link
        self.answers: dict[str, Replies] = {}

    def ask(self, name: str, count: int = 1) -> None:
        self._link.submit(name.encode(), count, lambda replies: self.answers.update({name: replies}))


@pytest.fixture
def asker(redis: Redis, transport: Transport) -> Asker:
    assert transport.connected
    return Asker(redis)


def pass_(redis: Redis, seconds: float) -> None:
    """Let time pass bit by bit."""
    for _ in range(round(seconds / A_LITTLE)):
        redis.network.advance(A_LITTLE)


def test_a_redis_that_falls_silent_is_cut_off_within_the_timeout_and_everybody_told(
    redis: Redis, transport: Transport, asker: Asker
) -> None:
    asker.ask("first", 2)
    pass_(redis, 0.5)
    asker.ask("second")
    pass_(redis, 0.25)
    assert asker.answers == {}
    pass_(redis, 0.25)
    assert transport.disconnecting
    assert asker.answers == {"first": [LATE_PROBLEM] * 2, "second": [LATE_PROBLEM]}


def test_who_waits_behind_others_large_replies_is_told_in_time_and_the_link_goes_on(
    redis: Redis, transport: Transport, asker: Asker
) -> None:
    asker.ask("large")
    asker.ask("small", 2)
    transport.protocol.dataReceived(b"$1000\r\n")
    for _ in range(8):
        transport.protocol.dataReceived(b"x" * 100)
        redis.network.advance(A_LITTLE)
    assert asker.answers == {"large": [LATE_PROBLEM], "small": [LATE_PROBLEM] * 2}
    assert not transport.disconnecting
    asker.ask("next")
    transport.protocol.dataReceived(b"x" * 200 + b"\r\n:1\r\n:2\r\n:3\r\n")
    assert asker.answers["next"] == [3], "and to nobody goes what was meant for another"
    assert asker.answers["large"] == [LATE_PROBLEM]


def test_who_asks_again_when_told_is_not_told_twice(redis: Redis, transport: Transport, asker: Asker) -> None:
    told: list[Replies] = []

    def again(replies: Replies) -> None:
        told.append(replies)
        asker.ask("again")

    assert redis.upstream.link is not None
    redis.upstream.link.submit(b"first", 1, again)
    for _ in range(9):
        transport.protocol.dataReceived(b"*1\r\n" if not told else b"")
        redis.network.advance(A_LITTLE)
    assert told == [[LATE_PROBLEM]]
    assert not transport.disconnecting


def test_a_redis_that_falls_silent_in_the_middle_of_a_reply_is_cut_off(
    redis: Redis, transport: Transport, asker: Asker
) -> None:
    asker.ask("large")
    transport.protocol.dataReceived(b"$1000\r\nxxx")
    pass_(redis, 1.0)
    assert transport.disconnecting
    assert asker.answers == {"large": [LATE_PROBLEM]}


def test_a_link_that_nobody_uses_is_asked_for_a_sign_of_life(redis: Redis, transport: Transport) -> None:
    pass_(redis, 1.0)
    assert b"PING" in transport.value()
    transport.protocol.dataReceived(b"+PONG\r\n")
    pass_(redis, 0.9)
    assert not transport.disconnecting
    pass_(redis, 2.0)
    assert transport.disconnecting, "it said nothing to the second"


def test_what_redis_says_without_being_asked_ends_the_link(redis: Redis, transport: Transport, asker: Asker) -> None:
    asker.ask("first")
    transport.protocol.dataReceived(b":1\r\n:2\r\n")
    assert asker.answers == {"first": [1]}
    assert transport.disconnecting
    assert redis.upstream.problem == "Redis answered what nobody asked"


def test_what_waits_on_a_link_is_bounded(redis: Redis, transport: Transport, asker: Asker) -> None:
    for number in range(100):
        asker.ask(f"{number}" + "x" * (1 << 20))
    redis.network.advance(0)
    refused = [name for name, (answer,) in asker.answers.items() if isinstance(answer, Problem)]
    assert len(refused) == 100 - 64
    assert len(transport.value()) < 65 << 20
