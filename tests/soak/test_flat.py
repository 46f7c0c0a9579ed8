"""The rule of the soak on made-up series: what is flat passes, what leaks is found."""

import random

import pytest

from tests.soak.flat import Allowance, Point, TooFew, trend

SECONDS = 1800
MIB = float(1 << 20)
MEMORY = Allowance(0.03, 3 * MIB)


def series(leak: float, seed: int = 1, *, noise: float = 0.4 * MIB, faults: float = 8 * MIB) -> list[Point]:
    """Memory that warms up, is noisy, stands higher while something is broken, and leaks so many bytes a second."""
    chance = random.Random(seed)
    found, extra = [], 0.0
    for second in range(SECONDS):
        extra = faults if chance.random() < 0.01 else extra * 0.8
        warm = 60 * MIB - 20 * MIB * 0.98**second
        found.append((float(second), warm + chance.gauss(0, noise) + extra + leak * second))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_what_warms_up_and_then_stays_is_flat(seed: int) -> None:
    found = trend(series(0, seed), MEMORY)
    assert found.flat
    assert abs(found.rise) < 0.3 * MIB


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_of_five_mebibytes_in_half_an_hour_is_measured_and_one_of_eight_is_found(seed: int) -> None:
    assert trend(series(5 * MIB / SECONDS, seed), MEMORY).rise == pytest.approx(2.5 * MIB, rel=0.2)
    assert not trend(series(8 * MIB / SECONDS, seed), MEMORY).flat


def test_a_leaked_descriptor_every_minute_is_found_below_the_noise_of_clients_that_come_and_go() -> None:
    chance = random.Random(1)
    clients = [(float(second), 40.0 + chance.randint(0, 20 + second // 100)) for second in range(SECONDS)]
    allowance = Allowance(0, 6)
    assert trend(clients, allowance).flat
    assert not trend([(x, y + x // 60) for x, y in clients], allowance).flat


def test_steps_up_are_a_leak_too() -> None:
    steps = [(float(second), 10.0 + second // 300) for second in range(SECONDS)]
    assert not trend(steps, Allowance(0, 1.5)).flat


def test_what_falls_is_flat() -> None:
    assert trend([(float(second), -float(second)) for second in range(SECONDS)], Allowance(0, 0)).flat


def test_a_share_of_the_level_is_allowed_where_it_is_more_than_the_least() -> None:
    rising = [(float(second), 100 + second / 100) for second in range(SECONDS)]
    assert trend(rising, Allowance(0.1, 0)).flat
    assert not trend(rising, Allowance(0.01, 0)).flat


def test_nothing_is_said_of_a_handful_of_samples() -> None:
    with pytest.raises(TooFew):
        trend([(float(second), 1.0) for second in range(15)], MEMORY)
