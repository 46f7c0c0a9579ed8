"""One connection to a RabbitMQ.

pika shakes hands, sends heartbeats and makes the calls that are few: opening channels, declaring, consuming. Messages
and confirms never pass through it: netd writes frames that were encoded beforehand, and reads what comes with a reader
of its own (`netd.bridge.frames`), which hands pika the frames that are left. pika's own Twisted adapter is not used: it
asks for the global reactor, waits for a stalled peer when it closes, confuses returned messages with confirmed ones,
and says `AMQPConnectionError(1,)` whatever went wrong. What an adapter has to do is twenty lines.

A connection ends once, with one reason in words, from whoever knew best: the broker's Connection.Close, TLS, the
kernel, or the clock. It is aborted wherever its peer is not to be relied on: a stalled broker would keep it for ever.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from OpenSSL import SSL
from pika import ConnectionParameters, PlainCredentials
from pika.channel import Channel as PikaChannel
from pika.connection import Connection as PikaConnection
from pika.exceptions import AMQPError
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.bridge.config import BrokerAddress, DeclareSettings
from netd.bridge.fields import FieldError, Reader
from netd.bridge.frames import OVERHEAD, Event, FrameError, FrameReader, Other

HANDSHAKE_TIMEOUT = 10.0
"""Seconds from TCP to the virtual host being open; RabbitMQ's own limit (handshake_timeout) is ten."""

CLOSE_TIMEOUT = 2.0
"""Seconds a broker may take to answer that netd leaves."""

MISSED_HEARTBEATS = 2.0
"""Heartbeat intervals without a byte after which a broker counts as gone (AMQP 0-9-1, 4.2.7)."""

LOOKS = 8
"""How often an interval the clock is looked at: a mute broker is noticed an eighth of it late."""

CONNECTION_CLOSE = b"\0\x0a\0\x32"
CHANNEL_CLOSE = b"\0\x14\0\x28"
CONSUMER_TAG = "netd"
"""Channels have one consumer each."""

_log = Logger()


class ConnectionEnded(Exception):
    """The connection to the broker has ended, or did not come to be; the text is the reason."""


class ChannelClosed(Exception):
    """The broker has closed a channel, because of what was asked or published there."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Traffic(Protocol):
    """Who uses a channel. Nothing is told any more after `closed`."""

    def received(self, events: Sequence[Event]) -> None:
        """Confirms and messages have come on the channel; no other frames."""

    def cancelled(self) -> None:
        """The broker has ended the channel's consumer."""

    def closed(self, reason: ChannelClosed | ConnectionEnded) -> None:
        """The channel is no more."""


class Channel:
    """A channel of a connection. The calls' results are Deferreds that fail with ChannelClosed or ConnectionEnded."""

    def __init__(self, connection: "AmqpConnection", user: Traffic) -> None:
        """Begin to open it; raises an AMQPError where that cannot be."""
        self.user = user
        self._connection = connection
        self._waiting: set[Deferred[Any]] = set()
        self._opened = self._wait()
        self._pika: PikaChannel = connection.pika.channel(on_open_callback=self._opened.callback)
        self._pika.add_on_close_callback(self._on_closed)
        self._pika.add_on_cancel_callback(lambda _: self.user.cancelled())

    @property
    def number(self) -> int:
        """Its number in frames."""
        return int(self._pika.channel_number)

    @property
    def largest_frame(self) -> int:
        """Bytes of a frame's payload at most."""
        return self._connection.largest_frame

    def write(self, frames: bytes) -> None:
        """Send frames."""
        self._connection.write(frames)

    def opened(self) -> Deferred[Any]:
        """The broker has opened it. To be waited for once, before anything else."""
        return self._opened

    def confirm(self) -> Deferred[Any]:
        """Have the broker answer for every message published here."""
        # The callback for confirms is pika's wish: it never sees any.
        return self._call(lambda done: self._pika.confirm_delivery(lambda _: None, callback=done))

    def prefetch(self, count: int) -> Deferred[Any]:
        """Let at most this many deliveries wait for their settlement."""
        return self._call(lambda done: self._pika.basic_qos(prefetch_count=count, callback=done))

    def check_queue(self, queue: str) -> Deferred[Any]:
        """Fails unless the queue is there."""
        return self._call(lambda done: self._pika.queue_declare(queue, passive=True, callback=done))

    def declare_queue(self, queue: str, declaration: DeclareSettings) -> Deferred[Any]:
        """Make a queue, or find it as it is to be."""
        arguments: dict[str, Any] = {**declaration.arguments}
        if declaration.type:
            arguments["x-queue-type"] = declaration.type
        return self._call(
            lambda done: self._pika.queue_declare(
                queue, durable=declaration.durable, arguments=arguments, callback=done
            )
        )

    def consume(self, queue: str) -> Deferred[Any]:
        """Have the queue's messages sent here."""
        return self._call(
            lambda done: self._pika.basic_consume(queue, _seen_by_none, consumer_tag=CONSUMER_TAG, callback=done)
        )

    def close(self) -> None:
        """Use it no more; nothing is told from now on, and what waits for an answer is cancelled."""
        self.user = Nobody()
        self._connection.leave_channel(self)
        for waiting in list(self._waiting):
            waiting.cancel()
        if not (self._pika.is_closing or self._pika.is_closed):
            self._pika.close()

    # --- pika's answers

    def _wait(self) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        self._waiting.add(waiting)

        def done(result: Any) -> Any:
            self._waiting.discard(waiting)
            return result

        return waiting.addBoth(done)

    def _call(self, call: Callable[[Callable[[Any], None]], object]) -> Deferred[Any]:
        waiting = self._wait()
        try:
            call(waiting.callback)
        except AMQPError as error:
            waiting.errback(self._connection.ended or ConnectionEnded(f"the channel cannot be used: {error!r}"))
        return waiting

    def _on_closed(self, _: object, reason: Exception) -> None:
        self._connection.leave_channel(self)
        ended: ChannelClosed | ConnectionEnded
        if self._connection.ended is not None:
            ended = self._connection.ended
        else:
            code, text = getattr(reason, "reply_code", 0), getattr(reason, "reply_text", str(reason))
            ended = ChannelClosed(code, text)
        for waiting in list(self._waiting):
            waiting.errback(ended)
        self.user.closed(ended)


