"""How long netd waits before it tries to reach Redis once more: longer and longer, never all alike, never given up."""

import random
from collections.abc import Iterator

import pytest

from netd.cache.redis import DELAY_FACTOR, DELAY_JITTER, FIRST_DELAY, LONGEST_DELAY
from tests.cache.memory_redis import GREETING, STEP, Redis, start


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    redis = start(monkeypatch)
    yield redis
    redis.close()


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
        redis = start(monkeypatch)
        for _ in range(6):
            redis.refuse()
            last = redis.wait()
        waited.append(last)
        redis.close()
    assert max(waited) - min(waited) > LONGEST_DELAY * DELAY_JITTER, "they come back together"
    assert all(0 < each < 2 * LONGEST_DELAY for each in waited)


def test_a_redis_that_accepts_and_hangs_up_is_tried_no_sooner_than_one_that_refuses(
    redis: Redis, jitter: list[tuple[float, float]]
) -> None:
    redis.upstream.greetings = [GREETING]
    for number in range(6):
        redis.accept().hang_up()
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
        transport.hang_up()
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
    redis.wait()
    assert len(jitter) == 1
