"""What is measured of the daemon once a second: from /proc, and how late its reactor is from its own histogram."""

import json
import os
import threading
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path

from tests.servers import HOST
from tests.soak.flat import Allowance, Point

PERIOD = 1.0
"""Seconds between two samples."""
MIB = 1 << 20

LAG = "reactor lag, ms"
MOST_WAITING = 0.1
"""Part of a second that the reactor's thread may wait for a processor, before its lag says more of the machine."""
CALM = 0.5
"""Of the seconds, how many must have been calm enough for their lag to be kept, for it to be judged."""

ALLOWED: Mapping[str, Allowance] = {
    "memory, MiB": Allowance(0.04, 4),
    "descriptors": Allowance(0, 6),
    "threads": Allowance(0, 1),
    LAG: Allowance(0.5, 1),
}
"""The figures, and by how much each may rise in the second half."""


class Sampler(threading.Thread):
    """Samples until it is told that it is enough; keeps why it could not, if it could not."""

    def __init__(self, pid: int, admin_port: int, enough: threading.Event, period: float = PERIOD) -> None:
        super().__init__(daemon=True)
        self.points: dict[str, list[Point]] = {name: [] for name in ALLOWED}
        self.failure = ""
        self._proc = Path(f"/proc/{pid}")
        self._admin_port = admin_port
        self._enough = enough
        self._period = period
        self._late = (0, 0.0)
        self._waited = (0.0, 0.0)

    @property
    def calm(self) -> float:
        """In which part of the seconds the reactor had a processor when it wanted one: those whose lag was kept."""
        return len(self.points[LAG]) / max(1, len(self.points["threads"]))

    def judged(self) -> set[str]:
        """The figures that say something of netd, and not of what else the machine did."""
        return set(ALLOWED) - ({LAG} if self.calm < CALM else set())

    def run(self) -> None:
        began = time.monotonic()
        try:
            self._late = self._lag()
            self._waited = self._wait_for_processor()
            while not self._enough.wait(self._period):
                at = time.monotonic() - began
                for name, value in self._sample().items():
                    self.points[name].append((at, value))
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing is measured any more
            self.failure = f"no sample any more: {error!r}"

    def _sample(self) -> dict[str, float]:
        pages = int((self._proc / "statm").read_text().split()[1])
        (threads,) = (
            line.split()[1] for line in (self._proc / "status").read_text().splitlines() if "Threads:" in line
        )
        values = {
            "memory, MiB": pages * os.sysconf("SC_PAGE_SIZE") / MIB,
            "descriptors": float(sum(1 for _ in (self._proc / "fd").iterdir())),
            "threads": float(threads),
        }
        (looks_before, late_before), (looks, late) = self._late, self._lag()
        (before, waited_before), (now, waited) = self._waited, self._wait_for_processor()
        self._late, self._waited = (looks, late), (now, waited)
        if looks > looks_before and waited - waited_before <= MOST_WAITING * (now - before):
            values[LAG] = 1000 * (late - late_before) / (looks - looks_before)
        return values

    def _wait_for_processor(self) -> tuple[float, float]:
        """Now, and how long its main thread has waited on a run queue so far, in seconds."""
        return time.monotonic(), int((self._proc / "schedstat").read_text().split()[1]) / 1e9

    def _lag(self) -> tuple[int, float]:
        """How often the daemon has looked how late it is, and how late it was together, in seconds."""
        connection = HTTPConnection(HOST, self._admin_port, timeout=20)
        try:
            connection.request("GET", "/status")
            lag = json.load(connection.getresponse())["reactor_lag"]
        finally:
            connection.close()
        return int(lag["count"]), float(lag["sum"])
