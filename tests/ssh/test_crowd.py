"""Many at once: the crypto and the hashes of logins do not hold up the other services."""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.netd_process import running
from tests.ssh.daemon import PASSWORD, run, serving

ROUNDS = 3
"""In one of which the machine is surely not busy with something else."""
LOGINS = 100

PROBE = """
import select, socket, sys, time
tunnel = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
took = []
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    began = time.monotonic()
    tunnel.sendall(b"x")
    assert tunnel.recv(1) == b"x"
    took.append(time.monotonic() - began)
    time.sleep(0.002)
took.sort()
print(took[len(took) * 99 // 100])
"""
"""Seconds that an echo takes until standard input ends, at the 99th percentile.

In a process of its own, as the clients keep this one busy.
"""


def test_a_hundred_log_in_at_once_while_echo_stays_quick(tmp_path: Path) -> None:
    limits = "limits = { startups = 128, startups_per_host = 128 }"
    echo = '[echo.plain]\nlisten = "127.0.0.1:0"\n'
    rounds = []
    with serving(tmp_path, limits, more=echo) as sshd:

        async def log_in(number: int) -> str:
            proof = {} if number % 2 else {"client_keys": None, "password": PASSWORD}
            async with sshd.asyncssh(**proof) as connection:
                return str((await connection.run("whoami", check=True)).stdout)

        async def work() -> list[str]:
            return await asyncio.gather(*map(log_in, range(LOGINS)))

        while len(rounds) < ROUNDS and not any(each < 0.025 for each in rounds):
            words = [sys.executable, "-c", PROBE, str(sshd.netd.port("echo.plain"))]
            with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
                assert probe.stdout is not None
                assert probe.stdout.readline() == "ready\n"
                answers = run(work())
                rounds.append(float(probe.communicate()[0]))
            assert len(answers) == LOGINS
            assert all(answer.startswith("ops (operator) from") for answer in answers)
    assert min(rounds) < 0.025


def test_without_users_the_other_services_run(tmp_path: Path) -> None:
    config = '[ssh.console]\nlisten = "127.0.0.1:0"\n[echo.plain]\nlisten = "127.0.0.1:0"\n'
    with running(tmp_path, config) as netd:
        assert netd.port("echo.plain")
        assert not [event for event in netd.events if event.get("service") == "ssh.console" and "address" in event]
        assert any("netdctl ssh print-user" in message for message in netd.messages)