def _seen_by_none(*_: object) -> None:
    """What pika would call with messages, which it never sees."""


class Nobody:
    """Uses a channel for nothing but calls, or cares for it no more."""

    def received(self, events: Sequence[Event]) -> None:
        pass

    def cancelled(self) -> None:
        pass

    def closed(self, reason: ChannelClosed | ConnectionEnded) -> None:
        pass


class _Pika(PikaConnection):  # type: ignore[misc]  # pika has no annotations
    """pika's connection over a transport of ours."""

    def __init__(self, owner: "AmqpConnection", parameters: ConnectionParameters, reactor: IReactorTime) -> None:
        self._owner = owner
        self._reactor = reactor
        super().__init__(
            parameters,
            on_open_callback=lambda _: owner.opened(),
            on_open_error_callback=lambda *_: None,
            on_close_callback=lambda *_: None,
            internal_connection_workflow=False,
        )

    def _adapter_connect_stream(self) -> None:
        raise NotImplementedError

    def _adapter_disconnect_stream(self) -> None:
        self._owner.abort("pika gave up")

    def _adapter_emit_data(self, data: bytes) -> None:
        self._owner.write(data)

    def _adapter_call_later(self, delay: float, callback: Callable[[], Any]) -> IDelayedCall:
        return self._reactor.callLater(delay, callback)

    def _adapter_remove_timeout(self, timeout_id: Any) -> None:
        if timeout_id.active():
            timeout_id.cancel()

    def _adapter_add_callback_threadsafe(self, callback: Callable[[], Any]) -> None:
        raise NotImplementedError


