"""Queues that ports declare are there before the first line, whoever subscribes, and whatever cannot be declared."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from pika import spec
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher

from netd.bridge.broker import Outcome
from netd.bridge.declaring import PATIENCE
from netd.bridge.rabbit import RabbitBroker
from netd.log import LogOutput, render_json
from netd.ports import Ports
from netd.runtime import Runtime
from tests.bridge.broker_contract import Insisting, Receiving, Sending, eventually, on_the_reactor, route
from tests.bridge.fake_rabbit import ANSWERS, BROKER, FakeRabbit, MemoryTime, accept, make_reactor, settle
from tests.bridge.rabbit import RabbitArena, settings
from tests.fakes import result_of
from tests.servers import RabbitServer, VirtualHost


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Warnings that are logged."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"] is LogLevel.warn:
            lines.append(formatEvent(event))

    observer = cast("ILogObserver", observe)
    globalLogPublisher.addObserver(observer)
    yield lines
    globalLogPublisher.removeObserver(observer)


def ports(*queues: str, **declare: Any) -> dict[str, Any]:
    """Subscribe ports that declare these queues."""
    return {
        f"port{number}": {"listen": "127.0.0.1:0", "queue": queue, "declare": declare}
        for number, queue in enumerate(queues)
    }


# --- RabbitMQ


@pytest.fixture(params=["classic", "quorum"])
def arena(rabbit_server: RabbitServer, rabbit_vhost: VirtualHost, request: pytest.FixtureRequest) -> RabbitArena:
    return RabbitArena(rabbit_server, rabbit_vhost, request.param)


@asynccontextmanager
async def client(arena: RabbitArena, **more: Any) -> AsyncIterator[RabbitBroker]:
    """A client of the arena's broker that runs."""
    broker = arena.broker(**more)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


@on_the_reactor
async def test_the_first_line_finds_its_queue_though_nobody_has_subscribed(arena: RabbitArena) -> None:
    async with client(arena, subscribe=ports("new", type=arena.kind)) as broker:
        sending = Insisting(broker, route("new"))
        await sending.ready()
        assert await sending.final(sending.send(b"first")) == [Outcome.CONFIRMED]
    made = arena.server.api("GET", arena.path("queues", "new"))
    assert made["arguments"] == {"x-queue-type": arena.kind}


@on_the_reactor
async def test_without_a_publish_port_they_are_made_too(arena: RabbitArena) -> None:
    async with client(arena, publish={}, subscribe=ports("new", type=arena.kind)) as broker:
        await eventually(lambda: broker.state.state == "up")
        assert arena.server.api("GET", arena.path("queues", "new"))["durable"]


@on_the_reactor
async def test_one_that_cannot_be_declared_is_told_once_and_holds_up_nothing(
    arena: RabbitArena, said: list[str]
) -> None:
    async with client(arena, subscribe=ports("work", "new", type=arena.kind, arguments={"x-max-length": 7})) as broker:
        sending = Insisting(broker, route("new"))
        await sending.ready()
        assert await sending.final(sending.send(b"first")) == [Outcome.CONFIRMED]
        arena.server.ctl("close_all_connections", "--vhost", arena.vhost.name, "test")
        await eventually(lambda: broker.state.state == "away")
        await eventually(lambda: broker.state.state == "up" and sending.outlet.ready)
        assert await sending.final(sending.send(b"second")) == [Outcome.CONFIRMED]
    told = [line for line in said if "declared" in line]
    assert len(told) == 1
    assert told[0].startswith("bridge.main: queue work cannot be declared: 406 PRECONDITION_FAILED")


@on_the_reactor
async def test_who_subscribes_makes_what_was_deleted_meanwhile(arena: RabbitArena) -> None:
    async with client(arena, subscribe=ports("new", type=arena.kind, arguments={"x-max-length": 7})) as broker:
        await eventually(lambda: broker.state.state == "up")
        arena.delete_queue("new")
        receiving = Receiving(broker, "new")
        await eventually(lambda: receiving.subscription.problem == "")
        made = arena.server.api("GET", arena.path("queues", "new"))
        assert made["durable"]
        assert made["arguments"] == {"x-queue-type": arena.kind, "x-max-length": 7}


