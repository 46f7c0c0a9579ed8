"""A broker that is killed and comes back while netd publishes and consumes."""

from twisted.internet.threads import deferToThread

from netd.bridge.broker import Outcome
from tests.bridge.broker_contract import Insisting, Receiving, on_the_reactor, route, started
from tests.bridge.rabbit import RabbitArena
from tests.servers import RabbitServer, VirtualHost


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
