"""What a program may rely on: each test runs on the fast reactor and on stock epoll, and asks the same of both."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IPullProducer, IPushProducer
from zope.interface import implementer

from netd.fastio.reactor import FastReactor
from netd.fastio.transport import FastClient, FastServer
from tests.fastio.talk import REACTORS, ClientMaker, HalfTalker, Maker, Stage, Talker, stage

LARGE = os.urandom(1 << 20) * 8
"""More than any kernel buffer holds."""

AT_ONCE = ["called from within", "ConnectionDone"]
"""With its writing side closed already, Twisted ends a connection from within `loseConnection`."""

SIZES = [1, 0, 5, 65_535, 65_536, 65_537, 3, 300_000, 1]


@pytest.fixture(params=REACTORS, ids=lambda reactor: reactor.__name__)
def on(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A stage on each reactor; nothing may be left watched at the end."""
    with stage(request.param) as made:
        yield made
        left = [each for each in made.reactor.removeAll() if each not in made.reactor._internalReaders]
        assert left == []


def close(talker: Talker) -> None:
    talker.transport.loseConnection()


def abort(talker: Talker) -> None:
    talker.transport.abortConnection()


def echo(talker: Talker) -> None:
    talker.transport.write(bytes(talker.heard))
    close(talker)


def say_go(talker: Talker) -> None:
    talker.transport.write(b"go")


def pieces(sizes: list[int] = SIZES) -> list[bytes]:
    return [os.urandom(size) for size in sizes]


# --- what is written


def test_what_is_written_from_anywhere_arrives_in_order(on: Stage) -> None:
    sent = [pieces() for _ in range(4)]

    def write(talker: Talker, block: list[bytes]) -> None:
        for piece in block:
            talker.transport.write(piece)

    def answer(talker: Talker) -> None:
        if talker.heard != b"go":
            return
        write(talker, sent[1])
        on.reactor.callLater(0, write, talker, sent[2])
        on.reactor.callLater(0, lambda: on.reactor.callFromThread(finish, talker))

    def finish(talker: Talker) -> None:
        write(talker, sent[3])
        close(talker)

    server = Talker(made=lambda talker: write(talker, sent[0]), data=answer)
    client = Talker(made=say_go)
    on.talk(server, client)
    assert client.heard == b"".join(b"".join(block) for block in sent)
    assert client.events == ["made", "data", "ConnectionDone", "lost"]


def test_one_connection_may_write_to_another_and_close_it(on: Stage) -> None:
    def pass_on(talker: Talker) -> None:
        listener.transport.write(b"heard ")
        listener.transport.writeSequence([bytes(talker.heard), b"!"])
        close(listener)
        close(talker)

    listener, speaker = Talker(), Talker(data=pass_on)
    hearing, speaking = Talker(), Talker(made=lambda talker: talker.transport.write(b"hello"))
    on.connect(on.listen(listener), hearing)
    on.reactor.callLater(0.05, on.connect, on.listen(speaker), speaking)
    on.run(listener, speaker, hearing, speaking)
    assert hearing.heard == b"heard hello!"


@pytest.mark.parametrize("outside", [False, True])
def test_a_sequence_is_written_whole_or_refused_whole(on: Stage, outside: bool) -> None:
    block = pieces()

    def write(talker: Talker) -> None:
        talker.transport.writeSequence(block)
        talker.transport.writeSequence([])
        for wrong in ("text", ["text"], [b"bytes", "text"]):
            with pytest.raises(TypeError):
                talker.transport.writeSequence(wrong)
        with pytest.raises(TypeError):
            talker.transport.write("text")
        close(talker)

    server = Talker(data=lambda talker: on.reactor.callLater(0, write, talker) if outside else write(talker))
    client = Talker(made=say_go)
    on.talk(server, client)
    assert client.heard == b"".join(block)


