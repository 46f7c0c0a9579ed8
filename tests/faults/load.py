"""Clients at work together: until something was done whole, until all lines are in, and what came of it."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

from tests.faults.callers import CacheCaller, Caller, LineCaller, LineReader, Working
from tests.waiting import eventually

PATIENCE = 60.0
"""Seconds until every client must have done something whole after a fault, and until every line must have come out."""
LOOK = 0.005


class Load:
    """Some clients. A context: they work, and each has done something, when it is entered."""

    def __init__(
        self,
        callers: Sequence[Caller] = (),
        publishers: Sequence[LineCaller] = (),
        readers: Sequence[LineReader] = (),
        watched: Sequence[Working] | None = None,
    ) -> None:
        self.callers, self.publishers, self.readers = callers, publishers, readers
        self._clients: list[Working] = [*callers, *publishers, *readers]
        self._watched = self._clients if watched is None else watched

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        try:
            self.recovered()
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Every client finishes what it is at."""
        for client in self._clients:
            client.leave()

    def recovered(self, watched: Sequence[Working] = (), within: float = PATIENCE) -> float:
        """Wait until every client, or these, has done something whole that it began after now; the seconds it took."""
        began = time.monotonic()
        waiting = [(client, client.mark()) for client in watched or self._watched]
        while waiting := [(client, done) for client, done in waiting if not done()]:
            if time.monotonic() > began + within:
                slow = Counter(type(client).__name__ for client, _ in waiting)
                why = [each for caller in self.callers for each in (*caller.wrong[:1], caller.why) if each]
                raise AssertionError(f"not getting on: {dict(slow)}; {self.said()} {why}")
            time.sleep(LOOK)
        return time.monotonic() - began

    def until_answered(self) -> float:
        """The same, and nothing was refused in it."""
        began = time.monotonic()
        while True:
            refused = self.refused.total()
            self.recovered()
            if self.refused.total() == refused:
                return time.monotonic() - began
            assert time.monotonic() < began + PATIENCE, f"refused again and again: {self.refused}"

    def until(self, true: Callable[[], bool], what: str, within: float = PATIENCE) -> float:
        """Wait while they work; the seconds it took."""
        began = time.monotonic()
        assert eventually(true, within), f"not within {within} s: {what}; {self.said()}"
        return time.monotonic() - began

    def settle(self) -> None:
        """No more is asked; every line that was acknowledged has come out, or can be looked for in vain."""
        for client in [*self.callers, *self.publishers]:
            client.leave()
        eventually(lambda: not self.lost(), PATIENCE)
        for reader in self.readers:
            reader.leave()

    # --- what came of it

    def lost(self) -> set[tuple[str, int]]:
        """Lines that were acknowledged and have not come out."""
        sure = {(publisher.name, number) for publisher in self.publishers for number in publisher.sure}
        return sure - self.came()

    def came(self) -> set[tuple[str, int]]:
        """Lines that have come out, whoever sent them."""
        return {(name, number) for reader in self.readers for name, number, _ in list(reader.received)}

    def repeats(self) -> int:
        """How many lines came again; each line has one `x-netd-id`, and each id one line."""
        received = [each for reader in self.readers for each in reader.received]
        lines = {(name, number) for name, number, _ in received}
        ids = {netd_id for _, _, netd_id in received}
        assert len(set(received)) == len(lines) == len(ids), "a line with two ids, or an id with two lines"
        return len(received) - len(lines)

    @property
    def exchanges(self) -> int:
        return sum(caller.checked for caller in self.callers)

    @property
    def broken(self) -> int:
        """Connections of callers that ended in the middle."""
        return sum(caller.broken for caller in self.callers)

    @property
    def refused(self) -> Counter[str]:
        return sum((caller.refused for caller in self.callers), Counter())

    @property
    def missed(self) -> int:
        return sum(caller.missed for caller in self.callers)

    @property
    def slowest(self) -> float:
        return max((caller.slowest for caller in self.callers), default=0.0)

    def check(self, *, broken: bool = False, refused: bool = False, missed: bool = False) -> None:
        """Nothing was false or lost; and nothing of these happened but what may."""
        wrong = [each for caller in self.callers for each in caller.wrong]
        assert wrong == [], f"{len(wrong)} wrong answers: {wrong[:3]}"
        failed = [str(each.failed) for each in [*self.publishers, *self.readers] if each.failed]
        assert failed == [], f"not understood: {failed[:3]}"
        assert not (lines := [line for publisher in self.publishers for line in publisher.refused]), lines[:3]
        assert not (lost := self.lost()), f"{len(lost)} lines lost, the first is {min(lost)}"
        self.repeats()
        assert broken or not self.broken, f"{self.broken} connections broke"
        assert refused or not self.refused, f"refused: {self.refused}"
        assert missed or not self.missed, f"{self.missed} values were not there"

    def said(self) -> str:
        """How much was done, and what of it went how, for a person."""
        parts = []
        if self.callers:
            size = sum(caller.bytes for caller in self.callers) / 1e6
            parts.append(f"{len(self.callers)} clients, {self.exchanges:,} exchanges, {size:,.1f} MB")
            parts.append(f"{self.broken} broken, {self.refused.total()} refused")
            if any(isinstance(caller, CacheCaller) for caller in self.callers):
                parts.append(f"{self.missed} missed")
        if self.publishers:
            sure = sum(len(publisher.sure) for publisher in self.publishers)
            parts.append(f"{sure:,} lines +OK, {self.repeats()} repeats")
        wrong = sum(len(caller.wrong) for caller in self.callers)
        return ", ".join([*parts, f"{wrong + len(self.lost())} lost or wrong"])
