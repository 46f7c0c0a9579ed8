"""netd with every service, a fault proxy before each of its doors, and one between it and each of its backends."""

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

from tests.faults.callers import (
    AdminCaller,
    Caller,
    EchoCaller,
    LineCaller,
    LineReader,
    MemcachedCaller,
    RedisCaller,
    SshCaller,
)
from tests.faults.load import Load
from tests.faults.proxy import FaultProxy
from tests.faults.values import Values
from tests.netd_process import NETDCTL, Netd
from tests.servers import HOST, RabbitServer, RedisServer, VirtualHost, reserve_ports
from tests.ssh.daemon import Sshd, write_keys

DOORS = ("echo", "memcached", "redis", "publish", "subscribe", "ssh", "admin")
CLIENTS = {"echo": 8, "memcached": 6, "redis": 6, "ssh": 2, "admin": 3}
START = 180.0
"""Seconds until every service works: under one of processor time, and a disk to sync, on a machine that may be busy."""
QUEUES = ("lines", "aside")
"""One is under fault; the other is for those who are not to notice."""

CONFIG = """
[daemon]
state_dir = "state"
[admin]
listen = "127.0.0.1:{admin}"
[echo.plain]
listen = "127.0.0.1:{echo}"
max_connections_per_host = 0
[cache.main]
listen_memcached = "127.0.0.1:{memcached}"
listen_redis = "127.0.0.1:{redis}"
store = "{store}"
timeout = "5s"
max_connections_per_host = 0
[bridge.main]
broker = "{broker}"
heartbeat = "2s"
max_connections_per_host = 0
[bridge.main.publish.lines]
listen = "127.0.0.1:{publish}"
routing_key = "lines"
tail = "dead"
[bridge.main.subscribe.lines]
listen = "127.0.0.1:{subscribe}"
queue = "lines"
ack = "client"
framing = "json"
[bridge.main.publish.aside]
listen = "127.0.0.1:{publish_aside}"
routing_key = "aside"
[bridge.main.subscribe.aside]
listen = "127.0.0.1:{subscribe_aside}"
queue = "aside"
ack = "client"
framing = "json"
[ssh.console]
listen = "127.0.0.1:{ssh}"
penalty_exempt = ["127.0.0.0/8"]
[ssh.console.users]
ops = {{ authorized_keys_file = "keys" }}
[ssh.console.commands]
cat = ["cat"]
[ssh.console.commands.count]
argv = ["{count}", "{{lines}}", "{{status}}"]
args = {{ lines = "[0-9]+", status = "[0-9]" }}
"""