@pytest.mark.parametrize("when", ["made", "data", "later"])
def test_eight_megabytes_and_then_a_close_arrive_whole(on: Stage, when: str) -> None:
    def write(talker: Talker) -> None:
        talker.transport.write(LARGE)
        close(talker)

    later = Talker(data=lambda talker: on.reactor.callLater(0, write, talker))
    server = {"made": Talker(made=write), "data": Talker(data=write), "later": later}[when]
    client = Talker(made=lambda talker: talker.transport.write(b"go" if when != "made" else b""))
    on.talk(server, client)
    assert client.heard == LARGE
    assert client.events == ["made", "data", "ConnectionDone", "lost"]
    assert server.events[-2:] == ["ConnectionDone", "lost"]


def test_what_is_written_after_asking_to_close_still_leaves(on: Stage) -> None:
    def answer(talker: Talker) -> None:
        talker.transport.write(b"one")
        close(talker)
        talker.transport.write(b"two")
        close(talker)

    client = Talker(made=say_go)
    on.talk(Talker(data=answer), client)
    assert client.heard == b"onetwo"


# --- producers


@implementer(IPushProducer)
class Push:
    """Writes blocks until it is told to pause."""

    BLOCK = b"x" * 10_000

    def __init__(self, talker: Talker, blocks: int) -> None:
        self.talker = talker
        self.left = blocks
        self.paused = False
        self.events: list[str] = []
        talker.transport.registerProducer(self, True)
        self.produce()

    def produce(self) -> None:
        while self.left and not self.paused:
            self.left -= 1
            self.talker.transport.write(self.BLOCK)
        if not self.left:
            self.talker.transport.unregisterProducer()
            self.talker.transport.loseConnection()

    def pauseProducing(self) -> None:
        self.paused = True
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.paused = False
        self.events.append("resume")
        self.produce()

    def stopProducing(self) -> None:
        self.left = 0
        self.paused = True
        self.events.append("stop")


@implementer(IPullProducer)
class Pull:
    """Writes a block each time it is asked, then lets go."""

    def __init__(self, talker: Talker, blocks: list[bytes]) -> None:
        self.transport: Any = talker.transport
        self.blocks = blocks
        self.asked = 0

    def resumeProducing(self) -> None:
        self.asked += 1
        if self.blocks:
            self.transport.write(self.blocks.pop(0))
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def stopProducing(self) -> None:
        self.blocks = []


@pytest.mark.parametrize("outside", [False, True])
def test_a_push_producer_pauses_while_the_client_does_not_read_and_goes_on_afterwards(on: Stage, outside: bool) -> None:
    made: list[Push] = []

    def produce(talker: Talker) -> None:
        made.append(Push(talker, 1000))

    def read_on() -> None:
        paused.append(made[0].left)
        client.transport.resumeProducing()

    paused: list[int] = []
    server = Talker(data=lambda talker: on.reactor.callLater(0, produce, talker) if outside else produce(talker))
    client = Talker(made=lambda talker: (talker.transport.write(b"go"), talker.transport.pauseProducing()))
    on.reactor.callLater(0.2, read_on)
    on.talk(server, client)
    assert paused[0] > 0, "never paused"
    assert client.heard == Push.BLOCK * 1000
    assert made[0].events[:2] == ["pause", "resume"]
    assert "stop" not in made[0].events
    assert len(made[0].events) % 2 == 0


def test_a_single_write_larger_than_the_buffer_pauses_its_producer_before_it_returns(on: Stage) -> None:
    told: list[list[str]] = []

    def answer(talker: Talker) -> None:
        producer = Push(talker, 0)
        producer.left = 1
        talker.transport.registerProducer(producer, True)
        talker.transport.write(LARGE)
        told.append(list(producer.events))

    server = Talker(made=lambda talker: setattr(talker.transport, "loseConnection", lambda: None), data=answer)
    client = Talker(made=say_go)
    on.reactor.callLater(0.1, abort, client)
    on.talk(server, client)
    assert told == [["pause"]]


