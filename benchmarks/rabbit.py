"""netd's bridge to RabbitMQ beside pika, librabbitmq, and the broker's own door for lines, its STOMP plug-in."""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import perf_counter

from benchmarks import charts, stats
from benchmarks.runner import BUILD, Pace, Peer, Trial, TrialFailedError, client_core, server_core
from benchmarks.stats import Figures
from benchmarks.suite import Column, Result, Scenario, Suite, Target
from tests.netd_process import Netd, running
from tests.servers import HOST, RabbitServer, VirtualHost

NETD, C, TWISTED, BLOCKING, STOMP = "netd", "C librabbitmq", "pika Twisted", "pika blocking", "STOMP plug-in"
DRAIN, CONSUME = "rabbit-publish", "rabbit-consume"
CASE = "100 bytes, quorum queue"
SIZE = 100
QUEUE = "bench"
WINDOW = 4096
"""Messages on their way, where a client can have several; its best among 1,000, 4,096 and 16,384 for each of them."""
PREFETCH = 1000
PUBLISHED = {NETD: 40_000, C: 40_000, TWISTED: 8_000, BLOCKING: 500, STOMP: 10_000}
CONSUMED = {NETD: 60_000, C: 60_000, TWISTED: 20_000, BLOCKING: 20_000}
"""Messages that a trial of a second has: about what each does in that time, and many times the prefetch."""
TIMEOUT = 120.0


class StompRabbit(RabbitServer):
    """A RabbitMQ with its STOMP plug-in."""

    def __init__(self) -> None:
        super().__init__()
        self.stomp_port = self._reserve()
        self._write("enabled_plugins", "[rabbitmq_management,rabbitmq_stomp].")
        config = self.directory / "rabbitmq.conf"
        config.write_text(config.read_text() + f"stomp.listeners.tcp.1 = {HOST}:{self.stomp_port}\n")


@cache
def broker() -> StompRabbit:
    """The broker of all trials; it ends with this program."""
    server = StompRabbit()
    atexit.register(server.close)
    server.start()
    return server


@contextmanager
def fresh_queue() -> Iterator[VirtualHost]:
    """A virtual host with an empty queue."""
    with broker().vhost() as vhost:
        broker().make_quorum_queue(vhost, QUEUE)
        yield vhost


def _count(amounts: dict[str, int], peer: Peer, pace: Pace) -> int:
    return max(200, int(amounts[peer.name] * pace.seconds))


def _figures(messages: float, seconds: float, cpu_seconds: float) -> Figures:
    return {"cpu_us": cpu_seconds * 1e6 / messages, "rate": messages / seconds}


# --- clients that are programs of their own


def _client(peer: Peer, mode: str, vhost: VirtualHost, count: int, window: int) -> Figures:
    """Run it on the server's core: it does what netd does."""
    port = broker().stomp_port if peer.name == STOMP else vhost.port
    url = f"amqp://{vhost.user}:{vhost.password}@{HOST}:{port}/{vhost.name}"
    names = {"mode": mode, "url": url, "host": HOST, "port": str(port), "user": vhost.user, "vhost": vhost.name}
    names |= {"password": vhost.password, "queue": QUEUE, "size": str(SIZE), "count": str(count), "window": str(window)}
    argv = [part.format_map(names) for part in peer.argv]
    core = server_core()
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise TrialFailedError((done.stderr.strip() or "it said nothing").splitlines()[-1])
    return _figures(**json.loads(done.stdout))


def publish_by_client(peer: Peer, pace: Pace) -> Figures:
    with fresh_queue() as vhost:
        return _client(peer, "publish", vhost, _count(PUBLISHED, peer, pace), WINDOW)


def consume_by_client(peer: Peer, pace: Pace) -> Figures:
    count = _count(CONSUMED, peer, pace)
    with fresh_queue() as vhost:
        _fill(vhost, count)
        return _client(peer, "consume", vhost, count, PREFETCH)


def _fill(vhost: VirtualHost, count: int) -> None:
    program = (sys.executable, "-m", "benchmarks.peers.rabbit", "publish", "twisted")
    numbers = (str(SIZE), str(count), "1000")
    subprocess.run((*program, vhost.url, QUEUE, *numbers), check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT)


# --- netd, whole


