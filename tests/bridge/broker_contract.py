"""What every broker does, whatever it is: the embedded one and RabbitMQ run the same cases.

A test module makes a fixture `arena` and a subclass of `BrokerContract`; pytest collects the cases from there.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pytest_twisted  # type: ignore[import-untyped]  # has no annotations
from twisted.internet import reactor as global_reactor  # noqa: TID251 - pytest-twisted runs this one
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from netd.bridge.broker import Broker, BrokerState, Outcome, Outlet, Subscription
from netd.bridge.messages import Block, Delivery, Extra, HeaderValue, Route
from netd.runtime import Reactor

reactor = cast("Reactor", global_reactor)
PATIENCE = 30.0
"""Seconds until something must have come about."""
ORIGIN = "feedface0001-1"


@dataclass(frozen=True, slots=True)
class Stored:
    """A message that a queue holds."""

    body: bytes
    netd_id: str


class Arena(Protocol):
    """Where a contract is tested: a broker of its own with the queues `work`, `other` and `small`, all empty.

    `small` holds two messages, or a few more, and then refuses.
    """

    def broker(self) -> Broker:
        """A client of it, not started."""

    async def stored(self, queue: str) -> Sequence[Stored]:
        """What stands in a queue, from front to back; it stays there."""


def on_the_reactor(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
    """A test that awaits Deferreds."""
    return cast("Callable[..., Any]", pytest_twisted.ensureDeferred(test))


class Waiting:
    """Waits for conditions that hold after one of several events."""

    def __init__(self) -> None:
        self._waiters: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def changed(self) -> None:
        for condition, waiter in list(self._waiters):
            if condition() and not waiter.called:
                waiter.callback(None)

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Return once the condition holds."""
        waiter: Deferred[None] = Deferred()
        waiter.addTimeout(patience, reactor)
        entry = condition, waiter
        self._waiters.append(entry)
        self.changed()
        try:
            await waiter
        finally:
            self._waiters.remove(entry)


