"""/metrics: every figure of the daemon as Prometheus wants it, read from plain counters when it asks.

Nothing is counted for Prometheus's sake: between two scrapes this costs nothing. Names follow its conventions: base
units, `_total` on counters, and what differs between services in the label `service`. No label ever holds what a client
can choose or is known by, such as its address: their number is bounded by the configuration.
"""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from netd.admin.http import AdminRequest
from netd.console.facts import netd_version, service_facts
from netd.runtime import Runtime
from netd.service import Service
from netd.stats import Figure, Histogram

LABELS = ("service",)

_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


class Metrics(Collector):
    """Answers /metrics."""

    def __init__(self, runtime: Runtime, lag: Histogram) -> None:
        self._runtime = runtime
        self._lag = lag
        self._build = _build()  # its versions are read from files, which takes a descriptor
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def answer(self, request: AdminRequest) -> None:
        """In the format that the client prefers: OpenMetrics, or Prometheus's own."""
        try:
            encode, content_type = choose_encoder(request.getHeader("accept") or "")
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        request.respond(200, encode(self._registry), content_type.encode())

    def describe(self) -> Iterable[Metric]:
        """Nothing: names depend on the configuration, and asking would collect at start."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every family, with a sample for each service."""
        yield self._build
        lag = HistogramMetricFamily("netd_reactor_lag_seconds", self._lag.help)
        lag.add_metric((), *_buckets(self._lag))
        yield lag
        logged = CounterMetricFamily("netd_log_messages", "Messages logged, by level", labels=("level",))
        for level, count in self._runtime.log.counts.items():
            logged.add_metric((level,), count)
        yield logged
        families = _listener_families()
        kinds: dict[str, Metric] = {}
        for service in self._runtime.services:
            _add_facts(families, service)
            _add_figures(kinds, service)
        yield from families.values()
        yield from kinds.values()


def _build() -> Metric:
    build = {"version": netd_version(), "twisted": version("twisted"), "python": platform.python_version()}
    return InfoMetricFamily("netd_build", "What runs", value=build)


def _listener_families() -> dict[str, Metric]:
    reasons = (*LABELS, "reason")
    return {
        "up": GaugeMetricFamily("netd_service_up", "1 when the service and its backend do their work", labels=LABELS),
        "connections": GaugeMetricFamily("netd_connections", "Connections that are open", labels=LABELS),
        "accepted": CounterMetricFamily("netd_connections_accepted", "Connections accepted", labels=LABELS),
        "refused": CounterMetricFamily("netd_connections_refused", "Connections refused, by limit", labels=reasons),
        "bytes_in": CounterMetricFamily("netd_received_bytes", "Bytes received from clients", labels=LABELS),
        "bytes_out": CounterMetricFamily("netd_sent_bytes", "Bytes sent to clients", labels=LABELS),
    }


def _add_facts(families: Mapping[str, Metric], service: Service) -> None:
    facts = service_facts(service)
    labels = {"service": service.key}
    values = {
        "up": facts["state"] == "up",
        "connections": facts["connections"],
        "accepted": facts["accepted"],
        "bytes_in": facts["bytes_in"],
        "bytes_out": facts["bytes_out"],
    }
    for name, value in values.items():
        family = families[name]
        family.add_sample(family.name + ("_total" if family.type == "counter" else ""), labels, value)
    refused = families["refused"]
    for reason, count in facts["refused"].items():
        refused.add_sample(f"{refused.name}_total", {**labels, "reason": reason}, count)


def _add_figures(kinds: dict[str, Metric], service: Service) -> None:
    """What a kind of service counts itself: netd_KIND_FIGURE, netd_KIND_WHAT_seconds."""
    labels = (service.key,)
    for name, value in service.stats().items():
        figure = service.figures.get(name)
        full = f"netd_{service.kind}_{name.removesuffix('_total')}"
        if full not in kinds:
            kinds[full] = _family(full, name, figure)
        kinds[full].add_metric(labels, value)  # type: ignore[attr-defined]  # each family has it, `Metric` has not
    for name, histogram in service.histograms().items():
        full = f"netd_{service.kind}_{name}_seconds"
        if full not in kinds:
            kinds[full] = HistogramMetricFamily(full, histogram.help, labels=LABELS)
        kinds[full].add_metric(labels, *_buckets(histogram))  # type: ignore[attr-defined]


def _family(full: str, name: str, figure: Figure | None) -> Metric:
    if figure is None:
        return UnknownMetricFamily(full, name.replace("_", " "), labels=LABELS)
    family: Metric = _FAMILIES[figure.type](full, figure.help, labels=LABELS)
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets, and the sum."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True)), histogram.total
