"""No client ever sees a value older than one it has seen or written, whoever writes and whatever breaks meanwhile.

Every value is a number that only grows: each write takes the next one. So a client that reads a smaller number than one
it has read or written before has seen time go back. Writers go through one netd, through another, and to Redis itself;
readers are everywhere. Links are killed, frozen and made anew, keys expire, are evicted and flushed.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.cache.redis_client import RedisClient, gets_of, pack
from tests.netd_process import Netd, running
from tests.servers import RedisServer
from tests.waiting import eventually

KEYS = [f"key{number}" for number in range(6)]
SECONDS = 3.0
READS = 200
"""What a test takes at least, in time and in reads."""
AGREED = 0.1
"""Seconds after which every client reads what was written; of several tries, the quickest quarter is held to that."""
PATIENCE = 60.0
"""Seconds for what takes a millisecond where there is time."""

CONFIG = """
[cache.main]
listen_redis = "127.0.0.1:0"
listen_memcached = "127.0.0.1:0"
store = "{url}"
timeout = "500ms"
max_memory = "1MiB"
allow_flush = true
"""


class Numbers:
    """The numbers that are written, never the same one twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def written(self, write: Callable[[int], object]) -> int | None:
        """Write the next number, nobody else meanwhile; None when it is not sure that it was written."""
        with self._lock:
            self._last += 1
            number = self._last
            try:
                answer = write(number)
            except (OSError, EOFError):
                return None
            return None if isinstance(answer, Exception) else number


class Client(threading.Thread):
    """Reads and writes at random, and remembers the newest number it knows of each key."""

    def __init__(self, port: int, numbers: Numbers, seed: int, enough: threading.Event, *, writes: float) -> None:
        super().__init__()
        self._port = port
        self._numbers = numbers
        self._random = random.Random(seed)
        self._enough = enough
        self._writes = writes
        self._known: dict[str, int] = {}
        self.faults: list[str] = []
        self.reads = 0

    def run(self) -> None:
        while not self._enough.is_set():
            with suppress(OSError, EOFError):
                client = RedisClient(self._port)
                while not self._enough.is_set():
                    self._step(client)

    def _step(self, client: RedisClient) -> None:
        key = self._random.choice(KEYS)
        if self._random.random() < self._writes:
            verb = self._random.choice(["SET", "GETSET", "PSETEX"])
            words = ["PSETEX", key, "30"] if verb == "PSETEX" else [verb, key]
            number = self._numbers.written(lambda number: client.ask(*words, padded(number)))
            if number is not None:
                self._known[key] = max(number, self._known.get(key, 0))
        else:
            verb = self._random.choice(["GET", "GET", "GET", "MGET", "GETRANGE"])
            answer = client.ask(*{"GETRANGE": ["GETRANGE", key, "0", "-1"]}.get(verb, [verb, key]))
            if isinstance(answer, list):
                [answer] = answer
            if isinstance(answer, bytes) and answer:
                self._saw(key, int(answer.split(b"-")[0]), verb)

    def _saw(self, key: str, number: int, verb: str) -> None:
        self.reads += 1
        known = self._known.get(key, 0)
        if number < known:
            self.faults.append(f"{self._port}: {verb} {key} said {number} after {known}")
        self._known[key] = max(number, known)


def padded(number: int) -> str:
    """A number with so much behind it that not all keys fit into the near cache at once."""
    return f"{number}-" + "x" * 250_000 if number % 97 == 0 else f"{number}-"


class World:
    """A Redis, two daemons before it, and faults."""

    def __init__(self, redis: RedisServer, netds: list[Netd]) -> None:
        self.redis = redis
        self.ports = [netd.port("cache.main", 1) for netd in netds]
        self.netds = netds

    def kill_links(self) -> None:
        direct = RedisClient(self.redis.port)
        direct.ask("CLIENT", "KILL", "TYPE", random.choice(["normal", "pubsub"]))

    def freeze(self) -> None:
        self.redis.pause()
        time.sleep(0.2)
        self.redis.resume()

    def flush(self) -> None:
        port = random.choice([self.redis.port, *self.ports])
        RedisClient(port).ask("FLUSHALL")

    def evict(self) -> None:
        direct = RedisClient(self.redis.port)
        direct.ask("CONFIG SET maxmemory-policy allkeys-random")
        direct.ask("CONFIG SET maxmemory 1")
        direct.ask("CONFIG SET maxmemory 0")

    def rename(self) -> None:
        RedisClient(random.choice(self.ports)).ask("COPY", KEYS[0], "elsewhere", "REPLACE")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        netds = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            netds.append(stack.enter_context(running(tmp_path / name, CONFIG.format(url=redis.url))))
        yield World(redis, netds)


FAULTS: dict[str, list[str]] = {
    "nothing": [],
    "links": ["kill_links", "freeze"],
    "losses": ["flush", "evict", "rename"],
}


@pytest.mark.parametrize("faults", FAULTS)
def test_no_client_sees_a_value_go_back_in_time_and_all_agree(world: World, faults: str) -> None:
    numbers, enough = Numbers(), threading.Event()
    places = [*world.ports, *world.ports, world.redis.port]
    clients = [
        Client(port, numbers, seed, enough, writes=0.2 if seed % 2 else 0.02) for seed, port in enumerate(places * 2)
    ]
    for client in clients:
        client.start()
    began = time.monotonic()
    try:
        while time.monotonic() < began + SECONDS or sum(client.reads for client in clients) < READS:
            assert time.monotonic() < began + PATIENCE, "next to nothing was read"
            time.sleep(0.15)
            for name in FAULTS[faults]:
                with suppress(OSError, EOFError):
                    getattr(world, name)()
    finally:
        enough.set()
    for client in clients:
        client.join()
    assert [fault for client in clients for fault in client.faults] == []
    _agree(world)


def _agree(world: World) -> None:
    """A value that is written anywhere is soon what every client reads."""
    readers = [RedisClient(port) for port in (*world.ports, world.redis.port)]
    assert eventually(lambda: not any(isinstance(reader.ask("GET x"), Exception) for reader in readers)), (
        "the links do not come back"
    )
    took = []
    for turn, writer in enumerate(readers * 4):
        for reader in readers:
            reader.ask("GET agreed")
        assert writer.ask("SET", "agreed", turn) == b"OK"
        written = time.monotonic()
        while (read := [reader.ask("GET agreed") for reader in readers]) != [str(turn).encode()] * len(readers):
            assert time.monotonic() < written + PATIENCE, f"{read} after {turn} was written"
        took.append(time.monotonic() - written)
    assert sorted(took)[len(took) // 4] < AGREED


def test_a_link_for_invalidations_that_is_frozen_ends_hits_within_a_second(world: World) -> None:
    """The listening link is stopped at the other end of a proxy that no longer passes anything on."""
    reader, direct = RedisClient(world.ports[0]), RedisClient(world.redis.port)
    direct.ask("SET a old")
    assert reader.ask("GET a") == b"old"
    world.redis.pause()
    time.sleep(1.1)
    assert reader.ask("GET a") != b"old", "a hit although nothing is known of Redis"
    world.redis.resume()


def test_hits_are_served_without_asking_redis(world: World) -> None:
    reader, direct = RedisClient(world.ports[0]), RedisClient(world.redis.port)
    direct.ask("SET a 1")

    def are_hits() -> bool:
        reader.ask("GET a")
        before = gets_of(direct)
        reader.send(pack("GET", "a") * 100)
        assert [reader.read() for _ in range(100)] == [b"1"] * 100
        return gets_of(direct) == before

    assert eventually(are_hits), "every get is asked of Redis"
