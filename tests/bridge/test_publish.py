"""A publish port as its clients see it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer

from netd.bridge.spoolfile import DeadLetter, SpoolFile
from tests.bridge.served import Served
from tests.fakes import Client

Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    made: list[Served] = []

    def start(publish: str = "", **options: str) -> Served:
        made.append(Served(tmp_path, publish=publish, **options))
        return made[-1]

    yield start
    for served in made:
        served.stop()


def dead(served: Served) -> list[DeadLetter]:
    served.settle(1)
    found: list[DeadLetter] = []
    served.service.spool.read(SpoolFile.dead).addCallback(found.extend)
    served.settle()
    return found


def half_close(client: Client) -> None:
    assert IHalfCloseableProtocol.providedBy(client.protocol)
    client.protocol.readConnectionLost()


def producer(client: Client) -> IPushProducer:
    """What a transport tells that the client does not read, or reads again."""
    assert client.producer is not None
    return cast("IPushProducer", client.producer)


def said(client: Client) -> bytes:
    value = client.value()
    client.clear()
    return bytes(value)


def test_a_line_is_answered_once_it_is_on_disk(serve: Serve) -> None:
    served = serve()
    client = served.publisher()
    assert client.send(b"hi\n") == b""
    served.turn()
    assert said(client) == b""
    served.settle()
    assert said(client) == b"+OK 1\n"


def test_lines_of_one_read_have_one_reply_and_bad_ones_their_own_before_it(serve: Serve) -> None:
    served = serve("max_line = 5")
    client = served.publisher()
    client.send(b"a\ntoo long\nb\n")
    served.settle()
    assert said(client) == b"-ERR 2 TOOLONG longer than 5 bytes\n+OK 3\n"


def test_empty_lines_alone_are_answered_too(serve: Serve) -> None:
    client = serve().publisher()
    assert client.send(b"\n\r\n") == b"+OK 2\n"


def test_after_a_half_close_the_tail_is_published_and_the_last_reply_precedes_the_close(serve: Serve) -> None:
    served = serve()
    client = served.publisher()
    client.send(b"a\nb")
    half_close(client)
    assert not client.disconnecting
    served.settle()
    assert said(client) == b"+OK 1\n+OK 2\n"
    assert client.gone


def test_the_tail_goes_to_the_dead_letters_where_that_is_asked_for(serve: Serve) -> None:
    served = serve('tail = "dead"')
    client = served.publisher()
    client.send(b"a\nb")
    half_close(client)
    served.settle()
    assert said(client) == b"+OK 1\n"
    assert client.gone
    assert [(letter.body, letter.reason) for letter in dead(served)] == [(b"b", "the last line has no LF")]


def test_the_tail_of_a_connection_that_was_cut_is_never_published(serve: Serve) -> None:
    served = serve()
    client = served.publisher()
    client.send(b"a\nhalf a li")
    client.leave(ConnectionLost())
    served.settle()
    (letter,) = dead(served)
    assert letter.body == b"half a li"
    assert letter.reason.startswith("cut off")
    subscriber = served.subscriber()
    assert said(subscriber) == b"a\n"


def test_a_client_that_wants_no_replies_gets_none_and_is_closed_once_all_is_on_disk(serve: Serve) -> None:
    served = serve('reply = "off"\nmax_line = 3')
    client = served.publisher()
    client.send(b"a\nlong\nb\n")
    half_close(client)
    assert not client.gone
    served.settle()
    assert said(client) == b""
    assert client.gone


def test_a_client_that_never_reads_is_told_the_newest_once_it_does(serve: Serve) -> None:
    served = serve()
    client = served.publisher()
    producer(client).pauseProducing()
    for number in range(50):
        client.send(b"%d\n" % number)
        served.settle()
    assert said(client) == b""
    assert client.producerState == "producing"
    producer(client).resumeProducing()
    assert said(client) == b"+OK 50\n"


def test_a_client_that_never_reads_and_sends_nothing_but_errors_is_read_no_further(serve: Serve) -> None:
    served = serve("max_line = 1")
    client = served.publisher()
    producer(client).pauseProducing()
    for _ in range(50):
        client.send(b"xx\n" * 100)
    assert client.producerState == "paused"
    producer(client).resumeProducing()
    assert client.producerState == "producing"
    assert client.value().count(b"-ERR") == 5000


def test_who_sends_more_than_the_disk_takes_pauses_and_goes_on(serve: Serve) -> None:
    served = serve('max_line = "8MiB"')
    greedy, idle = served.publisher(), served.publisher()
    greedy.send(b"x" * (8 << 20) + b"\n" + b"y\n")
    assert greedy.producerState == "paused"
    assert idle.producerState == "producing"
    idle.send(b"z" * (8 << 20) + b"\n")
    assert idle.producerState == "paused"
    served.settle()
    assert (greedy.producerState, idle.producerState) == ("producing", "producing")
    assert said(greedy) == b"+OK 2\n"


def test_a_spool_that_cannot_be_written_says_wait_and_then_go(serve: Serve) -> None:
    served = serve()
    client = served.publisher()
    client.send(b"a\n")
    served.turn()
    served.thread.run("after")
    assert said(client).startswith(b"*WAIT the spool cannot be written: disk I/O error")
    assert client.producerState == "paused"
    assert "cannot be written" in served.service.health()
    late = served.publisher()
    assert said(late).startswith(b"*WAIT")
    assert late.producerState == "paused"
    served.settle(1)
    assert said(client) == b"+OK 1\n*GO\n"
    assert said(late) == b"*GO\n"
    assert client.producerState == "producing"


def test_confirmed_means_that_the_queue_has_it(serve: Serve) -> None:
    served = serve('reply = "confirmed"\nframing = "key-tab"')
    client = served.publisher()
    client.send(b"hello\tgood\nnowhere\tbad\n")
    served.turn()
    served.thread.run()
    assert said(client) == b""
    served.settle(1)
    assert said(client) == b"-ERR 2 DEAD 312 NO_ROUTE\n+OK 2\n"
    assert [letter.body for letter in dead(served)] == [b"bad"]


def test_a_key_that_no_queue_has_is_a_dead_letter_with_its_reason(serve: Serve) -> None:
    served = serve('framing = "key-tab"')
    client = served.publisher()
    client.send(b"nowhere\tbad\n")
    served.settle()
    assert said(client) == b"+OK 1\n"
    (letter,) = dead(served)
    assert (letter.key, letter.body, letter.reason) == (b"nowhere", b"bad", "312 NO_ROUTE")
    assert served.service.stats()["dead_letters"] == 1


def test_the_client_is_named_in_a_header_where_that_is_asked_for(serve: Serve) -> None:
    served = serve("peer_header = true", subscribe='framing = "json"')
    served.publisher().send(b"a\n")
    served.settle()
    assert b'"x-netd-peer":"127.0.0.1:40000"' in said(served.subscriber())


def test_a_second_daemon_does_not_start_on_the_same_spool(serve: Serve) -> None:
    serve()
    with pytest.raises(Exception, match="in use by another process"):
        serve()


def test_a_backlog_under_an_old_configuration_is_still_delivered_there(serve: Serve, tmp_path: Path) -> None:
    served = serve()
    served.service.lanes[0].pause()
    served.publisher().send(b"old\n")
    served.settle()
    served.stop()
    changed = Served(tmp_path, publish='content_type = "text/plain"')
    changed.publisher().send(b"new\n")
    changed.settle(1)
    changed.settle(1)
    assert changed.service.stats()["backlog"] == 0
    assert sorted(said(changed.subscriber()).split()) == [b"new", b"old"]
    changed.stop()


REQUEST = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:5680\r\n\r\n"


@pytest.mark.parametrize("framing", ["raw", "key-tab", "json"])
@pytest.mark.parametrize("pieces", [[REQUEST + b'evil\nhello\tevil\n{"body": "evil"}\nhalf'], [REQUEST, b"evil\n"]])
def test_a_browser_that_is_made_to_post_publishes_nothing(serve: Serve, framing: str, pieces: list[bytes]) -> None:
    """A web page can post what it likes to any port of its visitor's machine."""
    served = serve(f'framing = "{framing}"')
    client = served.publisher()
    said = b"".join(client.send(piece) for piece in pieces)
    served.settle(1)
    assert said.startswith(b"-ERR 1 HTTP ")
    assert client.gone
    assert dead(served) == []
    assert served.service.stats()["accepted"] == 0


def test_a_request_line_that_is_not_the_first_is_a_line_like_others(serve: Serve) -> None:
    served = serve()
    client = served.publisher()
    client.send(b"my log\nGET / HTTP/1.1\n")
    served.settle()
    assert said(client) == b"+OK 2\n"
