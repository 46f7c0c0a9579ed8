"""What RabbitMQ can do to a consumer: it goes on by itself, and what it had not settled comes again."""

import pytest

from netd.bridge.broker import Outcome
from tests.bridge.broker_contract import Receiving, Sending, eventually, on_the_reactor, route, started
from tests.bridge.rabbit import RabbitArena
from tests.servers import RabbitServer, VirtualHost


@pytest.fixture(params=["classic", "quorum"])
def arena(rabbit_server: RabbitServer, rabbit_vhost: VirtualHost, request: pytest.FixtureRequest) -> RabbitArena:
    return RabbitArena(rabbit_server, rabbit_vhost, request.param)


@on_the_reactor
async def test_a_queue_that_is_not_there_is_waited_for(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        receiving = Receiving(broker, "not yet")
        await eventually(lambda: receiving.subscription.problem.startswith("404 NOT_FOUND - no queue 'not yet'"))
        arena.make_queue("not yet")
        sending = Sending(broker, route("not yet"))
        await sending.ready()
        assert await sending.outcome(sending.send(b"a")) == [Outcome.CONFIRMED]
        assert await receiving.received(1) == [b"a"]
        assert receiving.subscription.problem == ""
        assert receiving.interruptions == []


@on_the_reactor
async def test_a_deleted_queue_interrupts_and_a_new_one_goes_on(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        sending, receiving = Sending(broker, route()), Receiving(broker, "work")
        await sending.ready()
        sending.send(b"a", b"b")
        await receiving.received(2)
        arena.delete_queue("work")
        await receiving.until(lambda: len(receiving.interruptions) == 1)
        assert "cancelled" in receiving.interruptions[0]
        receiving.acknowledge(receiving.deliveries[1], all_up_to=True)  # void: it went with the queue
        arena.make_queue("work")
        await sending.outcome(sending.send(b"c"))
        assert await receiving.received(3) == [b"a", b"b", b"c"]
        receiving.acknowledge(receiving.deliveries[2])
        receiving.subscription.close()
        assert await arena.stored("work") == []


@on_the_reactor
async def test_an_operator_may_delete_the_queue_many_times(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        receiving = Receiving(broker, "work")
        sending = Sending(broker, route())
        await sending.ready()
        for times in range(1, 4):
            await eventually(lambda: receiving.subscription.problem == "")
            arena.delete_queue("work")
            await receiving.until(lambda times=times: len(receiving.interruptions) == times)  # type: ignore[misc]
            arena.make_queue("work")
        await sending.outcome(sending.send(b"at last"))
        assert await receiving.received(1) == [b"at last"]


@on_the_reactor
async def test_deliveries_are_counted(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        sending, receiving = Sending(broker, route()), Receiving(broker, "work")
        await sending.ready()
        sending.send(b"again and again")
        for times in range(1, 5):
            await receiving.received(times)
            counted = receiving.deliveries[-1].details().deliveries
            assert counted == (times if arena.kind == "quorum" else min(times, 2))
            receiving.give_back(receiving.deliveries[-1])


@on_the_reactor
async def test_messages_of_other_programs_arrive_with_what_they_carry(arena: RabbitArena) -> None:
    arena.server.api(
        "POST",
        arena.path("exchanges", "amq.default") + "/publish",
        {
            "routing_key": "work",
            "payload": "from elsewhere",
            "payload_encoding": "string",
            "properties": {"headers": {"deep": {"list": [1, "two"]}}, "message_id": "m-1", "content_type": "text/x"},
        },
    )
    async with started(arena) as broker:
        receiving = Receiving(broker, "work")
        assert await receiving.received(1) == [b"from elsewhere"]
        details = receiving.deliveries[0].details()
        assert details.key == "work"
        assert details.headers["deep"] == {"list": [1, "two"]}


@on_the_reactor
async def test_closing_a_subscription_that_has_not_begun_leaves_no_consumer(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        sending = Sending(broker, route())
        await sending.ready()
        for _ in range(20):
            Receiving(broker, "work").subscription.close()
        receiving = Receiving(broker, "work")
        await eventually(lambda: receiving.subscription.problem == "")
        for _ in range(5):
            Receiving(broker, "work").subscription.close()
        await sending.outcome(sending.send(*[b"x"] * 50))
        assert len(await receiving.received(50)) == 50


@on_the_reactor
async def test_two_hundred_consumers_share_a_queue(arena: RabbitArena) -> None:
    async with started(arena) as broker:
        sending = Sending(broker, route())
        receivings = [Receiving(broker, "work", prefetch=5) for _ in range(200)]
        await sending.ready()
        await eventually(lambda: all(each.subscription.problem == "" for each in receivings))
        await sending.outcome(sending.send(*[b"%d" % number for number in range(1000)]))
        await eventually(lambda: sum(len(each.deliveries) for each in receivings) == 1000)
        assert {len(each.deliveries) for each in receivings} == {5}
        for each in receivings:
            each.subscription.close()
