"""The last minutes, second by second, so that a page that opens has something to draw."""

import time
from array import array
from collections.abc import Mapping
from math import isnan, nan
from operator import sub
from typing import NamedTuple

from netd.console.facts import resident_bytes, service_facts
from netd.runtime import Runtime
from netd.service import Service
from netd.stats import Histogram, quantile

LENGTH = 600
"""Samples kept, one a second: ten minutes; 5 kB a figure."""

PROCESS = "netd"
"""Under this name stand the figures of the process; no service can have it."""


class Sample(NamedTuple):
    """What was true at a moment."""

    clock: float
    """Seconds since the daemon started; they never jump."""
    figures: dict[str, dict[str, float]]
    """Of each service, by its key. A quantile is of what was observed since the sample before."""


class History:
    """Samples of every service's figures, and of the process's. What the page draws is kept, in a ring a figure."""

    def __init__(self, runtime: Runtime, lag: Histogram) -> None:
        self._runtime = runtime
        self._lag = lag
        self._taken = 0
        self._clock = _ring()
        self._rings: dict[tuple[str, str], array[float]] = {}
        self._counted: dict[Histogram, list[int]] = {}
        self.last = Sample(0.0, {})
        """The newest sample, complete."""

    def take(self) -> None:
        """Take a sample."""
        before, self._counted = self._counted, {}
        process = {"cpu_seconds": round(time.process_time(), 3), "memory_bytes": resident_bytes()}
        drawn: dict[tuple[str, str], float] = {}
        figures = {PROCESS: process | self._quantiles("lag", self._lag, before)}
        drawn |= {(PROCESS, name): value for name, value in figures[PROCESS].items()}
        for service in self._runtime.services:
            always = _of_listeners(service)
            for name, histogram in service.histograms().items():
                always |= self._quantiles(name, histogram, before)
            stats = service.stats()
            charted = {name: stats[name] for chart in service.charts for name in chart.lines.values() if name in stats}
            drawn |= {(service.key, name): value for name, value in {**charted, **always}.items()}
            figures[service.key] = {**stats, **always}
        self.last = Sample(round(self._runtime.reactor.seconds() - self._runtime.started, 3), figures)
        self._keep(drawn)

    def _keep(self, drawn: Mapping[tuple[str, str], float]) -> None:
        at = self._taken % LENGTH
        self._clock[at] = self.last.clock
        for key in [*self._rings]:
            if key[0] not in self.last.figures:
                del self._rings[key]
            else:
                self._rings[key][at] = nan
        for key, value in drawn.items():
            if key not in self._rings:
                self._rings[key] = _ring()
            self._rings[key][at] = value
        self._taken += 1

    def _quantiles(self, name: str, histogram: Histogram, before: dict[Histogram, list[int]]) -> dict[str, float]:
        counts = self._counted[histogram] = histogram.counts.copy()
        grown = list(map(sub, counts, before.get(histogram, counts)))
        if not any(grown):
            return {}
        return {f"{name}.p{share}": round(quantile(histogram.bounds, grown, share / 100), 6) for share in (50, 99)}

    def columns(self) -> dict[str, object]:
        """Every sample of what is drawn, a list a figure; None where there was none."""
        figures: dict[str, dict[str, list[float | None]]] = {}
        for (service, name), ring in self._rings.items():
            figures.setdefault(service, {})[name] = [None if isnan(each) else each for each in self._in_order(ring)]
        return {"clock": self._in_order(self._clock), "figures": figures}

    def _in_order(self, ring: "array[float]") -> list[float]:
        at = self._taken % LENGTH
        return [*ring[:at]] if self._taken < LENGTH else [*ring[at:], *ring[:at]]


def _ring() -> "array[float]":
    return array("d", [nan]) * LENGTH


def _of_listeners(service: Service) -> dict[str, float]:
    facts = service_facts(service)
    return {
        "connections": facts["connections"],
        "connections_accepted": facts["accepted"],
        "connections_refused": sum(facts["refused"].values()),
        "bytes_in": facts["bytes_in"],
        "bytes_out": facts["bytes_out"],
    }
