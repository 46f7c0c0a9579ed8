"""After the log-in (RFC 4254): channels, of one kind, and the questions whether the client is still there.

No forwarding in any direction, no agent, no X11, no subsystem: what asks for it is answered "no". A client that breaks
the protocol here loses its connection.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

from twisted.conch.ssh.connection import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
    OPEN_UNKNOWN_CHANNEL_TYPE,
    SSHConnection,
)

from netd.console.command import Caller
from netd.ssh.authorized import AuthorizedKey
from netd.ssh.channel import LEAST_PACKET, SessionChannel
from netd.ssh.quiet import CONCH
from netd.ssh.users import User
from netd.ssh.wire import Malformed, Reader, string, uint32

if TYPE_CHECKING:
    from netd.ssh.server import SshServer
    from netd.ssh.transport import SshConnection

KEEPALIVES = 3
"""Questions that may stay unanswered (sshd_config(5), ClientAliveCountMax)."""

_FORWARDING = frozenset(
    {b"direct-tcpip", b"forwarded-tcpip", b"x11", b"tun@openssh.com", b"direct-streamlocal@openssh.com"}
)


class Sessions(SSHConnection):
    """The ssh-connection service of one client that has logged in."""

    _log = CONCH

    def __init__(self, server: "SshServer", user: User, caller: Caller, key: AuthorizedKey | None) -> None:
        super().__init__()
        self.server = server
        self.user = user
        self.caller = caller
        self.key = key
        self._asked = 0
        self._heard = 0
        self._silent_since = 0.0

    @property
    def connection(self) -> "SshConnection":
        """The client."""
        return cast("SshConnection", self.transport)

    @property
    def open(self) -> list[SessionChannel]:
        """Channels that are there, in the order of their opening."""
        return list(self.channels.values())

    @property
    def busy(self) -> bool:
        """Whether a command or a verb runs, or its end is not there yet."""
        return any(channel.busy for channel in self.open)

    def dismiss(self, text: str) -> bool:
        """As `Program.dismiss`, for all that runs; whether anybody was told who was not before."""
        told = [channel.dismiss(text) for channel in self.open]
        return any(told)

    def serviceStarted(self) -> None:
        self._silent_since = self.server.clock.seconds()
        self._heard = self.connection.bytes_in
        self.connection.on_sendable = self._sendable

    def serviceStopped(self) -> None:
        super().serviceStopped()
        self.server.logged_out(self)

    def _sendable(self) -> None:
        for channel in self.open:
            channel.flush()

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        receive = self._RECEIVERS.get(messageNum)
        if receive is None:
            self.connection.sendUnimplemented()
        else:
            receive(self, Reader(packet))

    # --- is anybody there?

    def tick(self, now: float) -> None:
        """Once a second: ask a client that is silent; what runs keeps its connection from being idle."""
        connection = self.connection
        if self.busy:
            connection.quiet_since = now
        if connection.bytes_in != self._heard:
            self._heard = connection.bytes_in
            self._silent_since = now
            self._asked = 0
        wait = self.server.settings.keepalive
        if wait and now - self._silent_since >= wait * (self._asked + 1):
            if self._asked >= KEEPALIVES:
                self.server.complain(connection, "the client is gone: it answers no keepalive")
                connection.abort()
                return
            self._asked += 1
            connection.send_unnoticed(MSG_GLOBAL_REQUEST, string(b"keepalive@openssh.com") + b"\1")

    def _answered(self, _reader: Reader) -> None:
        if self._asked:
            self.connection.receive_unnoticed()

    def _global_request(self, reader: Reader) -> None:
        reader.string()
        if reader.boolean():
            self.connection.sendPacket(MSG_REQUEST_FAILURE, b"")

    # --- channels come and go

    def _channel(self, reader: Reader) -> SessionChannel:
        channel = self.channels.get(reader.uint32())
        if channel is None:
            raise Malformed("a message for a channel that is not open")
        return cast("SessionChannel", channel)

    def _open(self, reader: Reader) -> None:
        kind, theirs, window, largest = reader.string(), reader.uint32(), reader.uint32(), reader.uint32()
        limit = self.server.settings.limits.channels
        if kind != b"session":
            reason = OPEN_ADMINISTRATIVELY_PROHIBITED if kind in _FORWARDING else OPEN_UNKNOWN_CHANNEL_TYPE
            self._refuse_channel(theirs, reason, b"only sessions")
        elif limit and len(self.channels) >= limit:
            self._refuse_channel(theirs, OPEN_RESOURCE_SHORTAGE, b"too many sessions on this connection")
        elif largest < LEAST_PACKET:
            self._refuse_channel(theirs, OPEN_RESOURCE_SHORTAGE, b"a maximum packet size too small to be meant")
        else:
            reader.end()
            channel = SessionChannel(self, window, largest)
            number = self.localChannelID
            self.localChannelID += 1
            channel.id = number  # type: ignore[assignment]  # conch begins with None
            self.channels[number] = channel
            self.channelsToRemoteChannel[channel] = self.localToRemoteChannel[number] = theirs
            numbers = (theirs, number, channel.localWindowSize, channel.localMaxPacket)
            self.connection.sendPacket(MSG_CHANNEL_OPEN_CONFIRMATION, b"".join(map(uint32, numbers)))

    def _refuse_channel(self, theirs: int, reason: int, text: bytes) -> None:
        self.connection.sendPacket(
            MSG_CHANNEL_OPEN_FAILURE, uint32(theirs) + uint32(reason) + string(text) + string(b"")
        )

    def _close(self, reader: Reader) -> None:
        channel = self._channel(reader)
        reader.end()
        channel.remoteClosed = True
        if channel.localClosed:
            self.channelClosed(channel)
        else:
            channel.hang_up()
            self.sendClose(channel)

    # --- what happens on them

    def _adjust(self, reader: Reader) -> None:
        self._channel(reader).addWindowBytes(reader.uint32())
        reader.end()

    def _data(self, reader: Reader) -> None:
        channel = self._channel(reader)
        channel.receive(reader.string())
        reader.end()

    def _extended_data(self, reader: Reader) -> None:
        channel = self._channel(reader)
        reader.uint32()
        channel.discard(len(reader.string()))
        reader.end()

    def _end_of_data(self, reader: Reader) -> None:
        channel = self._channel(reader)
        reader.end()
        channel.eofReceived()

    def _request(self, reader: Reader) -> None:
        channel = self._channel(reader)
        name, wants_answer = reader.string(), reader.boolean()
        start = None if channel.localClosed else channel.request(name, reader)
        if wants_answer and not channel.localClosed:
            number = MSG_CHANNEL_FAILURE if start is None else MSG_CHANNEL_SUCCESS
            self.connection.sendPacket(number, uint32(self.localToRemoteChannel[channel.id]))
        if start is not None:
            start()

    _RECEIVERS: ClassVar[dict[int, Callable[["Sessions", Reader], None]]] = {
        MSG_GLOBAL_REQUEST: _global_request,
        MSG_REQUEST_SUCCESS: _answered,
        MSG_REQUEST_FAILURE: _answered,
        MSG_CHANNEL_OPEN: _open,
        MSG_CHANNEL_WINDOW_ADJUST: _adjust,
        MSG_CHANNEL_DATA: _data,
        MSG_CHANNEL_EXTENDED_DATA: _extended_data,
        MSG_CHANNEL_EOF: _end_of_data,
        MSG_CHANNEL_CLOSE: _close,
        MSG_CHANNEL_REQUEST: _request,
    }
