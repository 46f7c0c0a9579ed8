"""The ledger of delivery tags against the simplest one there is: a list."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.bridge.ledger import Ledger, NeverSent, Range

steps = st.lists(
    st.one_of(
        st.tuples(st.just("sent"), st.integers(1, 60), st.integers(0, 5)),
        st.tuples(st.just("ack"), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.none()),
        st.tuples(st.just("up to"), st.integers(0, 40), st.none()),
        st.tuples(st.just("number"), st.integers(1, 70), st.none()),
    ),
    max_size=30,
)


def numbers(ranges: Iterable[Range]) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]


class Model:
    """Every tag with its message, and whether it waits."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.waits: list[bool] = []

    def settle(self, tags: Iterable[int]) -> list[int]:
        fresh = [tag for tag in sorted(set(tags)) if self.waits[tag - 1]]
        for tag in fresh:
            self.waits[tag - 1] = False
        return [self.sent[tag - 1] for tag in fresh]


@given(steps)
def test_every_message_is_settled_once_and_by_its_own_tag(
    taken: list[tuple[str, int | list[int], int | None]],
) -> None:
    ledger, model = Ledger(), Model()
    for what, value, more in taken:
        match what, value:
            case "sent", int(first):
                several = list(range(first, first + (more or 0) + 1))
                if any(each in model.sent[-1:] or _waits(model, each) for each in several):
                    continue  # a message is never on its way twice
                ledger.sent(several[0], several[-1])
                model.sent += several
                model.waits += [True] * len(several)
            case "ack", list(tags):
                known = [tag for tag in tags if tag <= len(model.sent)]
                assert numbers(ledger.settle(known)) == model.settle(known)
            case "up to", int(tag) if tag <= len(model.sent):
                assert numbers(ledger.settle_up_to(tag)) == model.settle(range(1, (tag or len(model.sent)) + 1))
            case "number", int(number):
                waited = _waits(model, number)
                assert ledger.settle_number(number) == bool(waited)
                model.settle(waited)
        assert ledger.waiting == sum(model.waits)
    assert numbers(ledger.settle_all()) == model.settle(range(1, len(model.sent) + 1))
    assert ledger.waiting == 0


def _waits(model: Model, number: int) -> list[int]:
    return [tag + 1 for tag, sent in enumerate(model.sent) if sent == number and model.waits[tag]]


def test_one_confirm_of_many_messages_is_one_range() -> None:
    ledger = Ledger()
    ledger.sent(1000, 1999)
    ledger.sent(2000, 2999)
    assert ledger.settle_up_to(1500) == [(1000, 2499)]
    assert ledger.settle(range(1501, 2001)) == [(2500, 2999)]


def test_a_message_sent_again_has_a_tag_of_its_own() -> None:
    ledger = Ledger()
    ledger.sent(10, 12)
    assert ledger.settle([2]) == [(11, 11)]
    ledger.sent(11, 11)
    assert ledger.settle_up_to(0) == [(10, 10), (12, 12), (11, 11)]


def test_a_confirm_of_what_was_never_sent_is_told() -> None:
    ledger = Ledger()
    ledger.sent(1, 3)
    with pytest.raises(NeverSent, match="tag 4 of 3"):
        ledger.settle([2, 4])
    with pytest.raises(NeverSent, match="tag 9 of 3"):
        ledger.settle_up_to(9)
