"""The document of /status: what the verb `status` tells, and what the page shows besides."""

import time
from collections.abc import Mapping
from typing import Any

from netd.admin.readiness import Readiness
from netd.console.facts import daemon_facts
from netd.console.help import host_name
from netd.console.sessions import SessionSource
from netd.runtime import Runtime
from netd.stats import Histogram

VERSION = 1
"""Of the document. Keys are added without a new version; none is renamed, removed or changes its meaning."""

MOST_SESSIONS = 50
"""Sessions told; the count is of all."""

MOST_LINES = 50
"""Log lines told, the newest."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def status(runtime: Runtime, readiness: Readiness, lag: Histogram) -> dict[str, Any]:
    """The whole document, at this moment."""
    facts = daemon_facts(runtime, host_name())
    unready = readiness.unready()
    services = [
        {**told, "stats": dict(service.stats()), "latency": latencies(service.histograms())}
        for told, service in zip(facts["services"], runtime.services, strict=True)
    ]
    return {
        "version": VERSION,
        "time": round(time.time(), 3),
        "clock": round(runtime.reactor.seconds() - runtime.started, 3),
        **facts,
        "ready": not unready,
        "unready": unready,
        "reactor_lag": latency(lag),
        "services": services,
        "sessions": sessions(runtime),
        "log_lines": list(runtime.log.recent)[-MOST_LINES:],
    }


def latencies(histograms: Mapping[str, Histogram]) -> dict[str, dict[str, Any]]:
    """Each histogram in a few figures."""
    return {name: latency(histogram) for name, histogram in histograms.items()}


def latency(histogram: Histogram) -> dict[str, float]:
    """Since the start, in seconds: how many, how long together, and quantiles."""
    return {
        "count": histogram.count,
        "sum": round(histogram.total, 6),
        **{name: round(histogram.quantile(share), 6) for name, share in QUANTILES.items()},
    }


def sessions(runtime: Runtime) -> dict[str, Any]:
    """Who is logged in: how many, and some of them."""
    now = runtime.reactor.seconds()
    found = [
        {
            "service": service.key,
            "user": each.user,
            "role": each.role,
            "peer": each.peer,
            "seconds": round(now - each.since, 1),
            "doing": each.doing,
        }
        for service in runtime.services
        if isinstance(service, SessionSource)
        for each in service.sessions()
    ]
    return {"count": len(found), "shown": found[:MOST_SESSIONS]}
