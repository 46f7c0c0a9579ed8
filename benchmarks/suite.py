"""What a suite of benchmarks is, and what a run of it has measured.

A sibling module for each service (`echo.py`, …) makes one Suite; the runner, the report and the charts know only this.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import stats
from benchmarks.runner import Peer, Record, Trial


@dataclass(frozen=True)
class Column:
    """A column of a scenario's table: the median of a figure, times `factor`."""

    title: str
    figure: str
    factor: float = 1


@dataclass(frozen=True)
class Scenario:
    """One question put to several servers.

    `figure` is what they are compared by, lower is better, and `noun` what it is ("CPU"). With one case the table has a
    row for each peer; with several, a row for each case and a column for each peer. `subject` is the peer that the
    others are compared with. `rounds`, if given, is a limit, for scenarios that are slow to set up; `files` is how many
    files a process must be able to open.
    """

    name: str
    title: str
    about: str
    trials: tuple[Trial, ...]
    subject: str
    figure: str
    noun: str
    columns: tuple[Column, ...]
    rounds: int | None = None
    files: int = 256

    @property
    def cases(self) -> list[str]:
        return list(dict.fromkeys(trial.case for trial in self.trials))

    @property
    def peers(self) -> list[Peer]:
        return list(dict.fromkeys(trial.peer for trial in self.trials))


@dataclass
class Result:
    """What a run measured, and where. Kept as JSON beside the report that is made from it."""

    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    pace: dict[str, float]
    missing: dict[str, str] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Result":
        records = {name: Record(**record) for name, record in data["records"].items()}
        return cls(**(data | {"records": records}))

    def rounds(self, scenario: str, case: str, peer: str) -> list[stats.Figures | None]:
        return self.records[scenario].of(case, peer) if scenario in self.records else []

    def middle(self, scenario: str, case: str, peer: str, figure: str) -> float | None:
        return stats.middle(self.rounds(scenario, case, peer), figure)

    def per_cpu_second(self, scenario: str, case: str) -> list[tuple[str, float]]:
        """How much each peer does with a second of CPU, as far as it was measured."""
        peers = self.records[scenario].rounds.get(case, {})
        return [(peer, 1e6 / cpu) for peer in peers if (cpu := self.middle(scenario, case, peer, "cpu_us"))]


@dataclass(frozen=True)
class Target:
    """A figure to reach: `value` computes it from a result, or gives None if it was not measured."""

    text: str
    goal: float
    value: Callable[[Result], float | None]
    unit: str = "x"
    at_least: bool = True

    def reached(self, value: float) -> bool:
        return value >= self.goal if self.at_least else value <= self.goal


@dataclass(frozen=True)
class Suite:
    """All scenarios, targets and charts of one service. `charts` gives the text of each SVG by its file name."""

    name: str
    title: str
    about: str
    scenarios: tuple[Scenario, ...]
    targets: tuple[Target, ...]
    charts: Callable[[Result], dict[str, str]]
