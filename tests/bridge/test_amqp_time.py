"""What netd does as time passes, and with a broker that does what it must not, on a clock and a broker in memory."""

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import pytest
from pika import spec
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.python.failure import Failure

from netd.bridge.broker import Broker, BrokerState, Outcome
from netd.bridge.frames import BASIC_DELIVER
from netd.bridge.messages import Block
from netd.bridge.outlet import UNRESTRICTED
from netd.bridge.rabbit import CHANNELS, RabbitBroker
from netd.log import LogOutput, render_json
from netd.ports import Ports
from netd.runtime import Runtime
from tests.bridge.broker_contract import ORIGIN, Receiving, Sending, netd_id, route
from tests.bridge.fake_rabbit import (
    ANSWERS,
    BROKER,
    FakeRabbit,
    MemoryTime,
    accept,
    make_reactor,
    message,
    settings,
    settle,
)
from tests.fakes import result_of

HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"


@dataclass
class Scene:
    """A broker of netd's over a reactor in memory."""

    memory: MemoryTime
    broker: Broker

    def connect(self) -> FakeRabbit:
        """Let netd's newest connection succeed."""
        return accept(self.memory)

    def refuse(self) -> None:
        """Let it fail."""
        _, _, factory, *_ = self.memory.tcpClients[-1]
        cast("Any", factory).clientConnectionFailed(None, Failure(Refused()))

    @property
    def reason(self) -> str:
        return self.broker.state.reason


@pytest.fixture
def scene(tmp_path: Any) -> Scene:
    memory, reactor = make_reactor()
    runtime = Runtime(reactor, LogOutput(lambda _: None, render_json, "info"), tmp_path, Ports(reactor))
    table = settings(BROKER, subscribe={})
    scene = Scene(memory, RabbitBroker(table, runtime, "bridge.main"))
    result_of(scene.broker.start())
    return scene


def sending_on(scene: Scene) -> tuple[FakeRabbit, Sending]:
    rabbit = scene.connect()
    sending = Sending(scene.broker, route())
    settle(scene.memory)
    assert sending.outlet.ready
    return rabbit, sending


# --- mute brokers


def test_a_broker_that_never_answers_the_handshake_is_left_after_ten_seconds(scene: Scene) -> None:
    rabbit = accept(scene.memory, mute=True)
    scene.memory.advance(9.9)
    assert not rabbit.gone
    scene.memory.advance(0.2)
    settle(scene.memory)
    assert rabbit.gone
    assert scene.reason == "the broker did not answer the handshake within 10 s"


def test_a_broker_that_begins_the_handshake_and_stops_is_left_too(scene: Scene) -> None:
    rabbit = accept(scene.memory, mute=True)
    rabbit.say(0, spec.Connection.Start(0, 9, {}, "PLAIN", "en_US"))
    scene.memory.advance(10.1)
    settle(scene.memory)
    assert rabbit.gone


def test_a_broker_that_falls_silent_is_left_within_25_seconds(scene: Scene) -> None:
    rabbit, sending = sending_on(scene)
    rabbit.mute = True
    sending.send(b"a")
    scene.memory.advance(7)  # whenever in the interval it was
    rabbit.say(0, HEARTBEAT)
    before = scene.memory.seconds()
    while not rabbit.gone:
        scene.memory.advance(0.5)
        assert scene.memory.seconds() - before < 25
    assert scene.memory.seconds() - before >= 20
    assert sending.outcomes == {1: [Outcome.LOST]}
    assert sending.reasons[1].startswith("no sign of life from the broker for 2")
    assert not sending.outlet.ready


def test_a_broker_that_beats_is_kept_and_beaten_back(scene: Scene) -> None:
    rabbit, _ = sending_on(scene)
    for _ in range(30):
        scene.memory.advance(5)
        rabbit.say(0, HEARTBEAT)
    assert not rabbit.gone
    assert rabbit.beats >= 25


