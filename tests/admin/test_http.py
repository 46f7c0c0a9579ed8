"""HTTP as its clients meet it: what is shown, to whom, and what becomes of clients that ask too much or too slowly."""

import json

import pytest

from netd.admin.http import KEEPALIVE_TIMEOUT, LARGEST_BODY, MOST_WAITING, REQUEST_TIMEOUT, STALL_TIMEOUT
from netd.turns import BUDGET
from tests.admin.door import Door, dechunk, parse, post
from tests.fakes import result_of

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def door() -> Door:
    return Door()


def seconds(door: Door, count: float) -> None:
    door.network.pump([1.0] * int(count))


# --- what is shown


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/status", "/metrics", "/livez", "/readyz"])
def test_each_page_is_there_and_safe_to_show(door: Door, path: str) -> None:
    answer = door.get(path)
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_a_head_request_gets_no_body(door: Door) -> None:
    whole, head = door.get("/livez"), door.get("/livez", method="HEAD")
    assert head.body == b""
    assert head.headers["content-length"] == whole.headers["content-length"]


def test_a_browser_that_has_a_file_is_not_sent_it_again(door: Door) -> None:
    first = door.get("/page.js")
    again = door.get("/page.js", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")


def test_status_is_versioned_and_tells_of_each_service(door: Door) -> None:
    document = door.get("/status").document
    assert document["version"] == 1
    assert [each["name"] for each in document["services"]] == ["echo.plain", "echo.upper", "admin"]
    assert document["ready"] is True


def test_what_is_not_there_is_not_there(door: Door) -> None:
    assert door.get("/nosuch").status == 404
    assert door.get("/vendor/../config.py").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
def test_nothing_can_be_changed_over_tcp(door: Door, method: str) -> None:
    answer = door.get("/status", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_verbs_are_not_to_be_had_over_tcp(door: Door) -> None:
    assert door.get("/run", method="POST").status == 403
    assert door.get("/complete", method="POST").status == 403


# --- readiness


def test_ready_while_every_service_is_up(door: Door) -> None:
    answer = door.get("/readyz")
    assert (answer.status, answer.body) == (200, b"ready\necho.plain: up\necho.upper: up\nadmin: up\n")


def test_not_ready_with_the_reason(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door.runtime.services[0], "health", lambda: "its backend does not answer")
    answer = door.get("/readyz")
    assert answer.status == 503
    assert answer.body.splitlines()[:2] == [b"not ready: 1 of 3 services", b"echo.plain: its backend does not answer"]
    assert door.get("/livez").status == 200


def test_not_ready_once_a_service_has_stopped(door: Door) -> None:
    door.runtime.services[1].stopService()
    assert b"echo.upper: not running" in door.get("/readyz").body


# --- who may ask


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9180", "127.0.0.1", "[::1]:9180", "localhost:9180", "LOCALHOST", "netd.example.org:80"]
)
def test_addresses_and_names_of_this_host_are_answered(door: Door, host: str) -> None:
    assert door.get("/livez", Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:9180", "localhost.evil.example", "", "a b"])
def test_a_name_that_is_made_to_mean_this_host_is_not(door: Door, host: str) -> None:
    answer = door.get("/status", Host=host)
    assert answer.status == 421
    assert b"admin.hosts" in answer.body


def test_two_hosts_are_none(door: Door) -> None:
    raw = door.client().send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert parse(raw).status == 421


def test_a_host_that_is_no_text_is_another(door: Door) -> None:
    assert parse(door.client().send(b"GET /livez HTTP/1.1\r\nHost: \xbf\r\n\r\n")).status == 421


def test_headers_that_are_no_text_are_as_good_as_none(door: Door) -> None:
    for name in (b"If-None-Match", b"Accept"):
        for path in (b"/", b"/metrics"):
            raw = door.client().send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b: \xbf\r\n\r\n" % (path, name))
            assert parse(raw).status == 200


def test_a_load_balancer_may_ask_without_a_name(door: Door) -> None:
    assert parse(door.client().send(b"GET /readyz HTTP/1.0\r\n\r\n")).status == 200


# --- limits


def test_a_client_may_ask_again_on_the_same_connection(door: Door) -> None:
    client = door.client()
    assert parse(client.send(GET)).status == 200
    assert parse(client.send(GET)).status == 200
    assert not client.gone


def test_a_body_that_is_too_large_is_refused_before_it_has_come(door: Door) -> None:
    client = door.trusted()
    head = f"POST /run HTTP/1.1\r\nContent-Length: {LARGEST_BODY + 1}\r\n\r\n".encode()
    assert parse(client.send(head)).status == 413
    assert client.gone


def test_a_body_in_chunks_is_refused_once_it_is_too_large(door: Door) -> None:
    client = door.trusted()
    client.send(b"POST /run HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    answers = b"".join(client.send(chunk) for _ in range(5) if not client.gone)
    assert parse(answers).status == 413
    assert client.gone


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nX: " + b"x" * 17_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"X%d: x\r\n" % each for each in range(200)) + b"\r\n",
        b"GET /" + b"x" * 20_000,
        b"nonsense\r\n\r\n",
    ],
    ids=["a long header", "many headers", "a long line", "nonsense"],
)
def test_what_is_no_sensible_request_ends_the_connection(door: Door, head: bytes) -> None:
    client = door.client()
    client.send(head)
    assert client.gone


def test_a_byte_now_and_then_does_not_keep_a_request_open(door: Door) -> None:
    client = door.client()
    for byte in GET[: int(REQUEST_TIMEOUT) + 2]:
        if not client.gone:
            client.send(bytes([byte]))
        seconds(door, 1)
    assert client.gone


def test_a_client_that_says_nothing_is_cut(door: Door) -> None:
    client = door.client()
    seconds(door, REQUEST_TIMEOUT - 2)
    assert not client.gone
    seconds(door, 3)
    assert client.gone


def test_a_client_may_wait_between_two_requests_but_not_for_ever(door: Door) -> None:
    client = door.client()
    client.send(GET)
    seconds(door, KEEPALIVE_TIMEOUT - 2)
    assert parse(client.send(GET)).status == 200
    seconds(door, KEEPALIVE_TIMEOUT + 2)
    assert client.gone


def test_a_client_that_does_not_read_is_cut(door: Door) -> None:
    client = door.client()
    client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.producer is not None
    client.producer.pauseProducing()
    seconds(door, STALL_TIMEOUT + 2)
    assert client.gone


def test_requests_that_come_all_at_once_take_turns_with_everybody_else(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read full of GET /metrics once kept the reactor for twenty seconds, twice what the watchdog waits."""

    def slow() -> str:
        door.network.rightNow += 2 * BUDGET
        return ""

    monkeypatch.setattr(door.runtime.services[0], "health", slow)
    client, other = door.client(), door.client()
    ask = GET.replace(b"livez", b"readyz")
    assert client.send(5 * ask).count(b"HTTP/1.1 200") == 1
    assert other.send(ask) == b""
    client.clear()
    door.network.pump([0])
    assert client.value().count(b"HTTP/1.1 200") == 4
    assert other.value().count(b"HTTP/1.1 200") == 1


def test_requests_that_come_all_at_once_are_answered_in_order(door: Door) -> None:
    client = door.trusted()
    verb = post("/run", {"words": ["stats", "--over", "5s", "--json"]}).replace(b"HTTP/1.0", b"HTTP/1.1")
    asked = GET + verb + GET.replace(b"livez", b"nosuch") + GET
    client.send(asked)
    assert client.value().count(b"HTTP/1.1") == 2
    seconds(door, 6)
    statuses = [line.split()[1] for line in client.value().splitlines() if line.startswith(b"HTTP/1.1")]
    assert statuses == [b"200", b"200", b"404", b"200"]
    assert door.admin.listeners[0].bytes_total()[0] == len(asked)


def test_a_client_that_asks_faster_than_it_is_answered_is_not_read(door: Door) -> None:
    client = door.trusted()
    client.send(post("/run", {"words": ["stats", "--over", "5s"]}).replace(b"HTTP/1.0", b"HTTP/1.1"))
    client.send(GET * (MOST_WAITING // len(GET)))
    assert client.producerState == "producing"
    client.send(2 * GET)
    assert client.producerState == "paused"
    seconds(door, 6)
    assert client.producerState == "producing"
    assert client.value().count(b"HTTP/1.1 200") == MOST_WAITING // len(GET) + 2


def test_bytes_are_counted(door: Door) -> None:
    answer = door.client().send(GET)
    assert door.admin.listeners[1].bytes_total() == (len(GET), len(answer))


# --- events


def test_events_tell_the_status_once_a_second(door: Door) -> None:
    client = door.client()
    first = parse(client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert first.headers["content-type"] == "text/event-stream"
    assert [line for line in first.body.decode().splitlines() if not line.startswith("data")] == [
        "retry: 2000", "", "event: hello", "", "event: status", "",
    ]  # fmt: skip
    client.clear()
    seconds(door, 3)
    events = dechunk(client.value()).decode().split("\n\n")
    documents = [json.loads(each.partition("data: ")[2]) for each in events if each]
    assert [round(document["clock"]) for document in documents] == [1, 2, 3]
    assert documents[0]["sample"][1]["echo.plain"]["connections"] == 0


def test_who_comes_later_is_told_what_was_before(door: Door) -> None:
    seconds(door, 5)
    hello = door.get("/events").body.decode().split("\n\n")[1].partition("data: ")[2]
    history = json.loads(hello)["history"]
    assert history["clock"] == [0, 1, 2, 3, 4, 5]
    assert history["figures"]["echo.plain"]["connections"] == [0] * 6


def test_a_page_that_does_not_read_is_sent_no_more(door: Door) -> None:
    client = door.client()
    client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.producer is not None
    client.producer.pauseProducing()
    client.clear()
    seconds(door, 5)
    assert client.value() == b""
    client.producer.resumeProducing()
    seconds(door, 1)
    assert client.value().count(b"event: status") == 1


def test_pages_are_greeted_anew_when_there_are_other_services(door: Door) -> None:
    seconds(door, 1)
    client = door.client()
    client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    client.clear()
    seconds(door, 2)
    assert client.value().count(b"event: hello") == 0
    door.runtime.services = door.runtime.services[1:]
    client.clear()
    seconds(door, 2)
    assert client.value().count(b"event: hello") == 1
    assert b'"charts":{"echo.upper":' in client.value()


def test_pages_that_are_gone_are_forgotten(door: Door) -> None:
    client = door.client()
    client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert door.admin.stats()["watchers"] == 1
    client.leave()
    assert door.admin.stats()["watchers"] == 0
    seconds(door, 2)


def test_history_is_bounded(door: Door) -> None:
    seconds(door, 700)
    hello = door.get("/events").body.decode().split("\n\n")[1].partition("data: ")[2]
    assert len(json.loads(hello)["history"]["clock"]) == 600


# --- verbs


def lines(raw: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in parse(raw).body.splitlines()]


def test_a_verb_runs_and_its_exit_status_comes_last(door: Door) -> None:
    client, raw = door.run("whoami")
    assert lines(raw) == [
        {"out": "admin (admin) from unix by netdctl, connection 1\n"},
        {"exit": 0},
    ]
    assert client.gone


def test_what_a_verb_complains_about_is_told_apart(door: Door) -> None:
    _, raw = door.run("close", "99", "--yes")
    assert lines(raw) == [{"err": "close: no connection 99: nothing was closed\n"}, {"exit": 1}]


def test_a_verb_that_takes_its_time_ends_when_its_client_goes(door: Door) -> None:
    waiting = len(door.network.getDelayedCalls())
    client, raw = door.run("stats", "--over", "5s")
    assert lines(raw) == []
    assert len(door.network.getDelayedCalls()) > waiting
    client.leave()
    door.network.pump([0])
    assert len(door.network.getDelayedCalls()) == waiting


def test_a_verb_that_takes_its_time_answers_in_the_end(door: Door) -> None:
    client, _ = door.run("stats", "--over", "5s", "--json")
    client.clear()
    seconds(door, 6)
    out, end = [json.loads(line) for line in client.value().splitlines()]
    assert json.loads(out["out"])["seconds"] == 5
    assert end == {"exit": 0}


def test_the_width_and_colours_of_the_terminal_are_obeyed(door: Door) -> None:
    _, raw = door.run("status", width=40, colour=True)
    text = str(lines(raw)[0]["out"])
    assert "\x1b[" in text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"words": []}',
        b'{"words": "status"}',
        b'{"words": ["status"], "width": -1}',
        b"[" * 60_000,
        b'{"words": ["x"], "colour": 1}',
    ],
)
def test_what_is_no_verb_is_refused_with_a_sentence(door: Door, body: bytes) -> None:
    raw = door.trusted().send(b"POST /run HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answer = parse(raw)
    assert answer.status == 400
    assert answer.body.endswith(b"\n")


def test_verbs_complete(door: Door) -> None:
    raw = door.trusted().send(post("/complete", {"words": ["stats", "echo."]}))
    assert parse(raw).document == {"words": ["echo.plain", "echo.upper"]}


def test_who_reads_the_socket_may_also_look(door: Door) -> None:
    assert parse(door.trusted().send(b"GET /readyz HTTP/1.0\r\n\r\n")).status == 200


# --- the end


def test_a_drain_leaves_it_open_and_a_stop_does_not(door: Door) -> None:
    client = door.client()
    client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    result_of(door.admin.drain())
    assert door.get("/livez").status == 200
    stopped = door.admin.stopService()
    door.network.pump([0, 0])
    assert client.gone
    assert stopped.called


def test_a_service_that_fails_to_say_how_it_does_keeps_no_slow_client_connected(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, float]:
        raise ZeroDivisionError

    monkeypatch.setattr(door.runtime.services[0], "stats", broken)
    client = door.client()
    seconds(door, REQUEST_TIMEOUT + 2)
    assert client.gone
