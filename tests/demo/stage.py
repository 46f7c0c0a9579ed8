"""The stage of the demonstration: private servers, netd, a small disk under its spool, and what can be done to them."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

from netd.admin import client as netdctl
from tests.netd_process import TWISTD, Netd
from tests.servers import HOST, RabbitServer, RedisServer, reserve_ports
from tests.strace import TRACE
from tests.waiting import eventually

PATIENCE = 90.0
"""Seconds for anything that should be there soon."""
DISK = 96 << 20
"""Bytes of the small disk: netd keeps 24 MiB of it aside."""
QUEUE = "lines"

PORTS = ("admin", "lines", "nowhere", "unknown", "memcached", "cache_redis")

CONFIG = """
[daemon]
state_dir = "state"
[admin]
listen = "{host}:{admin}"
[bridge.main]
broker = "{broker}"
heartbeat = "2s"
[bridge.main.publish.lines]
listen = "{host}:{lines}"
routing_key = "{queue}"
[bridge.main.publish.nowhere]
listen = "{host}:{nowhere}"
routing_key = "not there"
[bridge.main.publish.unknown]
listen = "{host}:{unknown}"
exchange = "not there"
routing_key = "lines"
[cache.main]
listen_memcached = "{host}:{memcached}"
listen_redis = "{host}:{cache_redis}"
store = "{store}"
"""


class Stage:
    """As a context it is set up and taken down again, whatever has happened meanwhile."""

    def __init__(self, command: Sequence[str | Path] = (TWISTD,)) -> None:
        self._command = command
        self._stack = ExitStack()
        self._netd: Netd | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netd-demo-")))
            self._state = self.directory / "state"
            self._state.mkdir()
            self.why_no_disk = self._mount(stack)
            self.redis = stack.enter_context(RedisServer())
            self.rabbit = stack.enter_context(RabbitServer())
            self.vhost = stack.enter_context(self.rabbit.vhost())
            self.rabbit.make_quorum_queue(self.vhost, QUEUE)
            self.ports = stack.enter_context(reserve_ports(PORTS))
            self.config = CONFIG.format(
                host=HOST, broker=self.vhost.url, store=self.redis.url, queue=QUEUE, **self.ports
            )
            stack.callback(self._end_netd)
            self.start_netd()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    # --- netd

    @property
    def netd(self) -> Netd:
        """The one that runs, or ran last."""
        assert self._netd is not None
        return self._netd

    def start_netd(self) -> float:
        """Start it; returns after how many seconds it was ready."""
        began = time.monotonic()
        self._netd = Netd(self.directory, self.config, command=self._command)
        self._netd.wait_for("ready: ", PATIENCE)
        return time.monotonic() - began

    def kill_netd(self) -> None:
        """End it at once, as a crash does."""
        self.netd.process.kill()
        self.netd.process.wait()

    def _end_netd(self) -> None:
        if self._netd is not None:
            self.kill_netd()

    def reload_badly(self) -> str:
        """Have netd read a file that is wrong; returns what it says, "" if it took it."""
        self.netd.config.write_text(self.config + '[echo.extra]\nlisten = "127.0.0.1:8001"\ntransfrom = "upper"\n')
        said: list[str] = []
        status = netdctl.run(self._socket, ["reload"], said.append, said.append)
        self.netd.config.write_text(self.config)
        return "".join(said).strip().splitlines()[-1].strip() if status else ""

    @property
    def _socket(self) -> Path:
        return self._state / "netd.sock"

    def figures(self) -> dict[str, Any]:
        """The bridge's figures, from /status."""
        connection = HTTPConnection(HOST, self.ports["admin"], timeout=20)
        try:
            connection.request("GET", "/status")
            services = json.load(connection.getresponse())["services"]
        finally:
            connection.close()
        found: dict[str, Any] = next(each["stats"] for each in services if each["name"] == "bridge.main")
        return found

    def letters(self) -> Iterator[tuple[bytes, str]]:
        """The dead letters, each with its reason."""
        for each in self._ask("bridge", "dead", "list")["letters"]:
            letter = self._ask("bridge", "dead", "show", str(each["id"]))
            yield letter["body"].encode(), letter["reason"]

    def _ask(self, *words: str) -> Any:
        said: list[str] = []
        netdctl.run(self._socket, [*words, "--json"], said.append, lambda _: None)
        return json.loads("".join(said))

    @contextmanager
    def traced(self) -> Iterator[tuple[Path, str]]:
        """strace on netd meanwhile: the file of its trace, and why there is none, if so."""
        trace = self.directory / "trace"
        command = ["strace", "-f", "-y", *TRACE, "-o", str(trace), "-p", str(self.netd.process.pid)]
        try:
            tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            yield trace, f"strace: {error.strerror}"
            return
        with tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            try:
                yield trace, "" if "attached" in said else said.strip()
            finally:
                tracer.terminate()
                tracer.communicate()

    # --- the disk

    def _mount(self, stack: ExitStack) -> str:
        """A small file system for netd's state, which only this process and its children see; why not, if not."""
        if not own_namespace():
            return "no mount namespace of its own: that takes root, or unprivileged user namespaces"
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "netd-demo", str(self._state)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.strip()
        stack.callback(subprocess.run, ["umount", "-l", str(self._state)], check=False)
        return ""

    def fill_disk(self) -> None:
        """Nothing more fits on it."""
        with (self._state / "ballast").open("wb") as ballast:
            while room := os.statvfs(self._state).f_bavail:
                with suppress(OSError):  # netd may have taken some of it meanwhile
                    size = room * os.statvfs(self._state).f_frsize
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, size)

    def free_disk(self) -> None:
        """There is room again."""
        (self._state / "ballast").unlink(missing_ok=True)


NAMESPACE = "NETD_DEMO_NAMESPACE"


def own_namespace() -> bool:
    """Whether `enter_namespace` has put this process into a mount namespace of its own."""
    return NAMESPACE in os.environ


def enter_namespace(command: Sequence[str]) -> None:
    """Become the command in a mount namespace of its own; return if that cannot be."""
    options = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    trial = subprocess.run(["unshare", *options, "true"], capture_output=True, check=False)
    if trial.returncode == 0:
        os.execvpe("unshare", ["unshare", *options, *command], os.environ | {NAMESPACE: "1"})


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether the condition comes to hold in time; while netd is away an OSError of it means not yet."""

    def holds() -> bool:
        with suppress(OSError):
            return condition()
        return False

    return eventually(holds, seconds)
