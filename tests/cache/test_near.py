"""The near cache's rules, each by what would be seen if it were not kept."""

from typing import cast

import pytest

from netd.cache.config import CacheSettings
from netd.cache.near import FRESH, Fill, Near
from netd.cache.redis_store import RedisStore
from netd.cache.requests import Reply
from tests.fakes import MemoryNetwork, configure, result_of, runtime_on


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """Gets and their fills, as a store would make them: what was answered from here, what Redis has yet to answer."""

    def __init__(self, near: Near) -> None:
        self.near = near
        self.answers: list[Reply] = []
        self.under_way: list[Fill] = []

    def get(self, key: bytes = b"k") -> bytes | None:
        """The value if it is a hit; else Redis is asked, or a request under way is joined."""
        if (hits := self.near.lookup([key])) is not None and (value := hits[0]) is not None:
            return value
        if not self.near.join(key, self.answers.append):
            self.under_way.append(self.near.fill(key, self.answers.append))
        return None

    def redis_says(self, value: bytes | None, ttl: int = -1) -> None:
        """Redis answers the oldest request."""
        self.near.filled(self.under_way.pop(0), value, ttl if value is not None else -2)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def near(clock: Clock) -> Near:
    near = Near(1 << 20, clock)
    near.begin()
    near.alive(clock.now)
    return near


@pytest.fixture
def asked(near: Near) -> Asked:
    return Asked(near)


def test_a_value_that_redis_gave_is_a_hit_afterwards(asked: Asked) -> None:
    assert asked.get() is None
    asked.redis_says(b"1")
    assert asked.answers == [b"1"]
    assert asked.get() == b"1"
    assert (asked.near.hits, asked.near.misses) == (1, 1)


def test_what_others_change_is_asked_for_anew(asked: Asked) -> None:
    asked.get()
    asked.redis_says(b"1")
    asked.near.invalidate([b"k"])
    assert asked.get() is None
    assert asked.near.invalidated == 1


def test_a_key_that_a_command_of_ours_touches_is_dropped_when_it_is_sent(asked: Asked) -> None:
    asked.get()
    asked.redis_says(b"1")
    asked.near.drop([b"k"])
    assert asked.get() is None


def test_an_invalidation_that_overtakes_a_reply_keeps_the_old_value_out(asked: Asked) -> None:
    asked.get()
    asked.near.invalidate([b"k"])
    asked.redis_says(b"old")
    assert asked.answers == [b"old"], "who asked before may have it"
    assert asked.get() is None


def test_a_write_that_is_sent_behind_a_get_keeps_the_value_before_it_out(asked: Asked) -> None:
    asked.get()
    asked.near.drop([b"k"])
    asked.redis_says(b"old")
    assert asked.get() is None


def test_a_miss_joins_a_request_that_is_under_way(asked: Asked) -> None:
    asked.get()
    asked.get()
    assert len(asked.under_way) == 1
    asked.redis_says(b"1")
    assert asked.answers == [b"1", b"1"]
    assert asked.near.coalesced == 1


def test_a_miss_does_not_join_a_request_sent_before_the_last_write(asked: Asked) -> None:
    asked.get()
    asked.near.drop([b"k"])
    asked.get()
    assert len(asked.under_way) == 2
    asked.redis_says(b"old")
    asked.redis_says(b"new")
    assert asked.answers == [b"old", b"new"]
    assert asked.get() == b"new"


def test_a_miss_does_not_join_a_request_whose_key_was_invalidated(asked: Asked) -> None:
    asked.get()
    asked.near.invalidate([b"k"])
    asked.get()
    assert len(asked.under_way) == 2


def test_a_late_reply_from_before_a_write_does_not_end_the_request_behind_it(asked: Asked) -> None:
    asked.get()
    asked.near.drop([b"k"])
    asked.get()
    asked.redis_says(b"old")
    asked.get()
    assert len(asked.under_way) == 1, "the request behind the write is still joined"


def test_a_value_is_gone_when_it_is_gone_in_redis_counted_from_when_it_was_asked_for(
    asked: Asked, clock: Clock
) -> None:
    asked.get()
    clock.now += 0.5
    asked.redis_says(b"1", ttl=600)
    clock.now += 0.09
    assert asked.get() == b"1"
    clock.now += 0.02
    asked.near.alive(clock.now)
    assert asked.get() is None


