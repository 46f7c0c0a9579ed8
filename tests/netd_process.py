"""The real daemon in a process of its own, started as its users start it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_TIMEOUT = 90.0
"""Seconds; a start costs half a second, and a slow machine that has much else to do takes forty times that."""

TWISTD = Path(sys.executable).with_name("twistd")
NETDCTL = Path(sys.executable).with_name("netdctl")


class Netd:
    """A running daemon: its log events, its ports, and the way to stop it."""

    def __init__(
        self,
        directory: Path,
        config: str,
        *,
        reactor: str = "",
        environ: dict[str, str] | None = None,
        command: Sequence[str | Path] = (TWISTD,),
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.config = directory / "netd.toml"
        self.config.write_text(config)
        self._out = directory / "netd.out"
        self._err = directory / "netd.err"
        options = [f"--reactor={reactor}"] if reactor else []
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "-n", "--pidfile=", *options, "netd", "--config", self.config],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=directory,
                env=os.environ | (environ or {}),
                pass_fds=pass_fds,
            )

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the daemon has logged so far."""
        lines = self._out.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def messages(self) -> list[str]:
        """The same, the messages alone."""
        return [event["message"] for event in self.events]

    @property
    def stderr(self) -> str:
        """What it wrote to standard error."""
        return self._err.read_text()

    def wait_for(self, text: str, timeout: float = START_TIMEOUT) -> None:
        """Wait until a message that holds `text` is logged."""
        self.wait_until(lambda: any(text in message for message in self.messages), text, timeout)

    def wait_until(self, true: Callable[[], bool], what: str, timeout: float = START_TIMEOUT) -> None:
        """Wait until something is true of the daemon."""
        deadline = time.monotonic() + timeout
        while not true():
            assert self.process.poll() is None, f"netd ended with {self.process.returncode}: {self.stderr}"
            assert time.monotonic() < deadline, f"no {what!r} in {self.messages} {self.stderr}"
            time.sleep(0.02)

    def port(self, service: str, index: int = 0) -> int:
        """The TCP port that a service listens on."""
        bound = [event for event in self.events if event.get("service") == service and "address" in event]
        return int(bound[index]["address"].rsplit(":", 1)[1])

    def rss(self) -> int:
        """Resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def forget_peak(self) -> int:
        """What is resident now is the peak from now on; returns it."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # proc(5): the peak resident set size
        return self.rss()

    def peak(self) -> int:
        """The most that was resident since then, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    def cpu(self) -> float:
        """Seconds of processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, number: int = signal.SIGTERM, timeout: float = START_TIMEOUT) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def wait(self, timeout: float = START_TIMEOUT) -> int:
        """Wait for the daemon to end by itself; returns the exit status."""
        return self.process.wait(timeout)


@contextmanager
def running(
    directory: Path,
    config: str,
    *,
    reactor: str = "",
    environ: dict[str, str] | None = None,
    command: Sequence[str | Path] = (TWISTD,),
    pass_fds: Sequence[int] = (),
) -> Iterator[Netd]:
    """A daemon that is ready, and surely gone afterwards."""
    netd = Netd(directory, config, reactor=reactor, environ=environ, command=command, pass_fds=pass_fds)
    try:
        netd.wait_for("ready: ")
        yield netd
    finally:
        if netd.process.poll() is None:
            netd.process.kill()
        netd.process.wait()
