"""A box: the distribution's systemd as the first process of namespaces of its own, with netd installed in it.

It sees this machine's files through an overlay, and has its own processes, network, users of /run and journal. Nothing
that happens in it reaches the machine, and it dies with the test run.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.servers import SYSTEM_PATH, GuardedProcess
from tests.waiting import eventually

BOOT = Path(__file__).with_name("boot")
SYSTEMD = Path("/lib/systemd/systemd")
CLONE_NEWNET = 0x40000000
"""<linux/sched.h>: the kind of namespace that setns(2) is to check for."""

NAMESPACES = ["--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup", "--propagation", "private"]
OVERLAY = """
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" overlay "$0/root"
mount -t cgroup2 cgroup2 "$0/root"
"""
"""A trial of what `boot` does, for machines where even root may not."""

TIMEOUT = 120.0
"""Seconds for anything that should take two at most."""


def why_not() -> str:
    """Why no box can be made on this machine; "" when one can."""
    if os.geteuid() != 0:
        return "needs root, to make namespaces in which systemd runs"
    if not SYSTEMD.exists():
        return "needs systemd, which is not installed"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "needs overlayfs, which this kernel does not have"
    if _cgroups() is None:
        return "needs a mounted cgroup2 hierarchy"
    with tempfile.TemporaryDirectory() as layers:
        tried = subprocess.run(
            ["unshare", "--fork", *NAMESPACES, "/bin/sh", "-ec", OVERLAY, layers],
            env={"PATH": SYSTEM_PATH},
            capture_output=True,
            text=True,
            check=False,
        )
    complaint, _, _ = tried.stderr.partition("\n")
    return f"cannot make namespaces with an overlay: {complaint}" if tried.returncode else ""


def _cgroups() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(target)
    return None


class Box:
    """A running systemd. Entering it as a context boots it, leaving ends it."""

    def __init__(self, installed: Path) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="netd-box-"))
        self._cgroup = (_cgroups() or Path()) / self._directory.name
        self._installed = installed.absolute()
        self._process: GuardedProcess | None = None
        self.pid = 0
        """Of its systemd, as this machine counts."""

    def __enter__(self) -> Self:
        self._cgroup.mkdir()
        enter = 'echo $$ >"$0/cgroup.procs" && exec unshare "$@"'
        command = ["/bin/sh", "-c", enter, str(self._cgroup), "--fork", "--kill-child", *NAMESPACES]
        layers = self._directory / "layers"
        layers.mkdir()
        environment = {"PATH": SYSTEM_PATH}
        self._process = GuardedProcess(
            [*command, str(BOOT), str(layers), str(self._installed)], environment, self._directory
        )
        try:
            self._process.wait_for(self._booted)
        except BaseException:
            self.close()
            raise
        return self

    def _booted(self) -> bool:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.pid = int(children[0]) if children else 0
        return bool(self.pid) and self.run("systemctl", "is-system-running", check=False).strip() in {
            "running",
            "degraded",
        }

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and remove every trace."""
        if self._process is not None:
            self._process.stop(signal.SIGKILL)
        deadline = time.monotonic() + TIMEOUT
        while self._cgroup.exists() and time.monotonic() < deadline:
            for directory, _, _ in os.walk(self._cgroup, topdown=False):
                with suppress(OSError):  # busy until the kernel has reaped what ran there
                    Path(directory).rmdir()
        shutil.rmtree(self._directory, ignore_errors=True)

    # --- what a test does in it

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in it; what that printed."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", *command],
            env={"PATH": SYSTEM_PATH},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
        return done.stdout

    def path(self, inside: str) -> Path:
        """A path in the box, as this machine sees it. A link in it that is absolute leads out again."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def write(self, inside: str, text: str) -> None:
        """Write a file in the box, and the directories above it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def connect(self, port: int, timeout: float = 60.0) -> socket.socket:
        """A connection to a port of its loopback address."""
        with self.network():
            connection = socket.socket()
        connection.settimeout(timeout)
        try:
            connection.connect(("127.0.0.1", port))
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread makes here belong to the box's network, and stay there."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as ours, Path(f"/proc/{self.pid}/ns/net").open() as theirs:
            if libc.setns(theirs.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                libc.setns(ours.fileno(), CLONE_NEWNET)

    def show(self, unit: str) -> Mapping[str, str]:
        """Every property of a unit."""
        lines = self.run("systemctl", "show", unit).splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """What a unit has logged, each entry with its fields."""
        output = self.run("journalctl", "--output=json", "--sync", "--quiet", check=False)
        output = self.run("journalctl", "--output=json", "--quiet", f"--unit={unit}")
        return [json.loads(line) for line in output.splitlines()]

    def wait_until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is true of the box."""
        assert eventually(true, TIMEOUT), f"not {what}"