@on_the_reactor
async def test_who_subscribes_to_a_queue_that_is_otherwise_is_told_until_a_reload_mends_it(arena: RabbitArena) -> None:
    async with client(arena, subscribe=ports("work", type=arena.kind, arguments={"x-max-length": 7})) as broker:
        receiving = Receiving(broker, "work")
        await eventually(lambda: receiving.subscription.problem.startswith("406 PRECONDITION_FAILED"))
        assert "x-max-length" in receiving.subscription.problem
        (await broker.prepare_queues(settings(arena.vhost.url, subscribe=ports("work", type=arena.kind))))()
        await eventually(lambda: receiving.subscription.problem == "")


@on_the_reactor
async def test_a_reload_makes_those_of_new_ports(arena: RabbitArena) -> None:
    async with client(arena) as broker:
        sending = Insisting(broker, route("new"))
        await sending.ready()
        assert await sending.final(sending.send(b"too early")) == [Outcome.RETURNED]
        commit = await broker.prepare_queues(settings(arena.vhost.url, subscribe=ports("new", type=arena.kind)))
        assert await sending.final(sending.send(b"not in force yet")) == [Outcome.RETURNED]
        commit()
        await eventually(lambda: "new" in arena.queues())
        assert await sending.final(sending.send(b"in time")) == [Outcome.CONFIRMED]


@on_the_reactor
async def test_one_that_the_broker_stumbles_over_holds_up_nothing(arena: RabbitArena, said: list[str]) -> None:
    bad = ports("bad", type="classic", arguments={"x-queue-master-locator": "none such"})
    async with client(arena, subscribe={**ports("first", "new"), "bad": bad["port0"]}) as broker:
        sending = Insisting(broker, route("new"))
        await sending.ready()
        assert await sending.final(sending.send(b"a line")) == [Outcome.CONFIRMED]
    assert [line for line in said if "declared" in line] == [
        "bridge.main: queue bad cannot be declared: 541 INTERNAL_ERROR"
    ]


# --- a broker in memory


@pytest.fixture
def memory_broker(tmp_path: Any) -> tuple[MemoryTime, RabbitBroker]:
    memory, reactor = make_reactor()
    runtime = Runtime(reactor, LogOutput(lambda _: None, render_json, "info"), tmp_path, Ports(reactor))
    broker = RabbitBroker(settings(BROKER, subscribe=ports("new", "newer")), runtime, "bridge.main")
    result_of(broker.start())
    return memory, broker


def begin(memory: MemoryTime) -> FakeRabbit:
    """Both connections succeed; that for publishing gets no answer to what it declares, and is returned."""
    rabbit = accept(memory, which=0, keeps_waiting=spec.Queue.Declare)
    accept(memory, which=1)
    return rabbit


def declared(rabbit: FakeRabbit) -> list[str]:
    """The queues that netd has asked a broker for."""
    return [each.queue for each in rabbit.methods if isinstance(each, spec.Queue.Declare)]


def test_nobody_publishes_before_the_broker_has_answered(memory_broker: tuple[MemoryTime, RabbitBroker]) -> None:
    memory, broker = memory_broker
    rabbit = begin(memory)
    sending = Sending(broker, route("new"))
    settle(memory)
    assert (broker.state.state, sending.outlet.ready) == ("away", False)
    rabbit.go_on()
    settle(memory)
    assert (broker.state.state, sending.outlet.ready) == ("up", True)
    assert declared(rabbit) == ["new", "newer"]


def test_a_broker_that_does_not_answer_is_used_nevertheless(
    memory_broker: tuple[MemoryTime, RabbitBroker], said: list[str]
) -> None:
    memory, broker = memory_broker
    begin(memory)
    sending = Sending(broker, route("new"))
    memory.advance(PATIENCE - 0.1)
    settle(memory)
    assert not sending.outlet.ready
    memory.advance(0.2)
    settle(memory)
    assert sending.outlet.ready
    assert "has not answered for the queues that it is to declare, within 10 s" in said[-1]


