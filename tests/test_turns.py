"""Strangers take turns: none is forgotten, and no turn of the reactor belongs to them alone."""

from collections.abc import Callable
from functools import partial
from typing import cast

from twisted.internet.interfaces import IReactorTime

from netd.turns import Turns


class Loop:
    """A reactor by turns: what is called later is called by the next `turn`, and time passes only by `work`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.later: list[Callable[[], object]] = []
        self.done: list[str] = []
        self.turns = Turns(cast("IReactorTime", self), budget=3)

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, function: Callable[[], object]) -> None:
        assert delay == 0
        self.later.append(function)

    def turn(self) -> None:
        later, self.later = self.later, []
        for function in later:
            function()

    def work(self, name: str) -> None:
        self.now += 2
        self.done.append(name)

    def come(self, names: str) -> None:
        for name in names:
            self.turns.take(partial(self.work, name))


def test_what_is_beyond_the_budget_waits_for_the_next_turn_in_order() -> None:
    loop = Loop()
    loop.come("abcde")
    assert loop.done == ["a", "b"]
    loop.turn()
    loop.come("f")
    assert loop.done == ["a", "b", "c", "d"]
    loop.turn()
    assert loop.done == ["a", "b", "c", "d", "e", "f"]
    loop.turn()
    loop.turn()
    assert not loop.later
    loop.come("g")
    assert loop.done[-1] == "g"


def test_who_comes_again_meanwhile_is_called_once_more() -> None:
    loop = Loop()

    def first() -> None:
        loop.turns.take(lambda: loop.done.append("second"))
        loop.done.append("first")

    loop.turns.take(first)
    assert loop.done == ["first", "second"]
