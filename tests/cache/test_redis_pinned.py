"""Redis clients before a real Redis that need a connection of their own, and get one."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import redis as redis_py
from hypothesis import given
from hypothesis import strategies as st

from netd.cache.layout import keep
from netd.cache.redis_raw import NotRedis, RawReplies
from netd.cache.requests import Reply
from netd.cache.resp import encode
from tests.cache.redis_client import RedisClient, pack
from tests.netd_process import NETDCTL, Netd, running
from tests.servers import RedisServer

CONFIG = """
[cache.main]
listen_redis = "127.0.0.1:0"
listen_memcached = "127.0.0.1:0"
store = "{url}"
timeout = "1s"
[cache.prefixed]
listen_redis = "127.0.0.1:0"
store = "{url}"
key_prefix = "app:"
allow_flush = true
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def netd(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    directory: Path = tmp_path_factory.mktemp("netd")
    with running(directory, CONFIG.format(url=server.url)) as netd:
        yield netd


@pytest.fixture
def port(netd: Netd, server: RedisServer) -> int:
    RedisClient(server.port).ask("FLUSHALL")
    return netd.port("cache.main", 1)


@pytest.fixture
def client(port: int) -> RedisClient:
    return RedisClient(port)


def test_a_transaction_is_done_as_one(client: RedisClient) -> None:
    said = client.ask_all("SET a 1", "MULTI", "INCR a", "PING", "GET a", "EXEC", "GET a")
    assert said == [b"OK", b"OK", b"QUEUED", b"QUEUED", b"QUEUED", [2, b"PONG", b"2"], b"2"]


def test_what_was_asked_before_a_transaction_is_done_before_it(client: RedisClient) -> None:
    for number in range(20):
        asked = [f"SET a {number}", "HSET h f 1", "MULTI", "GET a", "EXEC", "RESET"]
        assert client.ask_all(*asked)[4] == [str(number).encode()]


def test_a_watched_key_that_another_client_changed_undoes_the_transaction(client: RedisClient, port: int) -> None:
    other = RedisClient(port)
    client.ask_all("SET a 1", "WATCH a")
    other.ask("SET a 2")
    assert client.ask_all("MULTI", "SET a 3", "EXEC", "GET a")[2:] == [None, b"2"]


def test_what_a_transaction_writes_others_read_from_the_near_cache(client: RedisClient, port: int) -> None:
    other = RedisClient(port)
    other.ask("SET a 1")
    for number in range(5):
        assert other.ask("GET a") is not None
        client.ask_all("MULTI", f"SET a {number}", "EXEC")
        deadline = time.monotonic() + 60
        while other.ask("GET a") != str(number).encode():
            assert time.monotonic() < deadline


def test_scripts_run_and_read_values_without_their_header(client: RedisClient, netd: Netd) -> None:
    memcached = RedisClient(netd.port("cache.main"))
    memcached.send(b"set a 7 0 5\r\nhello\r\n")
    assert memcached.socket.recv(100) == b"STORED\r\n"
    assert client.ask("EVAL", "return {KEYS[1], redis.call('GET', KEYS[1])}", 1, "a") == [b"a", b"hello"]


@pytest.mark.parametrize("ask", ["one by one", "in a transaction"])
def test_a_value_with_flags_is_read_and_changed_without_its_header(client: RedisClient, netd: Netd, ask: str) -> None:
    memcached = RedisClient(netd.port("cache.main"))
    memcached.send(b"set a 7 0 5\r\nhello\r\n")
    assert memcached.socket.recv(100) == b"STORED\r\n"
    client.ask("EVAL", "return 1", 0)
    asked = ["STRLEN a", "GETRANGE a 0 3", "SETRANGE a 0 J", "APPEND a !"]
    said = client.ask_all("MULTI", *asked, "EXEC")[-1] if ask == "in a transaction" else client.ask_all(*asked)
    assert said == [5, b"hell", 5, 6]
    memcached.send(b"get a\r\n")
    assert memcached.socket.recv(100) == b"VALUE a 7 6\r\nJello!\r\nEND\r\n"


def test_a_value_that_looks_like_one_with_a_header_is_read_as_it_was_written(client: RedisClient) -> None:
    value = keep(b"hello", 7)
    client.ask("EVAL", "return 1", 0)
    client.ask("SET", "a", value)
    assert client.ask("GET a") == value


@pytest.mark.parametrize("kind", ["message", "pmessage"])
def test_an_array_that_looks_like_a_message_is_the_answer_to_who_asked(client: RedisClient, kind: str) -> None:
    array = [kind.encode(), b"a", b"b", b"c"][: 4 if kind == "pmessage" else 3]
    client.ask("RPUSH", "list", *array)
    assert client.ask("EVAL", "return redis.call('LRANGE', KEYS[1], 0, -1)", 1, "list") == array
    assert client.ask_all("LRANGE list 0 -1", "GET x") == [array, None]
    client.ask_all("SUBSCRIBE one", "UNSUBSCRIBE one")
    assert client.ask_all("LRANGE list 0 -1", "GET x") == [array, None]
    client.ask_all("SUBSCRIBE one", "RESET")
    assert client.ask_all("LRANGE list 0 -1", "GET x") == [array, None]


def test_a_blocked_client_waits_for_longer_than_the_timeout_and_holds_nobody_up(client: RedisClient, port: int) -> None:
    other = RedisClient(port)
    client.send(pack("BLPOP", "list", 0))
    time.sleep(1.2)
    assert other.ask_all("GET x", "RPUSH list v") == [None, 1]
    assert client.read() == [b"list", b"v"]


@pytest.mark.parametrize("version", [2, 3])
def test_messages_reach_who_has_subscribed(client: RedisClient, port: int, version: int) -> None:
    other = RedisClient(port)
    client.ask("HELLO", version)
    client.send(pack("SUBSCRIBE", "one", "two"))
    assert [client.read(), client.read()] == [[b"subscribe", b"one", 1], [b"subscribe", b"two", 2]]
    assert other.ask("PUBLISH one hello") == 1
    assert client.read() == [b"message", b"one", b"hello"]
    client.send(pack("PING"))
    assert client.read() == ([b"pong", b""] if version == 2 else b"PONG")
    client.send(pack("UNSUBSCRIBE"))
    assert sorted(client.read()[1:2] + client.read()[1:2]) == [b"one", b"two"]  # type: ignore[index]  # lists
    assert client.ask("GET x") is None


def test_messages_reach_a_client_of_resp3_that_is_blocked(client: RedisClient, port: int) -> None:
    client.ask_all("HELLO 3", "SUBSCRIBE one")
    client.send(pack("BLPOP", "list", 0))
    time.sleep(0.1)
    assert RedisClient(port).ask("PUBLISH one hello") == 1
    assert client.read() == [b"message", b"one", b"hello"]
    RedisClient(port).ask("RPUSH list v")
    assert client.read() == [b"list", b"v"]


def test_a_message_that_was_on_its_way_when_its_reader_said_reset_is_no_reply(
    client: RedisClient, server: RedisServer
) -> None:
    client.ask_all("SUBSCRIBE one", "PING")
    other = RedisClient(server.port)
    other.ask("PING")
    server.pause()
    other.send(pack("PUBLISH", "one", "late"))
    time.sleep(0.1)
    assert client.ask("RESET") == b"RESET"
    server.resume()
    assert other.read() == 1
    assert client.ask_all("GET x", "SUBSCRIBE one") == [None, [b"subscribe", b"one", 1]]
    other.ask("PUBLISH one hello")
    assert client.read() == [b"message", b"one", b"hello"]


def test_what_was_asked_before_another_protocol_is_answered_in_the_one_before(client: RedisClient) -> None:
    client.ask("HSET h a 1")
    client.send(pack("HGETALL", "h") + pack("HELLO", 3) + pack("HGETALL", "h"))
    assert client.read() == [b"a", b"1"]
    assert isinstance(client.read(), dict)
    assert client.read() == {b"a": b"1"}


def test_resp3_types_are_what_redis_makes_them(client: RedisClient) -> None:
    client.ask("HELLO 3")
    assert client.ask("HSET h a 1") == 1
    assert client.ask("HGETALL h") == {b"a": b"1"}
    client.ask("ZADD z 1.5 m")
    assert client.ask("ZSCORE z m") == 1.5


def test_reset_forgets_the_transaction(client: RedisClient) -> None:
    assert client.ask_all("MULTI", "SET a 1", "RESET", "GET a") == [b"OK", b"QUEUED", b"RESET", None]


def test_what_a_client_wrote_before_reset_it_reads_after_it(client: RedisClient, port: int) -> None:
    other = RedisClient(port)
    other.ask("SET a old")
    for number in range(20):
        assert other.ask("GET a") is not None  # it is in the near cache now
        said = client.ask_all("MULTI", f"SET a {number}", "EXEC", "RESET", "GET a")
        assert said[-1] == str(number).encode()


def test_what_a_client_left_behind_is_nothing_to_the_next(port: int) -> None:
    for _ in range(5):
        first = RedisClient(port)
        first.ask_all("WATCH a", "MULTI", "SET a 1")
        first.close()
        assert RedisClient(port).ask_all("MULTI", "GET a", "EXEC") == [b"OK", b"QUEUED", [None]]


def test_connections_of_their_own_are_few(port: int, server: RedisServer) -> None:
    direct = RedisClient(server.port)
    for _ in range(50):
        client = RedisClient(port)
        client.ask_all("MULTI", "EXEC")
        client.close()
    assert str(direct.ask("CLIENT LIST TYPE normal")).count("id=") < 30


@pytest.mark.usefixtures("port")  # which forgets what was
def test_a_prefix_holds_in_transactions_and_scripts(netd: Netd, server: RedisServer) -> None:
    client, direct = RedisClient(netd.port("cache.prefixed")), RedisClient(server.port)
    client.ask_all("MULTI", "SET a 1", "EXEC")
    client.ask("EVAL", "return redis.call('SET', KEYS[1], 2)", 1, "b")
    assert sorted(direct.ask("KEYS *")) == [b"app:a", b"app:b"]  # type: ignore[call-overload]  # a list


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize("version", [2, 3])
def test_keys_in_replies_have_no_prefix_there(netd: Netd, server: RedisServer, version: int) -> None:
    client, direct = RedisClient(netd.port("cache.prefixed")), RedisClient(server.port)
    client.ask(f"HELLO {version}")
    direct.ask("SET other 1")
    client.ask_all("RPUSH l a b c d", "ZADD z 1 m 2 n 3 o")
    assert client.ask("BLPOP none l 5") == [b"l", b"a"]
    assert client.ask("BRPOP l 5") == [b"l", b"d"]
    assert client.ask("BLMPOP 5 1 l LEFT") == [b"l", [b"b"]]
    assert client.ask("BZPOPMIN z 5") == [b"z", b"m", 1.0 if version == 3 else b"1"]
    assert client.ask("BLPOP none 0.01") is None
    asked = ["MULTI", "SET app:x 1", "KEYS *", "GET app:x", "SCAN 0", "LMPOP 1 l LEFT", "LPOP l", "EXEC"]
    said = client.ask_all(*asked)[-1]
    assert isinstance(said, list)
    assert sorted(said[1]) == [b"app:x", b"l", b"z"]
    assert sorted(said[3][1]) == [b"app:x", b"l", b"z"]
    assert [said[0], said[2], said[4], said[5]] == [b"OK", b"1", [b"l", [b"c"]], None]


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize("version", [2, 3])
def test_streams_are_read_by_their_own_names(netd: Netd, server: RedisServer, version: int) -> None:
    client, direct = RedisClient(netd.port("cache.prefixed")), RedisClient(server.port)
    client.ask_all(f"HELLO {version}", "XADD one 1-0 app:f app:v", "XADD two 2-0 f v", "XGROUP CREATE one streams 0")
    assert direct.ask("EXISTS app:one app:two") == 2
    first: list[object] = [b"one", [[b"1-0", [b"app:f", b"app:v"]]]]
    second: list[object] = [b"two", [[b"2-0", [b"f", b"v"]]]]

    def said(*streams: list[object]) -> object:
        return {str(name): each for name, each in streams} if version == 3 else list(streams)

    def named(reply: object) -> object:
        return {str(name): each for name, each in reply.items()} if isinstance(reply, dict) else reply

    assert named(client.ask("XREAD COUNT 5 STREAMS one two 0 0")) == said(first, second)
    assert named(client.ask("XREADGROUP GROUP streams me STREAMS one >")) == said(first)
    assert named(client.ask("XREADGROUP COUNT 5 GROUP streams you STREAMS one 0")) == said([b"one", []])
    assert client.ask("XREAD BLOCK 1 STREAMS one $") is None
    assert [named(each) for each in client.ask_all("MULTI", "XREAD STREAMS two 0", "EXEC")[-1]] == [said(second)]  # type: ignore[attr-defined]  # a list


@pytest.mark.usefixtures("port")
def test_what_is_queued_in_a_transaction_that_is_given_up_is_not_taken_for_the_next(netd: Netd) -> None:
    client = RedisClient(netd.port("cache.prefixed"))
    client.ask_all("RPUSH l app:a app:b", "MULTI", "KEYS *", "DISCARD")
    assert client.ask_all("MULTI", "LRANGE l 0 -1", "KEYS *", "EXEC")[-1] == [[b"app:a", b"app:b"], [b"l"]]
    client.ask_all("MULTI", "KEYS *", "RESET")
    assert client.ask_all("MULTI", "LRANGE l 0 -1", "EXEC")[-1] == [[b"app:a", b"app:b"]]


@pytest.mark.usefixtures("port")
def test_a_transaction_within_one_is_refused_and_the_outer_one_goes_on(netd: Netd) -> None:
    client = RedisClient(netd.port("cache.prefixed"))
    client.ask_all("RPUSH l a b", "SET x 1", "MULTI", "GET x")
    assert "nested" in str(client.ask("MULTI"))
    client.ask("LMPOP 1 l LEFT")
    assert client.ask_all("EXEC", "GET x")[-1] == b"1"


@pytest.mark.usefixtures("port")
def test_a_value_that_looks_like_one_with_a_header_is_whole_beside_keys(netd: Netd) -> None:
    client = RedisClient(netd.port("cache.prefixed"))
    value = keep(b"value", 7)
    client.ask("SET", "a", value)
    client.ask_all("MULTI", "KEYS *", "GET a")
    assert client.ask("EXEC") == [[b"a"], value]


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize("asked", [["FLUSHALL"], ["MULTI", "FLUSHDB", "EXEC"]])
def test_a_flush_within_a_prefix_leaves_others_keys_alone(netd: Netd, server: RedisServer, asked: list[str]) -> None:
    client, direct = RedisClient(netd.port("cache.prefixed")), RedisClient(server.port)
    client.ask_all("MULTI", "SET a 1", "EXEC")
    direct.ask("SET other 1")
    assert any(isinstance(reply, Exception) for reply in client.ask_all(*asked))
    assert direct.ask("EXISTS other") == 1


@pytest.mark.parametrize("command", ["SHUTDOWN", "CONFIG GET x", "SELECT 1", "CLIENT TRACKING on", "FLUSHALL"])
def test_what_is_refused_is_refused_there_too(client: RedisClient, command: str) -> None:
    assert client.ask_all("MULTI", "DISCARD") == [b"OK", b"OK"]
    assert "Error" in type(client.ask(command)).__name__


def test_a_transaction_with_something_refused_comes_to_nothing(client: RedisClient) -> None:
    said = client.ask_all("MULTI", "SET a 1", "CONFIG GET x", "SET b 1", "EXEC", "EXISTS a b")
    assert [said[1], str(said[2]).split()[0], said[3]] == [b"QUEUED", "NOPERM", b"QUEUED"]
    assert str(said[4]).startswith("EXECABORT")
    assert said[5] == 0


@pytest.mark.parametrize("own", ["SELECT 0", "CLIENT ID", "AUTH x", "HELLO 3"])
def test_what_netd_answers_itself_is_no_part_of_a_transaction(client: RedisClient, own: str) -> None:
    """The client expects QUEUED, and a reply of its own in that of EXEC."""
    said = client.ask_all("MULTI", "SET a 1", own, "EXEC", "EXISTS a", "SELECT 0", "CLIENT GETNAME")
    assert str(said[2]) == "ERR this command cannot be queued here: ask it outside of the transaction"
    assert str(said[3]).startswith("EXECABORT")
    assert said[4:] == [0, b"OK", None]
    assert client.ask_all("MULTI", "RESET", "SELECT 0") == [b"OK", b"RESET", b"OK"]
    assert client.ask_all("MULTI", "DISCARD", "SELECT 0") == [b"OK", b"OK", b"OK"]


def received(directory: Path) -> int:
    """Bytes that the cache has read of its clients."""
    said = subprocess.run([NETDCTL, "stats", "cache.main", "--json"], cwd=directory, capture_output=True, check=True)
    [service] = json.loads(said.stdout)["services"]
    return int(service["figures"]["bytes_in"])


def test_what_waits_for_a_redis_that_has_stopped_is_bounded(tmp_path: Path) -> None:
    """The transaction of somebody else comes to nothing, rather than be done in part."""
    with RedisServer() as server, running(tmp_path, CONFIG.format(url=server.url).replace('"1s"', '"60s"')) as netd:
        port = netd.port("cache.main", 1)
        first, second, small = RedisClient(port), RedisClient(port), RedisClient(port)
        for client in first, second, small:
            client.ask_all("MULTI", "DISCARD", *["PING"] * 500)  # small replies let a client ask more at once
        server.pause()
        for number in range(50):
            first.send(pack("SET", f"first{number}", "x" * 1_000_000))
            second.send(pack("SET", f"second{number}", "x" * 1_000_000))
        netd.wait_until(lambda: received(tmp_path) > 100_000_000, "it has read all")
        before = received(tmp_path)
        small.send(pack("MULTI") + pack("SET", "small", 1) + pack("EXEC"))
        netd.wait_until(lambda: received(tmp_path) > before, "it has read the transaction")
        server.resume()
        said = [str(client.read()) for client in (first, second) for _ in range(50)]
        assert 60 < said.count("b'OK'") < 70
        assert sum("too much waits" in each for each in said) == 100 - said.count("b'OK'")
        assert small.read() == b"OK"
        assert "too much waits" in str(small.read())
        assert "EXECABORT" in str(small.read())
        assert small.ask_all("SET small 2", "GET small") == [b"OK", b"2"]


def test_a_client_whose_own_connection_is_lost_is_hung_up_on(client: RedisClient, server: RedisServer) -> None:
    client.ask("SUBSCRIBE one")
    RedisClient(server.port).ask("CLIENT KILL TYPE pubsub")
    with pytest.raises((EOFError, ConnectionError)):
        client.read()


def test_the_rest_of_a_transaction_whose_connection_is_lost_is_not_done(
    client: RedisClient, server: RedisServer
) -> None:
    client.ask_all("EVAL return(1) 0", "MULTI")
    direct = RedisClient(server.port)
    [number] = re.findall(rb"(?m)^id=(\d+).* multi=0 ", direct.ask("CLIENT LIST"))  # type: ignore[call-overload]  # bytes
    server.pause()
    direct.send(pack("CLIENT", "KILL", "ID", number))
    client.send(b"".join(pack("SET", f"key{at}", at) for at in range(300)) + pack("EXEC"))
    time.sleep(0.2)
    server.resume()
    assert direct.read() == 1
    said = b""
    with suppress(ConnectionError):
        while received := client.socket.recv(1 << 16):
            said += received
    assert all(line.startswith(b"-") for line in said.splitlines()), said
    assert direct.ask("DBSIZE") == 0


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works(port: int, protocol: int) -> None:
    client = redis_py.Redis(port=port, protocol=protocol, decode_responses=True)
    assert client.set("a", "1", ex=100)
    with client.pipeline() as pipeline:
        pipeline.incr("a").get("a").hset("h", "f", "v").hgetall("h")  # type: ignore[attr-defined]  # a pipeline
        assert pipeline.execute() == [2, "2", 1, {"f": "v"}]
    assert client.eval("return ARGV[1]", 0, "x") == "x"
    assert client.zadd("z", {"m": 1.5}) == 1
    assert client.zrange("z", 0, -1, withscores=True) in ([("m", 1.5)], [["m", 1.5]])
    with client.lock("lock", timeout=60):
        assert client.get("lock")
    pubsub = client.pubsub()
    pubsub.subscribe("news")
    assert pubsub.get_message(timeout=60)
    client.publish("news", "hello")
    message = pubsub.get_message(timeout=60)
    assert message is not None
    assert message["data"] == "hello"
    pubsub.close()
    client.close()


# --- the wire


replies = st.recursive(
    st.none() | st.integers(-5, 5) | st.binary(max_size=20) | st.builds(keep, st.binary(max_size=5), st.just(7)),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.binary(max_size=3), each, max_size=2),
    max_leaves=10,
)


def bare(reply: Reply) -> Reply:
    """A reply without headers."""
    match reply:
        case bytes():
            return reply[9:] if reply.startswith(b"\0ND\1") and len(reply) > 8 else reply
        case list():
            return [bare(each) for each in reply]
        case dict():
            return {key: bare(value) for key, value in reply.items()}
    return reply


@given(st.lists(replies, max_size=5), st.sampled_from([2, 3]), st.lists(st.integers(0, 500), max_size=8))
def test_replies_are_cut_apart_however_they_arrive(said: list[Reply], version: int, places: list[int]) -> None:
    data = b"".join(encode(reply, version) for reply in said)
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    raw = RawReplies()
    found: list[bytes] = []
    for start, end in pairwise(edges):
        found += raw.feed(data[start:end])
    assert found == [encode(bare(reply), version) for reply in said]


@given(st.binary(max_size=50))
def test_what_is_no_reply_raises_its_own_error_alone(data: bytes) -> None:
    with suppress(NotRedis):
        list(RawReplies().feed(data))