def test_a_connection_that_ends_meanwhile_is_made_anew(memory_broker: tuple[MemoryTime, RabbitBroker]) -> None:
    memory, broker = memory_broker
    rabbit = begin(memory)
    rabbit.leave()
    settle(memory)
    assert broker.state.reason == "the broker closed the connection"
    memory.advance(1)
    accept(memory)
    settle(memory)
    assert broker.state.state == "up"


def test_who_stops_meanwhile_leaves_no_connection(memory_broker: tuple[MemoryTime, RabbitBroker]) -> None:
    memory, broker = memory_broker
    rabbit = begin(memory)
    stopped = Deferred.fromCoroutine(broker.stop())
    settle(memory)
    assert stopped.called
    assert rabbit.gone
    assert broker.state.state == "away"


def test_a_broker_that_allows_one_channel_is_used(
    memory_broker: tuple[MemoryTime, RabbitBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, broker = memory_broker
    monkeypatch.setitem(ANSWERS, spec.Connection.StartOk, lambda _: spec.Connection.Tune(1, 131072, 60))
    rabbit = begin(memory)
    refusal = spec.Channel.Close(403, "ACCESS_REFUSED", 50, 10)
    rabbit.say(rabbit.waiting.pop().channel_number, refusal)
    settle(memory)
    rabbit.go_on()
    sending = Sending(broker, route("newer"))
    settle(memory)
    memory.advance(1)
    settle(memory)
    assert declared(rabbit) == ["new", "newer"]
    assert sending.outlet.ready


def test_a_broker_without_a_free_channel_is_told_of_and_used(
    memory_broker: tuple[MemoryTime, RabbitBroker], monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    memory, broker = memory_broker
    monkeypatch.setitem(ANSWERS, spec.Connection.StartOk, lambda _: spec.Connection.Tune(1, 131072, 60))
    rabbit = accept(memory, which=0)
    sending = Sending(broker, route("new"))
    memory.advance(1)
    settle(memory)
    assert sending.outlet.ready
    reload(broker, "new", "newest")
    settle(memory)
    assert not rabbit.gone
    assert "no queue can be declared: no channel can be opened" in said[-1]


def reload(broker: RabbitBroker, *queues: str) -> None:
    """Have these queues declared from now on."""
    result_of(broker.prepare_queues(settings(BROKER, subscribe=ports(*queues))))()


def test_a_reload_that_comes_meanwhile_is_heeded(memory_broker: tuple[MemoryTime, RabbitBroker]) -> None:
    memory, broker = memory_broker
    rabbit = accept(memory, which=0, keeps_waiting=spec.Queue.Declare)
    reload(broker, "new", "newest")
    rabbit.go_on()
    settle(memory)
    assert "newest" in declared(rabbit)


def test_a_reload_that_changes_no_queue_asks_for_none(memory_broker: tuple[MemoryTime, RabbitBroker]) -> None:
    memory, broker = memory_broker
    publishing, consuming = accept(memory, which=0), accept(memory, which=1)
    reload(broker, "new", "newer")
    settle(memory)
    assert declared(publishing) + declared(consuming) == ["new", "newer"]


def test_a_reload_makes_queues_during_an_alarm(memory_broker: tuple[MemoryTime, RabbitBroker]) -> None:
    memory, broker = memory_broker
    publishing, consuming = accept(memory, which=0), accept(memory, which=1)
    publishing.say(0, spec.Connection.Blocked("low on disk"))
    publishing.mute = True
    reload(broker, "newest")
    settle(memory)
    assert declared(consuming) == ["newest"]


def test_who_stops_during_a_reload_says_nothing_of_it(
    memory_broker: tuple[MemoryTime, RabbitBroker], said: list[str]
) -> None:
    memory, broker = memory_broker
    accept(memory, which=0)
    consuming = accept(memory, which=1, keeps_waiting=spec.Queue.Declare)
    reload(broker, "new", "newest")
    settle(memory)
    assert len(consuming.waiting) == 1
    stopped = Deferred.fromCoroutine(broker.stop())
    settle(memory)
    consuming.go_on()
    settle(memory)
    assert stopped.called
    assert said == []
