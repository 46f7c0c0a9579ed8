"""The operator's verbs on a cache."""

from collections.abc import Iterator

import pytest

from netd.console.command import NOT_PERMITTED, Caller, Role
from tests.console.desk import EVE, Desk
from tests.fakes import Client, result_of

CACHE = '[cache.main]\nlisten_memcached = "127.0.0.1:11211"\nlisten_redis = "127.0.0.1:6380"\n'
OPERATOR = Caller("op", Role.OPERATOR, "192.0.2.3:4711", "ssh")


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk(config=CACHE)
    yield desk
    for service in desk.runtime.services:
        result_of(service.stopService())


@pytest.fixture
def client(desk: Desk) -> Client:
    return desk.network.client()


def test_status_shows_how_the_cache_does(desk: Desk, client: Client) -> None:
    client.send(b"set a 0 0 1\r\n1\r\nget a\r\nget a\r\nget b\r\nget a\r\n")
    shown = desk.run("cache status")
    assert ["store", "embedded"] in shown.rows
    assert ["items", "1"] in shown.rows
    assert ["gets", "4,", "75.0", "%", "found"] in shown.rows
    document = desk.run("cache status --json").document
    assert (document["service"], document["figures"]["get_misses"]) == ("cache.main", 1)


def test_get_shows_a_value_and_does_not_count_as_an_access(desk: Desk, client: Client) -> None:
    client.send(b"set user:7 5 100 5\r\nhello\r\n")
    assert desk.run("cache get user:7").text == "5 B, flags 5, 1 m 40 s\nhello\n"
    document = desk.run("cache get user:7 --json").document
    assert (document["value"], document["flags"], document["ttl_seconds"]) == ("hello", 5, 100)
    assert client.send(b"mg user:7 h\r\n") == b"HD h0\r\n"


def test_a_value_that_is_no_text_can_move_no_cursor(desk: Desk, client: Client) -> None:
    client.send(b"set a 0 0 5\r\n\x1b[2J\xff\r\n")
    assert "\x1b" not in desk.run("cache get a").text
    assert desk.run("cache get a --json").document["value_base64"] == "G1sySv8="


def test_a_key_that_is_not_there_is_told(desk: Desk) -> None:
    for verb in ("get", "ttl", "delete"):
        shown = desk.run(f"cache {verb} nope")
        assert (shown.status, shown.errors) == (1, f"cache {verb}: no key nope\n")


def test_set_writes_what_clients_of_both_dialects_read(desk: Desk, client: Client) -> None:
    assert desk.run("cache set motd back at noon --ttl 2h", OPERATOR).text == "stored 12 B under motd\n"
    assert client.send(b"mg motd v t\r\n") == b"VA 12 t7200\r\nback at noon\r\n"
    assert desk.network.client(port=1).send(b"GET motd\r\n") == b"$12\r\nback at noon\r\n"


def test_ttl_is_shown_and_changed(desk: Desk, client: Client) -> None:
    client.send(b"set a 0 0 1\r\n1\r\n")
    assert desk.run("cache ttl a").text == "for ever\n"
    assert desk.run("cache ttl a 90s", OPERATOR).text == "1 m 30 s\n"
    assert client.send(b"mg a t\r\n") == b"HD t90\r\n"
    assert desk.run("cache ttl a never", OPERATOR).text == "for ever\n"


def test_delete_says_what_was_there(desk: Desk, client: Client) -> None:
    client.send(b"set a 0 0 1\r\n1\r\n")
    assert desk.run("cache delete a b", OPERATOR).text == "deleted a\nnot there: b\n"


def test_flush_asks_and_forgets(desk: Desk, client: Client) -> None:
    client.send(b"set a 0 0 1\r\n1\r\n")
    assert desk.run("cache flush").status == 1
    assert client.send(b"get a\r\n") != b"END\r\n"
    assert desk.run("cache flush --yes").text == "cache.main is empty\n"
    assert client.send(b"get a\r\n") == b"END\r\n"


def test_the_audit_has_keys_and_no_values(desk: Desk) -> None:
    assert desk.run("cache set --ttl 2h door opens at noon").status == 0
    assert desk.finished == [("ops", "cache set --ttl 2h door … … …", 0)]


def test_flush_obeys_the_configuration() -> None:
    desk = Desk(config=CACHE + "allow_flush = false\n")
    assert (
        desk.run("cache flush --yes").errors
        == "cache flush: the configuration does not allow it: allow_flush is false\n"
    )


@pytest.mark.parametrize("verb", ["set a 1", "delete a", "flush --yes", "ttl a 5s"])
def test_viewers_change_nothing(desk: Desk, client: Client, verb: str) -> None:
    client.send(b"set a 0 0 1\r\n1\r\n")
    assert desk.run(f"cache {verb}", EVE).status == NOT_PERMITTED
    assert client.send(b"mg a v t\r\n") == b"VA 1 t-1\r\n1\r\n"


def test_what_clients_keep_is_not_for_viewers(desk: Desk, client: Client) -> None:
    client.send(b"set a 0 0 6\r\nsecret\r\n")
    refused = desk.run("cache get a", EVE)
    assert (refused.status, refused.text) == (NOT_PERMITTED, "")
    assert "secret" in desk.run("cache get a", OPERATOR).text


def test_operators_do_not_flush(desk: Desk) -> None:
    assert desk.run("cache flush --yes", OPERATOR).status == NOT_PERMITTED


def test_top_shows_what_is_asked_for_most_of_both_dialects(desk: Desk, client: Client) -> None:
    running, output = desk.begin("cache top --over 5s")
    for _ in range(30):
        client.send(b"get hot\r\n")
    desk.network.client(port=1).send(b"INCR warm\r\n")
    client.send(b"set warm 0 0 1\r\n1\r\n")
    desk.network.advance(5)
    assert result_of(running) == 0
    assert [line.split() for line in output.text.splitlines()[1:]] == [
        ["93.8", "%", "30", "hot"],
        ["6.2", "%", "2", "warm"],
        ["32", "requests", "looked", "at"],
    ]
    client.send(b"get cold\r\n")


def test_of_several_caches_one_must_be_named() -> None:
    desk = Desk(config=CACHE + '[cache.other]\nlisten_memcached = "127.0.0.1:11212"\n')
    shown = desk.run("cache status")
    assert (shown.status, shown.errors) == (1, "cache status: which cache? --service cache.main | cache.other\n")
    assert desk.run("cache status --service other --json").document["service"] == "cache.other"
