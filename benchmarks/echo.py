"""Echo: netd beside the event loops and servers that people use, and beside C."""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import charts, stats
from benchmarks.runner import BUILD, Pace, Peer, Trial, holding, load, resident_bytes, serving
from benchmarks.stats import Figures
from benchmarks.suite import Column, Result, Scenario, Suite, Target

MANY = 10_000
# Those, and what a process has open beside.
FILES = MANY + 100
CONFIG = """
[echo.plain]
listen = "127.0.0.1:{port}"
max_connections = 12000
max_connections_per_host = 0
"""

# The client would run out of ephemeral ports (28,000) beyond this.
MAX_CONNECTS = 20_000
BULK_WINDOW = 256 * 1024
# As long as a server may take to let 10,000 connections be opened and their memory read.
HOLD_SECONDS = 30
# The parts of scenarios' names that charts and targets refer to.
PINGPONG, PIPELINED, BULK, CONNECTS, MANY_OPEN, GROWTH, MEMORY, START = (
    "pingpong",
    "pipelined",
    "bulk",
    "connects",
    "many",
    "growth",
    "memory",
    "start",
)
FEW_ACTIVE, FEW_OF_MANY, ALL_ACTIVE = "100 open, all active", "10,000 open, 100 active", "10,000 open, all active"
NETD, FASTIO, UVLOOP, GEVENT, TWISTED, C = "netd", "fastio", "uvloop", "gevent", "Twisted epoll", "C epoll"


def exchange(mode: str, *options: str, unit_bytes: float | None = None) -> Callable[[Peer, Pace], Figures]:
    """Measures CPU and rate: per message, or per `unit_bytes` bytes."""

    def measure(peer: Peer, pace: Pace) -> Figures:
        with serving(peer) as server:
            got = load("echoload", mode, *options, f"--warmup={pace.warmup}", server=server, seconds=pace.seconds)
        units = got["bytes"] / unit_bytes if unit_bytes else got["messages"]
        figures = {
            "cpu_us": got["cpu_seconds"] * 1e6 / units,
            "rate": units / got["seconds"],
            "busy": got["cpu_seconds"] / got["seconds"],
        }
        return figures | ({} if unit_bytes else {"p50_us": got["p50_us"], "p99_us": got["p99_us"]})

    return measure


def memory(peer: Peer, _pace: Pace) -> Figures:
    """Measures how much a server grows by 10,000 connections, each of which has echoed one message."""
    with serving(peer) as server:
        before = resident_bytes(server.pid)
        with holding("echoload", "hold", f"--connections={MANY}", server=server, seconds=HOLD_SECONDS):
            return {"bytes": (resident_bytes(server.pid) - before) / MANY}


def start(peer: Peer, _pace: Pace) -> Figures:
    """Measures the time from spawning a server to its first echoed byte."""
    with serving(peer) as server:
        return {"seconds": server.seconds_to_ready}


class Peers:
    """The servers. netd and Twisted run on this interpreter; the others on `python`, which has their packages."""

    def __init__(self, python: str) -> None:
        twistd = str(Path(sys.executable).with_name("twistd"))
        self.netd = Peer(NETD, (twistd, "-n", "--pidfile=", "netd", "--config", "{config}"), CONFIG)
        self.fastio = self._script(sys.executable, FASTIO, "twisted_echo", "fastio")
        self.epoll = self._script(sys.executable, TWISTED, "twisted_echo", "epoll")
        self.poll = self._script(sys.executable, "Twisted poll", "twisted_echo", "poll")
        self.select = self._script(sys.executable, "Twisted select", "twisted_echo", "select")
        self.asyncio = self._script(python, "asyncio", "asyncio_echo", "asyncio")
        self.uvloop = self._script(python, UVLOOP, "asyncio_echo", "uvloop", needs=("uvloop",))
        self.gevent = self._script(python, GEVENT, "gevent_echo", needs=("gevent",))
        self.threading = self._script(python, "ThreadingTCPServer", "threading_echo")
        self.socat = Peer(
            "socat",
            ("socat", "TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,nodelay,backlog=4096", "PIPE"),
            needs=("socat",),
        )
        self.c = Peer(C, (str(BUILD / "cecho"), "{port}"))

    @staticmethod
    def _script(python: str, name: str, script: str, *options: str, needs: tuple[str, ...] = ()) -> Peer:
        return Peer(name, (python, "-m", f"benchmarks.peers.{script}", "{port}", *options), needs=needs)

    @property
    def everyone(self) -> tuple[Peer, ...]:
        return (
            *(self.netd, self.fastio, self.epoll, self.poll, self.select, self.asyncio),
            *(self.uvloop, self.gevent, self.threading, self.socat, self.c),
        )

    @property
    def main(self) -> tuple[Peer, ...]:
        """Everyone but the reactors that nobody would choose, which the growth scenario compares."""
        return tuple(peer for peer in self.everyone if peer not in (self.poll, self.select))

    @property
    def writing_each_message(self) -> tuple[Peer, ...]:
        """These answer each 64 bytes with a write of its own."""
        peers = (self.fastio, self.epoll, self.asyncio, self.uvloop, self.gevent, self.c)
        return tuple(Peer(peer.name, (*peer.argv, "64"), needs=peer.needs) for peer in peers)