@contextmanager
def _netd(vhost: VirtualHost) -> Iterator[Netd]:
    config = f"""
[bridge.main]
broker = "{vhost.url}"
[bridge.main.publish.lines]
listen = "{HOST}:0"
routing_key = "{QUEUE}"
reply = "confirmed"
[bridge.main.subscribe.lines]
listen = "{HOST}:0"
queue = "{QUEUE}"
prefetch = {PREFETCH}
"""
    with tempfile.TemporaryDirectory(prefix="netd-bench-") as scratch, running(Path(scratch), config) as netd:
        netd.wait_for("connected to ")
        for task in Path(f"/proc/{netd.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {server_core()})
        yield netd


def _cpu(netd: Netd) -> float:
    """Seconds of processor time of all its threads, by the scheduler's own count in nanoseconds."""
    tasks = Path(f"/proc/{netd.process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def publish_by_netd(peer: Peer, pace: Pace) -> Figures:
    """Lines into the port; until the broker has confirmed the last one. The spool and its commits are in it."""
    count = _count(PUBLISHED, peer, pace)
    lines = (b"x" * SIZE + b"\n") * count
    with (
        fresh_queue() as vhost,
        _netd(vhost) as netd,
        _at_the_clients_core(),
        socket.create_connection((HOST, netd.port("bridge.main", 0)), TIMEOUT) as client,
    ):
        cpu, since = _cpu(netd), perf_counter()
        client.sendall(lines)
        _read_until(client, b"+OK %d\n" % count)
        return _figures(count, perf_counter() - since, _cpu(netd) - cpu)


def consume_by_netd(peer: Peer, pace: Pace) -> Figures:
    """Messages out of the port, acknowledged to the broker as the client's kernel has them."""
    count = _count(CONSUMED, peer, pace)
    with fresh_queue() as vhost:
        _fill(vhost, count)
        with _netd(vhost) as netd, _at_the_clients_core():
            cpu = _cpu(netd)
            with socket.create_connection((HOST, netd.port("bridge.main", 1)), TIMEOUT) as client:
                missing = count * (SIZE + 1) - len(client.recv(1))
                since = perf_counter()
                while missing:
                    missing -= len(client.recv(1 << 20)) or _lost()
                return _figures(count, perf_counter() - since, _cpu(netd) - cpu)


def _lost() -> int:
    raise TrialFailedError("the connection was lost")


def _read_until(client: socket.socket, last: bytes) -> None:
    tail = b""
    while not tail.endswith(last):
        received = client.recv(65536)
        if not received:
            _lost()
        if b"-ERR" in received:
            raise TrialFailedError(received.decode(errors="replace")[:100])
        tail = (tail + received)[-len(last) :]


@contextmanager
def _at_the_clients_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {client_core()})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# --- the suite


class Peers:
    """netd, and clients of RabbitMQ."""

    def __init__(self) -> None:
        python = (sys.executable, "-m", "benchmarks.peers.rabbit", "{mode}")
        rest = ("{url}", "{queue}", "{size}", "{count}", "{window}")
        c = (
            "{mode}",
            "{host}",
            "{port}",
            "{user}",
            "{password}",
            "{vhost}",
            "{queue}",
            "{size}",
            "{count}",
            "{window}",
        )
        self.netd = Peer(NETD, ())
        self.c = Peer(C, (str(BUILD / "rabbitload"), *c), needs=("librabbitmq",))
        self.twisted = Peer(TWISTED, (*python, "twisted", *rest))
        self.blocking = Peer(BLOCKING, (*python, "blocking", *rest))
        self.stomp = Peer(STOMP, (*python, "stomp", *rest))


def scenarios(peers: Peers) -> tuple[Scenario, ...]:
    columns = (Column("CPU µs per message", "cpu_us"), Column("messages a second", "rate"))
    return (
        Scenario(
            DRAIN,
            "Lines into a quorum queue, each confirmed",
            "netd is the whole daemon: it reads lines from a connection, commits them to its spool, publishes them, "
            "and answers when the broker has confirmed the last; its thread for the spool and its commits are in its "
            "CPU. The others publish from memory and keep nothing on disk. All messages are persistent and mandatory "
            "and carry the same properties, but for STOMP's.",
            (
                Trial(CASE, peers.netd, publish_by_netd),
                *(
                    Trial(CASE, peer, publish_by_client)
                    for peer in (peers.c, peers.twisted, peers.blocking, peers.stomp)
                ),
            ),
            NETD,
            "cpu_us",
            "CPU",
            columns,
        ),
        Scenario(
            CONSUME,
            "Messages out of a quorum queue, each acknowledged",
            "netd is the whole daemon: it writes each message as a line to a client, and acknowledges it when the "
            "client's kernel has it. The others only count messages, and acknowledge 250 at once.",
            (
                Trial(CASE, peers.netd, consume_by_netd),
                *(Trial(CASE, peer, consume_by_client) for peer in (peers.c, peers.twisted, peers.blocking)),
            ),
            NETD,
            "cpu_us",
            "CPU",
            columns,
        ),
    )


def _against(scenario: str, peer: str, figure: str) -> Callable[[Result], float | None]:
    """Netd's figure as a multiple of a peer's."""
    return lambda result: stats.ratio(result.rounds(scenario, CASE, NETD), result.rounds(scenario, CASE, peer), figure)


TARGETS = (
    Target(
        "CPU of a line, all in",
        6,
        lambda result: result.middle(DRAIN, CASE, NETD, "cpu_us"),
        " µs",
        at_least=False,
    ),
    Target("draining into a quorum queue: netd / C", 1, _against(DRAIN, C, "rate")),
    Target("consuming: netd / pika's Twisted adapter", 1.5, _against(CONSUME, TWISTED, "rate")),
    Target(
        "CPU of a consumed message: netd / pika's Twisted adapter",
        1 / 3,
        _against(CONSUME, TWISTED, "cpu_us"),
        at_least=False,
    ),
)


def draw(result: Result) -> dict[str, str]:
    """Messages per CPU second and per second."""
    panels = []
    for name, title in ((DRAIN, "Into a quorum queue, confirmed"), (CONSUME, "Out of it, acknowledged")):
        for figure, unit in (("cpu_us", "messages per CPU second"), ("rate", "messages per second")):
            bars = [
                (peer, 1e6 / middle if figure == "cpu_us" else middle)
                for peer in (result.records[name].rounds.get(CASE, {}) if name in result.records else {})
                if (middle := result.middle(name, CASE, peer, figure))
            ]
            if bars:
                panels.append((title, unit, bars))
    return {"benchmarks-rabbit.svg": charts.bars(panels, highlight=(NETD,))}


def suite(_python: str) -> Suite:
    """The suite; all of it runs on this interpreter, which has pika."""
    return Suite(
        "rabbit",
        "Bridge to RabbitMQ",
        "One RabbitMQ node on the same machine, which shares both cores with what is measured: rates depend on it, CPU "
        "does not. Every trial has a queue of its own.",
        scenarios(Peers()),
        TARGETS,
        draw,
    )
