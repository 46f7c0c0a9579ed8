"""What the soak measures of a process is there: here of this one, beside a /status that says how late a reactor was."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.soak.samples import LAG, MIB, Sampler, judged

SECONDS = 30.0
MUCH = 50 * MIB
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
    deadline = time.monotonic() + SECONDS
    while len(sampler.points["threads"]) < goal:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_open_descriptors_threads_memory_and_lag_are_seen(status: HTTPServer) -> None:
    enough = threading.Event()
    sampler = Sampler(os.getpid(), status.server_port, enough, period=0.02)
    sampler.start()
    wait_for_samples(sampler, 5)
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(socket.socket())
        ballast = b"x" * MUCH
        idle = threading.Event()
        idler = threading.Thread(target=idle.wait)
        idler.start()
        wait_for_samples(sampler, 5)
        idle.set()
        idler.join()
    enough.set()
    sampler.join()
    assert len(ballast) == MUCH
    assert sampler.failure == ""

    def rise(name: str) -> float:
        values = [value for _, value in sampler.points[name]]
        return max(values) - values[2]

    assert rise("descriptors") >= 25
    assert rise("threads") >= 1
    assert rise("memory, MiB") > 0.9 * MUCH / MIB
    assert sampler.points[LAG][-1][1] == pytest.approx(1000 * LATE)
    assert 0 <= sampler.waiting <= 1


def test_a_daemon_that_is_gone_is_no_flat_line_but_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    sampler = Sampler(os.getpid(), port, threading.Event(), period=0.02)
    sampler.start()
    sampler.join(SECONDS)
    assert sampler.failure.startswith("no sample any more: ConnectionRefusedError")


def test_lag_is_not_judged_when_the_machine_had_others_to_serve() -> None:
    assert LAG in judged(0.05)
    assert judged(0.3) == judged(0.05) - {LAG}