class World:
    """A context. `doors` are netd's ports, `proxies` lead to them, and to "Redis" and "RabbitMQ" for netd."""

    def __init__(
        self,
        directory: Path,
        redis: RedisServer,
        rabbit: RabbitServer,
        vhost: VirtualHost,
        *,
        start: Callable[[Path, str], Netd] = Netd,
        redis_host: str = HOST,
        rabbit_host: str = HOST,
    ) -> None:
        self.directory, self.redis, self.rabbit = directory, redis, rabbit
        self.values = Values()
        self._start = start
        self._hosts = redis_host, rabbit_host
        self._vhost = vhost
        self._count = directory / "count"
        self._names = itertools.count()
        self._stack = ExitStack()
        self._netd: Netd | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.doors = stack.enter_context(reserve_ports((*DOORS, "publish_aside", "subscribe_aside")))
            targets = {door: self.doors[door] for door in DOORS}
            targets |= {"Redis": self.redis.port, "RabbitMQ": self._vhost.port}
            self.proxies = {name: stack.enter_context(FaultProxy(port)) for name, port in targets.items()}
            write_keys(self.directory)
            self._count.write_text('#!/bin/sh\nseq "$1"\nexit "$2"\n')
            self._count.chmod(0o700)
            for queue in QUEUES:
                self.rabbit.make_quorum_queue(self._vhost, queue)
            stack.callback(self.kill_netd)
            self.start_netd()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    @property
    def config(self) -> str:
        """The configuration file."""
        redis_host, rabbit_host = self._hosts
        broker = replace(self._vhost, port=self.proxies["RabbitMQ"].port).url.replace(f"@{HOST}:", f"@{rabbit_host}:")
        store = f"redis://{redis_host}:{self.proxies['Redis'].port}/0"
        return CONFIG.format(**self.doors, store=store, broker=broker, count=self._count)

    @property
    def netd(self) -> Netd:
        assert self._netd is not None
        return self._netd

    def start_netd(self, *, whole: bool = True) -> None:
        """Start it on the same ports and state, and wait until every service works, backends and all."""
        self._netd = self._start(self.directory, self.config)
        self._netd.wait_for("ready: ", START)
        if whole:
            self._netd.wait_until(self.ready, "every service up", START)

    def get(self, path: str) -> tuple[int, bytes]:
        """What the admin port answers, on a connection of its own."""
        asked = HTTPConnection(HOST, self.doors["admin"], timeout=20)
        try:
            asked.request("GET", path)
            response = asked.getresponse()
            return response.status, response.read()
        finally:
            asked.close()

    def ready(self) -> bool:
        """Whether every service and backend does its work."""
        return self.get("/readyz")[0] == HTTPStatus.OK

    def kill_netd(self) -> None:
        """As a crash does."""
        if self._netd is not None:
            self._netd.process.kill()
            self._netd.process.wait()

    def mend(self) -> None:
        """Undo what a test may have left: proxies, Redis, RabbitMQ and netd work, and no values are expected."""
        self.values = Values()
        for proxy in self.proxies.values():
            proxy.clear()
        for server in (self.redis, self.rabbit):
            server.resume()
            server.start()
        if self.netd.process.poll() is not None:
            self.start_netd()

    def netdctl(self, *words: str) -> Any:
        """What a verb says, as a document."""
        command = [str(NETDCTL), "--socket", str(self.directory / "state/netd.sock"), *words, "--json"]
        return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)

    # --- clients

    def load(self, door: str) -> Load:
        """Clients of a door by its proxy; of lines, the other side is not under fault."""
        port = self.proxies[door].port
        match door:
            case "publish":
                return self.lines("lines", publish=port)
            case "subscribe":
                return self.lines("lines", subscribe=port)
            case _:
                return Load([self.caller(door, port) for _ in range(CLIENTS[door])])

    def lines(self, queue: str, publish: int = 0, subscribe: int = 0) -> Load:
        """Two publishers and two readers of a queue; where one side goes by a port of its own, it alone is watched."""
        behind = "" if queue == "lines" else f"_{queue}"
        into = publish or self.doors[f"publish{behind}"]
        out = subscribe or self.doors[f"subscribe{behind}"]
        publishers = [LineCaller(into, f"{queue}{next(self._names)}") for _ in range(2)]
        readers = [LineReader(out, queue, publishers) for _ in range(2)]
        watched = publishers if publish else readers if subscribe else None
        return Load(publishers=publishers, readers=readers, watched=watched)

    def callers(self, *doors: str, each: int) -> Load:
        """So many clients at each of these doors, straight to netd."""
        return Load([self.caller(door, self.doors[door]) for door in doors for _ in range(each)])

    def everybody(self, *without: str, each: int = 1) -> Load:
        """Clients at every door but these, straight to netd, and lines through a queue of their own."""
        doors = [door for door in CLIENTS if door not in without]
        load = self.callers(*doors, each=each)
        for caller in load.callers:
            caller.pause = max(caller.pause, 0.02)
        if "lines" in without:
            return load
        lines = self.lines("aside")
        return Load(load.callers, lines.publishers, lines.readers)

    @contextmanager
    def unharmed(self, *without: str) -> Iterator[Load]:
        """The same at work meanwhile, for whom nothing may break, be refused or be missing."""
        with self.everybody(*without) as load:
            yield load
            load.settle()
        load.check()

    def caller(self, door: str, port: int) -> Caller:
        """One client of a door, by this port."""
        seed = next(self._names)
        match door:
            case "echo":
                return EchoCaller(port, seed)
            case "memcached":
                return MemcachedCaller(port, self.values, door, seed)
            case "redis":
                return RedisCaller(port, self.values, door, seed)
            case "admin":
                return AdminCaller(port, seed)
            case _:
                sshd = Sshd(self.netd, self.directory, port)
                return SshCaller([*sshd.openssh, "ops@127.0.0.1"], seed)
