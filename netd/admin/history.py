"""The last minutes, second by second, so that a page that opens has something to draw."""

from collections import deque
from collections.abc import Mapping
from operator import sub
from typing import Any

from netd.console.facts import service_facts
from netd.runtime import Runtime
from netd.service import Service
from netd.stats import Histogram, quantile

LENGTH = 600
"""Samples kept, one a second: ten minutes; some 100 bytes each for a service."""

Sample = tuple[float, dict[str, dict[str, float]]]
"""The time, and the figures of each service by its key."""


class History:
    """Samples of every service's figures. Quantiles are of what was observed since the sample before."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._samples: deque[Sample] = deque(maxlen=LENGTH)
        self._counted: dict[Histogram, list[int]] = {}

    def take(self, now: float) -> None:
        """Take a sample."""
        counted: dict[Histogram, list[int]] = {}
        figures = {}
        for service in self._runtime.services:
            figures[service.key] = _figures(service)
            for name, histogram in service.histograms().items():
                counts = counted[histogram] = histogram.counts.copy()
                grown = list(map(sub, counts, self._counted.get(histogram, counts)))
                figures[service.key][f"{name}.p50"] = round(quantile(histogram.bounds, grown, 0.5), 6)
                figures[service.key][f"{name}.p99"] = round(quantile(histogram.bounds, grown, 0.99), 6)
        self._counted = counted
        self._samples.append((round(now, 2), figures))

    def document(self) -> dict[str, Any]:
        """Every sample, a list a figure; None where a service was not there."""
        keys: dict[str, dict[str, None]] = {}
        for _, figures in self._samples:
            for service, values in figures.items():
                keys.setdefault(service, {}).update(dict.fromkeys(values))
        return {
            "times": [time for time, _ in self._samples],
            "services": {
                service: {name: [each.get(service, {}).get(name) for _, each in self._samples] for name in names}
                for service, names in keys.items()
            },
        }


def _figures(service: Service) -> dict[str, float]:
    facts = service_facts(service)
    plain: Mapping[str, float] = {
        "connections": facts["connections"],
        "accepted": facts["accepted"],
        "bytes_in": facts["bytes_in"],
        "bytes_out": facts["bytes_out"],
    }
    return {**plain, **service.stats()}
