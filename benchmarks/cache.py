"""The cache: netd beside memcached, and netd before Redis beside nutcracker and stock txredisapi."""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import charts, stats
from benchmarks.runner import Pace, Peer, Trial, load, resident_bytes, serving
from benchmarks.stats import Figures
from benchmarks.suite import Column, Result, Scenario, Suite, Target

CONNECTIONS, CROWD = 50, 5_000
KEYS, MILLION = 10_000, 1_000_000
SMALL, LARGE = 100, 4096
SINGLE, PIPELINED = "one by one", "16 at a time"
OUTSTANDING = {SINGLE: 1, PIPELINED: 16}
SIZES = {"100 B": SMALL, "4 KiB": LARGE}
MEMCACHED, REDIS = "memcached", "redis"

CONFIG = """
[cache.main]
listen_{protocol} = "127.0.0.1:{{port}}"
store = "{store}"
max_memory = "{memory}"
max_connections_per_host = 0
near = {near}
"""
BEHIND = "redis://127.0.0.1:{behind}/0"

TWEMPROXY = """
main:
  listen: 127.0.0.1:{{port}}
  redis: {redis}
  auto_eject_hosts: false
  timeout: 4000
  servers:
    - 127.0.0.1:{{behind}}:1
"""

# The parts of scenarios' names that charts and targets refer to.
EMBEDDED, PROXIED_GET, PROXIED_SET, NEAR, MEMORY, MANY = (
    "embedded",
    "proxied-get",
    "proxied-set",
    "near",
    "items",
    "crowd",
)
NETD, NETD_REDIS, C, PROXY, PROXY_REDIS = "netd", "netd, redis port", "memcached", "nutcracker", "nutcracker, redis"
STOCK = "stock txredisapi"


def probe_of(protocol: str) -> tuple[bytes, bytes]:
    """What a server is asked to know that it is ready, and the beginning of what it answers then."""
    return (b"get ready\r\n", b"END\r\n") if protocol == MEMCACHED else (b"*1\r\n$4\r\nPING\r\n", b"+PONG")


