"""The ssh suite: each of its servers does what is measured; its targets are computed."""

import sys

import pytest

from benchmarks import machine, report, ssh
from benchmarks.runner import Pace, Peer, Record
from benchmarks.suite import Result
from tests.benchmarks.test_report import row

PACE = Pace(rounds=1, seconds=0.2, warmup=0)
PEERS = ssh.Peers(sys.executable)


def test_what_the_peers_need_is_there() -> None:
    assert {"asyncssh", "OpenSSH"} <= machine.versions(sys.executable).keys()


@pytest.mark.parametrize("peer", [PEERS.netd, PEERS.asyncssh, PEERS.sshd], ids=lambda peer: peer.name)
def test_each_server_runs_what_it_is_asked(peer: Peer) -> None:
    figures = ssh.exchange("commands", "true")(peer, PACE)
    assert figures["cpu_us"] > 0
    assert figures["p50_us"] <= figures["p99_us"]


def test_log_ins_are_measured() -> None:
    figures = ssh.exchange("logins", "version")(PEERS.netd, PACE)
    assert 1 < figures["rate"] < 10_000
    assert 0 < figures["busy"] < 2


def test_bulk_is_measured_by_the_megabyte() -> None:
    figures = ssh.exchange("bulk", "head", unit_bytes=1e6)(PEERS.netd, PACE)
    assert 10 < figures["cpu_us"] < 100_000


def test_memory_is_that_of_one_session() -> None:
    assert ssh.memory("version", 8)(PEERS.netd, PACE)["bytes"] < 1_000_000


def test_targets_are_computed_from_what_was_measured() -> None:
    suite = ssh.suite(sys.executable)
    records = {}
    for scenario in suite.scenarios:
        record = records[scenario.name] = Record()
        for trial in scenario.trials:
            cost = {"netd": 100.0, "asyncssh": 200.0, "sshd": 80.0}[trial.peer.name]
            record.add(trial, dict.fromkeys(("cpu_us", "rate", "p50_us", "bytes"), cost))
    result = Result("2026-11-25", {}, {}, {"rounds": 1, "seconds": 1}, records=records)
    text = report.targets_table(suite.targets, result)
    assert row(text, "log in and run a verb: netd / asyncssh")[2:] == ["2.00x", "reached"]
    assert row(text, "output in bulk: netd / sshd")[2:] == ["0.800x", "**not reached**"]
    assert row(text, "memory of an idle session")[2:] == ["100 bytes", "reached"]
    assert "netd" in suite.charts(result)["benchmarks-ssh.svg"]
