"""A Redis client's session on the embedded store: who it is, in which protocol, and whether it may."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from netd.cache.redis_login import MOST_WRONG
from netd.passwords import hash_password
from tests.cache.redis_client import RedisClient, pack
from tests.netd_process import Netd, running

CONFIG = """
[cache.main]
listen_redis = "127.0.0.1:0"
[cache.users]
listen_redis = "127.0.0.1:0"
users.default.password_hash = "{default}"
users.app.password_hash = "{app}"
"""
NOAUTH = "NOAUTH Authentication required."
WRONGPASS = "WRONGPASS invalid username-password pair or user is disabled."


@pytest.fixture(scope="module")
def netd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    directory: Path = tmp_path_factory.mktemp("netd")
    config = CONFIG.format(default=hash_password("alone"), app=hash_password("secret"))
    with running(directory, config) as netd:
        yield netd


@pytest.fixture
def client(netd: Netd) -> RedisClient:
    return RedisClient(netd.port("cache.main"))


@pytest.fixture
def stranger(netd: Netd) -> RedisClient:
    return RedisClient(netd.port("cache.users"))


SAID = {
    "PING": b"PONG",
    "PING hello": b"hello",
    "ECHO hello": b"hello",
    "SELECT 0": b"OK",
    "SELECT 1": "DB index is out of range",
    "SELECT x": "value is not an integer or out of range",
    "PING a b": "wrong number of arguments for 'ping' command",
    "ECHO": "wrong number of arguments for 'echo' command",
    "CLIENT": "wrong number of arguments for 'client' command",
    "CLIENT FOO": "unknown subcommand 'FOO'. Try CLIENT HELP.",
    "CLIENT GETNAME": None,
    "CLIENT SETINFO LIB-NAME x": b"OK",
    "CLIENT SETINFO FOO x": "Unrecognized option 'FOO'",
    "HELLO 4": "NOPROTO unsupported protocol version",
    "HELLO x": "Protocol version is not an integer or out of range",
    "HELLO 2 FOO": "Syntax error in HELLO option 'FOO'",
    "AUTH secret": "called without any password configured for the default user",
    "AUTH default x": b"OK",
    "AUTH app x": WRONGPASS,
    "AUTH a b c": "syntax error",
    "RESET": b"RESET",
    "QUIT": b"OK",
    "COMMAND GETKEYS MSET a 1 b 2": [b"a", b"b"],
}


@pytest.mark.parametrize("command", SAID)
def test_what_concerns_the_connection_is_answered_in_redis_words(client: RedisClient, command: str) -> None:
    said, expected = client.ask(command), SAID[command]
    if isinstance(expected, str):
        assert expected in str(said)
    else:
        assert said == expected


def test_a_client_has_a_name_a_number_and_a_library(client: RedisClient) -> None:
    number = client.ask("CLIENT ID")
    said = client.ask_all("CLIENT SETNAME me", "CLIENT GETNAME", "CLIENT SETINFO lib-name tests", "CLIENT INFO")
    assert said[:3] == [b"OK", b"me", b"OK"]
    for field in (f"id={number}", "name=me", "lib-name=tests", "cmd=client", "user=default", "resp=2"):
        assert f" {field} " in f" {bytes(said[3]).decode()} "  # type: ignore[call-overload]  # bytes
    assert f"id={number} " in str(client.ask("CLIENT LIST"))
    assert str(client.ask("CLIENT", "LIST", "ID", str(number))).count("id=") == 1
    assert "cannot contain spaces" in str(client.ask("CLIENT", "SETNAME", "a b"))


def test_hello_changes_the_protocol_from_its_own_answer_on(client: RedisClient) -> None:
    client.send(pack("GET", "a") + pack("HELLO", 3, "SETNAME", "three") + pack("GET", "a") + pack("CLIENT", "GETNAME"))
    raw = b"".join(client.read_raw(4))
    assert raw.startswith(b"$-1\r\n%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n")
    assert raw.endswith(b"_\r\n$5\r\nthree\r\n")


def test_nothing_is_said_to_who_has_not_logged_in(stranger: RedisClient) -> None:
    said = stranger.ask_all("GET a", "SET a 1", "PING", "FLUSHALL", "COMMAND", "CLIENT LIST", "MGET a b")
    assert [str(each) for each in said] == [NOAUTH] * 7
    assert "NOAUTH HELLO must be called" in str(stranger.ask("HELLO 3"))


@pytest.mark.parametrize(
    ("login", "works"),
    [
        ("AUTH alone", True),
        ("AUTH default alone", True),
        ("AUTH app secret", True),
        ("HELLO 3 AUTH app secret", True),
        ("AUTH secret", False),
        ("AUTH app alone", False),
        ("AUTH nobody secret", False),
        ("HELLO 2 AUTH app wrong", False),
    ],
)
def test_a_password_lets_its_user_in(stranger: RedisClient, login: str, works: bool) -> None:
    said = stranger.ask(login)
    if works:
        assert not isinstance(said, Exception)
        assert stranger.ask("SET a 1") == b"OK"
        assert ("user=app" in str(stranger.ask("CLIENT INFO"))) == ("app" in login)
    else:
        assert str(said) == WRONGPASS
        assert str(stranger.ask("GET a")) == NOAUTH


def test_what_is_sent_behind_a_login_waits_for_its_outcome(stranger: RedisClient) -> None:
    said = stranger.ask_all("GET a", "AUTH app wrong", "GET a", "AUTH app secret", "SET a 5", "GET a", "RESET", "GET a")
    assert [str(each) for each in said[:3]] == [NOAUTH, WRONGPASS, NOAUTH]
    assert said[3:7] == [b"OK", b"OK", b"5", b"RESET"]
    assert str(said[7]) == NOAUTH


def test_others_are_served_while_passwords_are_checked(netd: Netd, client: RedisClient) -> None:
    strangers = [RedisClient(netd.port("cache.users")) for _ in range(20)]
    for stranger in strangers:
        stranger.send(pack("AUTH", "app", "wrong") * 5)
    assert client.ask("PING") == b"PONG"
    assert all(str(stranger.read()) == WRONGPASS for stranger in strangers for _ in range(5))


def test_a_client_that_guesses_is_closed(stranger: RedisClient) -> None:
    stranger.send(pack("AUTH", "app", "wrong") * (MOST_WRONG + 3) + pack("AUTH", "app", "secret") + pack("SET", "a", 1))
    said = [str(stranger.read()) for _ in range(MOST_WRONG)]
    assert said == [WRONGPASS] * MOST_WRONG
    rest: list[str] = []
    with contextlib.suppress(EOFError):
        rest.extend(iter(lambda: str(stranger.read()), None))
    assert set(rest) <= {NOAUTH}


def test_a_password_that_is_right_makes_up_for_wrong_ones(stranger: RedisClient) -> None:
    wrong = ["AUTH app wrong"] * (MOST_WRONG - 1)
    said = stranger.ask_all(*wrong, "AUTH app secret", *wrong, "PING")
    assert said[MOST_WRONG - 1] == b"OK"
    assert said[-1] == b"PONG"


def test_the_limits_for_strangers_end_with_the_login(stranger: RedisClient) -> None:
    assert str(stranger.ask("AUTH app secret")) == "b'OK'"
    assert stranger.ask("SET", "a", "x" * 100_000) == b"OK"
    stranger.ask("RESET")
    assert "unauthenticated bulk length" in str(stranger.ask("SET", "a", "x" * 100_000))


def test_info_and_command_describe_the_store(client: RedisClient) -> None:
    client.ask_all("FLUSHALL", "SET a 1 EX 100")
    info = str(client.ask("INFO"))
    for field in ("redis_version:7.0", "maxmemory_policy:allkeys-lru", "db0:keys=1,expires=1", "role:master"):
        assert field in info
    assert "used_memory" not in str(client.ask("INFO server"))
    [described, nothing] = client.ask("COMMAND INFO get nothing")  # type: ignore[misc]  # a list
    assert described[:2] == [b"get", 2]  # type: ignore[has-type]
    assert nothing is None  # type: ignore[has-type]
    assert client.ask("COMMAND COUNT") == len(client.ask("COMMAND"))  # type: ignore[arg-type]  # a list


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works(netd: Netd, protocol: int) -> None:
    client = redis_py.Redis(port=netd.port("cache.main"), protocol=protocol, decode_responses=True, client_name="me")
    assert client.set("a", "1", ex=100, get=False)
    assert client.mget("a", "nothing") == ["1", None]
    assert client.incrbyfloat("a", 1.5) == 2.5
    assert client.getex("a", ex=10) == "2.5"
    assert client.ttl("a") == 10
    assert list(client.scan_iter("a*")) == ["a"]
    assert client.client_getname() == "me"
    with client.pipeline(transaction=False) as pipeline:
        for number in range(500):
            pipeline.set(f"k{number}", number)
        assert pipeline.execute() == [True] * 500
    with pytest.raises(redis_py.ResponseError, match="unknown command 'LPUSH'"):
        client.lpush("l", "x")
    client.close()


def test_redis_py_logs_in(netd: Netd) -> None:
    client = redis_py.Redis(port=netd.port("cache.users"), username="app", password="secret")
    assert client.ping()
    client.close()
    with pytest.raises(redis_py.AuthenticationError):
        redis_py.Redis(port=netd.port("cache.users"), username="app", password="wrong").ping()
