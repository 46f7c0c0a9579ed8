"""A subscribe port as its clients see it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.interfaces import IHalfCloseableProtocol

from netd.bridge.embedded import EmbeddedBroker
from tests.bridge.served import Served
from tests.fakes import Client

Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    made: list[Served] = []

    def start(subscribe: str = "", **options: str) -> Served:
        made.append(Served(tmp_path, subscribe=subscribe, **options))
        return made[-1]

    yield start
    for served in made:
        served.stop()


def publish(served: Served, *bodies: bytes) -> None:
    client = served.publisher()
    client.send(b"".join(body + b"\n" for body in bodies))
    served.settle(0.01)
    served.settle(0.01)


def said(client: Client) -> bytes:
    value = client.value()
    client.clear()
    return bytes(value)


def left(served: Served) -> int:
    broker = served.service.broker
    assert isinstance(broker, EmbeddedBroker)
    queue = broker.queue(b"hello")
    assert queue is not None
    return queue.length


def test_a_message_is_a_line(serve: Serve) -> None:
    served = serve()
    publish(served, b"a", b"b\\")
    assert said(served.subscriber()) == b"a\nb\\\n"


def test_a_message_is_done_with_when_the_clients_kernel_has_its_last_byte(serve: Serve) -> None:
    served = serve()
    publish(served, b"aa", b"bb", b"cc")
    client = served.subscriber()
    assert said(client) == b"aa\nbb\ncc\n"
    served.taken = lambda: 5
    served.turn(0.25)
    assert left(served) == 2
    served.taken = lambda: 9
    served.turn(0.01)
    assert left(served) == 0


def test_what_a_cut_clients_kernel_did_not_take_goes_to_the_next(serve: Serve) -> None:
    served = serve()
    publish(served, b"aa", b"bb")
    client = served.subscriber()
    served.taken = lambda: 3
    served.turn(0.25)
    client.leave()
    served.taken = lambda: 0
    assert said(served.subscriber()) == b"bb\n"


def test_a_clients_half_close_does_not_end_delivery(serve: Serve) -> None:
    served = serve()
    client = served.subscriber()
    assert IHalfCloseableProtocol.providedBy(client.protocol)
    client.protocol.readConnectionLost()
    publish(served, b"a")
    assert said(client) == b"a\n"
    assert not client.gone


def test_a_client_that_takes_nothing_for_ack_timeout_loses_its_messages_to_another(serve: Serve) -> None:
    served = serve('ack_timeout = "5s"\nprefetch = 2')
    publish(served, b"a", b"b", b"c")
    stuck = served.subscriber()
    for _ in range(40):
        served.turn(0.25)
    assert stuck.gone
    assert said(served.subscriber()) == b"a\nb\n"


def test_prefetch_bounds_what_a_client_may_have(serve: Serve) -> None:
    served = serve("prefetch = 2")
    publish(served, b"a", b"b", b"c")
    client = served.subscriber()
    assert said(client) == b"a\nb\n"
    served.taken = lambda: 2
    served.settle(0.002)
    served.settle(0.01)
    assert said(client) == b"c\n"


def test_clients_compete(serve: Serve) -> None:
    served = serve()
    one, two = served.subscriber(), served.subscriber()
    publish(served, *[b"%d" % number for number in range(10)])
    first, second = said(one).split(), said(two).split()
    assert len(first) == len(second) == 5
    assert sorted(first + second) == [b"%d" % number for number in range(10)]


CLIENT = 'ack = "client"'


def test_a_client_that_answers_sees_ids_and_deliveries(serve: Serve) -> None:
    served = serve(CLIENT)
    publish(served, b"a", b"b", b"c", b"d")
    client = served.subscriber()
    assert said(client) == b"1\t1\ta\n2\t1\tb\n3\t1\tc\n4\t1\td\n"
    client.send(b"ACK 2\r\nNACK 3\n")
    served.settle()
    assert said(client) == b"5\t2\tc\n"
    client.send(b"ACK *4\n")
    served.settle()
    assert left(served) == 1
    client.send(b"ACK 5\n")
    assert left(served) == 0


def test_what_a_client_may_not_say_is_answered_and_harms_nothing(serve: Serve) -> None:
    served = serve(CLIENT)
    publish(served, b"a")
    client = served.subscriber()
    assert client.send(b"ACK 9\nHELLO\n\nACK 1\nACK 1\n" + b"x" * 1000 + b"\n").splitlines() == [
        b"-ERR 1 ID no such message is yours now: it was answered, or has gone back to the queue",
        b"-ERR 2 COMMAND expected ACK id, ACK *id or NACK id",
        b"-ERR 5 ID no such message is yours now: it was answered, or has gone back to the queue",
        b"-ERR 6 TOOLONG longer than 64 bytes",
    ]
    assert left(served) == 0


def test_a_silent_client_gives_its_messages_back_and_stays(serve: Serve) -> None:
    served = serve(f'{CLIENT}\nack_timeout = "5s"')
    publish(served, b"a")
    silent = served.subscriber()
    assert said(silent) == b"1\t1\ta\n"
    other = served.subscriber()
    served.turn(4.5)
    assert said(other) == b""
    served.turn(0.5)
    served.turn()
    assert said(other) + said(silent) in {b"1\t2\ta\n", b"2\t2\ta\n"}
    assert not silent.gone


def test_messages_of_a_client_that_leaves_go_to_the_next(serve: Serve) -> None:
    served = serve(CLIENT)
    publish(served, b"a", b"b")
    client = served.subscriber()
    client.send(b"ACK 1\n")
    client.leave()
    assert said(served.subscriber()) == b"1\t2\tb\n"


@pytest.mark.parametrize("path", [b"/", b"/" + b"x" * 100])
def test_a_browser_that_is_made_to_answer_takes_nothing(serve: Serve, path: bytes) -> None:
    """A web page can post what it likes to any port of its visitor's machine."""
    served = serve('ack = "client"')
    publish(served, b"a")
    client = served.subscriber()
    assert said(client).endswith(b"\ta\n")
    assert client.send(b"POST %b HTTP/1.1\r\nHost: localhost\r\n\r\nACK *9\nACK 1\n" % path).startswith(b"-ERR 1 HTTP")
    assert client.gone
    served.settle(1)
    assert left(served) == 1


def test_a_browser_is_sent_no_more_once_it_has_asked(serve: Serve) -> None:
    served = serve()
    client = served.subscriber()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert client.gone
    publish(served, b"a")
    assert left(served) == 1