# --- brokers that say what they must not


WRONG = {
    "a confirm of what was never published": [spec.Basic.Ack(7)],
    "a confirm of more than was published": [spec.Basic.Ack(9, multiple=True)],
    "a message that was never published comes back": [
        message(1, spec.Basic.Return(312, "NO_ROUTE", "", "work"), spec.BasicProperties(), b"x")
    ],
    "a message with the number of no message comes back": [
        message(
            1,
            spec.Basic.Return(312, "NO_ROUTE", "", "work"),
            spec.BasicProperties(headers={"x-netd-id": netd_id(99)}),
            b"x",
        )
    ],
    "bytes that are no frame": [b"\0" * 20],
    "a method that nobody knows": [b"\1\0\1\0\0\0\4\0\x63\0\x63\xce"],
    "a method that ends too early": [b"\1\0\0\0\0\0\5\0\x0a\0\x32\1\xce"],
}


@pytest.mark.parametrize("says", WRONG.values(), ids=WRONG)
def test_a_broker_that_says_what_it_must_not_is_left_and_nothing_counts_as_confirmed(
    scene: Scene, says: list[Any]
) -> None:
    rabbit, sending = sending_on(scene)
    rabbit.mute = True
    sending.send(b"a", b"b")
    rabbit.say(1, *says)
    settle(scene.memory)
    assert rabbit.gone
    assert sending.outcomes == {1: [Outcome.LOST], 2: [Outcome.LOST]}
    assert scene.broker.state.state == "away"
    again = _connect_again(scene)
    assert sending.outlet.ready
    assert not again.gone


def _connect_again(scene: Scene) -> FakeRabbit:
    attempts = len(scene.memory.tcpClients)
    for _ in range(100):
        scene.memory.advance(0.1)
        if len(scene.memory.tcpClients) > attempts:
            return scene.connect()
    raise AssertionError("no attempt within ten seconds")


def test_a_nack_of_several_messages_refuses_those_that_were_not_confirmed(scene: Scene) -> None:
    rabbit, sending = sending_on(scene)
    rabbit.mute = True
    sending.send(b"1", b"2", b"3", b"4")
    rabbit.say(1, spec.Basic.Ack(2), spec.Basic.Nack(3, multiple=True), spec.Basic.Ack(4))
    told = [sending.outcomes[number] for number in range(1, 5)]
    assert told == [[Outcome.REFUSED], [Outcome.CONFIRMED], [Outcome.REFUSED], [Outcome.CONFIRMED]]


def test_confirms_in_one_read_are_told_in_one_range(scene: Scene) -> None:
    rabbit, sending = sending_on(scene)
    rabbit.mute = True
    for at in range(10):
        sending.give(Block(route(), ORIGIN, 1 + at * 100, 0, [b"x"] * 100))
    sending.next = 1001
    rabbit.say(1, spec.Basic.Ack(500, multiple=True), *(spec.Basic.Ack(tag) for tag in range(501, 1001)))
    assert len(sending.outcomes) == 1000
    assert sending.calls == 1


def test_every_message_is_published_persistent_mandatory_and_with_its_id(scene: Scene) -> None:
    rabbit, sending = sending_on(scene)
    sending.send(b"a", b"b")
    settle(scene.memory)
    published = [each for each in rabbit.methods if isinstance(each, spec.Basic.Publish)]
    assert [each.mandatory for each in published] == [True, True]
    assert [each.headers for each in rabbit.headers] == [{"x-netd-id": netd_id(1)}, {"x-netd-id": netd_id(2)}]
    assert {each.delivery_mode for each in rabbit.headers} == {2}


class Eager(Sending):
    """A sender that publishes something new as soon as anything is confirmed."""

    def settled(self, first: int, last: int, outcome: Outcome, reason: str = "") -> None:
        super().settled(first, last, outcome, reason)
        if outcome is Outcome.CONFIRMED:
            self.send(b"new")


