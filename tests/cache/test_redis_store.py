"""A Redis behind: one value for memcached and Redis clients, and for whoever uses that Redis directly."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from netd.cache.layout import keep
from tests.cache.redis_client import RedisClient, gets_of, pack
from tests.cache.test_differential import STREAMS
from tests.netd_process import Netd, running
from tests.servers import MemcachedServer, RedisServer, exchange
from tests.waiting import eventually

SERVICE = """
[cache.{name}]
listen_memcached = "127.0.0.1:0"
listen_redis = "127.0.0.1:0"
store = "{url}"
allow_flush = true
{more}
"""
KINDS = {"near": "", "bare": "near = false", "prefixed": 'key_prefix = "app*:"'}


class Cache:
    """One service of the daemon, seen from outside."""

    def __init__(self, netd: Netd, name: str, redis: RedisServer, prefix: str = "") -> None:
        self.name = name
        self.memcached_port = netd.port(f"cache.{name}")
        self.redis = RedisClient(netd.port(f"cache.{name}", 1))
        self.direct = RedisClient(redis.port)
        self.prefix = prefix

    def memcached(self, text: str) -> str:
        """What a memcached client is answered."""
        return (
            exchange(self.memcached_port, text.replace("\n", "\r\n").encode() + b"mn\r\n", b"MN\r\n")
            .decode("latin-1")
            .removesuffix("MN\r\n")
            .replace("\r\n", "\n")
        )


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def caches(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Cache]]:
    directory: Path = tmp_path_factory.mktemp("netd")
    config = "".join(SERVICE.format(name=name, url=redis.url, more=more) for name, more in KINDS.items())
    with running(directory, config) as netd:
        yield {name: Cache(netd, name, redis, "app*:" if name == "prefixed" else "") for name in KINDS}


@pytest.fixture(params=KINDS)
def cache(caches: dict[str, Cache], request: pytest.FixtureRequest) -> Cache:
    cache = caches[request.param]
    cache.direct.ask("FLUSHALL")
    return cache


WRITERS = ["memcached", "memcached with flags", "redis", "direct"]
READERS = ["get", "gets", "mg", "GET", "MGET", "GETRANGE", "STRLEN", "GETEX"]


def write(cache: Cache, writer: str, key: str, value: str) -> int:
    """Write a value that lives for 100 seconds; returns its flags."""
    flags = 7 if writer == "memcached with flags" else 0
    match writer:
        case "redis":
            assert cache.redis.ask("SET", key, value, "EX", 100) == b"OK"
        case "direct":
            assert cache.direct.ask("SET", cache.prefix + key, value, "EX", 100) == b"OK"
        case _:
            assert cache.memcached(f"set {key} {flags} 100 {len(value)}\n{value}\n") == "STORED\n"
    return flags


def read(cache: Cache, reader: str, key: str, flags: int) -> str:
    """The value as a reader sees it, with its flags checked where they show."""
    match reader:
        case "get" | "gets":
            head, value, end = cache.memcached(f"{reader} {key}\n").splitlines()
            assert head.split()[:4] == ["VALUE", key, str(flags), str(len(value))]
            assert end == "END"
            return value
        case "mg":
            head, value = cache.memcached(f"mg {key} v f t\n").splitlines()
            assert re.fullmatch(rf"VA {len(value)} f{flags} t(99|100)", head)
            return value
        case "STRLEN":
            return "x" * int(str(cache.redis.ask("STRLEN", key)))
        case "MGET":
            [found] = cache.redis.ask("MGET", key)  # type: ignore[misc]  # a list
        case "GETRANGE":
            found = cache.redis.ask("GETRANGE", key, 0, -1)
        case _:
            found = cache.redis.ask(reader, key)
    assert isinstance(found, bytes)
    return found.decode()


@pytest.mark.parametrize(("writer", "reader"), [*product(WRITERS, READERS)])
def test_what_one_protocol_writes_the_other_reads(cache: Cache, writer: str, reader: str) -> None:
    value = "x" * 11
    flags = write(cache, writer, "key", value)
    assert read(cache, reader, "key", flags) == value
    assert read(cache, reader, "key", flags) == value, "and again, from the near cache perhaps"
    assert cache.redis.ask("TTL", "key") in (99, 100)


CHANGES = {
    "incr": (lambda cache: cache.memcached("incr key 5\n"), "46"),
    "decr": (lambda cache: cache.memcached("decr key 50\n"), "0"),
    "ma": (lambda cache: cache.memcached("ma key D9\n"), "50"),
    "append": (lambda cache: cache.memcached("append key 0 0 1\n7\n"), "417"),
    "prepend": (lambda cache: cache.memcached("prepend key 0 0 1\n7\n"), "741"),
    "INCR": (lambda cache: cache.redis.ask("INCR key"), "42"),
    "DECRBY": (lambda cache: cache.redis.ask("DECRBY key 2"), "39"),
    "INCRBYFLOAT": (lambda cache: cache.redis.ask("INCRBYFLOAT key 0.5"), "41.5"),
    "APPEND": (lambda cache: cache.redis.ask("APPEND key 7"), "417"),
    "SETRANGE": (lambda cache: cache.redis.ask("SETRANGE key 1 777"), "4777"),
}


@pytest.mark.parametrize(("writer", "change"), [*product(WRITERS, CHANGES)])
def test_a_change_through_either_protocol_keeps_flags_and_time_to_live(cache: Cache, writer: str, change: str) -> None:
    flags = write(cache, writer, "key", "41")
    assert read(cache, "get", "key", flags) == "41"
    run, after = CHANGES[change]
    run(cache)
    assert read(cache, "get", "key", flags) == after
    assert read(cache, "GET", "key", flags) == after
    assert cache.redis.ask("STRLEN key") == len(after)
    assert cache.redis.ask("TTL", "key") in (99, 100)


def test_a_value_that_looks_like_a_header_is_still_a_value(cache: Cache) -> None:
    value = b"\0ND\1abcdefgh"
    cache.redis.ask("SET", "a", value)
    cache.redis.ask("MSET", "b", value, "c", "plain")
    cache.redis.ask("SETEX", "d", 100, value)
    assert cache.redis.ask("MGET a b c d") == [value, value, b"plain", value]
    assert cache.redis.ask("GETRANGE a 1 2") == b"ND"
    cache.redis.ask("APPEND", "new", value)
    assert cache.redis.ask("GET new") == value


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("size", [5, 3000])
def test_many_sets_and_gets_at_once_mean_what_they_mean_one_by_one(cache: Cache, count: int, size: int) -> None:
    marked = b"\0ND\1" + b"x" * size
    values = {f"k{number}": b"%d" % number * size for number in range(count)}
    for last in (b"y" * size, marked):
        values["last"] = last
        cache.redis.send(b"".join(pack("set", key, value) for key, value in values.items()))
        assert [cache.redis.read() for _ in values] == [b"OK"] * len(values)
        for _ in range(2):  # from Redis, and then from the near cache
            cache.redis.send(b"".join(pack("get", key) for key in values))
            assert [cache.redis.read() for _ in values] == list(values.values())
        assert cache.memcached("get last\n") == f"VALUE last 0 {len(last)}\n{last.decode('latin-1')}\nEND\n"
        assert cache.direct.ask("GET", f"{cache.prefix}k0") == values["k0"]
        assert cache.direct.ask("GET", f"{cache.prefix}last") == keep(last)


def masked(answer: bytes) -> list[bytes]:
    """An answer without CAS uniques, which are made of the value here."""
    answer = re.sub(rb"(VALUE \S+ \d+ \d+) \d+", rb"\1 CAS", answer)
    return re.sub(rb"( c)\d+", rb"\1CAS", answer).split(b"\r\n")


SAME_ON_REDIS = ["retrieval", "store"]


@pytest.mark.parametrize("name", SAME_ON_REDIS)
def test_memcached_clients_are_answered_as_by_memcached(
    cache: Cache, name: str, memcached_server: MemcachedServer
) -> None:
    stream = STREAMS[name].lstrip("\n").replace("\n", "\r\n").encode() + b"mn\r\n"
    ours, theirs = (exchange(port, stream, b"MN\r\n") for port in (cache.memcached_port, memcached_server.port))
    assert masked(ours) == masked(theirs)


def test_cas_stores_over_what_was_read_and_nothing_else(cache: Cache) -> None:
    cache.memcached("set a 5 0 1\n1\n")
    unique = cache.memcached("gets a\n").split()[4]
    assert cache.memcached(f"cas a 6 0 1 {unique}\n2\n") == "STORED\n"
    assert cache.memcached(f"cas a 7 0 1 {unique}\n3\n") == "EXISTS\n"
    assert cache.memcached(f"cas b 7 0 1 {unique}\n3\n") == "NOT_FOUND\n"
    assert cache.memcached("get a\n") == "VALUE a 6 1\n2\nEND\n"


def test_of_two_who_fetch_a_stale_item_one_wins(cache: Cache) -> None:
    cache.memcached("set a 5 100 3\nold\nmd a I T30\n")
    assert cache.memcached("mg a v f t\n") in ("VA 3 f5 t30 X W\nold\n", "VA 3 f5 t29 X W\nold\n")
    assert cache.memcached("mg a v\n") == "VA 3 Z X\nold\n"
    assert cache.memcached("ms a 3 T100\nnew\nmg a v\n") == "HD\nVA 3\nnew\n"
    assert cache.memcached("mg new v N60\nmg new v\nmg gone v\n") == "VA 0 W\n\nVA 0 Z\n\nEN\n"


@pytest.mark.parametrize(
    ("value", "command", "after"),
    [
        ("18446744073709551615", "incr a 1", "0"),
        ("18446744073709551614", "incr a 1", "18446744073709551615"),
        ("9007199254740993", "incr a 2", "9007199254740995"),
        ("4294967296", "incr a 18446744073709551615", "4294967295"),
        ("18446744073709551615", "decr a 1", "18446744073709551614"),
        ("4294967296", "decr a 1", "4294967295"),
        ("5", "decr a 9", "0"),
        ("abc", "incr a 1", "CLIENT_ERROR cannot increment or decrement non-numeric value"),
        ("18446744073709551616", "incr a 1", "CLIENT_ERROR cannot increment or decrement non-numeric value"),
    ],
)
def test_counting_has_64_bits(cache: Cache, value: str, command: str, after: str) -> None:
    assert cache.memcached(f"set a 0 0 {len(value)}\n{value}\n{command}\n") == f"STORED\n{after}\n"


def test_a_meta_get_that_touches_tells_flags_and_who_has_won(cache: Cache) -> None:
    assert cache.memcached("set a 7 100 1\n1\nmg a T100 f\n") == "STORED\nHD f7\n"
    assert cache.memcached("md a I\nmg a T100\nmg a T100 f\n") == "HD\nHD X W\nHD f7 Z X\n"


@pytest.mark.parametrize(("behind", "left"), [("SET a 100", b"100"), ("DEL a", None)])
def test_counting_where_there_are_flags_does_not_undo_what_was_asked_behind_it(
    cache: Cache, behind: str, left: bytes | None
) -> None:
    cache.memcached("set a 7 0 1\n5\n")
    assert cache.redis.ask_all("INCR a", "INCRBY a 2") == [6, 8]
    assert isinstance(cache.redis.ask_all("INCR a", behind)[0], Exception)
    assert cache.redis.ask("GET a") == left


def test_a_negative_exptime_is_stored_and_gone(cache: Cache) -> None:
    assert cache.memcached("set a 0 0 1\n1\nset a 0 -1 1\n2\nget a\n") == "STORED\nSTORED\nEND\n"
    assert cache.memcached("set a 0 0 1\n1\ngat -1 a\nget a\n") == "STORED\nVALUE a 0 1\n1\nEND\nEND\n"
    assert cache.memcached("set a 0 0 1\n1\ntouch a -1\nget a\n") == "STORED\nTOUCHED\nEND\n"
    assert cache.memcached("touch a 100\n") == "NOT_FOUND\n"


def test_touch_and_gat_change_the_time_to_live(cache: Cache) -> None:
    cache.memcached("set a 0 0 1\n1\n")
    assert cache.memcached("touch a 100\n") == "TOUCHED\n"
    assert cache.redis.ask("TTL a") == 100
    assert cache.memcached("gat 200 a\n") == "VALUE a 0 1\n1\nEND\n"
    assert cache.redis.ask("TTL a") == 200
    assert cache.memcached("touch a 0\n") == "TOUCHED\n"
    assert cache.redis.ask("TTL a") == -1
    assert cache.memcached("touch a 2000000000\n") == "TOUCHED\n"
    assert cache.redis.ask("EXPIRETIME a") == 2000000000


def test_scripts_that_redis_has_forgotten_are_told_once_more(cache: Cache) -> None:
    cache.memcached("set a 3 0 1\n1\n")
    cache.direct.ask("SCRIPT FLUSH")
    assert cache.memcached("incr a 1\n") == "2\n"
    assert cache.redis.ask("APPEND a 3") == 2
    assert cache.memcached("get a\n") == "VALUE a 3 2\n23\nEND\n"


def test_mget_takes_no_hash_for_a_string_and_needs_a_key(cache: Cache) -> None:
    cache.memcached("set a 7 0 1\n1\n")
    cache.redis.ask("HSET h f 1")
    for _ in range(2):
        assert cache.redis.ask("MGET a h none a") == [b"1", None, None, b"1"]
    assert "wrong number of arguments for 'mget'" in str(cache.redis.ask("MGET"))


def test_reads_of_every_kind_are_hits_of_the_near_cache(caches: dict[str, Cache]) -> None:
    cache = caches["near"]
    cache.memcached("set a 7 0 1\n1\n")
    assert cache.memcached("get a\n") == "VALUE a 7 1\n1\nEND\n"

    def are_hits() -> bool:
        before = gets_of(cache.direct)
        unique = cache.memcached("gets a\n").split()[4]
        assert cache.memcached("mg a v f c\n") == f"VA 1 f7 c{unique}\n1\n"
        assert cache.redis.ask("MGET a a") == [b"1", b"1"]
        assert cache.redis.ask_all("GET a", "PING") == [b"1", b"PONG"]
        return gets_of(cache.direct) == before

    assert eventually(are_hits), "they are asked of Redis every time"


TOUCHING = {
    "SET a 2": [b"2"],
    "DEL a": [None],
    "UNLINK a": [None],
    "GETDEL a": [None],
    "GETSET a 2": [b"2"],
    "SETEX a 9 2": [b"2"],
    "PSETEX a 9000 2": [b"2"],
    "PEXPIRE a 0": [None],
    "MSET b 2 a 2": [b"2"],
    "RENAME b a": [b"0"],
    "RENAME a b": [None],
    "COPY b a REPLACE": [b"0"],
    "BITOP NOT a none": [None],
    "SUNIONSTORE a none": [None],
    "SETRANGE a 1 x": [b"1x"],
    "APPEND a x": [b"1x"],
    "INCR a": [b"2"],
    "INCRBYFLOAT a 1": [b"2"],
    "SORT none STORE a": [None],
}
"""Commands that change a key, and what it is behind them; b is 0 before."""


@pytest.mark.parametrize("command", TOUCHING)
def test_a_key_that_a_command_changes_is_read_anew_behind_it(caches: dict[str, Cache], command: str) -> None:
    """Redis tells nobody of what netd itself has changed: netd must know from the command which keys these are."""
    cache = caches["near"]
    cache.redis.ask("MSET a 1 b 0")
    _until_it_is_a_hit(cache, "a", b"1")
    assert cache.redis.ask_all(command, "GET a")[1:] == TOUCHING[command]


def _until_it_is_a_hit(cache: Cache, key: str, value: bytes) -> None:
    def is_a_hit() -> bool:
        assert cache.redis.ask("GET", key) == value
        before = gets_of(cache.direct)
        assert cache.redis.ask("GET", key) == value
        return gets_of(cache.direct) == before

    assert eventually(is_a_hit), "it is asked of Redis every time"


@pytest.mark.parametrize("name", ["near", "prefixed"])
def test_what_others_write_is_seen_and_costs_only_the_hits_of_its_key(caches: dict[str, Cache], name: str) -> None:
    cache = caches[name]
    cache.direct.ask("FLUSHALL")
    for key in ("a", "b"):
        cache.direct.ask("SET", cache.prefix + key, "old")
        _until_it_is_a_hit(cache, key, b"old")
    assert cache.direct.ask("SET", f"{cache.prefix}a", "new") == b"OK"
    assert eventually(lambda: cache.redis.ask("GET a") == b"new")
    before = gets_of(cache.direct)
    assert cache.redis.ask("GET b") == b"old"
    assert gets_of(cache.direct) == before


def test_redis_is_asked_to_tell_of_keys_under_the_prefix_alone_on_one_connection(tmp_path: Path) -> None:
    more = 'key_prefix = "app:"'
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        monitor, direct = RedisClient(redis.port), RedisClient(redis.port)
        assert monitor.ask("MONITOR") == b"OK"
        netd = stack.enter_context(running(tmp_path, SERVICE.format(name="main", url=redis.url, more=more)))
        cache = Cache(netd, "main", redis, "app:")
        cache.direct.ask("SET app:a 1")

        def links() -> int:
            return sum(message.startswith("connected to Redis") for message in netd.messages)

        def made_anew(before: int) -> bool:
            return links() > before

        for flag in ("t", "P"):  # the connection that is tracked, the one that is told
            _until_it_is_a_hit(cache, "a", b"1")
            line = ""
            while '"TRACKING" "ON"' not in line:
                line = str(monitor.read())
            assert '"BCAST" "NOLOOP" "PREFIX" "app:"' in line
            clients = str(direct.ask("CLIENT LIST"))
            assert len(re.findall(r" flags=\w*t", clients)) == 1
            [number] = re.findall(rf"id=(\d+) [^\\]* flags=\w*{flag}", clients)
            again = partial(made_anew, links())
            assert direct.ask("CLIENT", "KILL", "ID", number) == 1
            netd.wait_until(again, "the link again")


def test_other_types_are_passed_through(cache: Cache) -> None:
    ask = cache.redis.ask
    assert ask("HSET h a 1 b OK") == 2
    assert ask("HGET h b") == b"OK"
    assert ask("RPUSH l a b") == 2
    assert ask("LRANGE l 0 -1") == [b"a", b"b"]
    assert ask("ZADD z 1.5 m") == 1
    assert ask("ZRANGE z 0 -1 WITHSCORES") == [b"m", b"1.5"]
    assert ask("SADD s x") == 1
    assert ask("SUNIONSTORE t s") == 1
    assert ask("OBJECT ENCODING t") is not None
    assert ask("ZUNIONSTORE u 2 z z") == 1
    assert ask("LMPOP 1 l LEFT") == [b"l", [b"a"]]
    assert str(ask("GET h")).startswith("WRONGTYPE")
    assert cache.memcached("get h\n").startswith("SERVER_ERROR Operation against a key")
    assert sorted(ask("KEYS *")) == [b"h", b"l", b"s", b"t", b"u", b"z"]  # type: ignore[call-overload]  # a list
    if cache.prefix:
        assert cache.direct.ask("EXISTS", "app*:h", "h") == 1


@pytest.mark.parametrize(
    "command",
    ["CONFIG GET x", "SHUTDOWN", "DEBUG SLEEP 1", "REPLICAOF a 1", "MONITOR", "CLIENT TRACKING on", "ACL LIST", "SAVE"],
)
def test_what_would_harm_others_is_refused(cache: Cache, command: str) -> None:
    assert "Error" in type(cache.redis.ask(command)).__name__
    assert cache.redis.ask("PING") == b"PONG"


def test_a_flush_forgets_what_is_under_the_prefix_and_nothing_else(cache: Cache) -> None:
    for number in range(1500):
        cache.redis.send(b"*3\r\n$3\r\nSET\r\n$%d\r\nk%d\r\n$1\r\nx\r\n" % (len(str(number)) + 1, number))
    assert all(cache.redis.read() == b"OK" for _ in range(1500))
    cache.direct.ask("SET other 1")
    assert cache.memcached("get k1\nflush_all\n") == "VALUE k1 0 1\nx\nEND\nOK\n"
    assert cache.memcached("get k1\n") == "END\n"
    assert cache.direct.ask("DBSIZE") == (1 if cache.prefix else 0)
    assert cache.memcached("set a 0 0 1\n1\nflush_all 1\nget a\n") == "STORED\nOK\nVALUE a 0 1\n1\nEND\n"
    assert eventually(lambda: cache.memcached("get a\n") == "END\n")
    assert cache.redis.ask("FLUSHALL") == b"OK"


@pytest.mark.parametrize("protocol", ["memcached", "redis"])
def test_what_is_asked_behind_a_flush_sees_nothing_from_before_it(cache: Cache, protocol: str) -> None:
    keys = [f"k{number}" for number in range(3000)]
    for start in range(0, len(keys), 500):
        cache.redis.ask("MSET", *(word for key in keys[start : start + 500] for word in (key, "old")))
    if protocol == "memcached":
        asked = "".join(f"get {key}\n" for key in keys)
        said = cache.memcached("set new 0 0 1\n1\nflush_all\n" + asked + "set new 0 0 1\n2\nget new\n")
        assert said == "STORED\nOK\n" + "END\n" * len(keys) + "STORED\nVALUE new 0 1\n2\nEND\n"
    else:
        replies = cache.redis.ask_all("SET new 1", "flushall", *(f"GET {key}" for key in keys), "SET new 2", "GET new")
        assert replies == [b"OK", b"OK", *[None] * len(keys), b"OK", b"2"]


def test_scan_shows_keys_as_clients_name_them(cache: Cache) -> None:
    cache.direct.ask("SET appz 1")
    cache.redis.ask("MSET a1 1 a2 1 b 1")
    found = cache.redis.ask("SCAN 0 MATCH a[12] COUNT 100")
    assert found in ([b"0", [b"a1", b"a2"]], [b"0", [b"a2", b"a1"]])


def test_of_several_patterns_scan_takes_the_last_within_the_prefix(cache: Cache) -> None:
    cache.redis.ask("MSET a1 1 b 1")
    assert cache.redis.ask("SCAN 0 MATCH x MATCH a? COUNT 100") == [b"0", [b"a1"]]


def test_a_value_over_the_limit_is_refused(cache: Cache) -> None:
    assert "exceeds maximum" in str(cache.redis.ask("SET", "a", "x" * (1 << 20)))
    assert cache.redis.ask("GET a") is None
