"""Puts a load on an ssh server and prints, as JSON, what it did and what CPU time the server took.

The CPU time is read from the kernel's clocks from outside, once the server is at rest: that of its process, and that of
all children it has waited for, and of theirs. asyncssh is the client where connections are many, OpenSSH's where bytes
are: it is quick enough not to be what is measured.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import asyncssh

CIPHER = "aes128-gcm@openssh.com"
EXCHANGE = "curve25519-sha256"  # which all that are compared have
AT_ONCE = 4
REST = 0.05  # seconds without any CPU time, twice, after which a server is at rest


def cpu_seconds(pid: int) -> float:
    """Of the process, by its clock (clock_getcpuclockid(3): the process's number, inverted), and of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    children = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime((~pid << 3) | 2) + children


async def cpu_at_rest(pid: int) -> float:
    before, quiet = cpu_seconds(pid), 0
    while quiet < 2:
        await asyncio.sleep(REST)
        now = cpu_seconds(pid)
        quiet = quiet + 1 if now - before < 0.001 else 0
        before = now
    return before


class Load:
    """The modes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.latencies: list[float] = []

    def connect(self) -> Any:
        options = self.options
        return asyncssh.connect(
            "127.0.0.1", options.port, username=options.user, client_keys=[options.key], known_hosts=None,
            config=None, encryption_algs=[CIPHER], kex_algs=[EXCHANGE], login_timeout=60,
        )  # fmt: skip

    async def run(self, connection: Any) -> None:
        began = time.monotonic()
        done = await connection.run(self.options.command)
        if done.exit_status != 0:
            raise RuntimeError(f"{self.options.command} ended with {done.exit_status}: {done.stderr}")
        self.latencies.append(time.monotonic() - began)

    async def _log_in(self) -> None:
        began = time.monotonic()
        async with self.connect() as connection:
            await self.run(connection)
        self.latencies[-1] = time.monotonic() - began

    async def logins(self) -> None:
        """A new connection for each command, four at a time."""
        until = time.monotonic() + self.options.seconds

        async def again() -> None:
            await self._log_in()
            while time.monotonic() < until:
                await self._log_in()

        await asyncio.gather(*(again() for _ in range(AT_ONCE)))

    async def commands(self) -> None:
        """One command after the other on one connection, two at least: percentiles take that many."""
        async with self.connect() as connection:
            until = time.monotonic() + self.options.seconds
            while len(self.latencies) < 2 or time.monotonic() < until:
                await self.run(connection)

    async def bulk(self) -> int:
        """Output as fast as OpenSSH takes it; returns how many bytes came."""
        options = self.options
        settings = (f"Ciphers={CIPHER}", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        flags = [word for setting in settings for word in ("-o", setting)]
        words = ["ssh", "-F", "none", *flags, "-i", options.key, "-p", str(options.port), f"{options.user}@127.0.0.1"]
        with subprocess.Popen([*words, options.command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
            counted = subprocess.run(["wc", "-c"], stdin=client.stdout, capture_output=True, check=True)
        size = int(counted.stdout)
        if client.returncode:
            raise RuntimeError(f"ssh ended with {client.returncode} after {size} bytes")
        return size

    async def measure(self) -> dict[str, Any]:
        options = self.options
        await self._log_in() if options.mode != "bulk" else None
        self.latencies.clear()
        before = await cpu_at_rest(options.server)
        began = time.monotonic()
        size = await getattr(self, options.mode)() or 0
        seconds = time.monotonic() - began
        result = {
            "seconds": seconds,
            "cpu_seconds": await cpu_at_rest(options.server) - before,
            "messages": len(self.latencies),
            "bytes": size,
        }
        if self.latencies:
            result["p50_us"] = median(self.latencies) * 1e6
            result["p99_us"] = quantiles(self.latencies, n=100)[98] * 1e6
        return result

    async def hold(self) -> None:
        """Open connections, run a command on each, then keep them until standard input ends."""
        connections: list[Any] = []

        async def some(count: int) -> None:
            for _ in range(count):
                connections.append(await self.connect())
                await self.run(connections[-1])

        await asyncio.gather(*(some(self.options.connections // AT_ONCE) for _ in range(AT_ONCE)))
        print(json.dumps({"connections": len(connections)}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["logins", "commands", "bulk", "hold"])
    for name in ("--user", "--key", "--command"):
        parser.add_argument(name, required=True)
    for name in ("--port", "--server"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=0)
    load = Load(parser.parse_args())
    try:
        if load.options.mode == "hold":
            asyncio.run(load.hold())
        else:
            print(json.dumps(asyncio.run(load.measure())))
    except (OSError, RuntimeError, asyncssh.Error) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main()