class AmqpConnection(TwistedProtocol):
    """A connection to a broker: `ready` fires once it can be used, or fails with ConnectionEnded.

    `flow_changed` is called when `blocked` changes, `has_ended` when all is over, after the channels were told.
    """

    def __init__(
        self,
        address: BrokerAddress,
        reactor: IReactorTime,
        *,
        heartbeat: float,
        name: str,
        flow_changed: "Callable[[AmqpConnection], None]",
        has_ended: "Callable[[AmqpConnection], None]",
    ) -> None:
        self.address = address
        self.ready: Deferred[AmqpConnection] = Deferred()
        self.ended: ConnectionEnded | None = None
        self.blocked = ""
        """Why the broker takes no messages, in its words; "" when it does."""
        self.largest_frame = 0
        self._flow_changed = flow_changed
        self._has_ended = has_ended
        self._reactor = reactor
        self._heartbeat = max(1, math.ceil(heartbeat))
        self._reader = FrameReader()
        self._channels: dict[int, Channel] = {}
        self._reason = ""
        self._open = False
        self._last_byte = 0.0
        self._clock: IDelayedCall | None = None
        self._gone: Deferred[None] = Deferred()
        parameters = ConnectionParameters(
            virtual_host=address.vhost,
            credentials=PlainCredentials(address.user, address.password),
            heartbeat=self._heartbeat,
            client_properties={"product": "netd", "connection_name": name},
        )
        self.pika = _Pika(self, parameters, reactor)
        self.pika.add_on_connection_blocked_callback(self._on_blocked)
        self.pika.add_on_connection_unblocked_callback(self._on_unblocked)

    # --- its life

    def connectionMade(self) -> None:
        self._clock = self._reactor.callLater(
            HANDSHAKE_TIMEOUT, self.abort, f"the broker did not answer the handshake within {HANDSHAKE_TIMEOUT:g} s"
        )
        cast("ITCPTransport", self.transport).setTcpKeepAlive(True)
        self.pika._on_stream_connected()  # noqa: SLF001 - what pika's adapters call

    def opened(self) -> None:
        """The handshake is done."""
        self._open = True
        self.largest_frame = self.pika.params.frame_max - OVERHEAD
        self._reader.largest_frame = max(self.pika.params.frame_max, 4096)
        self._stop_clock()
        self._last_byte = self._reactor.seconds()
        self._watch()
        self.ready.callback(self)

    def _watch(self) -> None:
        silence = self._reactor.seconds() - self._last_byte
        if silence >= MISSED_HEARTBEATS * self._heartbeat:
            self.abort(f"no sign of life from the broker for {silence:.0f} s")
        else:
            self._clock = self._reactor.callLater(self._heartbeat / LOOKS, self._watch)

    def _stop_clock(self) -> None:
        if self._clock is not None and self._clock.active():
            self._clock.cancel()

    def abort(self, reason: str) -> None:
        """End it at once. The first reason holds."""
        self._reason = self._reason or reason
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]  # every stream transport of Twisted has it

    def close(self) -> Deferred[None]:
        """Take leave, and wait at most two seconds for the answer."""
        self._reason = self._reason or "netd has left"
        if self._open and self.pika.is_open:
            self._stop_clock()
            self._clock = self._reactor.callLater(CLOSE_TIMEOUT, self.abort, "")
            self.pika.close()
        else:
            self.abort("")
        gone: Deferred[None] = Deferred()
        self._gone.addBoth(lambda _: gone.callback(None))
        return gone

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_clock()
        text = self._reason or self._describe(reason.value)
        self.ended = ConnectionEnded(text)
        self.pika._on_stream_terminated(self.ended)  # noqa: SLF001 - what pika's adapters call; it tells the channels
        if not self._open:
            self.ready.errback(self.ended)
        self._has_ended(self)
        self._gone.callback(None)

    def _describe(self, error: BaseException | None) -> str:
        """Why the transport has ended, in words."""
        match error:
            case VerificationError():
                return f"TLS: the broker's certificate is not for the host name {self.address.host}"
            case SSL.Error() if error.args and isinstance(error.args[0], list):
                reasons = ", ".join(each[2] for each in error.args[0])
                hint = " (broker_tls.ca)" if "verify failed" in reasons else ""
                return f"TLS: {reasons}{hint}" if reasons else "TLS: the broker closed the connection"
            case ConnectionDone():
                return "the broker closed the connection" + ("" if self._open else " during the handshake")
            case ConnectionLost():
                return "the connection was lost"
        return str(error) or type(error).__name__

    # --- what comes

    def dataReceived(self, data: bytes) -> None:
        self._last_byte = self._reactor.seconds()
        self.pika.bytes_received += len(data)  # for its own look at heartbeats
        try:
            events = self._reader.feed(data)
        except FrameError as error:
            self.abort(f"the broker sent what is not AMQP: {error}")
            return
        pending: dict[int, list[Event]] = {}
        for event in events:
            if event[0] == "other":
                self._deliver(pending)
                self._pass_on(event)
            elif (of_channel := pending.get(event[1])) is not None:
                of_channel.append(event)
            else:
                pending[event[1]] = [event]
        self._deliver(pending)

    def _deliver(self, pending: dict[int, list[Event]]) -> None:
        for number, events in pending.items():
            if (channel := self._channels.get(number)) is not None and self.ended is None:
                channel.user.received(events)
        pending.clear()

    def _pass_on(self, event: Other) -> None:
        """Give pika a frame that is its concern, but note what the broker says when it closes something."""
        _, number, frame = event
        try:
            if frame[7:11] == CONNECTION_CLOSE:
                self._reason = self._reason or _closing_words(frame)
            elif frame[7:11] == CHANNEL_CLOSE:
                self._reader.forget(number)
            self.pika._on_data_available(frame)  # noqa: SLF001 - what pika's adapters call
        except Exception as error:  # noqa: BLE001 - pika raises anything on frames that it does not know
            _log.failure("a frame from the broker could not be read", Failure(error))
            self.abort(f"the broker sent what cannot be read: {error!r}")
        else:
            self.pika.bytes_received -= len(frame)

    def _on_blocked(self, _: object, frame: Any) -> None:
        self.blocked = frame.method.reason or "blocked"
        self._flow_changed(self)

    def _on_unblocked(self, *_: object) -> None:
        self.blocked = ""
        self._flow_changed(self)

    # --- what goes

    def write(self, frames: bytes) -> None:
        """Send frames."""
        if self.transport is not None and self.ended is None:
            self.transport.write(frames)

    def channel(self, user: Traffic) -> Channel:
        """A new channel for a user, who is to close it whatever becomes of it; raises ConnectionEnded."""
        try:
            channel = Channel(self, user)
        except AMQPError as error:  # closing, or out of channels
            raise self.ended or ConnectionEnded(f"no channel can be opened: {error!r}") from None
        self._channels[channel.number] = channel
        return channel

    def leave_channel(self, channel: Channel) -> None:
        """The channel is closed, or nobody cares for it."""
        if self._channels.get(channel.number) is channel:
            del self._channels[channel.number]


def _closing_words(frame: bytes) -> str:
    """Code and text of a Connection.Close."""
    try:
        reader = Reader(frame, 11)
        return f"{int.from_bytes(reader.take(2), 'big')} {reader.short_string()}"
    except FieldError:
        return "the broker closed the connection"
