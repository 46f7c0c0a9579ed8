"""Private servers for tests: Redis, memcached and RabbitMQ, each on its own ports and in its own directory.

They are plain context managers, and at the end of the file pytest fixtures: a Redis or a memcached for one test, one
RabbitMQ for the test run with a virtual host for one test.

Nothing is left behind. Every process leads a session of its own and is stopped by its process id, RabbitMQ's private
epmd too. A guard, a shell that waits on a pipe from this process, kills them when the test run dies without having
stopped them, even by SIGKILL.

Ports are never lost to another process: a bound socket that does not listen keeps each as long as the server lives,
and servers, which all set SO_REUSEADDR, can listen beside it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from secrets import token_hex
from typing import Any, Self
from urllib.parse import quote

import pytest

HOST = "127.0.0.1"
TRY_TIMEOUT = 30.0
"""Seconds for one answer of a server that runs."""
START_TIMEOUT = 180.0
"""Seconds until a server must answer: RabbitMQ takes 6 on an idle machine."""
STOP_TIMEOUT = 60.0
"""Seconds from SIGTERM to SIGKILL: RabbitMQ takes 6."""
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
GUARD = 'read -r _ || { kill -s KILL -- "-$1"; rm -rf -- "$2"; }'
"""A line on the pipe ends the guard's watch; the pipe's end without one means that the test run has died."""


class ServerFailed(Exception):
    """A server is not installed, did not start, or died; with what it printed."""


def reserve_port() -> socket.socket:
    """A bound socket whose port nobody else gets, but which a server that sets SO_REUSEADDR can listen on."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((HOST, 0))
    return reserved


@contextmanager
def reserve_ports(names: Iterable[str]) -> Iterator[dict[str, int]]:
    """A port for each of these names that nobody else gets meanwhile, see `reserve_port`."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(reserve_port()).getsockname()[1] for name in names}


def find_program(name: str) -> str:
    """The path of a program that `make test` installs."""
    if found := shutil.which(name, path=SYSTEM_PATH):
        return found
    raise ServerFailed(f"{name} is not installed: run `make test`, which installs it")


def exchange(port: int, request: bytes, until: bytes = b"\n") -> bytes:
    """Send one request to a local port and return what it answers, up to and with `until` or the end."""
    with socket.create_connection((HOST, port), TRY_TIMEOUT) as connection:
        connection.sendall(request)
        answer = b""
        while until not in answer and (received := connection.recv(4096)):
            answer += received
        return answer


class GuardedProcess:
    """A child that leads its own session, and is killed when the test run dies."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        self.log = directory / f"{Path(command[0]).name}.log"
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                env=environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._child.pid
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self.pid), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def running(self) -> bool:
        """Whether it has not exited, be it paused or not."""
        return self._child.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and those of its group."""
        if self.running:
            os.killpg(self.pid, number)

    def stop(self, number: signal.Signals) -> None:
        """End it with a signal, with SIGKILL if that takes too long, and wait until it has ended."""
        self.send_signal(number)
        self.send_signal(signal.SIGCONT)
        try:
            self._child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            self._child.wait()
        with suppress(BrokenPipeError):
            self._guard.communicate(b"stopped\n")

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; an OSError of it means not yet."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with suppress(OSError, HTTPException):
                if condition():
                    return
            if not self.running or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-4000:]
                raise ServerFailed(f"{self.log.stem} did not start:\n{said}")
            time.sleep(0.02)


class Server(ABC):
    """A server program in a directory of its own; entering it as a context starts it, leaving removes every trace."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="netd-test-"))
        self._reserved: list[socket.socket] = []
        self._process: GuardedProcess | None = None
        self.port = self._reserve()

    def _reserve(self) -> int:
        self._reserved.append(reserve_port())
        port: int = self._reserved[-1].getsockname()[1]
        return port

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether it answers."""

    def _environment(self) -> dict[str, str]:
        return {"PATH": SYSTEM_PATH, "HOME": str(self.directory), "LANG": "C.UTF-8"}

    @property
    def pid(self) -> int:
        """Its process id; 0 if it was not started or was stopped."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """Whether its process lives, be it paused or not."""
        return self._process is not None and self._process.running

    def launch(self) -> GuardedProcess:
        """Start the process, or return the one that runs, without waiting until it answers."""
        if self._process is None or not self._process.running:
            self._forget(signal.SIGKILL)
            self._process = GuardedProcess(self._command(), self._environment(), self.directory)
        return self._process

    def start(self) -> None:
        """Start it if it does not run, and wait until it answers."""
        self.launch().wait_for(self._ready)

    def stop(self) -> None:
        """Let it end by itself, as at a shutdown. Its ports and files stay, for another start."""
        self._forget(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._forget(signal.SIGKILL)

    def _forget(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.stop(number)
            self._process = None

    def restart(self) -> None:
        """Stop it and start it on the same ports and files."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: its kernel accepts and acknowledges, it answers nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, free its ports and remove its directory."""
        self.kill()
        for reserved in self._reserved:
            reserved.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        """End it and remove every trace."""
        self.close()


