"""What RabbitMQ can do to published messages: none is taken for delivered that is not, and none is forgotten."""

from collections import Counter

import pytest
from twisted.internet.threads import deferToThread

from netd.bridge.broker import BrokerState, Outcome
from netd.bridge.messages import Extra, Route
from tests.bridge.broker_contract import Insisting, Receiving, Sending, eventually, on_the_reactor, route, started
from tests.bridge.rabbit import RabbitArena
from tests.servers import RabbitServer, VirtualHost


@pytest.fixture
def arena(rabbit_server: RabbitServer, rabbit_vhost: VirtualHost) -> RabbitArena:
    return RabbitArena(rabbit_server, rabbit_vhost)


def to_exchange(name: str) -> Route:
    return Route("lines", name, "")


@on_the_reactor
async def test_none_of_500_unroutable_messages_among_5000_is_reported_as_confirmed(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        sending = Sending(broker, route())
        await sending.ready()
        keys = [b"nowhere" if number % 10 == 7 else b"work" for number in range(5000)]
        for at in range(0, 5000, 500):
            sending.send(*[b"x" * 100] * 500, keys=keys[at : at + 500])
        outcomes = await sending.outcome(range(1, 5001))
        assert outcomes == [Outcome.RETURNED if key == b"nowhere" else Outcome.CONFIRMED for key in keys]
        assert all(len(told) == 1 for told in sending.outcomes.values())


@on_the_reactor
async def test_a_missing_exchange_returns_what_went_there_and_nothing_else(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        lost, fine = Sending(broker, to_exchange("nope")), Sending(broker, route())
        await lost.ready()
        await fine.ready()
        lost.send(*[b"x"] * 100)
        fine.send(*[b"y"] * 100)
        assert set(await lost.outcome(range(1, 101))) == {Outcome.RETURNED}
        assert lost.reasons[1].startswith("404 NOT_FOUND - no exchange 'nope' in vhost")
        assert lost.outlet.problem == lost.reasons[1]
        assert set(await fine.outcome(range(1, 101))) == {Outcome.CONFIRMED}
        assert fine.outlet.problem == ""

        arena.make_exchange("nope", "other")
        await lost.ready()
        assert await lost.outcome(lost.send(b"now it is there")) == [Outcome.CONFIRMED]
        assert lost.outlet.problem == ""
        assert [each.body for each in await arena.stored("other")] == [b"now it is there"]


@on_the_reactor
async def test_an_exchange_that_clients_may_not_use_returns_with_the_brokers_words(arena: RabbitArena) -> None:
    arena.make_exchange("inner", internal=True)
    async with started(arena) as broker:
        sending = Sending(broker, to_exchange("inner"))
        await sending.ready()
        assert set(await sending.outcome(sending.send(b"a", b"b"))) == {Outcome.RETURNED}
        assert sending.reasons[1].startswith("403 ACCESS_REFUSED")


@on_the_reactor
async def test_of_messages_that_close_the_channel_those_alone_are_returned(arena: RabbitArena) -> None:
    """A user may write to the exchange, but not with every key: the broker does not say which message it was."""
    arena.make_exchange("topics", "other", "topic")
    arena.server.api(
        "PUT",
        f"/api/topic-permissions/{arena.vhost.name}/{arena.vhost.user}",
        {"exchange": "topics", "write": "^fine$", "read": ".*"},
    )
    forbidden = {23, 77, 78, 190}
    async with started(arena) as broker:
        sending = Insisting(broker, to_exchange("topics"))
        await sending.ready()
        keys = [b"secret" if number in forbidden else b"fine" for number in range(1, 201)]
        numbers = sending.send(*[b"%d" % number for number in range(1, 201)], keys=keys)
        outcomes = await sending.final(numbers)
        assert {
            number for number, outcome in zip(numbers, outcomes, strict=True) if outcome is Outcome.RETURNED
        } == forbidden
        assert all("403 ACCESS_REFUSED" in sending.reasons[number] for number in forbidden)
        stored = [int(each.body) for each in await arena.stored("other")]
        assert list(dict.fromkeys(stored)) == [number for number in numbers if number not in forbidden]
        later = sending.send(*[b"%d" % number for number in range(5000)], keys=[b"fine"] * 5000)
        assert set(await sending.final(later)) == {Outcome.CONFIRMED}
        assert sending.openings < 60


@on_the_reactor
async def test_headers_that_no_frame_holds_are_returned_and_their_neighbours_sent(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        sending = Sending(broker, route())
        await sending.ready()
        numbers = sending.send(*[b"x"] * 9, extras={4: Extra({"big": "x" * 200_000})})
        outcomes = await sending.outcome(numbers)
        assert outcomes == [Outcome.CONFIRMED] * 4 + [Outcome.RETURNED] + [Outcome.CONFIRMED] * 4
        assert "and the broker's frames hold 131064" in sending.reasons[5]


@on_the_reactor
async def test_a_deleted_queue_returns_what_comes_for_it(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        sending = Sending(broker, route())
        await sending.ready()
        assert await sending.outcome(sending.send(b"a")) == [Outcome.CONFIRMED]
        arena.delete_queue("work")
        assert await sending.outcome(sending.send(b"b")) == [Outcome.RETURNED]
        assert sending.outlet.problem == "312 NO_ROUTE"


@on_the_reactor
async def test_what_a_full_queue_refuses_is_taken_as_it_empties(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        sending = Insisting(broker, route("small"))
        await sending.ready()
        numbers = sending.send(*[b"%d" % number for number in range(20)])
        receiving = Receiving(broker, "small", prefetch=1)
        taken = 0
        while taken < 20:
            await receiving.received(taken + 1)
            receiving.acknowledge(receiving.deliveries[taken])
            taken += 1
        assert set(await sending.final(numbers)) == {Outcome.CONFIRMED}
        assert sorted(receiving.bodies, key=int) == [b"%d" % number for number in range(20)]


@on_the_reactor
async def test_an_alarm_stops_publishing_and_nothing_else(arena: RabbitArena) -> None:
    server = arena.server
    async with started(arena) as broker:
        sending = Insisting(broker, route())
        receiving = Receiving(broker, "other")
        await sending.ready()
        await sending.final(sending.send(b"%d" % 0))
        try:
            await deferToThread(server.ctl, "set_vm_memory_high_watermark", "0.000001")
            sending.send(b"1")  # a broker says that it is blocked when something is published
            await eventually(lambda: broker.state.state == "blocked")
            assert broker.state.reason == sending.outlet.problem == "low on memory"
            assert not sending.outlet.ready
            numbers = sending.send(b"2", b"3")
            await eventually(lambda: receiving.subscription.problem == "")
        finally:
            await deferToThread(server.ctl, "set_vm_memory_high_watermark", "absolute", "2GB")
        assert set(await sending.final(range(1, numbers.stop))) == {Outcome.CONFIRMED}
        assert broker.state == BrokerState("up", "", broker.state.name)
        assert [each.body for each in await arena.stored("work")] == [b"0", b"1", b"2", b"3"]


@on_the_reactor
async def test_connections_closed_by_an_operator_are_made_anew_and_nothing_is_lost(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        sending = Insisting(broker, route())
        await sending.ready()
        sending.send(*[b"%d" % number for number in range(1000)])
        closing = deferToThread(
            arena.server.ctl, "close_all_connections", "--vhost", arena.vhost.name, "for maintenance"
        )
        sent = 1000
        while not closing.called:
            sending.send(*[b"%d" % number for number in range(sent, sent + 100)])
            sent += 100
            await sending.final(range(1, sent + 1))
        await closing
        await sending.until(lambda: sending.openings == 2)
        sending.send(b"last")
        assert set(await sending.final(range(1, sending.next))) == {Outcome.CONFIRMED}
        counted = Counter(each.netd_id for each in await arena.stored("work"))
        assert len(counted) == sending.next - 1