def test_nothing_new_overtakes_what_is_held_while_a_culprit_is_sought(scene: Scene) -> None:
    rabbit = scene.connect()
    sending = Eager(scene.broker, route())
    settle(scene.memory)
    sending.send(*[b"x"] * 2 * UNRESTRICTED)
    sending.send(*[b"x"] * 2 * UNRESTRICTED)
    rabbit.say(1, spec.Channel.Close(406, "PRECONDITION_FAILED - one of these", 60, 40))
    settle(scene.memory)
    assert sending.outcomes == {number: [Outcome.LOST] for number in range(1, 4 * UNRESTRICTED + 1)}
    rabbit.headers.clear()
    for first in (1, 2 * UNRESTRICTED + 1):
        sending.give(Block(route(), ORIGIN, first, 0, [b"x"] * 2 * UNRESTRICTED))
    settle(scene.memory)
    rabbit.say(1, spec.Basic.Ack(len(rabbit.headers), multiple=True))
    settle(scene.memory)
    published = [each.headers["x-netd-id"] for each in rabbit.headers]
    assert published == [netd_id(number) for number in range(1, 4 * UNRESTRICTED + 2)]


class Patient(Sending):
    """A sender that publishes something new when anything is confirmed, until it is told that something was refused."""

    def settled(self, first: int, last: int, outcome: Outcome, reason: str = "") -> None:
        super().settled(first, last, outcome, reason)
        refused = any(Outcome.REFUSED in each for each in self.outcomes.values())
        if self.outlet.ready and not refused:
            self.send(b"new")


def test_nothing_new_is_published_before_a_refusal_that_came_in_the_same_read_is_told(scene: Scene) -> None:
    rabbit = scene.connect()
    sending = Patient(scene.broker, route())
    settle(scene.memory)
    sending.send(b"1", b"2", b"3")
    rabbit.say(1, spec.Basic.Ack(1), spec.Basic.Nack(2), spec.Basic.Ack(3))
    settle(scene.memory)
    assert list(sending.outcomes) == [1, 2, 3]
    assert len(rabbit.headers) == 3
    assert sending.outlet.ready


def test_what_is_held_while_a_culprit_is_sought_does_not_overtake_what_is_refused(scene: Scene) -> None:
    rabbit, sending = sending_on(scene)
    sending.send(*[b"x"] * 4)
    rabbit.say(1, spec.Channel.Close(406, "PRECONDITION_FAILED - one of these", 60, 40))
    settle(scene.memory)
    rabbit.headers.clear()
    sending.give(Block(route(), ORIGIN, 1, 0, [b"x"] * 4))
    settle(scene.memory)
    assert len(rabbit.headers) == 2
    rabbit.say(1, spec.Basic.Ack(1), spec.Basic.Nack(2))
    settle(scene.memory)
    assert len(rabbit.headers) == 2
    told = [sending.outcomes[number][1:] for number in range(1, 5)]
    assert told == [[Outcome.CONFIRMED], [Outcome.REFUSED], [Outcome.LOST], [Outcome.LOST]]


# --- connecting again


def test_a_broker_that_was_not_tried_yet_is_shown_by_its_address(scene: Scene) -> None:
    assert scene.broker.state == BrokerState("away", "not connected yet", "amqp://guest@127.0.0.1:5672/%2F")


def test_a_host_that_swallows_packets_is_given_up_after_ten_seconds(scene: Scene) -> None:
    scene.memory.advance(9.9)
    assert scene.reason == "not connected yet"
    scene.memory.pump([0.1] * 5)
    assert scene.reason == "no answer within 10 s"
    scene.memory.pump([0.1] * 10)
    assert len(scene.memory.tcpClients) > 1


