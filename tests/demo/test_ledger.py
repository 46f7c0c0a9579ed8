"""The demonstration's ledger finds what is lost, and what else must not be."""

import pytest

from tests.demo.__main__ import status_of
from tests.demo.ledger import Ledger, Line

LINES: list[Line] = [(1, number) for number in range(1, 11)]


@pytest.fixture
def ledger() -> Ledger:
    """Ten lines were sent and answered; eight are in the queue, two are dead."""
    ledger = Ledger()
    ledger.send(LINES)
    ledger.answer(LINES)
    for line in LINES[:8]:
        ledger.find(line, f"id-{line[1]}")
    for line in LINES[8:]:
        ledger.bury(line, "NO_ROUTE")
    return ledger


def test_all_is_well_when_every_answered_line_is_in_the_queue_or_dead(ledger: Ledger) -> None:
    counts = ledger.counts()
    assert (counts.sent, counts.answered, counts.in_queue, counts.lost) == (10, 10, 8, 0)
    assert counts.dead == {"NO_ROUTE": 2}
    assert ledger.problems() == []


def test_an_answered_line_that_is_nowhere_is_lost(ledger: Ledger) -> None:
    ledger.send([(2, 1), (2, 2)])
    ledger.answer([(2, 1), (2, 2)])
    ledger.find((2, 2), "id")
    assert ledger.counts().lost == 1
    assert ledger.problems() == ["1 acknowledged lines are LOST"]


def test_a_line_without_an_answer_is_not_lost_but_may_not_stay_so(ledger: Ledger) -> None:
    ledger.send([(2, 1)])
    assert ledger.counts().lost == 0
    assert ledger.problems() == ["1 lines were never answered"]


def test_a_repeat_with_the_same_id_is_counted_and_is_no_problem(ledger: Ledger) -> None:
    ledger.find(LINES[0], "id-1")
    ledger.find(LINES[0], "id-1")
    assert ledger.counts().repeats == 2
    assert ledger.problems() == []


def test_a_line_that_the_client_sent_again_may_have_two_ids(ledger: Ledger) -> None:
    ledger.send([LINES[0]])
    ledger.find(LINES[0], "another")
    counts = ledger.counts()
    assert (counts.sent, counts.twice, counts.repeats) == (10, 1, 0)
    assert ledger.problems() == []


def test_a_line_that_was_sent_once_may_not(ledger: Ledger) -> None:
    ledger.find(LINES[0], "another")
    assert ledger.problems() == ["1 lines that were sent once came under two ids"]


def test_a_line_that_nobody_sent_is_a_problem(ledger: Ledger) -> None:
    ledger.find((7, 7), "id")
    ledger.bury((7, 8), "NO_ROUTE")
    assert ledger.problems() == ["2 lines came out that nobody sent"]


def test_a_refused_line_is_a_problem(ledger: Ledger) -> None:
    ledger.refuse("-ERR 3 TOOLONG")
    assert ledger.problems() == ["1 lines were refused: ['-ERR 3 TOOLONG']"]


def test_the_exit_status_is_0_only_without_a_problem() -> None:
    assert status_of([], sabotage="") == 0
    assert status_of(["1 acknowledged lines are LOST"], sabotage="") == 1
    assert status_of(["1 acknowledged lines are LOST"], sabotage="earlyok") == 1
    assert status_of([], sabotage="nosync") == 3
