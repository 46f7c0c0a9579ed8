"""The ledger of the rounds notices what it is to notice, and takes no repeat for a fault."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rounds import Rounds


def rounds_that_received(*lines: tuple[int, bool]) -> Rounds:
    """Lines of the port that is alone on its queue, and whether the broker had delivered them before."""
    nobody: Any = None
    rounds = Rounds(Path("/nowhere"), nobody, nobody, 1)
    for reserved in rounds._reserved:
        reserved.close()
    for number, redelivered in lines:
        found = {"body": f"alone {number}", "headers": {"x-netd-id": f"id-1-{number:016d}"}, "redelivered": redelivered}
        rounds.consumers[0]._note(b"1\t1\t" + json.dumps(found).encode())
    return rounds


@pytest.mark.parametrize(
    "lines",
    [
        [(1, False), (2, False), (3, False)],
        [(1, False), (2, False), (1, False), (2, False), (3, False)],  # netd was killed before it heard of the confirm
        [(1, False), (3, False), (2, True)],  # the second was on its way to a client that is gone
        [(1, False), (3, False), (2, False), (3, False), (2, True)],  # both
    ],
)
def test_lines_in_order_repeats_aside(lines: list[tuple[int, bool]]) -> None:
    rounds = rounds_that_received(*lines)
    rounds.check_order()
    assert rounds.check_repeats() == len(lines) - 3


def test_a_line_that_was_overtaken_is_told_with_what_came_around_it() -> None:
    with pytest.raises(AssertionError, match=r"2 came after 3:\n(.|\n)*3 0{15}3 by connection 0\n.* 2 0{15}2 by"):
        rounds_that_received((1, False), (3, False), (2, False)).check_order()


def test_a_line_under_two_ids_and_an_id_of_two_lines_are_told() -> None:
    rounds = rounds_that_received((1, False), (2, False))
    rounds.consumers[0].received.append(("alone", 1, "id-1-0000000000000002"))
    with pytest.raises(AssertionError):
        rounds.check_repeats()
