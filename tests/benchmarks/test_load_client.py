"""The load client is the judge of every server: it must see each way in which an echo can be wrong."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runner import HERE
from tests.servers import reserve_port
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("make")), reason="the load clients are C programs: cc and make build them"
)

Change = Callable[[bytes, int], bytes]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the C programs are, built with every warning an error."""
    build = tmp_path_factory.mktemp("build")
    made = subprocess.run(("make", "-C", str(HERE), f"BUILD={build}"), check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "-Wall -Wextra -Werror" in made.stdout
    return build


@contextmanager
def changed_echo(change: Change) -> Iterator[int]:
    """A server that answers with `change(data, bytes already read)`; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def answer(connection: socket.socket) -> None:
        seen = 0
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(change(data, seen))
                    seen += len(data)
            except OSError:
                return  # the client has seen enough

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()


@contextmanager
def c_echo(programs: Path, *options: str) -> Iterator[tuple[int, int]]:
    """The C peer, running; gives its port and process id."""
    with reserve_port() as reserved:
        port = reserved.getsockname()[1]
        with subprocess.Popen((str(programs / "cecho"), str(port), *options), start_new_session=True) as server:
            try:
                wait_until_listening(port, server)
                yield port, server.pid
            finally:
                server.kill()


BURN = 0.02  # seconds of CPU for each connection
BURNER = """
import socketserver, sys, time

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        began = time.thread_time()
        data = self.request.recv(65536)
        while time.thread_time() - began < {burn}:
            pass
        self.request.sendall(data)

with socketserver.{server}(("127.0.0.1", 0), Echo) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever(poll_interval=0.01)
"""


@contextmanager
def burning_echo(server: str) -> Iterator[tuple[int, int]]:
    """An echo that uses BURN seconds of CPU for each connection, in a process or thread that then ends."""
    program = BURNER.format(burn=BURN, server=server)
    argv = (sys.executable, "-c", program)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    def listening() -> bool:
        assert server.poll() is None, f"the server ended with status {server.returncode}"
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    assert eventually(listening)


def load(programs: Path, *arguments: str, patience: float = 60) -> tuple[int, dict[str, Any]]:
    """Runs the load client for a moment; returns its status and its line."""
    done = subprocess.run(
        (str(programs / "echoload"), "--seconds=0.1", "--warmup=0", f"--patience={patience}", *arguments),
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=90,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, result


def at(position: int, change: Callable[[bytes], bytes]) -> Change:
    """Changes what holds the byte at `position` of a connection's stream."""
    return lambda data, seen: change(data) if seen <= position < seen + len(data) else data


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


MODES = {
    "echo": ("echo", "--connections=3"),
    "pipelined": ("echo", "--connections=3", "--outstanding=16"),
    "bulk": ("bulk", "--connections=2", "--size=65536"),
    "accept": ("accept", "--connections=2", "--count=50"),
    "hold": ("hold", "--connections=3"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_true_echo_passes(programs: Path, mode: str) -> None:
    with c_echo(programs) as (port, pid):
        status, result = load(programs, *MODES[mode], f"--port={port}", f"--server={pid}")
    assert status == 0
    assert "error" not in result
    assert result["messages"] > 0 or result["bytes"] > 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (flip_last, r"came back as 0x"),
        (lambda data: data[:-1], r"never came back|never answered|came back as 0x|fell silent"),
        (lambda data: data + b"!", r"more bytes came back|came back as 0x"),
        (lambda data: data[1:] + data[:1], r"came back as 0x"),
    ],
    ids=["a changed byte", "a lost byte", "a surplus byte", "two bytes out of order"],
)
def test_a_wrong_echo_of_the_first_message_is_found(
    programs: Path, mode: str, change: Callable[[bytes], bytes], complaint: str
) -> None:
    with changed_echo(at(0, change)) as port:
        status, result = load(programs, *MODES[mode], f"--port={port}", patience=0.5 if "never" in complaint else 60)
    assert status == 1
    assert re.search(complaint, result["error"]), result


@pytest.mark.parametrize("mode", ["echo", "pipelined", "bulk"])
def test_a_byte_lost_in_the_middle_is_found(programs: Path, mode: str) -> None:
    with changed_echo(at(200_000 if mode == "bulk" else 2000, lambda data: data[:-1])) as port:
        status, result = load(programs, *MODES[mode], f"--port={port}", patience=0.5)
    assert status == 1
    assert re.search(r"came back as 0x|never came back|fell silent", result["error"]), result


def test_a_whole_message_lost_is_found(programs: Path) -> None:
    with changed_echo(at(64 * 20, lambda data: data[64:])) as port:
        status, _ = load(programs, *MODES["pipelined"], f"--port={port}", patience=0.5)
    assert status == 1


def test_a_server_that_closes_is_found(programs: Path) -> None:
    def close(_data: bytes) -> bytes:
        raise ConnectionAbortedError

    with changed_echo(at(640, close)) as port:
        status, result = load(programs, *MODES["echo"], f"--port={port}")
    assert status == 1
    assert "closed by the server" in result["error"]


def test_a_server_that_is_not_there_is_a_failure(programs: Path) -> None:
    with reserve_port() as reserved:
        status, result = load(programs, "echo", f"--port={reserved.getsockname()[1]}")
    assert (status, result) == (1, {"error": "connect: Connection refused"})


def test_cpu_time_is_the_servers_and_only_if_asked_for(programs: Path) -> None:
    with c_echo(programs) as (port, pid):
        _, result = load(programs, "echo", "--connections=10", f"--port={port}", f"--server={pid}")
        _, blind = load(programs, "echo", "--connections=10", f"--port={port}")
    assert 0 < result["cpu_seconds"] <= result["seconds"] * 1.1
    assert blind["cpu_seconds"] == 0


@pytest.mark.parametrize("server", ["ForkingTCPServer", "ThreadingTCPServer"])
def test_cpu_time_of_children_and_threads_that_have_ended_counts(programs: Path, server: str) -> None:
    with burning_echo(server) as (port, pid):
        _, result = load(
            programs, "accept", "--connections=2", "--count=6", "--seconds=60", f"--port={port}", f"--server={pid}"
        )
    assert result["messages"] == 6
    assert result["cpu_seconds"] >= 6 * BURN * 0.9


def test_the_c_peer_answers_in_pieces_too(programs: Path) -> None:
    with c_echo(programs, "64") as (port, _):
        status, _ = load(programs, *MODES["pipelined"], f"--port={port}")
        bulk_status, _ = load(programs, *MODES["bulk"], f"--port={port}")
    assert (status, bulk_status) == (0, 0)
