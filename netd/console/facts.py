"""What is true of the daemon now, as documents: the verbs and `/status` show the same."""

import errno
import os
import resource
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from netd.runtime import Runtime
from netd.service import Service


class ServiceFacts(TypedDict):
    """One service."""

    name: str
    kind: str
    state: str
    """"up", "unwell", "draining", "drained" or "down"."""
    reason: str
    """Why it is not up."""
    listening: list[str]
    connections: int
    accepted: int
    refused: dict[str, int]
    bytes_in: int
    bytes_out: int


class DaemonFacts(TypedDict):
    """The process and all services together."""

    netd: str
    host: str
    pid: int
    started: str
    uptime_seconds: float
    cpu_seconds: float
    memory_bytes: int
    descriptors: dict[str, int]
    log: dict[str, object]
    connections: int
    accepted: int
    refused: int
    bytes_in: int
    bytes_out: int
    services: list[ServiceFacts]


@cache
def installed_version(package: str) -> str:
    """Of this package; found once, as it takes two milliseconds to read its files."""
    return version(package)


def netd_version() -> str:
    """The version of netd that is installed."""
    return installed_version("netd")


def service_facts(service: Service) -> ServiceFacts:
    """One service's."""
    listeners = service.listeners
    totals = [listener.bytes_total() for listener in listeners]
    reason = _reason(service)
    refused: Counter[str] = Counter()
    for listener in listeners:
        refused.update(listener.refused)
    return {
        "name": service.key,
        "kind": service.kind,
        "state": _state(service, reason),
        "reason": reason,
        "listening": [address for listener in listeners for address in listener.bound],
        "connections": sum(len(listener.connections) for listener in listeners),
        "accepted": sum(listener.accepted for listener in listeners),
        "refused": dict(refused),
        "bytes_in": sum(each[0] for each in totals),
        "bytes_out": sum(each[1] for each in totals),
    }


def _reason(service: Service) -> str:
    if not service.running:
        return "not running"
    if service.draining:
        return "takes no new clients"
    return service.health()


def _state(service: Service, reason: str) -> str:
    if service.running and service.draining:
        return "draining" if any(listener.connections for listener in service.listeners) else "drained"
    return "down" if not service.running else "unwell" if reason else "up"


def daemon_facts(runtime: Runtime, host: str) -> DaemonFacts:
    """The whole daemon's."""
    services = [service_facts(service) for service in runtime.services]
    uptime = runtime.reactor.seconds() - runtime.started
    return {
        "netd": netd_version(),
        "host": host,
        "pid": os.getpid(),
        "started": (datetime.now(UTC) - timedelta(seconds=uptime)).isoformat(timespec="seconds"),
        "uptime_seconds": round(uptime, 1),
        "cpu_seconds": round(time.process_time(), 2),
        "memory_bytes": resident_bytes(),
        "descriptors": _descriptors(),
        "log": {"level": runtime.log.level, "warnings": len(runtime.log.recent)},
        "connections": sum(each["connections"] for each in services),
        "accepted": sum(each["accepted"] for each in services),
        "refused": sum(sum(each["refused"].values()) for each in services),
        "bytes_in": sum(each["bytes_in"] for each in services),
        "bytes_out": sum(each["bytes_out"] for each in services),
        "services": services,
    }


def resident_bytes() -> int:
    """The second figure of /proc/self/statm, in pages (proc(5)); 0 where there is none."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def _descriptors() -> dict[str, int]:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        count = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - twice as fast as pathlib with ten thousand
    except OSError as error:
        count = limit if error.errno == errno.EMFILE else 0  # to count them takes one
    return {"open": count, "limit": limit}
