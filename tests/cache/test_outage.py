"""Redis goes away, in every way there is: an error in the client's own words, in time, and back without a restart."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cache.redis_client import RedisClient, gets_of, pack
from tests.certificates import write_pair
from tests.netd_process import Netd, running
from tests.servers import RedisServer, exchange, reserve_port
from tests.waiting import eventually

TIMEOUT = 2
"""Seconds of the daemon's `timeout`: what comes at once comes sooner, on a slow machine too."""

CONFIG = """
[cache.{name}]
listen_memcached = "127.0.0.1:0"
listen_redis = "127.0.0.1:0"
timeout = {timeout}
{more}
"""


class Cache:
    def __init__(self, netd: Netd, name: str = "main") -> None:
        self.netd = netd
        self.memcached_port = netd.port(f"cache.{name}")
        self.redis_port = netd.port(f"cache.{name}", 1)
        self.redis = RedisClient(self.redis_port)

    def get(self, key: str = "a") -> str:
        """What a memcached client is answered to a get."""
        return exchange(self.memcached_port, f"get {key}\r\nmn\r\n".encode(), b"MN\r\n").decode()

    def set(self, key: str = "a", value: str = "1") -> object:
        return self.redis.ask("SET", key, value)

    def until(self, condition: Callable[[], bool]) -> float:
        """Wait for something to come true; returns how long it took."""
        began = time.monotonic()
        assert eventually(condition), self.netd.messages[-3:]
        return time.monotonic() - began

    def works(self) -> bool:
        return self.set() == b"OK" and self.get().startswith("VALUE a 0 1")


@contextmanager
def cache_of(directory: Path, store: str, more: str = "", timeout: float = TIMEOUT) -> Iterator[Cache]:
    with running(directory, CONFIG.format(name="main", timeout=timeout, more=f"{store}\n{more}")) as netd:
        yield Cache(netd)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer("--enable-debug-command", "yes") as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    """A Redis that runs and is empty, whatever the test before did to it."""
    server.resume()
    server.start()
    RedisClient(server.port).ask("FLUSHALL")
    return server