async def eventually(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    """Return once the condition holds, which is asked for again and again."""
    until = reactor.seconds() + PATIENCE
    while not (held if isinstance(held := condition(), bool) else await held):
        assert reactor.seconds() < until, "it did not come about"
        await deferLater(reactor, 0.02)


class Sending(Waiting):
    """A sender that notes what it is told, and the outlet it sends through."""

    def __init__(self, broker: Broker, route: Route) -> None:
        super().__init__()
        self.outcomes: dict[int, list[Outcome]] = {}
        self.reasons: dict[int, str] = {}
        self.calls = 0
        self.openings = 0
        self.in_call = False
        self.next = 1
        self.route = route
        self.outlet: Outlet = broker.outlet(route, self)

    def settled(self, first: int, last: int, outcome: Outcome, reason: str = "") -> None:
        assert not self.in_call, "told from within publish"
        assert first <= last
        assert bool(reason) == (outcome is not Outcome.CONFIRMED)
        self.calls += 1
        for number in range(first, last + 1):
            assert number < self.next, "told of what was never sent"
            self.outcomes.setdefault(number, []).append(outcome)
            self.reasons[number] = reason
        self.changed()

    def opened(self) -> None:
        assert not self.in_call, "told from within publish"
        assert self.outlet.ready
        self.openings += 1
        self.changed()

    async def ready(self) -> None:
        await self.until(lambda: self.outlet.ready)

    def send(
        self, *bodies: bytes, keys: Sequence[bytes] | None = None, extras: dict[int, Extra] | None = None
    ) -> range:
        """Publish a block; returns the numbers of its messages."""
        numbers = range(self.next, self.next + len(bodies))
        self.next = numbers.stop
        self.give(Block(self.route, ORIGIN, numbers.start, 1_700_000_000, bodies, keys=keys, extras=extras))
        return numbers

    def give(self, block: Block) -> None:
        self.in_call = True
        self.outlet.publish(block, 0, len(block))
        self.in_call = False

    async def outcome(self, numbers: Sequence[int]) -> list[Outcome]:
        """What became of messages, once it is known."""
        await self.until(lambda: all(number in self.outcomes for number in numbers))
        return [self.outcomes[number][-1] for number in numbers]


class Receiving(Waiting):
    """A consumer that notes what it is told, and its subscription."""

    def __init__(self, broker: Broker, queue: str, prefetch: int = 100) -> None:
        super().__init__()
        self.deliveries: list[Delivery] = []
        self.interruptions: list[str] = []
        self.in_call = False
        self.subscription: Subscription = broker.subscribe(queue, prefetch, self)

    @property
    def bodies(self) -> list[bytes]:
        return [each.body for each in self.deliveries]

    def delivered(self, deliveries: Sequence[Delivery]) -> None:
        assert not self.in_call, "delivered from within a call"
        assert deliveries
        assert all(each.tag > (self.deliveries[-1].tag if self.deliveries else 0) for each in deliveries)
        self.deliveries += deliveries
        self.changed()

    def interrupted(self, reason: str) -> None:
        assert not self.in_call, "interrupted from within a call"
        assert reason
        self.interruptions.append(reason)
        self.changed()

    async def received(self, count: int) -> list[bytes]:
        """The bodies of what has come, once it is so many."""
        await self.until(lambda: len(self.deliveries) >= count)
        return self.bodies

    def acknowledge(self, delivery: Delivery, *, all_up_to: bool = False) -> None:
        self.in_call = True
        self.subscription.acknowledge(delivery.tag, all_up_to=all_up_to)
        self.in_call = False

    def give_back(self, delivery: Delivery, *, all_up_to: bool = False) -> None:
        self.in_call = True
        self.subscription.give_back(delivery.tag, all_up_to=all_up_to)
        self.in_call = False


def route(key: str = "work") -> Route:
    return Route("lines", "", key)


def netd_id(number: int) -> str:
    return f"{ORIGIN}-{number:016d}"


@asynccontextmanager
async def started(arena: Arena) -> AsyncIterator[Broker]:
    """A client of the arena's broker that runs."""
    broker = arena.broker()
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


class BrokerContract:
    """The cases."""

    # --- in

    @on_the_reactor
    async def test_messages_reach_their_queue_in_order_and_are_confirmed_once(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            await sending.ready()
            bodies = [b"line %d" % number for number in range(1, 501)]
            for at in range(0, 500, 50):
                sending.send(*bodies[at : at + 50])
            assert set(await sending.outcome(range(1, 501))) == {Outcome.CONFIRMED}
            assert all(len(told) == 1 for told in sending.outcomes.values())
            assert sending.outlet.problem == ""
            expected = [Stored(body, netd_id(number)) for number, body in enumerate(bodies, 1)]
            assert list(await arena.stored("work")) == expected

    @on_the_reactor
    async def test_part_of_a_block_can_be_sent(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            await sending.ready()
            sending.next = 6
            sending.outlet.publish(Block(route(), ORIGIN, 1, 0, [b"1", b"2", b"3", b"4", b"5"]), 1, 4)
            await sending.outcome(range(2, 5))
            assert [each.body for each in await arena.stored("work")] == [b"2", b"3", b"4"]
            assert set(sending.outcomes) == {2, 3, 4}

    @on_the_reactor
    async def test_a_message_no_queue_takes_is_returned_and_its_neighbours_are_confirmed(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            await sending.ready()
            keys = [b"nowhere" if number % 3 == 0 else b"work" for number in range(300)]
            numbers = sending.send(*[b"%d" % number for number in range(300)], keys=keys)
            outcomes = await sending.outcome(numbers)
            expected = [Outcome.RETURNED if key == b"nowhere" else Outcome.CONFIRMED for key in keys]
            assert outcomes == expected
            assert all(len(told) == 1 for told in sending.outcomes.values())
            assert sending.reasons[1] == "312 NO_ROUTE"
            assert len(await arena.stored("work")) == 200

    @on_the_reactor
    async def test_a_full_queue_refuses_and_takes_again_when_it_has_room(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route("small"))
            await sending.ready()
            taken = 0
            while await sending.outcome(sending.send(b"x")) == [Outcome.CONFIRMED]:
                taken += 1
                assert taken < 20
            assert taken >= 2
            assert "full" in sending.reasons[taken + 1]
            assert "full" in sending.outlet.problem

            receiving = Receiving(broker, "small")
            await receiving.received(taken)
            receiving.acknowledge(receiving.deliveries[-1], all_up_to=True)

            async def is_taken() -> bool:
                return (await sending.outcome(sending.send(b"again"))) == [Outcome.CONFIRMED]

            await eventually(is_taken)
            assert sending.outlet.problem == ""

    @on_the_reactor
    async def test_every_byte_of_a_body_arrives_however_long_it_is(self, arena: Arena) -> None:
        bodies = [bytes(range(256)), b"\0", b"x" * 131064, b"y" * 131065, bytes(300_000), b"\xce\xce"]
        async with started(arena) as broker:
            sending = Sending(broker, route())
            receiving = Receiving(broker, "work")
            await sending.ready()
            assert set(await sending.outcome(sending.send(*bodies))) == {Outcome.CONFIRMED}
            assert await receiving.received(len(bodies)) == bodies

    @on_the_reactor
    async def test_key_headers_and_ids_arrive_as_they_were_given(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            receiving = Receiving(broker, "other")
            await sending.ready()
            headers: Mapping[str, HeaderValue] = {"s": "ü", "n": -3, "big": 1 << 40, "f": 1.5, "b": True, "none": None}
            extras = {0: Extra(headers, message_id="mine"), 1: Extra(peer="10.0.0.9"), 2: Extra(netd_id="old-1")}
            numbers = sending.send(b"a", b"b", b"c", b"d", keys=[b"other"] * 4, extras=extras)
            assert set(await sending.outcome(numbers)) == {Outcome.CONFIRMED}
            await receiving.received(4)
            first, second, third, fourth = (each.details() for each in receiving.deliveries)
            assert (first.key, first.deliveries) == ("other", 1)
            assert first.headers == {**headers, "x-netd-id": netd_id(1)}
            assert second.headers == {"x-netd-peer": "10.0.0.9", "x-netd-id": netd_id(2)}
            assert third.headers == {"x-netd-id": "old-1"}
            assert fourth.headers == {"x-netd-id": netd_id(4)}

    @on_the_reactor
    async def test_a_dead_letter_tried_again_that_comes_back_is_recognised(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            await sending.ready()
            numbers = sending.send(b"a", b"b", keys=[b"nowhere", b"work"], extras={0: Extra(netd_id="old-7")})
            assert await sending.outcome(numbers) == [Outcome.RETURNED, Outcome.CONFIRMED]

    @on_the_reactor
    async def test_an_outlet_that_was_closed_tells_nothing(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending, other = Sending(broker, route()), Sending(broker, route())
            await sending.ready()
            await other.ready()
            sending.send(*[b"x"] * 100)
            sending.outlet.close()
            other.send(*[b"y"] * 100)
            await other.outcome(range(1, 101))
            assert sending.outcomes == {}

    @on_the_reactor
    async def test_two_outlets_do_not_disturb_each_other(self, arena: Arena) -> None:
        async with started(arena) as broker:
            good, bad = Sending(broker, route()), Sending(broker, route("nowhere"))
            await good.ready()
            await bad.ready()
            for _ in range(20):
                good.send(*[b"good"] * 10)
                bad.send(*[b"bad"] * 10)
            assert set(await good.outcome(range(1, 201))) == {Outcome.CONFIRMED}
            assert set(await bad.outcome(range(1, 201))) == {Outcome.RETURNED}

    # --- out

    @on_the_reactor
    async def test_deliveries_come_in_order_and_what_is_acknowledged_is_gone(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            await sending.ready()
            bodies = [b"%d" % number for number in range(200)]
            await sending.outcome(sending.send(*bodies))
            receiving = Receiving(broker, "work", prefetch=1000)
            assert await receiving.received(200) == bodies
            assert not any(each.redelivered for each in receiving.deliveries)
            for delivery in receiving.deliveries[100:150]:
                receiving.acknowledge(delivery)
            receiving.acknowledge(receiving.deliveries[99], all_up_to=True)
            receiving.subscription.close()

            async def rest() -> bool:
                return [each.body for each in await arena.stored("work")] == bodies[150:]

            await eventually(rest)

    @on_the_reactor
    async def test_no_more_than_prefetch_come_before_something_is_settled(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending, beside = Sending(broker, route()), Sending(broker, route("other"))
            receiving, mark = Receiving(broker, "work", prefetch=10), Receiving(broker, "other")
            await sending.ready()
            await beside.ready()
            await sending.outcome(sending.send(*[b"x"] * 30))
            assert len(await receiving.received(10)) == 10
            receiving.acknowledge(receiving.deliveries[3])
            receiving.acknowledge(receiving.deliveries[4])
            assert len(await receiving.received(12)) == 12
            beside.send(b"later")
            await mark.received(1)
            assert len(receiving.deliveries) == 12

    @on_the_reactor
    async def test_what_is_given_back_comes_again_and_says_so(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            receiving = Receiving(broker, "work", prefetch=3)
            await sending.ready()
            sending.send(b"a", b"b", b"c")
            await receiving.received(3)
            receiving.acknowledge(receiving.deliveries[1])
            receiving.give_back(receiving.deliveries[2], all_up_to=True)
            await receiving.received(5)
            assert sorted(receiving.bodies[3:]) == [b"a", b"c"]
            for again in receiving.deliveries[3:]:
                assert again.redelivered
                assert again.details().deliveries == 2

    @on_the_reactor
    async def test_two_subscriptions_compete(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            one, two = Receiving(broker, "work", prefetch=10), Receiving(broker, "work", prefetch=10)
            await sending.ready()
            await eventually(lambda: not one.subscription.problem and not two.subscription.problem)
            await sending.outcome(sending.send(*[b"%d" % number for number in range(20)]))
            await one.received(10)
            await two.received(10)
            assert sorted(one.bodies + two.bodies, key=int) == [b"%d" % number for number in range(20)]

    @on_the_reactor
    async def test_what_a_closed_subscription_had_goes_to_another(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            one = Receiving(broker, "work")
            await sending.ready()
            await sending.outcome(sending.send(b"a", b"b", b"c"))
            await one.received(3)
            one.acknowledge(one.deliveries[0])
            one.subscription.close()
            two = Receiving(broker, "work")
            assert await two.received(2) == [b"b", b"c"]
            assert all(each.redelivered for each in two.deliveries)
            assert len(one.deliveries) == 3
            assert one.interruptions == []

    @on_the_reactor
    async def test_settling_twice_or_what_never_was_does_nothing(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            receiving = Receiving(broker, "work", prefetch=2)
            await sending.ready()
            sending.send(b"a", b"b", b"c")
            await receiving.received(2)
            first, second = receiving.deliveries
            receiving.acknowledge(first)
            receiving.acknowledge(first)
            receiving.give_back(first)
            receiving.subscription.acknowledge(0)
            receiving.subscription.acknowledge(second.tag + 1000)
            receiving.subscription.give_back(second.tag + 1000, all_up_to=True)
            await receiving.received(3)
            receiving.acknowledge(receiving.deliveries[2], all_up_to=True)
            receiving.acknowledge(receiving.deliveries[2], all_up_to=True)
            sending.send(b"d")
            assert await receiving.received(4) == [b"a", b"b", b"c", b"d"]
            assert receiving.interruptions == []

    # --- as a whole

    @on_the_reactor
    async def test_a_broker_that_runs_is_up_and_says_which_it_is(self, arena: Arena) -> None:
        async with started(arena) as broker:
            sending = Sending(broker, route())
            receiving = Receiving(broker, "work")
            await sending.ready()
            await eventually(lambda: broker.state.state == "up" and receiving.subscription.problem == "")
            assert broker.state == BrokerState("up", "", broker.state.name)
            assert broker.state.name
            assert sending.outlet.problem == ""


class Insisting(Sending):
    """A sender that gives messages again until they are confirmed or returned, as a lane does."""

    def __init__(self, broker: Broker, route: Route) -> None:
        super().__init__(broker, route)
        self._kept: dict[int, tuple[bytes, bytes]] = {}
        self._again: set[int] = set()

    def send(
        self, *bodies: bytes, keys: Sequence[bytes] | None = None, extras: dict[int, Extra] | None = None
    ) -> range:
        numbers = range(self.next, self.next + len(bodies))
        for number, body, key in zip(numbers, bodies, keys or [b""] * len(bodies), strict=True):
            self._kept[number] = body, key or self.route.routing_key.encode()
        if self.outlet.ready and not self._again:
            return super().send(*bodies, keys=keys, extras=extras)
        self.next = numbers.stop
        self._again.update(numbers)
        return numbers

    def settled(self, first: int, last: int, outcome: Outcome, reason: str = "") -> None:
        if outcome in {Outcome.LOST, Outcome.REFUSED}:
            self._again.update(range(first, last + 1))
            if outcome is Outcome.REFUSED:
                reactor.callLater(0.05, self._give_again)
        super().settled(first, last, outcome, reason)

    def opened(self) -> None:
        super().opened()
        self._give_again()

    def _give_again(self) -> None:
        again = sorted(self._again)
        if not again or not self.outlet.ready:
            return
        self._again.clear()
        while again:  # in blocks of consecutive numbers
            count = next((at for at in range(1, len(again)) if again[at] != again[0] + at), len(again))
            bodies, keys = zip(*(self._kept[number] for number in again[:count]), strict=True)
            self.give(Block(self.route, ORIGIN, again[0], 1_700_000_000, bodies, keys=keys))
            del again[:count]

    async def final(self, numbers: Sequence[int], patience: float = PATIENCE) -> list[Outcome]:
        """What became of messages in the end."""
        done = {Outcome.CONFIRMED, Outcome.RETURNED}
        await self.until(lambda: all(self.outcomes.get(number, [None])[-1] in done for number in numbers), patience)
        return [self.outcomes[number][-1] for number in numbers]