class RedisServer(Server):
    """A Redis that keeps nothing on disk, on a port and a unix socket; arguments as on redis-server's command line."""

    def __init__(self, *arguments: str, password: str = "") -> None:
        super().__init__()
        self._arguments = arguments
        self.password = password
        self.socket_path = self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """Its address, as in netd's `store`."""
        return f"redis://{self._log_in()}{HOST}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The address of its unix socket."""
        return f"redis+unix://{self._log_in()}{self.socket_path}"

    def _log_in(self) -> str:
        return f":{quote(self.password, safe='')}@" if self.password else ""

    def _command(self) -> list[str]:
        options = ["--bind", HOST, "--port", str(self.port), "--unixsocket", str(self.socket_path)]
        options += ["--dir", str(self.directory), "--save", "", "--appendonly", "no"]
        if self.password:
            options += ["--requirepass", self.password]
        return [find_program("redis-server"), *options, *self._arguments]

    def _ready(self) -> bool:
        return exchange(self.port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))


class MemcachedServer(Server):
    """A memcached; arguments as on its command line."""

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        self._arguments = arguments

    def _command(self) -> list[str]:
        user = ["-u", "root"] if os.geteuid() == 0 else []
        return [find_program("memcached"), *user, "-l", HOST, "-p", str(self.port), "-U", "0", *self._arguments]

    def _ready(self) -> bool:
        return exchange(self.port, b"version\r\n").startswith(b"VERSION ")


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """A virtual host of a RabbitMQ, and a user who may do everything there and nothing elsewhere."""

    name: str
    user: str
    password: str
    port: int

    @property
    def url(self) -> str:
        """Its address, as in netd's `broker`."""
        return f"amqp://{self.user}:{self.password}@{HOST}:{self.port}/{quote(self.name, safe='')}"


class HaproxyServer(Server):
    """An HAProxy that passes TCP on to an address, "127.0.0.1:8001" or "unix@/path", with options of its `server`."""

    def __init__(self, target: str, options: str) -> None:
        super().__init__()
        (self.directory / "haproxy.cfg").write_text(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"
            f"listen via\n bind {HOST}:{self.port}\n server netd {target} {options}\n"
        )

    def _command(self) -> list[str]:
        return [find_program("haproxy"), "-db", "-f", str(self.directory / "haproxy.cfg")]

    def _ready(self) -> bool:
        with socket.create_connection((HOST, self.port), TRY_TIMEOUT):
            return True


