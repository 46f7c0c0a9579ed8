"""Passwords of the redis port: whose are checked when."""

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from netd.cache import redis_login
from netd.cache.redis_login import MOST_WAITING, LogIn
from netd.runtime import Reactor


class Threads:
    """The threads that hash, which work when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Deferred[bool], str]] = []

    def start(self, _reactor: object, _pool: object, _check: object, _users: object, user: str, _: bytes) -> Any:
        self.jobs.append((Deferred(), user))
        return self.jobs[-1][0]

    def run(self) -> str:
        """Finish the check that was begun first; whose it was."""
        deferred, user = self.jobs.pop(0)
        deferred.callback(True)
        return user


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Threads:
    hashing = Threads()
    monkeypatch.setattr(redis_login, "deferToThreadPool", hashing.start)
    return hashing


@pytest.fixture
def login(hashing: Threads) -> Any:
    login = LogIn({}, cast("Reactor", None))
    yield login
    login.stop()


def test_an_address_that_sends_many_passwords_waits_for_itself(hashing: Threads, login: LogIn) -> None:
    for number in range(100):
        login.check("192.0.2.1", f"guess {number}", b"x")
    login.check("192.0.2.2", "honest", b"x")
    assert [hashing.run() for _ in range(4)] == ["guess 0", "guess 1", "guess 2", "honest"]


def test_a_network_of_ipv6_is_one_address(hashing: Threads, login: LogIn) -> None:
    for number in range(100):
        login.check(f"2001:db8::{number:x}", f"guess {number}", b"x")
    login.check("2001:db8:1::1", "honest", b"x")
    assert "honest" in [hashing.run() for _ in range(4)]


def test_what_waits_of_one_address_is_bounded_and_refuses_no_other(hashing: Threads, login: LogIn) -> None:
    found: list[bool] = []
    for _ in range(MOST_WAITING + redis_login.HASHES_AT_ONCE + 1):
        login.check("192.0.2.1", "guess", b"x").addCallback(found.append)
    assert found == [False]
    login.check("192.0.2.2", "honest", b"x").addCallback(found.append)
    while hashing.jobs:
        hashing.run()
    assert found.count(True) == MOST_WAITING + redis_login.HASHES_AT_ONCE + 1