def scenarios(peers: Peers) -> tuple[Scenario, ...]:
    return (*_small_messages(peers), *_bulk_and_connects(peers), *_many_connections(peers), *_footprint(peers))


def _cpu_columns(unit: str, *, latency: bool = True) -> tuple[Column, ...]:
    columns = (Column(f"CPU µs per {unit}", "cpu_us"), Column(f"{unit}s a second", "rate"))
    latencies = (Column("median µs", "p50_us"), Column("99 % µs", "p99_us"))
    return (*columns, *(latencies if latency else ()), Column("of its core %", "busy", 100))


def _small_messages(peers: Peers) -> tuple[Scenario, ...]:
    return (
        Scenario(
            PINGPONG,
            "Ping-pong: 64 bytes, 100 connections",
            "Each connection sends a message of 64 bytes when the last one has come back. `fastio` is Twisted's plain "
            "echo protocol on netd's reactor: what netd adds to it is the price of limits, counts and the table of "
            "connections.",
            tuple(Trial(FEW_ACTIVE, peer, exchange("echo", "--connections=100")) for peer in peers.everyone),
            NETD,
            "cpu_us",
            "CPU",
            _cpu_columns("message"),
        ),
        Scenario(
            PIPELINED,
            "16 messages under way, one write for each",
            "Each of 100 connections keeps 16 messages of 64 bytes under way, and the server answers each of them with "
            "a write of its own, as the codec of a protocol does. netd's echo writes back what has arrived as it is, "
            "so this measures a small protocol that cuts its input into messages, the same text on fastio and on stock "
            "Twisted, and its like on the others. fastio joins what one read has caused to be written; so can any "
            "program by joining its answers itself.",
            tuple(
                Trial("100 open, 16 under way", peer, exchange("echo", "--connections=100", "--outstanding=16"))
                for peer in peers.writing_each_message
            ),
            FASTIO,
            "cpu_us",
            "CPU",
            _cpu_columns("message"),
        ),
    )


def _bulk_and_connects(peers: Peers) -> tuple[Scenario, ...]:
    bulk = exchange("bulk", "--connections=4", f"--size={BULK_WINDOW}", unit_bytes=1e6)
    # A fresh connection echoes once, so there is nothing to warm up but the server, which `serving` has asked once.
    connects = exchange("accept", "--connections=64", f"--count={MAX_CONNECTS}")
    return (
        Scenario(
            BULK,
            "Bulk: 4 connections, 256 KiB under way on each",
            "A stream without messages; what comes back is checked and sent again at once.",
            tuple(Trial("4 open", peer, bulk) for peer in peers.main),
            NETD,
            "cpu_us",
            "CPU",
            _cpu_columns("MB", latency=False),
        ),
        Scenario(
            CONNECTS,
            "Connect, echo, close",
            "64 clients at a time connect, have 64 bytes echoed, close, and connect again. The server's CPU counts "
            "until it is at rest.",
            tuple(Trial("64 at a time", peer, connects) for peer in peers.main),
            NETD,
            "cpu_us",
            "CPU",
            _cpu_columns("connection"),
        ),
    )


def _many_connections(peers: Peers) -> tuple[Scenario, ...]:
    cases = {
        FEW_ACTIVE: ("--connections=100",),
        FEW_OF_MANY: (f"--connections={MANY}", "--active=100"),
        ALL_ACTIVE: (f"--connections={MANY}",),
    }
    crowd = (peers.netd, peers.epoll, peers.uvloop, peers.c)
    reactors = (peers.select, peers.poll, peers.epoll, peers.fastio)
    sizes = (1, 10, 100, 1000, MANY)
    return (
        Scenario(
            MANY_OPEN,
            "Many connections: 64-byte ping-pong",
            "CPU µs per message; in brackets, against the first line.",
            tuple(Trial(case, peer, exchange("echo", *options)) for case, options in cases.items() for peer in crowd),
            NETD,
            "cpu_us",
            "CPU",
            (),
            rounds=3,
            files=FILES,
        ),
        Scenario(
            GROWTH,
            "How the cost grows with open connections",
            "CPU µs per message, by the number of open connections, of which up to 100 are active; in brackets, "
            "against the first line. One protocol on four reactors; `select` cannot watch descriptors beyond 1,023.",
            tuple(
                Trial(f"{size:,}", peer, exchange("echo", f"--connections={size}", f"--active={min(size, 100)}"))
                for size in sizes
                for peer in reactors
                if not (peer is peers.select and size > 1000)
            ),
            FASTIO,
            "cpu_us",
            "CPU",
            (),
            rounds=2,
            files=FILES,
        ),
    )


