"""The table of items: bounded by bytes, the least recently used go first, expired ones are gone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.cache.items import OVERHEAD, Items, NoRoom


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def items_of(count: int, *, evict: bool = True, clock: Clock | None = None) -> Items:
    """Room for `count` items of one byte of key and nine of value."""
    return Items(count * (10 + OVERHEAD), clock or Clock(), evict=evict)


def put(items: Items, *keys: bytes) -> None:
    for key in keys:
        items.put(key, b"x" * 9)


def test_what_is_put_is_found_and_what_is_discarded_is_not() -> None:
    items = items_of(3)
    put(items, b"a")
    assert items.fetch([b"a", b"b"]) == [b"x" * 9, None]
    assert items.discard(b"a")
    assert not items.discard(b"a")
    assert items.fetch([b"a"]) == [None]
    assert (len(items), items.used) == (0, 0)


def test_a_full_table_lets_the_oldest_go() -> None:
    items = items_of(3)
    put(items, b"a", b"b", b"c", b"d", b"e")
    assert sorted(items.all_keys()) == [b"c", b"d", b"e"]
    assert items.evicted == 2


def test_what_was_used_stays_when_what_was_not_goes() -> None:
    items = items_of(4)
    put(items, b"a", b"b", b"c", b"d")
    items.fetch([b"a", b"c"])
    put(items, b"e", b"f")
    assert sorted(items.all_keys()) == [b"a", b"c", b"e", b"f"]


def test_an_item_in_a_slot_that_was_free_lives_as_long_as_others() -> None:
    items = items_of(4)
    put(items, b"a", b"b", b"c", b"d", b"e")
    items.discard(b"b")
    put(items, b"f", b"g")
    assert b"f" in set(items.all_keys())


def test_a_larger_value_makes_room_without_losing_its_own_item() -> None:
    items = items_of(3)
    put(items, b"a", b"b", b"c")
    items.put(b"a", b"y" * 200)
    assert items.fetch([b"a"]) == [b"y" * 200]
    assert items.used <= items.max_bytes


def test_a_table_that_must_not_evict_refuses_and_changes_nothing() -> None:
    items = items_of(2, evict=False)
    put(items, b"a", b"b")
    with pytest.raises(NoRoom):
        items.put(b"c", b"")
    with pytest.raises(NoRoom):
        items.put(b"a", b"x" * 500)
    assert items.fetch([b"a", b"b", b"c"]) == [b"x" * 9, b"x" * 9, None]


def test_what_is_larger_than_the_whole_table_is_refused_and_evicts_nothing() -> None:
    items = items_of(2)
    put(items, b"a", b"b")
    with pytest.raises(NoRoom):
        items.put(b"c", b"x" * 10_000)
    assert len(items) == 2


def test_an_item_is_gone_at_its_deadline() -> None:
    clock = Clock()
    items = items_of(3, clock=clock)
    items.put(b"a", b"1", clock.now + 10)
    clock.now += 9.9
    assert items.fetch([b"a"]) == [b"1"]
    clock.now += 0.1
    assert items.find(b"a") is None
    assert items.used == 0


def test_expired_items_that_nobody_asks_for_are_found() -> None:
    clock = Clock()
    items = items_of(100, clock=clock)
    for number in range(50):
        items.put(b"%d" % number, b"", clock.now + 1 + number % 2 * 100)
    clock.now += 2
    for _ in range(5):
        items.expire_some(10)
    assert (len(items), items.expired) == (25, 25)


def test_cas_uniques_grow_and_survive_a_clear() -> None:
    items = items_of(3)
    first = items.uniques[items.put(b"a", b"")]
    second = items.uniques[items.put(b"a", b"")]
    items.clear()
    assert first < second < items.uniques[items.put(b"a", b"")]


def test_an_item_knows_whether_and_when_it_was_accessed() -> None:
    clock = Clock()
    items = items_of(3, clock=clock)
    slot = items.put(b"a", b"")
    clock.now += 5
    assert (items.fetched(slot), items.idle(slot)) == (False, 5)
    items.touch(slot, fetch=False)
    assert (items.fetched(slot), items.idle(slot)) == (False, 0)
    items.fetch([b"a"])
    clock.now += 3
    assert (items.fetched(slot), items.idle(slot)) == (True, 3)


def test_a_scan_sees_everything_that_was_there_throughout() -> None:
    items = items_of(100)
    put(items, *(bytes([number]) for number in range(50)))
    cursor, seen = items.scan(0, 7)
    items.discard(b"\0")
    put(items, b"new", b"newer")
    while cursor:
        cursor, more = items.scan(cursor, 7)
        seen += more
    assert {bytes([number]) for number in range(50)} <= set(seen)
    assert len(seen) == len(set(seen))


def test_a_random_key_is_one_of_those_that_are_there() -> None:
    clock = Clock()
    items = items_of(200, clock=clock)
    assert items.random_key() is None
    for number in range(150):
        items.put(b"%d" % number, b"", clock.now + 1 if number else 0.0)
    clock.now += 2
    assert items.random_key() == b"0"


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "fetch", "discard"]),
        st.sampled_from([b"a", b"b", b"c", b"dd", b"eee"]),
        st.integers(0, 300),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_whatever_is_done_the_sum_is_right_and_within_bounds(operations: list[tuple[str, bytes, int]]) -> None:
    items = items_of(4)
    written: dict[bytes, bytes] = {}
    for what, key, size in operations:
        if what == "put":
            items.put(key, b"x" * size)
            written[key] = b"x" * size
        elif what == "discard":
            items.discard(key)
        else:
            (found,) = items.fetch([key])
            assert found in {None, written.get(key)}
        keys = list(items.all_keys())
        assert items.used == sum(len(k) + len(written[k]) + OVERHEAD for k in keys) <= items.max_bytes
        assert sorted(keys) == sorted(items.scan(0, 100)[1])