def test_attempts_come_less_and_less_often_but_at_least_every_five_seconds(scene: Scene) -> None:
    attempts = [scene.memory.seconds()]
    scene.refuse()
    while len(attempts) < 12:
        before = len(scene.memory.tcpClients)
        scene.memory.advance(0.01)
        if len(scene.memory.tcpClients) > before:
            attempts.append(scene.memory.seconds())
            scene.refuse()
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    assert 0.1 <= waits[0] <= 0.75  # Twisted's own 0.3 s for further addresses of a host among them
    assert all(2.4 <= wait <= 5.4 for wait in waits[6:])
    assert len({round(wait, 2) for wait in waits[6:]}) > 1, "they differ by chance"
    assert scene.reason == "connection refused"


def test_a_connection_that_lasted_makes_the_next_wait_short(scene: Scene) -> None:
    for _ in range(8):
        scene.refuse()
        scene.memory.pump([0.1] * 56)  # the longest wait, and what Twisted adds for a second address
    rabbit = scene.connect()
    for _ in range(3):
        scene.memory.advance(5)
        rabbit.say(0, HEARTBEAT)
    rabbit.leave()
    attempts = len(scene.memory.tcpClients)
    scene.memory.advance(0.21)
    assert len(scene.memory.tcpClients) == attempts + 1


def test_a_broker_that_leaves_says_why(scene: Scene) -> None:
    rabbit, sending = sending_on(scene)
    sending.send(b"a")
    rabbit.say(0, spec.Connection.Close(320, "CONNECTION_FORCED - broker forced connection closure", 0, 0))
    settle(scene.memory)
    assert scene.reason == "320 CONNECTION_FORCED - broker forced connection closure"
    assert sending.reasons == {1: scene.reason}


def test_a_channel_that_the_broker_closes_for_its_own_reasons_is_opened_less_and_less_often(scene: Scene) -> None:
    rabbit, sending = sending_on(scene)
    for _ in range(10):
        rabbit.say(1, spec.Channel.Close(541, "INTERNAL_ERROR", 60, 40))
        scene.memory.pump([0.1] * 55)
        settle(scene.memory)
    opened = sum(isinstance(each, spec.Channel.Open) for each in rabbit.methods)
    assert opened == 11
    rabbit.say(1, spec.Channel.Close(541, "INTERNAL_ERROR", 60, 40))
    scene.memory.advance(4)
    settle(scene.memory)
    assert not sending.outlet.ready
    assert sending.outlet.problem == "541 INTERNAL_ERROR"


# --- going


def test_netd_takes_leave_of_a_broker_that_answers(scene: Scene) -> None:
    rabbit, _ = sending_on(scene)
    stop(scene)
    assert any(isinstance(each, spec.Connection.Close) for each in rabbit.methods)
    assert rabbit.gone


def test_netd_waits_two_seconds_for_a_broker_that_does_not(scene: Scene) -> None:
    rabbit, _ = sending_on(scene)
    rabbit.mute = True
    stopping = Deferred.fromCoroutine(scene.broker.stop())
    settle(scene.memory)
    assert not rabbit.gone
    scene.memory.advance(2.1)
    settle(scene.memory)
    assert rabbit.gone
    result_of(stopping)


def stop(scene: Scene) -> None:
    stopping = Deferred.fromCoroutine(scene.broker.stop())
    settle(scene.memory)
    result_of(stopping)


def test_nothing_is_tried_any_more_once_netd_has_stopped(scene: Scene) -> None:
    scene.refuse()
    stop(scene)
    attempts = len(scene.memory.tcpClients)
    scene.memory.pump([1] * 30)
    assert len(scene.memory.tcpClients) == attempts
    assert scene.memory.getDelayedCalls() == []


def test_stopping_while_the_handshake_is_under_way_ends_it(scene: Scene) -> None:
    rabbit = accept(scene.memory, mute=True)
    stop(scene)
    assert rabbit.gone
    assert scene.memory.getDelayedCalls() == []


# --- consuming