def _footprint(peers: Peers) -> tuple[Scenario, ...]:
    return (
        Scenario(
            MEMORY,
            "Memory of an idle connection",
            "How much more of the server is resident with 10,000 connections open, each of which has echoed one "
            "message, than with none, for each connection. The kernel's own buffers are not counted.",
            tuple(
                Trial("10,000 open", peer, memory)
                for peer in (peers.netd, peers.fastio, peers.epoll, peers.asyncio, peers.uvloop, peers.gevent, peers.c)
            ),
            NETD,
            "bytes",
            "memory",
            (Column("bytes per connection", "bytes"),),
            rounds=2,
            files=FILES,
        ),
        Scenario(
            START,
            "From start to ready",
            "From spawning the process to the first echoed byte, with echo alone configured, on one core.",
            tuple(Trial("echo alone", peer, start) for peer in (peers.netd, peers.epoll, peers.asyncio, peers.uvloop)),
            NETD,
            "seconds",
            "time",
            (Column("ms", "seconds", 1000),),
        ),
    )


def _gain(scenario: str, case: str, peer: str, subject: str = NETD) -> Callable[[Result], float | None]:
    """How many times as much as the peer the subject does for one second of CPU."""
    return lambda result: stats.ratio(
        result.rounds(scenario, case, peer), result.rounds(scenario, case, subject), "cpu_us"
    )


def _growth(case: str) -> Callable[[Result], float | None]:
    """How many times as much CPU as with 100 connections netd needs in this case."""
    return lambda result: stats.ratio(
        result.rounds(MANY_OPEN, case, NETD), result.rounds(MANY_OPEN, FEW_ACTIVE, NETD), "cpu_us"
    )


TARGETS = (
    Target("ping-pong: netd / Twisted epoll", 2.5, _gain(PINGPONG, FEW_ACTIVE, TWISTED)),
    Target("ping-pong: netd / gevent", 2.2, _gain(PINGPONG, FEW_ACTIVE, GEVENT)),
    Target("ping-pong: netd / uvloop", 0.9, _gain(PINGPONG, FEW_ACTIVE, UVLOOP)),
    Target("ping-pong: netd / C epoll", 0.8, _gain(PINGPONG, FEW_ACTIVE, C)),
    Target(
        "16 under way, one write each: fastio / uvloop", 5, _gain(PIPELINED, "100 open, 16 under way", UVLOOP, FASTIO)
    ),
    Target("bulk: netd / uvloop", 1.1, _gain(BULK, "4 open", UVLOOP)),
    Target("connect, echo, close: netd / uvloop", 0.85, _gain(CONNECTS, "64 at a time", UVLOOP)),
    Target("CPU with 10,000 open and 100 active / 100 open", 1.1, _growth(FEW_OF_MANY), at_least=False),
    Target("CPU with 10,000 active / 100 open", 1.6, _growth(ALL_ACTIVE), at_least=False),
    Target(
        "memory of an idle connection",
        2500,
        lambda result: result.middle(MEMORY, "10,000 open", NETD, "bytes"),
        " bytes",
        at_least=False,
    ),
    Target(
        "start to ready",
        0.7,
        lambda result: result.middle(START, "echo alone", NETD, "seconds"),
        " s",
        at_least=False,
    ),
)


def draw(result: Result) -> dict[str, str]:
    """The charts: work per CPU second in four scenarios, and the growth of cost."""
    panels = [
        (title, unit, result.per_cpu_second(name, case))
        for name, case, title, unit in (
            (PINGPONG, FEW_ACTIVE, "Ping-pong, 64 bytes, 100 connections", "messages per CPU second"),
            (PIPELINED, "100 open, 16 under way", "16 under way, one write for each", "messages per CPU second"),
            (BULK, "4 open", "Bulk", "MB per CPU second"),
            (CONNECTS, "64 at a time", "Connect, echo, close", "connections per CPU second"),
        )
        if name in result.records
    ]
    drawn = {"benchmarks-echo.svg": charts.bars(panels, highlight=(NETD, FASTIO))}
    if GROWTH in result.records:
        lines: dict[str, list[tuple[float, float]]] = {}
        for case, by_peer in result.records[GROWTH].rounds.items():
            for peer in by_peer:
                if cpu := result.middle(GROWTH, case, peer, "cpu_us"):
                    lines.setdefault(peer, []).append((float(case.replace(",", "")), cpu))
        drawn["benchmarks-growth.svg"] = charts.lines(
            "CPU of one 64-byte message as connections grow (100 active)",
            "open connections",
            "CPU µs per message",
            lines,
            highlight=(FASTIO,),
        )
    return drawn


def suite(python: str) -> Suite:
    """The suite; `python` is the interpreter of the peers that are not Twisted."""
    return Suite(
        "echo",
        "Echo",
        "netd runs as its users start it: `twistd -n netd --config FILE`, with one `[echo.plain]` service whose limit "
        "of connections is raised. The peers are the echo that each library's documentation would have you write, with "
        "TCP_NODELAY set and a backlog of 4,096 everywhere.",
        scenarios(Peers(python)),
        TARGETS,
        draw,
    )
