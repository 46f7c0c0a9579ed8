"""What the soak measures of a process is there, beside a /status that says how late a reactor was."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.soak.samples import ALLOWED, LAG, MIB, Sampler
from tests.waiting import eventually

SECONDS = 30.0
MUCH = 50 * MIB
SPENDER = f"""
import socket, sys, threading
print("ready", flush=True)
sys.stdin.readline()
sockets = [socket.socket() for _ in range(30)]
ballast = b"x" * {MUCH}
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("spent", flush=True)
sys.stdin.readline()
"""
LATE = 0.002
"""Seconds, of each look of the made-up reactor."""


class Status(BaseHTTPRequestHandler):
    looks = 0

    def do_GET(self) -> None:
        Status.looks += 4
        body = json.dumps({"reactor_lag": {"count": Status.looks, "sum": Status.looks * LATE}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def status() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Status) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def wait_for_samples(sampler: Sampler, more: int) -> None:
    goal = len(sampler.points["threads"]) + more
    assert eventually(lambda: len(sampler.points["threads"]) >= goal)


def test_open_descriptors_threads_memory_and_lag_are_seen(status: HTTPServer) -> None:
    enough = threading.Event()
    command = [sys.executable, "-c", SPENDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as spender:
        assert spender.stdin is not None
        assert spender.stdout is not None
        assert spender.stdout.readline() == b"ready\n"
        sampler = Sampler(spender.pid, status.server_port, enough, period=0.02)
        sampler.start()
        wait_for_samples(sampler, 5)
        spender.stdin.write(b"spend\n")
        assert spender.stdout.readline() == b"spent\n"
        wait_for_samples(sampler, 5)
        enough.set()
        sampler.join()
        spender.kill()
    assert sampler.failure == ""

    def rise(name: str) -> float:
        values = [value for _, value in sampler.points[name]]
        return max(values) - values[2]

    assert rise("descriptors") >= 25
    assert rise("threads") >= 1
    assert rise("memory, MiB") > 0.9 * MUCH / MIB
    assert sampler.points[LAG][-1][1] == pytest.approx(1000 * LATE)


def test_a_daemon_that_is_gone_is_no_flat_line_but_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    sampler = Sampler(os.getpid(), port, threading.Event(), period=0.02)
    sampler.start()
    sampler.join(SECONDS)
    assert sampler.failure.startswith("no sample any more: ConnectionRefusedError")


def test_lag_is_of_calm_seconds_and_judged_when_there_were_enough_of_them() -> None:
    sampler = Sampler(os.getpid(), 0, threading.Event())
    sampler.points["threads"] = [(float(second), 4.0) for second in range(100)]
    sampler.points[LAG] = [(float(second), 1.0) for second in range(49)]
    assert sampler.judged() == set(ALLOWED) - {LAG}
    sampler.points[LAG].append((49.0, 1.0))
    assert sampler.judged() == set(ALLOWED)


@pytest.mark.parametrize(("waited", "kept"), [(0, True), (0.09, True), (0.2, False)])
def test_the_lag_of_a_time_in_which_others_had_the_processor_is_not_kept(
    status: HTTPServer, waited: float, kept: bool
) -> None:
    spent, period = 1e9, 0.5

    class Observed(Sampler):
        def _wait_for_processor(self) -> tuple[float, float]:
            nonlocal spent
            spent += period
            return spent, waited * spent

    enough = threading.Event()
    sampler = Observed(os.getpid(), status.server_port, enough, period=0.02)
    sampler.start()
    wait_for_samples(sampler, 5)
    enough.set()
    sampler.join()
    assert sampler.failure == ""
    assert bool(sampler.points[LAG]) is kept
    assert sampler.calm == (1 if kept else 0)