def test_a_consumer_that_the_broker_cancels_has_its_channel_closed(scene: Scene) -> None:
    """What was delivered there comes again from wherever the queue is now."""
    receiving = Receiving(scene.broker, "work")
    rabbit = scene.connect()
    settle(scene.memory)
    delivery = message(1, spec.Basic.Deliver("netd", 1, False, "", "work"), spec.BasicProperties(), b"a")
    rabbit.say(1, delivery, spec.Basic.Cancel("netd", True), delivery)
    settle(scene.memory)
    assert receiving.bodies == [b"a"]
    assert len(receiving.interruptions) == 1
    assert any(isinstance(each, spec.Channel.Close) for each in rabbit.methods)
    scene.memory.pump([0.1] * 10)
    settle(scene.memory)
    rabbit.say(1, delivery)
    assert receiving.bodies == [b"a", b"a"]
    assert receiving.deliveries[1].tag > receiving.deliveries[0].tag


@pytest.mark.parametrize("stage", [spec.Channel.Open, spec.Basic.Qos, spec.Queue.Declare, spec.Basic.Consume])
def test_a_consumer_that_leaves_while_its_channel_is_made_leaves_no_channel_behind(scene: Scene, stage: type) -> None:
    """The messages that the broker sends there would be nobody's for as long as the connection lasts."""
    staying = Receiving(scene.broker, "work")
    rabbit = scene.connect()
    settle(scene.memory)
    rabbit.keeps_waiting = stage
    receiving = Receiving(scene.broker, "work")
    settle(scene.memory)
    assert len(rabbit.waiting) == 1
    receiving.subscription.close()
    rabbit.go_on()
    settle(scene.memory)
    assert any(isinstance(each, spec.Channel.Close) for each in rabbit.methods)
    assert staying.interruptions == receiving.interruptions == []
    assert not rabbit.gone


def test_a_lane_that_is_closed_while_its_channel_is_made_leaves_no_channel_behind(scene: Scene) -> None:
    rabbit = scene.connect()
    rabbit.keeps_waiting = spec.Confirm.Select
    sending = Sending(scene.broker, route())
    settle(scene.memory)
    assert len(rabbit.waiting) == 1
    sending.outlet.close()
    rabbit.go_on()
    settle(scene.memory)
    assert any(isinstance(each, spec.Channel.Close) for each in rabbit.methods)


@pytest.mark.parametrize("arguments", [b"", b"\1t\0", b"\xff"])
def test_a_delivery_that_cannot_be_read_ends_the_connection(scene: Scene, arguments: bytes) -> None:
    receiving = Receiving(scene.broker, "work")
    rabbit = scene.connect()
    settle(scene.memory)
    delivery = bytearray(message(1, spec.Basic.Deliver("", 1, False, "", ""), spec.BasicProperties(), b"a"))
    delivery[3:24] = struct.pack(">I", 4 + len(arguments)) + BASIC_DELIVER + arguments + b"\xce"
    rabbit.say(1, bytes(delivery))
    settle(scene.memory)
    assert rabbit.gone
    assert receiving.deliveries == []
    again = _connect_again(scene)
    again.say(1, message(1, spec.Basic.Deliver("netd", 1, False, "", "work"), spec.BasicProperties(), b"b"))
    assert receiving.bodies == [b"b"]


@pytest.mark.parametrize(("count", "deliveries"), [(2, 3), (-3, 1), (0, 1)])
def test_how_often_a_message_was_delivered_is_never_less_than_once(scene: Scene, count: int, deliveries: int) -> None:
    receiving = Receiving(scene.broker, "work")
    rabbit = scene.connect()
    settle(scene.memory)
    properties = spec.BasicProperties(headers={"x-delivery-count": count})
    rabbit.say(1, message(1, spec.Basic.Deliver("netd", 1, False, "", "work"), properties, b"a"))
    assert [each.details().deliveries for each in receiving.deliveries] == [deliveries]