class Peers:
    """The servers; netd and the stock way run on this interpreter."""

    def __init__(self) -> None:
        ping, pong = probe_of(REDIS)
        redis_argv = ("redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self.redis = Peer("redis", redis_argv, needs=("redis",), probe=ping, ready=pong)
        get, end = probe_of(MEMCACHED)
        memcached_argv = ("memcached", "-u", "root", "-l", "127.0.0.1", "-p", "{port}", "-U", "0", "-m", "1024")
        self.memcached = Peer(C, memcached_argv, needs=("memcached",), probe=get, ready=end)
        self.embedded = self._netd(NETD, MEMCACHED, "embedded:")
        self.embedded_redis = self._netd(NETD_REDIS, REDIS, "embedded:")
        self.proxy = self._netd(NETD, MEMCACHED, BEHIND)
        self.proxy_redis = self._netd(NETD_REDIS, REDIS, BEHIND)
        self.near = self._netd(NETD, MEMCACHED, BEHIND, near=True)
        self.near_redis = self._netd(NETD_REDIS, REDIS, BEHIND, near=True)
        self.nutcracker = self._nutcracker(PROXY, MEMCACHED, self.memcached)
        self.nutcracker_redis = self._nutcracker(PROXY_REDIS, REDIS, self.redis)
        stock_argv = (sys.executable, "-m", "benchmarks.peers.txredisapi_cache", "{port}", "{behind}")
        self.stock = Peer(STOCK, stock_argv, probe=get, ready=end, behind=self.redis)

    def _netd(self, name: str, protocol: str, store: str, *, near: bool = False) -> Peer:
        twistd = str(Path(sys.executable).with_name("twistd"))
        values = {"protocol": protocol, "memory": "1GiB", "near": str(near).lower()}
        behind = self.redis if store is BEHIND else None
        probe, ready = probe_of(protocol)
        return Peer(
            name,
            (twistd, "-n", "--pidfile=", "netd", "--config", "{config}"),
            CONFIG.format(store=store, **values),
            needs=("redis",) if behind else (),
            probe=probe,
            ready=ready,
            behind=behind,
        )

    @staticmethod
    def _nutcracker(name: str, protocol: str, behind: Peer) -> Peer:
        probe, ready = probe_of(protocol)
        config = TWEMPROXY.format(redis=str(protocol == REDIS).lower())
        # It answers no PING before version 0.5: a get will do in both dialects.
        if protocol == REDIS:
            probe, ready = b"*2\r\n$3\r\nGET\r\n$5\r\nready\r\n", b"$-1"
        stats_at = ("--stats-addr", "127.0.0.2", "--stats-port", "{port}")
        argv = ("nutcracker", "--conf-file", "{config}", "--output", "log", "--pid-file", "pid", *stats_at)
        return Peer(name, argv, config, needs=("nutcracker", behind.name), probe=probe, ready=ready, behind=behind)


def requests(
    mode: str, protocol: str, outstanding: int, size: int, connections: int = CONNECTIONS
) -> Callable[[Peer, Pace], Figures]:
    """Measures CPU and rate of gets or sets on filled keys."""

    def measure(peer: Peer, pace: Pace) -> Figures:
        options = (f"--protocol={protocol}", f"--connections={connections}", f"--outstanding={outstanding}")
        sizes = (f"--size={size}", f"--keys={KEYS}", "--fill", f"--warmup={pace.warmup}")
        with serving(peer) as server:
            got = load("cacheload", mode, *options, *sizes, server=server, seconds=pace.seconds)
        return {
            "cpu_us": got["cpu_seconds"] * 1e6 / got["requests"],
            "rate": got["requests"] / got["seconds"],
            "busy": got["cpu_seconds"] / got["seconds"],
            "p50_us": got["p50_us"],
            "p99_us": got["p99_us"],
        }

    return measure


def items(peer: Peer, _pace: Pace) -> Figures:
    """Measures how much a server grows by a million items of 100 bytes."""
    with serving(peer) as server:
        before = resident_bytes(server.pid)
        load(
            "cacheload",
            "get",
            f"--keys={MILLION}",
            f"--size={SMALL}",
            "--fill",
            "--warmup=0",
            server=server,
            seconds=0.1,
        )
        return {"bytes": (resident_bytes(server.pid) - before) / MILLION}


COLUMNS = (
    Column("CPU µs per request", "cpu_us"),
    Column("requests a second", "rate"),
    Column("median µs", "p50_us"),
    Column("99 % µs", "p99_us"),
    Column("of its core %", "busy", 100),
)


def _trials(mode: str, sizes: dict[str, int], peers: tuple[tuple[Peer, str], ...]) -> tuple[Trial, ...]:
    return tuple(
        Trial(f"{size}, {how}", peer, requests(mode, protocol, outstanding, sizes[size]))
        for size in sizes
        for how, outstanding in OUTSTANDING.items()
        for peer, protocol in peers
    )


def scenarios(peers: Peers) -> tuple[Scenario, ...]:
    proxies = (
        (peers.proxy, MEMCACHED),
        (peers.nutcracker, MEMCACHED),
        (peers.proxy_redis, REDIS),
        (peers.nutcracker_redis, REDIS),
    )
    near = (
        (peers.near, MEMCACHED),
        (peers.nutcracker, MEMCACHED),
        (peers.near_redis, REDIS),
        (peers.nutcracker_redis, REDIS),
    )
    small = {"100 B": SMALL}
    crowd = tuple(
        Trial(f"{connections:,}", peers.embedded, requests("get", MEMCACHED, 1, SMALL, connections))
        for connections in (CONNECTIONS, CROWD)
    )
    about = "CPU µs per request; 50 connections, 10,000 keys. What is one by one waits for each reply."
    return (
        Scenario(
            EMBEDDED,
            "Gets from the embedded store, beside memcached",
            about,
            _trials(
                "get", small, ((peers.embedded, MEMCACHED), (peers.embedded_redis, REDIS), (peers.memcached, MEMCACHED))
            ),
            NETD,
            "cpu_us",
            "CPU",
            COLUMNS,
        ),
        Scenario(
            PROXIED_GET,
            "Gets through a proxy",
            f"{about} netd's near cache is off; nutcracker has memcached behind its memcached port.",
            _trials("get", SIZES, (*proxies, (peers.stock, MEMCACHED))),
            NETD,
            "cpu_us",
            "CPU",
            COLUMNS,
        ),
        Scenario(
            PROXIED_SET,
            "Sets through a proxy",
            about,
            _trials("set", SIZES, (*proxies, (peers.stock, MEMCACHED))),
            NETD,
            "cpu_us",
            "CPU",
            COLUMNS,
        ),
        Scenario(
            NEAR,
            "Gets that the near cache has",
            f"{about} Beside nutcracker, which has none, as the proxy that netd stands in for.",
            _trials("get", small, near),
            NETD,
            "cpu_us",
            "CPU",
            COLUMNS,
        ),
        Scenario(
            MEMORY,
            "Memory of an item",
            "How much a server grows by a million items of 100 bytes under keys of 12.",
            tuple(Trial("a million", peer, items) for peer in (peers.embedded, peers.memcached)),
            NETD,
            "bytes",
            "memory",
            (Column("bytes an item", "bytes"),),
            rounds=2,
        ),
        Scenario(
            MANY,
            "Gets by many connections",
            "CPU µs per request from the embedded store; in brackets, against the first line.",
            crowd,
            NETD,
            "cpu_us",
            "CPU",
            (),
            rounds=3,
            files=CROWD + 100,
        ),
    )


def _share(scenario: str, case: str, subject: str, peer: str) -> Callable[[Result], float | None]:
    """How much of the peer's CPU the subject needs."""
    return lambda result: stats.ratio(
        result.rounds(scenario, case, subject), result.rounds(scenario, case, peer), "cpu_us"
    )


def _at_most(text: str, goal: float, value: Callable[[Result], float | None], unit: str = "x") -> Target:
    return Target(text, goal, value, unit, at_least=False)


def _targets() -> tuple[Target, ...]:
    small, large = (tuple(f"{size}, {how}" for how in OUTSTANDING) for size in SIZES)
    found = [
        _at_most(f"embedded GET, {case}: netd / memcached", goal, _share(EMBEDDED, case, NETD, C))
        for case, goal in zip(small, (1.45, 0.5), strict=True)
    ]
    for subject, peer in ((NETD, PROXY), (NETD_REDIS, PROXY_REDIS)):
        rows = (
            (PROXIED_GET, "proxied GET", small, (1.05, 0.6)),
            (PROXIED_SET, "proxied SET", small, (1.1, 0.8)),
            (PROXIED_SET, "proxied SET", large, (1.2, 1.0)),
            (NEAR, "near hit", small, (0.8, 0.45)),
        )
        found += [
            _at_most(f"{text}, {case}: {subject} / {peer}", goal, _share(scenario, case, subject, peer))
            for scenario, text, cases, goals in rows
            for case, goal in zip(cases, goals, strict=True)
        ]
    crowded = lambda result: stats.ratio(  # noqa: E731 - as short as its like
        result.rounds(MANY, f"{CROWD:,}", NETD), result.rounds(MANY, f"{CONNECTIONS}", NETD), "rate"
    )
    return (
        *found,
        Target("throughput at 5,000 busy connections / at 50", 0.6, crowded),
        _at_most(
            "memory of an embedded item",
            340,
            lambda result: result.middle(MEMORY, "a million", NETD, "bytes"),
            " bytes",
        ),
    )


def draw(result: Result) -> dict[str, str]:
    """The chart: work per CPU second."""
    panels = [
        (f"{title}, {how}", "requests per CPU second", result.per_cpu_second(name, f"100 B, {how}"))
        for name, title in (
            (EMBEDDED, "Embedded GET"),
            (PROXIED_GET, "Proxied GET"),
            (PROXIED_SET, "Proxied SET"),
            (NEAR, "Near hit"),
        )
        for how in OUTSTANDING
        if name in result.records
    ]
    return {"benchmarks-cache.svg": charts.bars(panels, highlight=(NETD, NETD_REDIS))}


def suite(_python: str) -> Suite:
    """The suite."""
    return Suite(
        "cache",
        "Cache",
        "netd runs as its users start it, with one `[cache.main]` service. memcached and nutcracker are Debian's, with "
        "their own defaults; Redis and memcached behind a proxy run on the client's core and are not measured.",
        scenarios(Peers()),
        _targets(),
        draw,
    )