@pytest.mark.parametrize("first", [b"", b"before", LARGE[:762_000]], ids=len)
@pytest.mark.parametrize("outside", [False, True])
def test_a_pull_producer_is_asked_until_it_has_no_more(on: Stage, first: bytes, outside: bool) -> None:
    blocks = pieces([10, 100_000, 1, 70_000])
    expected = first + b"".join(blocks)

    def produce(talker: Talker) -> None:
        talker.transport.write(first)
        talker.transport.registerProducer(Pull(talker, blocks), False)

    server = Talker(data=lambda talker: on.reactor.callLater(0, produce, talker) if outside else produce(talker))
    client = Talker(made=say_go)
    on.talk(server, client)
    assert client.heard == expected


@pytest.mark.parametrize("size", [10, 762_000])
def test_a_pull_producer_that_has_nothing_at_first_is_asked_again_when_what_was_written_has_left(
    on: Stage, size: int
) -> None:
    class Late(Pull):
        def resumeProducing(self) -> None:
            if self.asked:
                super().resumeProducing()
            self.asked += 1

    def answer(talker: Talker) -> None:
        talker.transport.write(LARGE[:size])
        talker.transport.registerProducer(Late(talker, [b"end"]), False)

    client = Talker(made=say_go)
    on.talk(Talker(data=answer), client)
    assert client.heard == LARGE[:size] + b"end"


def test_a_close_waits_for_a_paused_producer_to_be_unregistered(on: Stage) -> None:
    def answer(talker: Talker) -> None:
        producer = Push(talker, 1000)
        assert producer.paused
        producer.produce = lambda: None  # type: ignore[method-assign]
        close(talker)
        on.reactor.callLater(0.1, talker.transport.unregisterProducer)
        on.reactor.callLater(0.1, talker.events.append, "unregistered")

    server = Talker(data=answer)
    on.talk(server, Talker(made=say_go))
    assert server.events[-3:] == ["unregistered", "ConnectionDone", "lost"]


def test_a_close_does_not_wait_for_a_producer_that_was_not_paused(on: Stage) -> None:
    def answer(talker: Talker) -> None:
        talker.transport.registerProducer(talker.transport, True)
        talker.transport.write(b"bye")
        close(talker)

    client = Talker(made=say_go)
    on.talk(Talker(data=answer), client)
    assert client.heard == b"bye"


def test_a_close_that_a_mistaken_write_follows_still_comes(on: Stage) -> None:
    def mistake(talker: Talker) -> None:
        close(talker)
        with pytest.raises(TypeError):
            talker.transport.write("text")

    server = Talker(data=lambda talker: on.reactor.callLater(0, mistake, talker))
    on.talk(server, Talker(made=say_go))
    assert server.events[-2:] == ["ConnectionDone", "lost"]


def test_a_paused_transport_reads_nothing_until_it_is_resumed(on: Stage) -> None:
    def pause(talker: Talker) -> None:
        talker.transport.pauseProducing()
        on.reactor.callLater(0.1, resume, talker, len(talker.heard))

    def resume(talker: Talker, heard: int) -> None:
        assert len(talker.heard) == heard
        if heard == 6:
            close(talker)
        else:
            talker.transport.resumeProducing()

    def write(talker: Talker) -> None:
        talker.transport.write(b"one")
        on.reactor.callLater(0.05, talker.transport.write, b"two")

    server = Talker(data=pause)
    on.talk(server, Talker(made=write))
    assert server.heard == b"onetwo"


# --- closing


def test_a_client_that_has_sent_all_is_answered_before_the_close(on: Stage) -> None:
    def answer(talker: Talker) -> None:
        talker.transport.write(b"answer")
        close(talker)

    server = HalfTalker(reads_lost=answer)
    client = HalfTalker(
        made=lambda talker: (talker.transport.write(b"question"), talker.transport.loseWriteConnection())
    )
    client._doing["reads lost"] = close
    on.talk(server, client)
    assert server.events == ["made", "data", "reads lost", "ConnectionDone", "lost"]
    assert client.events == ["made", "writes lost", "data", "reads lost", *AT_ONCE, "lost"]
    assert (bytes(server.heard), bytes(client.heard)) == (b"question", b"answer")


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_server_that_has_sent_all_still_hears_the_client(on: Stage, size: int) -> None:
    def answer(talker: Talker) -> None:
        if len(talker.events) == 2:
            talker.transport.write(LARGE[:size])
            talker.transport.loseWriteConnection()

    def thank(talker: Talker) -> None:
        talker.transport.write(b"thanks")
        close(talker)

    server = HalfTalker(data=answer, reads_lost=close)
    client = HalfTalker(made=say_go)
    client._doing["reads lost"] = thank
    on.talk(server, client)
    assert client.heard == LARGE[:size]
    assert server.heard == b"gothanks"
    assert server.events == ["made", "data", "writes lost", "data", "reads lost", *AT_ONCE, "lost"]