def test_acknowledgements_of_an_earlier_channel_are_not_sent_on_a_later_one(scene: Scene) -> None:
    receiving = Receiving(scene.broker, "work")
    rabbit = scene.connect()
    settle(scene.memory)
    frames = [
        message(1, spec.Basic.Deliver("netd", tag, False, "", "work"), spec.BasicProperties(), b"%d" % tag)
        for tag in (1, 2, 3)
    ]
    rabbit.say(1, *frames)
    rabbit.leave()
    again = _connect_again(scene)
    settle(scene.memory)
    again.say(1, frames[0])
    for delivery in receiving.deliveries[:3]:
        receiving.acknowledge(delivery)
    receiving.acknowledge(receiving.deliveries[3])
    settle(scene.memory)
    acks = [each.delivery_tag for each in again.methods if isinstance(each, spec.Basic.Ack)]
    assert acks == [1]


def test_a_thousand_consumers_share_a_connection_and_the_next_one_has_another(scene: Scene) -> None:
    connections = len(scene.memory.tcpClients)
    for _ in range(CHANNELS):
        Receiving(scene.broker, "work")
    settle(scene.memory)
    assert len(scene.memory.tcpClients) == connections + 1
    Receiving(scene.broker, "work")
    settle(scene.memory)
    assert len(scene.memory.tcpClients) == connections + 2


def test_a_consumer_for_whom_no_channel_was_free_gets_one_when_another_leaves(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers may be set to allow few channels on a connection (channel_max)."""
    monkeypatch.setitem(ANSWERS, spec.Connection.StartOk, lambda _: spec.Connection.Tune(1, 131072, 60))
    first, second = Receiving(scene.broker, "work"), Receiving(scene.broker, "work")
    rabbit = scene.connect()
    settle(scene.memory)
    (served,) = [each for each in (first, second) if not each.subscription.problem]
    (waits,) = {first, second} - {served}
    assert waits.subscription.problem.startswith("no channel can be opened")
    served.subscription.close()
    settle(scene.memory)
    scene.memory.pump([0.5] * 10)
    settle(scene.memory)
    assert waits.subscription.problem == ""
    rabbit.say(1, message(1, spec.Basic.Deliver("netd", 1, False, "", "work"), spec.BasicProperties(), b"a"))
    assert waits.bodies == [b"a"]


def test_a_lane_for_which_no_channel_was_free_gets_one_when_another_leaves(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANSWERS, spec.Connection.StartOk, lambda _: spec.Connection.Tune(1, 131072, 60))
    first, second = Sending(scene.broker, route()), Sending(scene.broker, route())
    scene.connect()
    settle(scene.memory)
    (served,) = [each for each in (first, second) if each.outlet.ready]
    (waits,) = [each for each in (first, second) if each is not served]
    assert waits.outlet.problem.startswith("no channel can be opened")
    served.outlet.close()
    settle(scene.memory)
    scene.memory.pump([0.5] * 10)
    settle(scene.memory)
    assert waits.outlet.ready


def test_no_channel_is_opened_for_a_consumer_that_has_left(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for its queue, the connection breaks, and it waits anew: both waits end with it."""
    monkeypatch.setitem(ANSWERS, spec.Queue.Declare, lambda _: spec.Channel.Close(404, "NOT_FOUND", 50, 10))
    receiving = Receiving(scene.broker, "work")
    rabbit = scene.connect()
    while opened(rabbit) < 6:  # by now the next try is seconds away
        scene.memory.advance(0.1)
        rabbit.say(0, HEARTBEAT)
    settle(scene.memory)
    rabbit.leave()
    again = _connect_again(scene)
    settle(scene.memory)
    tries = opened(again)
    assert tries
    receiving.subscription.close()
    for _ in range(100):
        scene.memory.advance(0.1)
        again.say(0, HEARTBEAT)
    assert opened(again) == tries


def opened(rabbit: FakeRabbit) -> int:
    """How many channels netd has opened."""
    return sum(isinstance(each, spec.Channel.Open) for each in rabbit.methods)
