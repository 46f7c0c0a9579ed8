"""How a user of a link to RabbitMQ comes by a channel: on whatever connection there is, one try at a time."""

from typing import Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.bridge.amqp import AmqpConnection, Channel, ChannelClosed, ConnectionEnded, Traffic
from netd.bridge.link import Link, LinkUser
from netd.runtime import Reactor

T = TypeVar("T")

_log = Logger()


class ChannelUser(LinkUser, Traffic, Protocol):
    """Who wants a channel. `connected` begins a try unless there is a channel already."""

    async def set_up(self, channel: Channel) -> None:
        """Make an open channel what is needed; ChannelClosed and ConnectionEnded mean that it did not come to be."""

    def opened(self, channel: Channel) -> None:
        """The channel is set up."""

    def not_opened(self, reason: str) -> None:
        """It did not come to be; `again` is called for another try."""


class Opening:
    """The tries of one user."""

    def __init__(self, link: Link, user: ChannelUser, reactor: Reactor) -> None:
        self._link = link
        self._user = user
        self._reactor = reactor
        self._trying: Deferred[None] | None = None
        self._again: IDelayedCall | None = None

    def begin(self, connection: AmqpConnection) -> None:
        """Try now, unless a try is under way."""
        if self._trying is None:
            self._trying = Deferred.fromCoroutine(self._open(connection))
            self._trying.addBoth(self._tried).addErrback(self._failed, connection)

    def _tried(self, result: T) -> T:
        self._trying = None  # here and not in the try itself, which may have ended before it was noted
        return result

    async def _open(self, connection: AmqpConnection) -> None:
        try:
            channel = connection.channel(self._user)
            try:
                await channel.opened()
                await self._user.set_up(channel)
            except CancelledError:  # the broker may have sent messages already: they go back with the channel
                channel.close()
                raise
        except (ChannelClosed, ConnectionEnded) as error:
            self._user.not_opened(str(error))
        else:
            self._user.opened(channel)

    def _failed(self, failure: Failure, connection: AmqpConnection) -> None:
        if not failure.check(CancelledError):
            _log.failure("opening a channel failed", failure)
            connection.abort("netd has failed")

    def again(self, wait: float) -> None:
        """Try in so many seconds, if there is a connection now and then; a new one begins by itself."""
        self._forget_again()
        if self._link.connection is not None:
            self._again = self._reactor.callLater(wait, self._try_again)

    def _try_again(self) -> None:
        if self._link.connection is not None:
            self._user.connected(self._link.connection)

    def cancel(self) -> None:
        """No more tries."""
        if self._trying is not None:
            self._trying.cancel()
        self._forget_again()

    def _forget_again(self) -> None:
        if self._again is not None and self._again.active():
            self._again.cancel()