def test_a_protocol_without_half_close_ends_when_the_client_has_sent_all(on: Stage) -> None:
    server = Talker()
    client = HalfTalker(made=lambda talker: talker.transport.loseWriteConnection(), reads_lost=close)
    on.talk(server, client)
    assert server.events == ["made", "ConnectionDone", "lost"]


@pytest.mark.parametrize("outside", [False, True])
def test_abort_drops_what_is_unsent_and_comes_after_the_call(on: Stage, outside: bool) -> None:
    def cut(talker: Talker) -> None:
        talker.busy = True
        talker.transport.write(LARGE)
        talker.transport.abortConnection()
        talker.transport.abortConnection()
        close(talker)
        talker.transport.write(b"more")
        talker.busy = False

    server = Talker(data=lambda talker: on.reactor.callLater(0, cut, talker) if outside else cut(talker))
    client = Talker(made=say_go)
    on.talk(server, client)
    assert server.events == ["made", "data", "ConnectionAborted", "lost"]
    assert client.events[-2:] == ["ConnectionLost", "lost"]
    assert len(client.heard) < len(LARGE)


@pytest.mark.parametrize("outside", [False, True])
def test_connection_lost_never_comes_within_the_call_that_closes(on: Stage, outside: bool) -> None:
    def answer(talker: Talker) -> None:
        talker.busy = True
        talker.transport.write(b"bye")
        close(talker)
        talker.busy = False

    server = Talker(data=lambda talker: on.reactor.callLater(0, answer, talker) if outside else answer(talker))
    on.talk(server, Talker(made=say_go))
    assert server.events == ["made", "data", "ConnectionDone", "lost"]


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_a_reset_while_writing_stops_the_producer_and_is_told_once(on: Stage) -> None:
    made: list[Push] = []
    server = Talker(made=lambda talker: made.append(Push(talker, 100_000)))
    client = socket.create_connection(("127.0.0.1", on.listen(server)))
    on.reactor.callLater(0.1, reset, client)
    on.run(server)
    assert server.events == ["made", "ConnectionLost", "lost"]
    assert made[0].events[-1] == "stop"


@pytest.mark.parametrize("reading", [False, True])
def test_a_write_to_a_connection_that_was_reset_is_told_as_lost(on: Stage, reading: bool) -> None:
    def pause(talker: Talker) -> None:
        if not reading:
            talker.transport.pauseProducing()
        reset(client)
        talker.transport.write(b"hello?")

    server = Talker(made=lambda talker: on.reactor.callLater(0, pause, talker))
    client = socket.create_connection(("127.0.0.1", on.listen(server)))
    on.run(server)
    assert server.events == ["made", "ConnectionLost", "lost"]


def test_writes_and_closes_from_connection_lost_are_ignored(on: Stage) -> None:
    def late(talker: Talker) -> None:
        talker.transport.write(b"late")
        talker.transport.writeSequence([b"late"])
        close(talker)
        talker.transport.abortConnection()

    server, client = Talker(data=close, lost=late), Talker(made=say_go, lost=late)
    on.talk(server, client)
    assert server.events == ["made", "data", "ConnectionDone", "lost"]
    assert on.errors == []


# --- protocols that raise


