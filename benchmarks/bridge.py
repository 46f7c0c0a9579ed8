"""The bridge's publish port on its own: how fast lines are on disk, beside what the disk itself takes for that.

The broker is away all the while, so that what is measured is reading, committing and answering, and nothing else.
"""

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

from benchmarks import charts, stats
from benchmarks.runner import Pace, Peer, Trial, TrialFailedError, client_core, server_core
from benchmarks.stats import Figures
from benchmarks.suite import Column, Result, Scenario, Suite, Target
from tests.netd_process import Netd, running

NETD, FILE = "netd", "the disk itself"
ACCEPT, SINGLE = "bridge-accept", "bridge-single"
ONE, FIFTY, ALONE = "one connection", "fifty connections", "one line at a time"
HOST = "127.0.0.1"
LINE = b"x" * 99 + b"\n"
BLOCK = 1000
"""Lines sent at once, and lines that the file is synced after."""
LINES = 1_000_000
SINGLE_LINES = 2000
"""For a trial of a second."""
TIMEOUT = 60.0

CONFIG = f"""
[bridge.main]
broker = "amqp://{HOST}:1/"
spool_limit = 0
[bridge.main.publish.lines]
listen = "{HOST}:0"
routing_key = "lines"
"""


@contextmanager
def _netd() -> Iterator[Netd]:
    scratch = tempfile.TemporaryDirectory(prefix="netd-bench-", dir=Path.cwd())
    with scratch as directory, running(Path(directory), CONFIG) as netd:
        for task in Path(f"/proc/{netd.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {server_core()})
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {client_core()})
        try:
            yield netd
        finally:
            os.sched_setaffinity(0, before)


def _send(port: int, count: int) -> None:
    """Lines on one connection, until the last one is answered."""
    with socket.create_connection((HOST, port), TIMEOUT) as client:
        block = LINE * BLOCK
        sending = threading.Thread(target=lambda: [client.sendall(block) for _ in range(count // BLOCK)])
        sending.start()
        last = b"+OK %d\n" % (count // BLOCK * BLOCK)
        heard = b""
        while not heard.endswith(last):
            received = client.recv(65536)
            if not received or b"-ERR" in received or b"*WAIT" in received:
                raise TrialFailedError(f"instead of +OK: {received[:100]!r}")
            heard = (heard + received)[-len(last) :]
        sending.join()


def accept_by_netd(connections: int, pace: Pace) -> Figures:
    count = int(LINES * pace.seconds)
    with _netd() as netd:
        port = netd.port("bridge.main")
        clients = [threading.Thread(target=_send, args=(port, count // connections)) for _ in range(connections)]
        cpu, since = netd.cpu(), perf_counter()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return {"rate": count / (perf_counter() - since), "cpu_us": (netd.cpu() - cpu) * 1e6 / count}


def accept_by_file(_peer: Peer, pace: Pace) -> Figures:
    """Blocks appended to a file, a sync each: the floor."""
    count = int(LINES * pace.seconds)
    with tempfile.TemporaryFile(dir=Path.cwd()) as file:
        cpu, since = process_time(), perf_counter()
        for _ in range(count // BLOCK):
            os.write(file.fileno(), LINE * BLOCK)
            os.fdatasync(file.fileno())
        return {"rate": count / (perf_counter() - since), "cpu_us": (process_time() - cpu) * 1e6 / count}


def single_by_netd(_peer: Peer, pace: Pace) -> Figures:
    """The next line is sent when the one before has been answered."""
    taken = []
    with _netd() as netd, socket.create_connection((HOST, netd.port("bridge.main")), TIMEOUT) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(int(SINGLE_LINES * pace.seconds)):
            since = perf_counter()
            client.sendall(LINE)
            client.recv(100)
            taken.append(perf_counter() - since)
    return {"latency_us": median(taken) * 1e6}


def single_by_file(_peer: Peer, pace: Pace) -> Figures:
    taken = []
    with tempfile.TemporaryFile(dir=Path.cwd()) as file:
        for _ in range(int(SINGLE_LINES * pace.seconds)):
            since = perf_counter()
            os.write(file.fileno(), LINE)
            os.fdatasync(file.fileno())
            taken.append(perf_counter() - since)
    return {"latency_us": median(taken) * 1e6}


def scenarios() -> tuple[Scenario, ...]:
    netd, file = Peer(NETD, ()), Peer(FILE, ())
    return (
        Scenario(
            ACCEPT,
            "Lines accepted durably",
            f"Lines of 100 bytes, each answered once it is synced. The disk itself: {BLOCK} lines appended to a file "
            "at once, and a sync.",
            (
                Trial(ONE, netd, lambda _, pace: accept_by_netd(1, pace)),
                Trial(FIFTY, netd, lambda _, pace: accept_by_netd(50, pace)),
                Trial(ONE, file, accept_by_file),
            ),
            NETD,
            "cpu_us",
            "CPU",
            (Column("lines a second", "rate"), Column("CPU µs per line", "cpu_us")),
        ),
        Scenario(
            SINGLE,
            "One line at a time",
            "From sending a line to its +OK, the median. The disk itself: a line appended to a file, and a sync.",
            (Trial(ALONE, netd, single_by_netd), Trial(ALONE, file, single_by_file)),
            NETD,
            "latency_us",
            "time",
            (Column("µs", "latency_us"),),
        ),
    )


TARGETS = (
    Target("lines a second, one connection", 200_000, lambda result: result.middle(ACCEPT, ONE, NETD, "rate"), ""),
    Target("lines a second, fifty connections", 200_000, lambda result: result.middle(ACCEPT, FIFTY, NETD, "rate"), ""),
    Target(
        "one line at a time: netd / the disk's own sync",
        2.5,
        lambda result: stats.ratio(
            result.rounds(SINGLE, ALONE, NETD), result.rounds(SINGLE, ALONE, FILE), "latency_us"
        ),
        at_least=False,
    ),
)


def draw(result: Result) -> dict[str, str]:
    """Lines per second."""
    measured = [(case, result.middle(ACCEPT, case, NETD, "rate")) for case in (ONE, FIFTY)]
    measured.append((FILE, result.middle(ACCEPT, ONE, FILE, "rate")))
    bars = [(name, value) for name, value in measured if value]
    panels = [("Lines accepted durably", "lines per second", bars)] if bars else []
    return {"benchmarks-bridge.svg": charts.bars(panels, highlight=(ONE, FIFTY))} if panels else {}


def suite(_python: str) -> Suite:
    """The suite."""
    return Suite(
        "bridge",
        "Bridge: lines onto the disk",
        "The spool is on the disk that the benchmarks are run from; its syncs are what a line waits for.",
        scenarios(),
        TARGETS,
        draw,
    )