def test_a_value_that_was_gone_when_its_time_was_asked_for_is_not_kept(asked: Asked) -> None:
    asked.get()
    asked.near.filled(asked.under_way.pop(), b"1", -2)
    assert len(asked.near.items) == 0


def test_that_there_is_no_value_is_not_kept(asked: Asked) -> None:
    asked.get()
    asked.redis_says(None)
    assert asked.get() is None
    assert len(asked.under_way) == 1, "Redis is asked again"


def test_hits_end_a_second_after_the_last_ping_that_was_answered_was_sent(asked: Asked, clock: Clock) -> None:
    asked.get()
    asked.redis_says(b"1")
    clock.now += FRESH - 0.01
    assert asked.get() == b"1"
    clock.now += 0.02
    assert asked.get() is None
    asked.near.alive(clock.now - 0.5)
    assert asked.get() == b"1", "the link was alive: nothing was missed"


def test_an_answered_ping_means_nothing_while_redis_does_not_track(near: Near, clock: Clock) -> None:
    near.end()
    near.alive(clock.now)
    assert near.lookup([b"key"]) is None


def test_a_lost_link_ends_hits_at_once(asked: Asked) -> None:
    asked.get()
    asked.redis_says(b"1")
    asked.near.end()
    assert asked.get() is None


def test_what_was_known_before_a_new_pair_of_links_is_forgotten(asked: Asked, clock: Clock) -> None:
    asked.get()
    asked.redis_says(b"1")
    asked.near.end()
    asked.near.begin()
    asked.near.alive(clock.now)
    assert asked.get() is None


@pytest.mark.parametrize("lost", ["end", "begin"])
def test_a_request_from_before_redis_tracked_does_not_fill(asked: Asked, lost: str, clock: Clock) -> None:
    asked.get()
    if lost == "end":
        asked.near.end()
        asked.redis_says(b"old")
        asked.near.begin()
    else:
        asked.near.begin()
        asked.redis_says(b"old")
    asked.near.alive(clock.now)
    assert asked.get() is None


def test_a_flush_forgets_everything_and_keeps_out_what_is_under_way(asked: Asked) -> None:
    asked.get(b"a")
    asked.redis_says(b"1")
    asked.get(b"b")
    asked.near.invalidate(None)
    asked.redis_says(b"2")
    assert asked.get(b"a") is None
    assert asked.get(b"b") is None


def test_what_is_kept_is_bounded_in_bytes_and_the_least_recently_used_goes(clock: Clock) -> None:
    near = Near(1 << 20, clock)
    near.begin()
    near.alive(clock.now)
    asked = Asked(near)
    for number in range(2000):
        asked.get(b"%d" % number)
        asked.redis_says(b"x" * 1000)
        assert asked.get(b"0") is not None
    assert near.items.used <= 1 << 20
    assert near.items.evicted > 0


def test_a_value_larger_than_the_cache_is_not_kept(asked: Asked) -> None:
    asked.get()
    asked.redis_says(b"x" * (2 << 20))
    assert asked.get() is None


def test_while_redis_is_away_old_values_may_be_served_for_as_long_as_is_asked(clock: Clock) -> None:
    near = Near(1 << 20, clock, serve_stale=60)
    near.begin()
    near.alive(clock.now)
    asked = Asked(near)
    asked.get()
    asked.redis_says(b"1")
    assert not near.stale
    near.end()
    assert near.stale
    assert near.items.fetch([b"k"]) == [b"1"]
    clock.now += 60
    assert not near.stale


def test_a_store_that_has_stopped_holds_no_values() -> None:
    text = '[cache.main]\nlisten_redis = "127.0.0.1:6380"\nstore = "redis+unix:///none"\n'
    settings = cast("CacheSettings", configure(text).services[0].settings)
    store = RedisStore(settings, "cache.main", runtime_on(MemoryNetwork()))
    near = store.near
    assert near is not None
    near.begin()
    near.filled(near.fill(b"a", lambda _: None), b"value", -1)
    under_way = near.fill(b"b", lambda _: None)
    assert near.items.used
    result_of(store.stop())
    near.filled(under_way, b"value", -1)
    assert near.items.used == 0
