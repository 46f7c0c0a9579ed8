"""Medians and ratios over interleaved rounds."""

import pytest

from benchmarks import stats


def rounds(*cpu: float | None) -> list[stats.Figures | None]:
    return [None if value is None else {"cpu_us": value} for value in cpu]


def test_the_middle_is_the_median_of_the_rounds_that_succeeded() -> None:
    assert stats.middle(rounds(9, None, 1, 2), "cpu_us") == 2


def test_what_was_never_measured_has_no_middle() -> None:
    assert stats.middle(rounds(None), "cpu_us") is None
    assert stats.middle(rounds(1.0), "rate") is None


def test_spread_is_a_part_of_the_median() -> None:
    assert stats.spread(rounds(9, 10, 12), "cpu_us") == pytest.approx(0.3)


def test_a_round_in_which_the_whole_machine_was_slow_does_not_change_the_ratio() -> None:
    peer, netd = rounds(20, 60, 20), rounds(10, 30, 10)
    assert stats.ratio(peer, netd, "cpu_us") == 2


def test_the_ratio_pairs_rounds_and_leaves_out_those_with_a_failure() -> None:
    # Without the pairing, the medians 30 and 10 would give 3.
    assert stats.ratio(rounds(20, None, 40), rounds(10, 5, 20), "cpu_us") == 2


def test_a_ratio_to_nothing_is_none() -> None:
    assert stats.ratio(rounds(1), [], "cpu_us") is None
    assert stats.ratio(rounds(1), rounds(0), "cpu_us") is None
