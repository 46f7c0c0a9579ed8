"""A RabbitMQ in memory that says what a test has it say: for moments that a real one cannot be made to have."""

from collections.abc import Callable
from typing import Any, cast

from pika import frame, spec
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.test.test_endpoints import deterministicResolvingReactor
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from netd.runtime import Reactor
from tests.bridge.rabbit import settings

HEADER = b"AMQP\0\0\x09\1"
BROKER = "amqp://127.0.0.1:5672/"
CAPABILITIES = {"publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True}
ANSWERS: dict[type, Callable[[Any], Any]] = {
    spec.Connection.StartOk: lambda _: spec.Connection.Tune(2047, 131072, 60),
    spec.Connection.Open: lambda _: spec.Connection.OpenOk(),
    spec.Connection.Close: lambda _: spec.Connection.CloseOk(),
    spec.Channel.Open: lambda _: spec.Channel.OpenOk(),
    spec.Channel.Close: lambda _: spec.Channel.CloseOk(),
    spec.Confirm.Select: lambda _: spec.Confirm.SelectOk(),
    spec.Basic.Qos: lambda _: spec.Basic.QosOk(),
    spec.Queue.Declare: lambda method: spec.Queue.DeclareOk(method.queue, 0, 0),
    spec.Basic.Consume: lambda method: spec.Basic.ConsumeOk(method.consumer_tag),
}


class MemoryTime(MemoryReactorClock):
    """A reactor whose TCP connections stay in memory, and whose time passes by `advance`."""

    def seconds(self) -> float:
        return self.rightNow


def make_reactor() -> tuple[MemoryTime, Reactor]:
    """The same thing as what a test turns and as what netd sees; every host name means 127.0.0.1."""
    memory = MemoryTime()
    return memory, cast("Reactor", deterministicResolvingReactor(memory, ["127.0.0.1"]))


class FakeRabbit(StringTransport):
    """The broker's end of one connection: it answers calls by itself, as long as it is not `mute`."""

    def __init__(self, protocol: IProtocol, memory: MemoryTime, *, mute: bool = False) -> None:
        super().__init__()
        self.protocol = protocol
        self._memory = memory
        self.mute = mute
        self.keeps_waiting: type | None = None
        """A method that it does not answer yet; the calls are in `waiting`."""
        self.waiting: list[frame.Method] = []
        self.gone = False
        self.methods: list[Any] = []
        """What netd has called, in order."""
        self.headers: list[Any] = []
        """The properties of what it published."""
        self.beats = 0
        self._seen = b""
        protocol.makeConnection(self)
        if not mute:
            self.say(0, spec.Connection.Start(0, 9, {"capabilities": CAPABILITIES}, "PLAIN", "en_US"))

    def write(self, data: bytes) -> None:
        self._seen += data
        if not self.mute:
            self._memory.callLater(0, self.look)

    def look(self) -> None:
        """Read what netd has sent, and answer."""
        self._seen = self._seen.removeprefix(HEADER)
        while (decoded := frame.decode_frame(self._seen))[1] is not None:
            self._seen = self._seen[decoded[0] :]
            each = decoded[1]
            if isinstance(each, frame.Method):
                self.methods.append(each.method)
                if type(each.method) is self.keeps_waiting:
                    self.waiting.append(each)
                else:
                    self._answer(each)
            elif isinstance(each, frame.Header):
                self.headers.append(each.properties)
            elif isinstance(each, frame.Heartbeat):
                self.beats += 1

    def _answer(self, call: frame.Method) -> None:
        if answer := ANSWERS.get(type(call.method)):
            self.say(call.channel_number, answer(call.method))

    def go_on(self) -> None:
        """Answer what was kept waiting."""
        self.keeps_waiting = None
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            self._answer(each)

    def say(self, channel: int, *methods: Any) -> None:
        """Send methods in one piece, or bytes as they are."""
        data = b"".join(each if isinstance(each, bytes) else frame.Method(channel, each).marshal() for each in methods)
        if not self.gone:
            self.protocol.dataReceived(data)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def loseConnection(self) -> None:
        self._memory.callLater(0, self.leave, ConnectionDone())

    def abortConnection(self) -> None:
        self._memory.callLater(0, self.leave, ConnectionAborted())

    def leave(self, reason: Exception | None = None) -> None:
        """The connection ends, by the broker's doing when no reason is given."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))


def message(channel: int, method: Any, properties: spec.BasicProperties, body: bytes) -> bytes:
    """The frames of a message."""
    frames = [frame.Method(channel, method), frame.Header(channel, len(body), properties)]
    if body:
        frames.append(frame.Body(channel, body))
    return b"".join(each.marshal() for each in frames)


def accept(memory: MemoryTime, *, mute: bool = False, which: int = -1, keeps_waiting: type | None = None) -> FakeRabbit:
    """Take the connection that netd is making now, or another one of those that it has tried to make."""
    _, _, factory, *_ = memory.tcpClients[which]
    rabbit = FakeRabbit(cast("IProtocol", factory.buildProtocol(None)), memory, mute=mute)
    rabbit.keeps_waiting = keeps_waiting
    settle(memory)
    return rabbit


def settle(memory: MemoryTime) -> None:
    """Let both sides say what they have to say."""
    for _ in range(20):
        memory.advance(0)


__all__ = ["BROKER", "FakeRabbit", "accept", "make_reactor", "message", "settings", "settle"]
