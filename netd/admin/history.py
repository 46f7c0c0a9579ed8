"""The last minutes, second by second, so that a page that opens has something to draw."""

import time
from collections import deque
from operator import sub
from typing import NamedTuple

from netd.console.facts import resident_bytes, service_facts
from netd.runtime import Runtime
from netd.service import Service
from netd.stats import Histogram, quantile

LENGTH = 600
"""Samples kept, one a second: ten minutes; some 100 bytes each for a service."""

PROCESS = "netd"
"""Under this name stand the figures of the process; no service can have it."""


class Sample(NamedTuple):
    """What was true at a moment."""

    clock: float
    """Seconds since the daemon started; they never jump."""
    figures: dict[str, dict[str, float]]
    """Of each service, by its key. A quantile is of what was observed since the sample before."""


class History:
    """Samples of every service's figures, and of the process's."""

    def __init__(self, runtime: Runtime, lag: Histogram) -> None:
        self._runtime = runtime
        self._lag = lag
        self._samples: deque[Sample] = deque(maxlen=LENGTH)
        self._counted: dict[Histogram, list[int]] = {}

    def take(self) -> None:
        """Take a sample."""
        before, self._counted = self._counted, {}
        figures = {PROCESS: {"cpu_seconds": round(time.process_time(), 3), "memory_bytes": resident_bytes()}}
        figures[PROCESS] |= self._quantiles("lag", self._lag, before)
        for service in self._runtime.services:
            own = figures[service.key] = _figures(service)
            for name, histogram in service.histograms().items():
                own |= self._quantiles(name, histogram, before)
        self._samples.append(Sample(round(self._runtime.reactor.seconds() - self._runtime.started, 3), figures))

    def _quantiles(self, name: str, histogram: Histogram, before: dict[Histogram, list[int]]) -> dict[str, float]:
        counts = self._counted[histogram] = histogram.counts.copy()
        grown = list(map(sub, counts, before.get(histogram, counts)))
        if not any(grown):
            return {}
        return {f"{name}.p{share}": round(quantile(histogram.bounds, grown, share / 100), 6) for share in (50, 99)}

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self._samples[-1] if self._samples else None

    def columns(self) -> dict[str, object]:
        """Every sample, a list a figure; None where there was none."""
        names: dict[str, dict[str, None]] = {}
        for _, figures in self._samples:
            for service, values in figures.items():
                names.setdefault(service, {}).update(dict.fromkeys(values))
        return {
            "clock": [clock for clock, _ in self._samples],
            "figures": {
                service: {name: [each.get(service, {}).get(name) for _, each in self._samples] for name in found}
                for service, found in names.items()
            },
        }


def _figures(service: Service) -> dict[str, float]:
    facts = service_facts(service)
    return {
        **service.stats(),
        "connections": facts["connections"],
        "connections_accepted": facts["accepted"],
        "connections_refused": sum(facts["refused"].values()),
        "bytes_in": facts["bytes_in"],
        "bytes_out": facts["bytes_out"],
    }
