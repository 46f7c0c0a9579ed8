"""A broker that freezes, crashes, or has no disk left, with the figures of the default configuration."""

from twisted.internet.threads import deferToThread

from netd.bridge.broker import BrokerState, Outcome
from tests.bridge.broker_contract import Insisting, Receiving, eventually, on_the_reactor, reactor, route, started
from tests.bridge.rabbit import RabbitArena
from tests.servers import RabbitServer, VirtualHost


@on_the_reactor
async def test_a_frozen_broker_is_noticed_within_25_seconds_with_data_that_it_never_reads(
    rabbit_server: RabbitServer, rabbit_vhost: VirtualHost
) -> None:
    arena = RabbitArena(rabbit_server, rabbit_vhost, "quorum")
    async with started(arena) as broker:
        sending, receiving = Insisting(broker, route()), Receiving(broker, "other")
        await sending.ready()
        await eventually(lambda: receiving.subscription.problem == "")
        rabbit_server.pause()
        before = reactor.seconds()
        numbers = sending.send(*[bytes(100_000)] * 300)
        await sending.until(lambda: not sending.outlet.ready)
        took = reactor.seconds() - before
        await receiving.until(lambda: len(receiving.interruptions) == 1)
        rabbit_server.resume()
        assert took < 25, f"{took:.1f} s"
        assert broker.state.state == "away"
        assert set(await sending.final(numbers, 60)) == {Outcome.CONFIRMED}


@on_the_reactor
async def test_a_full_disk_of_the_broker_is_waited_out(rabbit_server: RabbitServer, rabbit_vhost: VirtualHost) -> None:
    arena = RabbitArena(rabbit_server, rabbit_vhost, "quorum")
    async with started(arena) as broker:
        sending = Insisting(broker, route())
        await sending.ready()
        await sending.final(sending.send(b"0"))
        try:
            await deferToThread(rabbit_server.ctl, "set_disk_free_limit", "1000000GB")
            sending.send(b"1")
            await eventually(lambda: broker.state.state == "blocked")
            assert broker.state.reason == "low on disk"
            sending.send(b"2")
        finally:
            await deferToThread(rabbit_server.ctl, "set_disk_free_limit", "50MB")
        assert set(await sending.final(range(1, 4), 60)) == {Outcome.CONFIRMED}
        assert broker.state == BrokerState("up", "", broker.state.name)
        assert [each.body for each in await arena.stored("work")] == [b"0", b"1", b"2"]


@on_the_reactor
async def test_a_killed_broker_is_given_again_what_it_had_not_confirmed_and_delivers_again_what_was_not_settled(
    rabbit_server: RabbitServer, rabbit_vhost: VirtualHost
) -> None:
    arena = RabbitArena(rabbit_server, rabbit_vhost, "quorum")
    async with started(arena) as broker:
        beside, receiving = Insisting(broker, route("other")), Receiving(broker, "other")
        sending = Insisting(broker, route())
        await beside.ready()
        await beside.final(beside.send(b"a", b"b", b"c"))
        await receiving.received(3)
        receiving.acknowledge(receiving.deliveries[0])
        await sending.ready()
        await sending.final(sending.send(*[b"%d" % number for number in range(1000)]))
        rabbit_server.pause()
        unsure = sending.send(*[b"%d" % number for number in range(1000, 3000)])
        await deferToThread(rabbit_server.kill)
        await sending.until(lambda: not sending.outlet.ready)
        await receiving.until(lambda: len(receiving.interruptions) == 1)
        assert broker.state.state == "away"
        sending.send(b"while it is away")
        await deferToThread(rabbit_server.start)

        assert set(await sending.final(range(1, sending.next), 60)) == {Outcome.CONFIRMED}
        assert all(Outcome.LOST in sending.outcomes[number] for number in unsure)
        stored = [each.netd_id for each in await arena.stored("work")]
        assert list(dict.fromkeys(stored)) == sorted(set(stored)), "the first of each is in order"
        assert len(set(stored)) == 3001
        again = (await receiving.received(5))[3:]
        assert again == [b"b", b"c"]
        assert all(each.redelivered for each in receiving.deliveries[3:])
        beside.send(b"d")
        assert (await receiving.received(6))[-1] == b"d"