@pytest.fixture(scope="module")
def netd(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    """With a near cache, and without."""
    store = f'store = "{server.url}"'
    services = {"near": store, "bare": f"{store}\nnear = false"}
    config = "".join(CONFIG.format(name=name, timeout=TIMEOUT, more=more) for name, more in services.items())
    with running(tmp_path_factory.mktemp("netd"), config) as netd:
        yield netd


@pytest.fixture(params=["near", "bare"])
def cache(request: pytest.FixtureRequest, redis: RedisServer, netd: Netd) -> Cache:
    cache = Cache(netd, request.param)
    cache.until(cache.works)
    return cache


def is_hit(cache: Cache, direct: RedisClient) -> bool:
    """Whether a value is kept that was just read."""
    cache.redis.ask("GET a")
    before = gets_of(direct)
    return cache.redis.ask("GET a") is not None and gets_of(direct) == before


def fails(cache: Cache) -> float:
    """Both ports answer with an error; how long the slower one took."""
    began = time.monotonic()
    assert cache.get("missing").startswith("SERVER_ERROR "), cache.get("missing")
    assert isinstance(cache.set(), Exception)
    assert isinstance(cache.redis.ask("HGET h f"), Exception)
    return time.monotonic() - began


def test_a_killed_redis_is_an_error_at_once_and_comes_back(cache: Cache, redis: RedisServer) -> None:
    assert cache.works()
    redis.kill()
    assert fails(cache) < TIMEOUT
    redis.start()
    cache.until(cache.works)


def test_the_log_says_once_why_redis_is_away(cache: Cache, redis: RedisServer) -> None:
    before = len(cache.netd.messages)
    redis.kill()
    time.sleep(3.5)  # five attempts, of which the last two are two seconds apart
    said = [event for event in cache.netd.events[before:] if event["message"].startswith("Redis is away")]
    assert said
    assert len({(event["service"], event["message"]) for event in said}) == len(said)
    redis.start()
    cache.until(cache.works)


def test_to_stop_is_not_to_lose_redis(tmp_path: Path, redis: RedisServer) -> None:
    with cache_of(tmp_path, f'store = "{redis.url}"') as cache:
        cache.until(cache.works)
        assert cache.netd.stop() == 0
        assert [message for message in cache.netd.messages if "away" in message] == []


def test_a_frozen_redis_is_an_error_in_time_and_no_reply_goes_to_another_request(
    cache: Cache, redis: RedisServer
) -> None:
    cache.redis.ask("MSET a 1 b 2 c 3")
    redis.pause()
    began = time.monotonic()
    with ThreadPoolExecutor() as threads:
        late = [threads.submit(cache.get, key) for key in ("x", "y")]
        assert isinstance(cache.redis.ask("GETRANGE a 0 -1"), Exception)
        assert all(each.result().startswith("SERVER_ERROR ") for each in late)
    assert time.monotonic() - began < 2 * TIMEOUT
    assert fails(cache) < TIMEOUT
    redis.resume()
    cache.until(cache.works)
    assert cache.redis.ask_all("GETRANGE b 0 -1", "GETRANGE c 0 -1") == [b"2", b"3"]


def test_a_slow_redis_fails_what_it_is_too_slow_for_and_nothing_else(cache: Cache, redis: RedisServer) -> None:
    direct = RedisClient(redis.port)
    cache.redis.ask("MSET a 1 b 2")
    direct.send(pack("DEBUG", "SLEEP", "0.2"))
    assert cache.redis.ask("GETRANGE a 0 -1") == b"1", "slow, but in time"
    direct.send(pack("DEBUG", "SLEEP", 2 * TIMEOUT))
    time.sleep(0.05)
    cache.redis.send(pack("GETRANGE", "a", "0", "-1") + pack("GETRANGE", "b", "0", "-1"))
    assert isinstance(cache.redis.read(), Exception)
    assert isinstance(cache.redis.read(), Exception)
    cache.until(cache.works)
    assert cache.redis.ask("GETRANGE b 0 -1") == b"2"
    direct.close()


def test_a_full_redis_says_so_to_writers_and_serves_readers(cache: Cache, redis: RedisServer) -> None:
    assert cache.works()
    direct = RedisClient(redis.port)
    direct.ask("CONFIG SET maxmemory 1")
    assert str(cache.set("b")).startswith("OOM command not allowed")
    said = exchange(cache.memcached_port, b"set b 0 0 1\r\n1\r\nappend a 0 0 1\r\n2\r\nmn\r\n", b"MN\r\n")
    assert said.startswith(b"SERVER_ERROR out of memory storing object\r\nSERVER_ERROR out of memory")
    assert cache.get().startswith("VALUE a 0 1")
    direct.ask("CONFIG SET maxmemory 0")
    assert cache.works()
    direct.close()


def test_a_replica_that_may_not_be_written_says_so_and_serves_readers(cache: Cache, redis: RedisServer) -> None:
    assert cache.works()
    direct = RedisClient(redis.port)
    with RedisServer() as master:
        RedisClient(master.port).ask("SET a 1")
        direct.ask("REPLICAOF", "127.0.0.1", master.port)
        cache.until(lambda: str(cache.set("b")).startswith("READONLY "))
        assert b"SERVER_ERROR You can't write against a read only replica" in exchange(
            cache.memcached_port, b"set b 0 0 1\r\n1\r\n"
        )
        direct.ask("REPLICAOF NO ONE")
    cache.until(cache.works)
    direct.close()


def test_killed_links_are_made_anew(cache: Cache, redis: RedisServer) -> None:
    direct = RedisClient(redis.port)
    for kind in ("normal", "pubsub"):
        assert cache.works()
        direct.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        cache.until(cache.works)
    cache.set("b", "1")
    for old, new in pairwise((b"1", b"2", b"3")):
        assert cache.redis.ask("GET b") == old
        direct.ask("SET", "b", new)
        assert cache.until(lambda new=new: cache.redis.ask("GET b") == new) < TIMEOUT  # type: ignore[misc]
    direct.close()


def test_another_redis_in_its_place_is_used_and_the_old_values_forgotten(cache: Cache, redis: RedisServer) -> None:
    cache.redis.ask("MSET a old b old")
    assert cache.redis.ask_all("GET a", "GET a") == [b"old"] * 2
    redis.kill()
    redis.start()  # it keeps nothing: another one
    cache.until(lambda: cache.redis.ask("PTTL a") == -2)
    assert cache.redis.ask("GET a") is None
    assert cache.works()


def test_an_address_that_moves_on_to_another_redis_takes_what_tells_of_changes_along(
    tmp_path: Path, redis: RedisServer
) -> None:
    """The link for requests goes there first; and there the number of the one for changes is somebody else's."""
    file = tmp_path / "store"
    file.write_text(redis.url)
    with RedisServer() as other, cache_of(tmp_path, f'store_file = "{file}"') as cache:
        cache.until(cache.works)
        listing = RedisClient(redis.port).ask("CLIENT LIST TYPE pubsub")
        number = max(map(int, re.findall(rb"id=(\d+)", listing)))  # type: ignore[call-overload]  # bytes
        strangers = [RedisClient(other.port)]
        while int(str(strangers[-1].ask("CLIENT ID"))) < number:
            strangers.append(RedisClient(other.port))
        file.write_text(other.url)
        RedisClient(redis.port).ask("CLIENT KILL TYPE normal")
        cache.until(lambda: cache.redis.ask("PTTL a") == -2)
        direct = RedisClient(other.port)
        for value in (b"one", b"two"):
            direct.ask("SET", "a", value)
            assert cache.until(lambda value=value: cache.redis.ask("GET a") == value) < TIMEOUT  # type: ignore[misc]
            cache.until(lambda: is_hit(cache, direct))


def test_the_rest_of_a_transaction_for_which_there_is_no_connection_is_not_done(
    tmp_path: Path, redis: RedisServer
) -> None:
    file = tmp_path / "store"
    file.write_text(redis.url)
    with reserve_port() as nobody, cache_of(tmp_path, f'store_file = "{file}"') as cache:
        cache.until(cache.works)
        file.write_text(f"redis://127.0.0.1:{nobody.getsockname()[1]}")  # new connections alone go there
        client = RedisClient(cache.redis_port)
        client.send(pack("MULTI") + b"".join(pack("SET", f"key{at}", at) for at in range(300)) + pack("EXEC"))
        said = b""
        with suppress(ConnectionError):
            while received := client.socket.recv(1 << 16):
                said += received
        assert said.startswith(b"-ERR cannot connect to Redis")
        assert all(line.startswith(b"-") for line in said.splitlines()), said
        assert RedisClient(redis.port).ask("DBSIZE") == 1
        assert isinstance(cache.redis.ask("EVAL return(1) 0"), Exception)
        assert cache.works()


def test_values_are_kept_once_redis_tracks_although_it_refused_to_at_first(tmp_path: Path) -> None:
    with RedisServer() as redis, closing(RedisClient(redis.port)) as direct:
        direct.ask("ACL SETUSER default -client|tracking")
        with cache_of(tmp_path, f'store = "{redis.url}"') as cache:
            cache.until(cache.works)
            assert not is_hit(cache, direct)
            direct.ask("ACL SETUSER default +client|tracking")
            cache.until(lambda: is_hit(cache, direct))


def test_what_is_no_redis_is_told_so(tmp_path: Path) -> None:
    from tests.servers import MemcachedServer  # noqa: PLC0415 - for this test alone

    with MemcachedServer() as other, cache_of(tmp_path, f'store = "redis://127.0.0.1:{other.port}"') as cache:
        assert fails(cache) < TIMEOUT


# --- passwords


def write_store(path: Path, redis: RedisServer, password: str) -> None:
    path.write_text(f"redis://:{password}@127.0.0.1:{redis.port}\n")


def test_a_wrong_password_is_an_error_until_it_is_put_right(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with RedisServer(password="secret") as redis:
        write_store(store, redis, "wrong")
        with cache_of(tmp_path, 'store_file = "store"') as cache:
            assert "WRONGPASS" in cache.get()
            assert "WRONGPASS" in str(cache.set())
            write_store(store, redis, "secret")
            cache.until(cache.works)
        assert not any("secret" in line for line in cache.netd.messages)


def test_a_redis_that_comes_back_with_another_password_is_used_once_that_is_known(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with RedisServer(password="first") as redis:
        write_store(store, redis, "first")
        with cache_of(tmp_path, 'store_file = "store"') as cache:
            assert cache.works()
            redis.password = "second"
            redis.restart()
            cache.until(lambda: "WRONGPASS" in cache.get())
            write_store(store, redis, "second")
            cache.until(cache.works)


def test_a_missing_password_is_told_so(tmp_path: Path) -> None:
    with (
        RedisServer(password="secret") as redis,
        cache_of(tmp_path, f'store = "redis://127.0.0.1:{redis.port}"') as cache,
    ):
        cache.until(lambda: "NOAUTH" in cache.get() or "Authentication required" in cache.get())


def test_an_acl_user_with_a_password_of_strange_characters_a_database_and_a_unix_socket(tmp_path: Path) -> None:
    with RedisServer() as redis:
        direct = RedisClient(redis.port)
        direct.ask("ACL", "SETUSER", "netd", "on", ">p@ss:w/rd", "~*", "&*", "+@all")
        url = f"redis://netd:p%40ss%3Aw%2Frd@127.0.0.1:{redis.port}/3"
        with cache_of(tmp_path, f'store = "{url}"') as cache:
            assert cache.works()
            direct.ask("SELECT 3")
            assert direct.ask("GET a") == b"1"
            assert "netd" in str(direct.ask("CLIENT LIST"))
        with cache_of(tmp_path, f'store = "{redis.unix_url}"') as cache:
            assert cache.works()
        direct.close()


def test_tls_to_a_redis_whose_authority_and_name_are_known_and_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = write_pair(tmp_path, "authority", None)
    write_pair(tmp_path, "server", authority)
    write_pair(tmp_path, "stranger", None)
    keys = ["--tls-cert-file", f"{tmp_path}/server.pem", "--tls-key-file", f"{tmp_path}/server.key"]
    with reserve_port() as reserved:
        port = reserved.getsockname()[1]
        more = ["--tls-port", str(port), *keys, "--tls-ca-cert-file", f"{tmp_path}/authority.pem"]
        with RedisServer(*more, "--tls-auth-clients", "no") as redis:
            for known, host, why in (
                ("authority", "localhost", ""),
                ("stranger", "localhost", "certificate verify failed"),
                ("authority", "127.0.0.1", "the certificate that Redis shows is for another host name"),
            ):
                monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/{known}.pem")
                with cache_of(tmp_path, f'store = "rediss://{host}:{port}"') as cache:
                    if not why:
                        assert cache.works()
                        redis.kill()
                        assert fails(cache) < TIMEOUT
                        redis.start()
                        cache.until(cache.works)
                    else:
                        assert fails(cache) < TIMEOUT
                        assert cache.get() == f"SERVER_ERROR TLS: {why}\r\nMN\r\n"


# --- while it is away


def is_a_hit(cache: Cache, direct: RedisClient) -> bool:
    """Whether `a` is there, and Redis was not asked for it."""
    before = gets_of(direct)
    return isinstance(cache.redis.ask("GET a"), bytes) and gets_of(direct) == before


def test_old_values_are_served_for_a_while_if_that_is_asked_for(tmp_path: Path, redis: RedisServer) -> None:
    direct = RedisClient(redis.port)
    with cache_of(tmp_path, f'store = "{redis.url}"', "serve_stale = 5") as cache:
        assert cache.works()
        cache.until(lambda: is_a_hit(cache, direct))
        redis.kill()
        assert cache.get().startswith("VALUE a 0 1")
        assert cache.get("b").startswith("SERVER_ERROR")
        assert isinstance(cache.set("b"), Exception)
        cache.until(lambda: cache.get().startswith("SERVER_ERROR"))


def test_old_values_are_not_served_while_redis_answers_although_it_cannot_tell_of_changes(
    tmp_path: Path, redis: RedisServer
) -> None:
    direct = RedisClient(redis.port)
    direct.ask("SET a old")
    with cache_of(tmp_path, f'store = "{redis.url}"', "serve_stale = 60") as cache:
        for number in range(10):
            cache.until(lambda: is_a_hit(cache, direct))
            direct.ask("CLIENT", "KILL", "TYPE", "pubsub")
            time.sleep(0.02)
            direct.ask("SET", "a", number)
            assert cache.redis.ask("GET a") == str(number).encode()


def test_what_is_asked_of_a_frozen_redis_is_bounded(tmp_path: Path, redis: RedisServer) -> None:
    with cache_of(tmp_path, f'store = "{redis.url}"', "near = false", timeout=5) as cache:
        assert cache.works()
        before = cache.netd.rss()
        redis.pause()
        clients = [RedisClient(cache.redis_port) for _ in range(40)]
        request = pack("SET", "k", b"x" * 1_000_000)

        def flood(client: RedisClient) -> None:
            client.socket.settimeout(2)
            try:
                for _ in range(20):
                    client.send(request)
            except TimeoutError:
                pass

        with ThreadPoolExecutor(40) as threads:
            list(threads.map(flood, clients))
        assert cache.netd.rss() - before < 400 << 20, "800 MB were offered"
        redis.resume()
        for client in clients:
            client.close()
        cache.until(cache.works)
