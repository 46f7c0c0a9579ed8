"""What a client's connection promises: replies in order, bounds for who does not read, an end that loses nothing."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from netd.cache.batch import Pairs
from netd.cache.conversation import BATCH, FIRST_BATCH, REQUESTS, TURNS, Conversation
from netd.cache.memcached import MemcachedCodec
from netd.cache.memcached_commands import Facts, MemcachedCommands
from netd.cache.requests import STORED, Problem, Request
from netd.cache.sample import Sample
from tests.fakes import Client, MemoryNetwork, listener_on


class LateStore:
    """A session that answers when the test says so: each key with its own name."""

    def __init__(self) -> None:
        self.late: list[Callable[[], None]] = []
        self.asked = 0
        self.at_once: set[bytes] = set()
        self.closed = 0

    def lookup(self, keys: list[bytes], done: Callable[[Any], None]) -> Any:
        return self.execute(list(keys), done)

    def write(self, pairs: Pairs, done: Callable[[Any], None]) -> Any:
        self.asked += len(pairs)
        self.late.append(lambda: done([STORED] * len(pairs)))

    def execute(self, requests: list[Request], done: Callable[[Sequence[Any]], None]) -> Sequence[Any] | None:
        self.asked += len(requests)
        if all(request in self.at_once for request in requests):
            return requests
        self.late.append(lambda: done(requests))
        return None

    def close(self) -> None:
        self.closed += 1


class House:
    """A listener whose clients talk memcached to a store."""

    def __init__(self, session: Any = None) -> None:
        self.network = MemoryNetwork()
        self.session = session or LateStore()
        commands = MemcachedCommands(1 << 20, cast("Facts", None))
        clock = cast("IReactorTime", self.network)
        build = lambda: Conversation(MemcachedCodec(commands), lambda _: self.session, clock, Sample())  # noqa: E731
        self.listener = listener_on(self.network, '[cache.main]\nlisten_memcached = "127.0.0.1:11211"\n', build)

    def client(self) -> Client:
        return self.network.client()

    def answer_all(self) -> None:
        """Answer whatever is asked, and what is asked thereupon."""
        while self.session.late:
            late, self.session.late = self.session.late, []
            for each in late:
                each()
            self.network.advance(0)


def value(key: bytes) -> bytes:
    return b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(key), key)


def test_replies_come_in_the_order_of_requests_whatever_the_order_of_answers() -> None:
    house = House()
    client = house.client()
    for key in (b"a", b"b", b"c"):
        client.send(b"get %b\r\n" % key)
    first, second, third = house.session.late
    third()
    second()
    assert client.value() == b""
    first()
    assert client.value() == value(b"a") + value(b"b") + value(b"c")


def test_an_answer_at_once_waits_for_those_before_it() -> None:
    house = House()
    house.session.at_once.add(b"near")
    client = house.client()
    assert client.send(b"get near\r\n") == value(b"near")
    client.send(b"get far\r\n")
    assert client.send(b"get near\r\nmn\r\n") == b""
    house.session.late[0]()
    assert client.value() == value(b"far") + value(b"near") + b"MN\r\n"


def test_a_set_and_what_follows_it_are_answered_in_order() -> None:
    house = House()
    client = house.client()
    client.send(b"set a 0 0 1\r\n1\r\n")
    client.send(b"get a\r\n")
    written, read = house.session.late
    read()
    written()
    assert client.value() == b"STORED\r\n" + value(b"a")


def test_pushed_bytes_go_behind_what_is_owed() -> None:
    house = House()
    client = house.client()
    conversation = cast("Conversation", client.protocol)
    conversation.push(b"first")
    client.protocol.dataReceived(b"get a\r\n")
    conversation.push(b"last")
    house.session.late[0]()
    assert client.value() == b"first" + value(b"a") + b"last"


def test_a_client_with_many_batches_under_way_is_not_read_from() -> None:
    house = House()
    client = house.client()
    for number in range(TURNS + 10):
        if client.producerState == "producing":
            client.protocol.dataReceived(b"get %d\r\n" % number)
    assert client.producerState == "paused"
    assert house.session.asked <= TURNS
    house.session.late[0]()
    assert client.producerState == "producing"


def test_a_million_pipelined_requests_of_a_client_that_does_not_read_wait_in_its_own_socket() -> None:
    house = House()
    client = house.client()
    client.protocol.dataReceived(b"get a\r\n" * 30_000)
    asked = house.session.asked
    assert client.producerState == "paused"
    assert asked < 2 * FIRST_BATCH, "nobody knows yet how large the replies are"
    house.answer_all()
    assert client.value() == value(b"a") * 30_000
    assert client.producerState == "producing"


def test_a_full_transport_stops_the_work_and_an_empty_one_resumes_it() -> None:
    house = House()
    house.session.at_once.add(b"a")
    client = house.client()
    conversation = cast("Conversation", client.protocol)
    conversation.pauseProducing()
    assert client.producerState == "paused"
    client.protocol.dataReceived(b"get a\r\n")
    assert client.value() == b""
    conversation.resumeProducing()
    assert client.value() == value(b"a")
    assert client.producerState == "producing"


def test_who_asks_for_many_large_values_behind_small_ones_is_owed_a_batch_or_two_of_them() -> None:
    house = House()
    client = house.client()
    client.protocol.dataReceived(b"get small\r\n" * 3000)
    house.answer_all()
    assert client.value() == value(b"small") * 3000
    house.session.asked = 0
    client.protocol.dataReceived(b"get large\r\n" * 3000)
    assert 0 < house.session.asked < 2 * BATCH


def test_what_is_answered_while_the_client_takes_nothing_is_not_put_before_it() -> None:
    house = House()
    client = house.client()
    conversation = cast("Conversation", client.protocol)
    for key in (b"a", b"b", b"c"):
        client.protocol.dataReceived(b"get %b\r\n" % key)
    conversation.pauseProducing()
    for late in house.session.late:
        late()
    assert client.value() == b""
    conversation.resumeProducing()
    assert client.value() == value(b"a") + value(b"b") + value(b"c")
    assert client.producerState == "producing"


def test_one_client_does_not_keep_the_reactor_from_the_others() -> None:
    house = House()
    house.session.at_once.add(b"a")
    client = house.client()
    client.protocol.dataReceived(b"get a\r\nmn\r\n" * 20_000)
    assert client.value().count(b"MN") < 2 * REQUESTS
    for _ in range(100):
        house.network.advance(0)
    assert client.value() == (value(b"a") + b"MN\r\n") * 20_000


def test_large_values_are_fetched_a_few_at_a_time() -> None:
    class Large(LateStore):
        def execute(self, requests: list[Request], done: Callable[[Sequence[Any]], None]) -> Sequence[Any] | None:
            self.asked = max(self.asked, len(requests))
            self.late.append(lambda: done([b"x" * 500_000] * len(requests)))
            return None

    house = House(Large())
    client = house.client()
    client.protocol.dataReceived(b"get " + b"k " * 64 + b"\r\n")
    house.session.late.pop(0)()
    house.session.asked = 0
    while house.session.late:
        house.session.late.pop(0)()
    client.send(b"get " + b"k " * 64 + b"\r\n")
    assert house.session.asked == 1


def test_a_client_that_has_sent_all_it_had_is_answered_whole() -> None:
    house = House()
    client = house.client()
    client.send(b"get a\r\n")
    client.protocol.readConnectionLost()  # type: ignore[attr-defined]
    assert not client.gone
    house.session.late[0]()
    assert client.value() == value(b"a")
    assert client.gone


def test_quit_ends_the_connection_when_everything_before_it_is_answered() -> None:
    house = House()
    client = house.client()
    client.send(b"get a\r\nquit\r\nget b\r\n")
    assert not client.gone
    house.session.late[0]()
    assert client.value() == value(b"a")
    assert client.gone
    assert house.session.closed == 1


def test_draining_waits_for_what_is_under_way() -> None:
    house = House()
    client = house.client()
    client.send(b"get a\r\n")
    conversation = cast("Conversation", client.protocol)
    conversation.close()
    assert not client.gone
    house.session.late[0]()
    assert client.value() == value(b"a")
    assert client.gone


def test_answers_for_a_client_that_has_gone_are_dropped() -> None:
    house = House()
    client = house.client()
    client.send(b"get a\r\n")
    client.leave()
    house.session.late[0]()
    assert client.value() == b""
    assert house.session.closed == 1


def test_a_problem_is_a_server_error_in_the_place_of_its_reply() -> None:
    class Failing(LateStore):
        def execute(self, requests: list[Request], done: Callable[[Sequence[Any]], None]) -> Sequence[Any] | None:
            return [Problem(b"redis is away")] * len(requests)

    client = House(Failing()).client()
    assert client.send(b"get a\r\n") == b"SERVER_ERROR redis is away\r\n"
    assert (
        client.send(b"set a 0 5 1\r\n1\r\nget a b\r\nincr a 1\r\nmg a v\r\n") == b"SERVER_ERROR redis is away\r\n" * 4
    )


def test_a_mistake_of_netd_ends_the_client_that_met_it_and_nothing_else() -> None:
    class Wrong(LateStore):
        def execute(self, requests: list[Request], done: Callable[[Sequence[Any]], None]) -> Sequence[Any] | None:
            self.late.append(lambda: done([object()] * len(requests)))
            return None

    events: list[LogEvent] = []
    observer = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(observer)
    try:
        house = House(Wrong())
        client, other = house.client(), house.client()
        client.send(b"get a b\r\n")
        house.session.late[0]()
    finally:
        globalLogPublisher.removeObserver(observer)
    assert client.gone
    assert not other.gone
    assert [event["log_failure"].type for event in events if "log_failure" in event] == [TypeError]
