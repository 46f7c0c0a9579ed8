"""Starts a server, puts a load on it, and does so in turn for all that are compared.

A server and its load run on different cores. Each trial has a fresh server process, so that the luck of one process's
memory layout is not measured; the trials of a scenario are interleaved (A B C … A B C …), so that what the machine does
beside is spread over all.
"""

import contextlib
import itertools
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.stats import Figures

HERE = Path(__file__).parent
BUILD = HERE / "build"

READY_TIMEOUT = 60.0  # seconds a server may take to answer its first byte, on a machine that has much else to do
LOAD_TIMEOUT = 60.0  # seconds beyond its own duration that a load client may take

# Below Linux's ephemeral ports (32768): a probe of a port among these can connect to itself and take that for an echo.
_ports = itertools.count(random.randrange(15000, 25000))


class TrialFailedError(Exception):
    """A server did not start or did not echo; the text says which byte, connection or time."""


@dataclass(frozen=True)
class Peer:
    """A server to measure.

    In `argv`, `{port}` stands for the port to listen on and `{config}` for the path of a file that holds `config`, in
    which `{port}` stands for the same. `needs` names the packages or programs without which it cannot run. It is ready
    when it answers `probe` with `ready`; an empty `probe` waits for it to speak first. A `behind` is a server that it
    needs, started before it on a port of its own, `{behind}`, and not measured.
    """

    name: str
    argv: tuple[str, ...]
    config: str = ""
    needs: tuple[str, ...] = ()
    probe: bytes = b"?"
    ready: bytes = b"?"
    behind: "Peer | None" = None


@dataclass(frozen=True)
class Pace:
    """How often to measure, and for how many seconds after how many of warming up."""

    rounds: int
    seconds: float
    warmup: float


@dataclass
class Server:
    """A running peer."""

    pid: int
    port: int
    seconds_to_ready: float


@dataclass(frozen=True)
class Trial:
    """One thing that is measured in each round: a peer, in a case of its scenario, by a way of measuring."""

    case: str
    peer: Peer
    measure: Callable[["Peer", Pace], Figures]


@dataclass
class Record:
    """What a scenario's rounds measured: by case, then by peer, one entry a round."""

    rounds: dict[str, dict[str, list[Figures | None]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, trial: Trial, figures: Figures | None) -> None:
        self.rounds.setdefault(trial.case, {}).setdefault(trial.peer.name, []).append(figures)

    def of(self, case: str, peer: str) -> list[Figures | None]:
        return self.rounds.get(case, {}).get(peer, [])


def run(trials: tuple[Trial, ...], pace: Pace, report: Callable[[str], None]) -> Record:
    """Measures every trial once a round. A failure is recorded and does not end the run."""
    record = Record()
    for number in range(1, pace.rounds + 1):
        for trial in trials:
            try:
                figures = trial.measure(trial.peer, pace)
            except TrialFailedError as error:
                record.failures.append(f"{trial.peer.name}, {trial.case}: {error}")
                record.add(trial, None)
                report(f"  round {number}  {trial.case}  {trial.peer.name}: FAILED: {error}")
            else:
                record.add(trial, figures)
                shown = "  ".join(f"{name} {value:,.3f}" for name, value in figures.items())
                report(f"  round {number}  {trial.case}  {trial.peer.name}: {shown}")
    return record


@contextlib.contextmanager
def serving(peer: Peer, core: int | None = None) -> Iterator[Server]:
    """Runs a peer on the server's core, or another, as a process group of its own, until the block ends."""
    port = _free_port()
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="netd-bench-"))
        output = stack.enter_context(tempfile.TemporaryFile())
        behind = stack.enter_context(serving(peer.behind, client_core())).port if peer.behind else 0

        def fill_in(text: str) -> str:
            return text.replace("{port}", str(port)).replace("{behind}", str(behind))

        config = Path(scratch, "config.toml")
        config.write_text(fill_in(peer.config))
        argv = [fill_in(part).replace("{config}", str(config)) for part in peer.argv]
        began = time.monotonic()
        process = _spawn(argv, output, scratch, core)
        try:
            _wait_until_ready(process, port, output, peer)
            yield Server(process.pid, port, time.monotonic() - began)
        finally:
            _stop(process)


def load(*argv: str, server: Server, seconds: float) -> dict[str, Any]:
    """Runs a load client on the client's core and returns what it measured."""
    with _pinned(client_core()):
        client = subprocess.Popen(_client_argv(argv, server, seconds), stdout=subprocess.PIPE, text=True)
    try:
        answer, _ = client.communicate(timeout=seconds + LOAD_TIMEOUT)
    except subprocess.TimeoutExpired:
        client.kill()
        client.communicate()
        raise TrialFailedError("the load client did not end in time") from None
    return _result(answer)


@contextlib.contextmanager
def holding(*argv: str, server: Server, seconds: float) -> Iterator[dict[str, Any]]:
    """Runs a load client that prints its result and then holds its connections while the block runs."""
    with _pinned(client_core()):
        client = subprocess.Popen(
            _client_argv(argv, server, seconds), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with client:
        assert client.stdout is not None
        yield _result(client.stdout.readline())


def resident_bytes(pid: int) -> int:
    """What the process has in memory now, by /proc/PID/statm."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def server_core() -> int:
    return min(os.sched_getaffinity(0))


def client_core() -> int:
    return max(os.sched_getaffinity(0))


def raise_file_limit() -> int:
    """Lifts the soft limit of open files to the hard one, for this process and all that it starts; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def _pinned(core: int) -> Iterator[None]:
    """What is spawned inside inherits the core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _spawn(argv: list[str], output: IO[bytes], directory: str, core: int | None) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    with _pinned(server_core() if core is None else core):
        return subprocess.Popen(
            argv, stdout=output, stderr=output, cwd=directory, env=environment, start_new_session=True
        )


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, output: IO[bytes], peer: Peer) -> None:
    """Returns when the server has accepted a connection and answered the probe on it."""
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise TrialFailedError(f"ended with status {process.returncode} before it was ready: {_last_line(output)}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=READY_TIMEOUT) as connection:
                connection.sendall(peer.probe)
                if connection.recv(len(peer.ready)) == peer.ready:
                    return
        except OSError:
            pass
        time.sleep(0.002)
    raise TrialFailedError(f"did not answer within {READY_TIMEOUT:g} s: {_last_line(output)}")


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends the server and what it forked, which are a process group. It has nothing to save, so at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _client_argv(argv: tuple[str, ...], server: Server, seconds: float) -> list[str]:
    program, *options = argv
    script = HERE / "load" / f"{program}.py"
    return [
        *([sys.executable, str(script)] if script.exists() else [str(BUILD / program)]),
        *options,
        f"--port={server.port}",
        f"--server={server.pid}",
        f"--seconds={seconds}",
    ]


def _result(answer: str) -> dict[str, Any]:
    if not answer:
        raise TrialFailedError("the load client printed nothing")
    result: dict[str, Any] = json.loads(answer)
    if "error" in result:
        raise TrialFailedError(result["error"])
    return result


def _free_port() -> int:
    for port in _ports:
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    sys.exit("benchmarks: no port is free")