@pytest.mark.parametrize("error", [ZeroDivisionError, ConnectionDone])
def test_an_exception_in_a_protocol_is_logged_and_ends_that_connection_alone(on: Stage, error: type[Exception]) -> None:
    def fail(talker: Talker) -> None:
        talker.transport.write(b"unsent")
        raise error

    failing, well = HalfTalker(data=fail), Talker(data=echo)
    port = on.listen(failing, well)
    first = Talker(made=say_go)
    second = Talker(made=say_go)
    on.connect(port, first)
    first.ended.addCallback(lambda _: on.connect(port, second))
    on.run(failing, well, first, second)
    assert failing.events == ["made", "data", error.__name__, "lost"]
    assert first.heard == b""
    assert second.heard == b"go"
    assert on.errors == [error.__name__]


def test_an_exception_in_connection_lost_is_logged(on: Stage) -> None:
    def fail(talker: Talker) -> None:
        raise ZeroDivisionError

    server = Talker(data=close, lost=fail)
    on.talk(server, Talker(made=say_go))
    assert on.errors == ["ZeroDivisionError"]


def test_an_exception_after_an_abort_tells_the_end_once(on: Stage) -> None:
    def fail(talker: Talker) -> None:
        talker.transport.abortConnection()
        raise ZeroDivisionError

    server = Talker(data=fail)
    on.talk(server, Talker(made=say_go))
    assert server.events == ["made", "data", "ZeroDivisionError", "lost"]


# --- clients and adopted descriptors


def test_a_client_whose_protocol_is_none_hangs_up(on: Stage) -> None:
    server = Talker()
    on.reactor.connectTCP("127.0.0.1", on.listen(server), ClientMaker())
    on.run(server)
    assert server.events == ["made", "ConnectionDone", "lost"]


def test_a_client_that_is_refused_is_told(on: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    maker = ClientMaker()
    on.reactor.connectTCP("127.0.0.1", port, maker)
    on.reactor.callLater(0.1, on.reactor.stop)
    on.reactor.run(installSignalHandlers=False)
    assert maker.failed is not None
    assert maker.failed.check(ConnectError)


def test_clients_and_servers_are_fast_under_the_fast_reactor(on: Stage) -> None:
    kinds: list[type] = []

    def note(talker: Talker) -> None:
        kinds.append(type(talker.transport))

    def note_and_echo(talker: Talker) -> None:
        note(talker)
        echo(talker)

    client = Talker(made=say_go, data=note, lost=None)
    on.talk(Talker(data=note_and_echo), client)
    assert (set(kinds) == {FastServer, FastClient}) is isinstance(on.reactor, FastReactor)


def test_an_answer_needs_no_wait_for_writability_under_the_fast_reactor(on: Stage) -> None:
    waits: list[object] = []
    watch = on.reactor.addWriter

    def add(writer: object) -> None:
        waits.append(writer)
        watch(writer)

    on.reactor.addWriter = add
    server = Talker(data=echo)
    client = socket.create_connection(("127.0.0.1", on.listen(server)))
    client.sendall(b"hello")
    on.run(server)
    assert client.recv(10) == b"hello"
    client.close()
    assert (waits == []) is isinstance(on.reactor, FastReactor)


def test_an_adopted_port_serves(on: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        server = Talker(data=echo)
        on.reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, Maker(server))
        client = Talker(made=lambda talker: talker.transport.write(b"hello"))
        on.connect(listening.getsockname()[1], client)
        on.run(server, client)
    assert client.heard == b"hello"
    assert isinstance(server.transport, FastServer) is isinstance(on.reactor, FastReactor)


def test_an_adopted_connection_serves(on: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    server = Talker(data=echo)
    with accepted, client:
        accepted.setblocking(False)
        on.reactor.adoptStreamConnection(accepted.fileno(), socket.AF_INET, Maker(server))
        client.sendall(b"hello")
        on.run(server)
        assert client.recv(10) == b"hello"


def test_a_storm_of_connections_is_served_and_the_refused_are_closed(on: Stage) -> None:
    servers = [Talker(data=echo) for _ in range(150)]
    port = on.listen(*servers)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    for client in clients:
        client.sendall(b"hello")
    on.run(*servers)
    answers = []
    for client in clients:
        client.settimeout(60)
        try:
            answers.append(client.recv(10))
        except ConnectionResetError:
            answers.append(b"")
        client.close()
    assert answers.count(b"hello") == 150
    assert answers.count(b"") == 50
