"""The runner: fresh servers, interleaved; a server that fails is a finding, not the end."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import echo, runner
from benchmarks.runner import Pace, Peer, Trial, TrialFailedError
from benchmarks.stats import Figures

PACE = Pace(rounds=2, seconds=0.1, warmup=0)
THREADS = Peer("threads", (sys.executable, "-m", "benchmarks.peers.threading_echo", "{port}"))


def test_rounds_are_interleaved_and_a_failure_is_kept_in_its_place() -> None:
    order: list[str] = []

    def measure(peer: Peer, _pace: Pace) -> Figures:
        order.append(peer.name)
        if order == ["a", "b"]:
            raise TrialFailedError("connection 0 closed")
        return {"cpu_us": float(len(order))}

    trials = tuple(Trial("case", Peer(name, ()), measure) for name in ("a", "b"))
    record = runner.run(trials, PACE, lambda _line: None)
    assert order == ["a", "b", "a", "b"]
    assert record.of("case", "a") == [{"cpu_us": 1.0}, {"cpu_us": 3.0}]
    assert record.of("case", "b") == [None, {"cpu_us": 4.0}]
    assert record.failures == ["b, case: connection 0 closed"]


def test_a_server_is_ready_when_it_echoes_and_gone_after_its_trial() -> None:
    with runner.serving(THREADS) as server:
        assert 0 < server.seconds_to_ready < runner.READY_TIMEOUT
        assert os.sched_getaffinity(server.pid) == {runner.server_core()}
        assert runner.resident_bytes(server.pid) > 1_000_000
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_server_that_does_not_start_says_why() -> None:
    broken = Peer("broken", (sys.executable, "-c", "raise SystemExit('no such port')"))
    with (
        pytest.raises(TrialFailedError, match="ended with status 1 before it was ready: no such port"),
        runner.serving(broken),
    ):
        pass


def test_port_and_configuration_reach_the_server() -> None:
    program = "import sys; print(open(sys.argv[1]).read() == f'port = {sys.argv[2]}'); sys.exit(3)"
    peer = Peer("reader", (sys.executable, "-c", program, "{config}", "{port}"), config="port = {port}")
    with pytest.raises(TrialFailedError, match="status 3 before it was ready: True"), runner.serving(peer):
        pass


def test_the_whole_command_shows_its_options() -> None:
    shown = subprocess.run(
        (sys.executable, "-m", "benchmarks", "--help"),
        check=True,
        capture_output=True,
        text=True,
        cwd=runner.HERE.parent,
    )
    for option in ("--quick", "--only", "--python", "--render"):
        assert option in shown.stdout


def pretend_client(directory: Path, answer: Mapping[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a load client in place that knows its answer."""
    program = directory / "echoload"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(runner, "BUILD", directory)


MEASURED = {"messages": 1000, "bytes": 4_000_000, "seconds": 2.0, "cpu_seconds": 0.5, "p50_us": 7.0, "p99_us": 9.0}


def test_cpu_and_rate_are_those_of_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_client(tmp_path, MEASURED, monkeypatch)
    assert echo.exchange("echo")(THREADS, PACE) == {
        "cpu_us": 500.0,
        "rate": 500.0,
        "busy": 0.25,
        "p50_us": 7.0,
        "p99_us": 9.0,
    }


def test_in_bulk_they_are_those_of_one_megabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_client(tmp_path, MEASURED, monkeypatch)
    assert echo.exchange("bulk", unit_bytes=1e6)(THREADS, PACE) == {"cpu_us": 125_000.0, "rate": 2.0, "busy": 0.25}


def test_what_the_load_client_found_wrong_fails_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_client(tmp_path, {"error": "connection 3: byte 7 came back as 0x01"}, monkeypatch)
    with pytest.raises(TrialFailedError, match="connection 3: byte 7"):
        echo.exchange("echo")(THREADS, PACE)


def test_a_server_that_accepts_and_never_answers_fails_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "READY_TIMEOUT", 0.5)
    mute = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
    with (
        pytest.raises(TrialFailedError, match=r"did not answer within 0\.5 s"),
        runner.serving(Peer("mute", (sys.executable, "-c", mute, "{port}"))),
    ):
        pass
