"""A cluster of three with quorum queues: it loses a node, and then its quorum."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.threads import deferToThread

from netd.bridge.broker import Outcome
from tests.bridge.broker_contract import Insisting, Receiving, netd_id, on_the_reactor, route
from tests.bridge.rabbit import RabbitArena, rabbit_broker
from tests.faults.cluster import RabbitCluster

SILENCE = 8.0
"""Seconds of a lost quorum: several times what any timer of netd's takes but those for a dead connection."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitCluster]:
    with RabbitCluster() as cluster:
        yield cluster


@on_the_reactor
async def test_messages_go_on_through_the_loss_of_a_node_and_wait_out_the_loss_of_the_quorum(
    cluster: RabbitCluster,
) -> None:
    await cluster.together()
    first, second, third = cluster.nodes
    with first.vhost() as vhost:
        arena = RabbitArena(first, vhost, "quorum")
        urls = [replace(vhost, port=node.port).url for node in (second, third, first)]
        broker = rabbit_broker(*urls)
        await broker.start()
        try:
            sending, receiving = Insisting(broker, route()), Receiving(broker, "other")
            beside = Insisting(broker, route("other"))
            await sending.ready()
            assert broker.state.name.endswith(f":{second.port}/{vhost.name}")
            assert set(await sending.final(sending.send(*[b"x"] * 1000))) == {Outcome.CONFIRMED}
            await beside.final(beside.send(b"before"))
            await receiving.received(1)

            # A node dies, the one netd is connected to: another URL, the same queue.
            sending.send(*[b"x"] * 1000)
            await deferToThread(second.kill)
            sending.send(*[b"x"] * 1000)
            assert set(await sending.final(range(1, 3001), 60)) == {Outcome.CONFIRMED}
            connected = broker.state.name
            at_third = connected.endswith(f":{third.port}/{vhost.name}")
            survivor, other = (third, first) if at_third else (first, third)
            beside.send(b"with one node less")
            await receiving.until(lambda: b"with one node less" in receiving.bodies, 60)

            # Another one dies: no majority. Nothing is confirmed, nothing is given up, nothing is sent again.
            await deferToThread(other.kill)
            openings, calls = sending.openings, sending.calls
            pending = sending.send(*[b"x"] * 500)
            told = receiving.interruptions[:]
            with pytest.raises(DeferTimeout):
                await sending.until(lambda: sending.calls > calls, SILENCE)
            assert (sending.openings, sending.calls) == (openings, calls)
            assert broker.state.state == "up"
            assert broker.state.name == connected
            assert told == receiving.interruptions

            # The quorum is there again: what waited is confirmed, each message once.
            await deferToThread(other.start)
            assert set(await sending.final(pending, 60)) == {Outcome.CONFIRMED}
            assert all(sending.outcomes[number] == [Outcome.CONFIRMED] for number in pending)
            arena.server = survivor
            stored = Counter(each.netd_id for each in await arena.stored("work"))
            assert len(stored) == 3500
            assert all(stored[netd_id(number)] == 1 for number in pending)
        finally:
            await broker.stop()
