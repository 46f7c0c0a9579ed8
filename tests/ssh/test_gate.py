"""Who may try to log in, and who has to wait."""

from ipaddress import ip_network

import pytest
from twisted.internet.task import Clock

from netd.ssh.config import LimitSettings
from netd.ssh.gate import LONGEST_PENALTY, MOST_ADDRESSES, Gate


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(LimitSettings(startups=4, startups_per_host=2), [ip_network("10.0.0.0/8")], clock)


def test_an_address_may_log_in_twice_at_once(gate: Gate) -> None:
    gate.entered("192.0.2.1")
    gate.entered("192.0.2.1")
    assert gate.refusal("192.0.2.1") == "startups_per_host"
    assert gate.refusal("192.0.2.2") is None
    gate.left("192.0.2.1")
    assert gate.refusal("192.0.2.1") is None


def test_four_may_log_in_at_once_in_all(gate: Gate) -> None:
    for number in range(4):
        gate.entered(f"192.0.2.{number}")
    assert gate.refusal("192.0.2.9") == "startups"


def test_one_mistake_costs_nothing_a_second_costs_a_moment(gate: Gate, clock: Clock) -> None:
    gate.punish("192.0.2.1", "password")
    assert gate.refusal("192.0.2.1") is None
    gate.punish("192.0.2.1", "password")
    assert gate.refusal("192.0.2.1") == "penalty"
    assert gate.refusal("192.0.2.2") is None
    clock.advance(15)
    assert gate.refusal("192.0.2.1") is None


def test_penalties_grow_to_ten_minutes_and_no_further(gate: Gate, clock: Clock) -> None:
    for _ in range(20):
        gate.punish("192.0.2.1", "password")
    clock.advance(LONGEST_PENALTY - 1)
    assert gate.refusal("192.0.2.1") == "penalty"
    clock.advance(1)
    assert gate.refusal("192.0.2.1") is None


def test_looking_at_the_port_now_and_then_is_no_offence(gate: Gate, clock: Clock) -> None:
    for _ in range(100):
        gate.punish("192.0.2.1", "left")
        clock.advance(5)
    assert gate.refusal("192.0.2.1") is None


def test_exempt_networks_and_unix_sockets_never_wait(gate: Gate) -> None:
    for _ in range(10):
        gate.punish("10.1.2.3", "password")
        gate.punish("", "password")
    assert gate.refusal("10.1.2.3") is None
    assert gate.refusal("") is None


def test_who_is_exempt_since_a_reload_waits_no_longer(gate: Gate) -> None:
    gate.punish("192.0.2.1", "password")
    gate.punish("192.0.2.1", "password")
    gate.follow(LimitSettings(), [ip_network("192.0.2.0/24")])
    assert gate.refusal("192.0.2.1") is None


def test_a_customers_ipv6_addresses_are_one(gate: Gate) -> None:
    gate.punish("2001:db8::1", "password")
    gate.punish("2001:db8::2", "password")
    assert gate.refusal("2001:db8::3") == "penalty"
    assert gate.refusal("2001:db8:0:1::3") is None


def test_a_customers_ipv6_addresses_log_in_twice_at_once(gate: Gate) -> None:
    gate.entered("2001:db8::1")
    gate.entered("2001:db8::2")
    assert gate.refusal("2001:db8::3") == "startups_per_host"
    assert gate.refusal("2001:db8:0:1::3") is None
    gate.left("2001:db8::1")
    assert gate.refusal("2001:db8::3") is None


def test_what_is_remembered_is_bounded(gate: Gate) -> None:
    for number in range(MOST_ADDRESSES + 1000):
        gate.punish(f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}", "password")
    assert len(gate.penalties) <= MOST_ADDRESSES