class RabbitServer(Server):
    """A RabbitMQ node with its management API, its own epmd, cookie and data."""

    BIN = Path("/usr/lib/rabbitmq/bin")
    """Debian's own commands in /usr/sbin insist on the user rabbitmq and the system's node."""
    NODE = "netd@localhost"
    ADMIN = "admin"

    def __init__(self) -> None:
        super().__init__()
        self.management_port = self._reserve()
        self._epmd_port = self._reserve()
        self._distribution_port = self._reserve()
        self._epmd: GuardedProcess | None = None
        self._password = token_hex()
        self._write("home/.erlang.cookie", token_hex(), 0o400)
        self._write("enabled_plugins", "[rabbitmq_management].")
        self._write(
            "rabbitmq.conf",
            f"listeners.tcp.default = {HOST}:{self.port}\n"
            f"management.tcp.ip = {HOST}\n"
            f"management.tcp.port = {self.management_port}\n"
            f"default_user = {self.ADMIN}\n"
            f"default_pass = {self._password}\n"
            "vm_memory_high_watermark.absolute = 2GB\n"
            "disk_free_limit.absolute = 50MB\n",
        )

    def _write(self, name: str, text: str, mode: int = 0o600) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def _command(self) -> list[str]:
        server = self.BIN / "rabbitmq-server"
        if not server.exists():
            raise ServerFailed(f"{server} is not there: run `make test`, which installs rabbitmq-server")
        return [str(server)]

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {
            "HOME": str(self.directory / "home"),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_NODENAME": self.NODE,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            # The script then becomes the Erlang machine itself: its process id is the broker's.
            "detached": "1",
        }

    def launch(self) -> GuardedProcess:
        """Start epmd, which must be there first, and the node."""
        self._command()
        if self._epmd is None:
            self._epmd = GuardedProcess([find_program("epmd")], self._environment(), self.directory)
            self._epmd.wait_for(lambda: exchange(self._epmd_port, b"\0\1n") != b"")
        return super().launch()

    def _ready(self) -> bool:
        # Protocol 0-9-1 is welcomed with Connection.Start, a method frame (type 1).
        started = exchange(self.port, b"AMQP\0\0\x09\1", until=b"\xce").startswith(b"\1\0\0")
        return started and self.api("GET", "/api/overview") != {}

    def close(self) -> None:
        """End the node and its epmd, free their ports and remove their directory."""
        self.kill()
        if self._epmd is not None:
            self._epmd.stop(signal.SIGKILL)
        super().close()

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask the management API, which takes milliseconds; its answer, or None. Statistics lag by five seconds."""
        log_in = b64encode(f"{self.ADMIN}:{self._password}".encode()).decode()
        headers = {"Authorization": f"Basic {log_in}", "Content-Type": "application/json"}
        connection = HTTPConnection(HOST, self.management_port, timeout=START_TIMEOUT)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise ConnectionError(f"{method} {path}: {response.status} {answer.decode()}")
        return json.loads(answer) if answer else None

    def make_quorum_queue(self, vhost: VirtualHost, name: str) -> None:
        """A queue that keeps what it has confirmed."""
        arguments = {"x-queue-type": "quorum"}
        self.api("PUT", f"/api/queues/{vhost.name}/{name}", {"durable": True, "arguments": arguments})

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on the node, which takes one to two seconds, and return what it prints."""
        command = [str(self.BIN / "rabbitmqctl"), "--quiet", "--node", self.NODE, *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerFailed(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    @contextmanager
    def vhost(self) -> Iterator[VirtualHost]:
        """A fresh virtual host and user; both are gone afterwards, with the user's connections."""
        name = f"test-{token_hex(4)}"
        made = VirtualHost(name, name, token_hex(8), self.port)
        self.api("PUT", f"/api/vhosts/{name}")
        self.api("PUT", f"/api/users/{name}", {"password": made.password, "tags": ""})
        self.api("PUT", f"/api/permissions/{name}/{name}", {"configure": ".*", "write": ".*", "read": ".*"})
        try:
            yield made
        finally:
            self.resume()
            if self.running:
                self.api("DELETE", f"/api/vhosts/{name}")
                self.api("DELETE", f"/api/users/{name}")


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port for what the test starts, which must set SO_REUSEADDR; nobody else gets it meanwhile."""
    with reserve_port() as reserved:
        yield int(reserved.getsockname()[1])


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis for this test alone, which may stop, kill or pause it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def memcached_server() -> Iterator[MemcachedServer]:
    """A memcached for this test alone."""
    with MemcachedServer() as server:
        yield server


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """The RabbitMQ of the test run. A test may stop, kill or pause it."""
    with RabbitServer() as server:
        yield server


@pytest.fixture
def rabbit_vhost(rabbit_server: RabbitServer) -> Iterator[VirtualHost]:
    """A virtual host for this test alone, on a broker that runs, whatever the test before did to it."""
    rabbit_server.resume()
    rabbit_server.start()
    with rabbit_server.vhost() as vhost:
        yield vhost
