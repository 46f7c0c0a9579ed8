"""Queues that subscribe ports declare: made on each new connection before anybody uses it.

So no line is published before its queue is there, but for the moment after a reload that brings both. A queue that
cannot be made holds up nothing; the log tells it.
"""

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from netd.bridge.amqp import AmqpConnection, Channel, ChannelClosed, ConnectionEnded, Nobody
from netd.bridge.config import DeclareSettings

PATIENCE = 10.0
"""Seconds for all of a bridge's queues; a quorum queue takes a tenth of a second, or waits for its quorum."""

HARD_ERROR = "5"
"""How AMQP's codes begin of errors that end a connection: 541 for arguments that RabbitMQ stumbles over, say."""

_log = Logger()


class Declaring:
    """The queues of one bridge."""

    def __init__(self, key: str, reactor: IReactorTime, wanted: Mapping[str, DeclareSettings]) -> None:
        self.wanted = wanted
        self._key = key
        self._reactor = reactor
        self._told: dict[str, str] = {}
        self._left_out: set[str] = set()  # what made the broker end connections, until one has lasted without them

    async def make_queues(self, connection: AmqpConnection) -> None:
        """Make them; raises ConnectionEnded."""
        making = Deferred.fromCoroutine(self._make_all(connection))
        try:
            await making.addTimeout(PATIENCE, self._reactor)
        except DeferTimeout:
            _log.warn(
                "{service}: the broker has not answered for the queues that it is to declare, within {patience} s",
                service=self._key,
                patience=round(PATIENCE),
            )
        except ConnectionEnded as error:
            if connection.ended is not None:
                raise
            _log.warn("{service}: no queue can be declared: {reason}", service=self._key, reason=str(error))

    async def _make_all(self, connection: AmqpConnection) -> None:
        made: Mapping[str, DeclareSettings] | None = None
        while made is not self.wanted:  # a reload may bring others meanwhile
            made = self.wanted
            await self._make_each(connection, made)
        self._left_out.clear()

    async def _make_each(self, connection: AmqpConnection, wanted: Mapping[str, DeclareSettings]) -> None:
        channel: Channel | None = None  # one for all, as the broker may allow no more
        try:
            for queue, declaration in wanted.items():
                if queue in self._left_out:
                    continue
                problem = ""
                try:
                    if channel is None:
                        channel = connection.channel(Nobody())
                        await channel.opened()
                    await channel.declare_queue(queue, declaration)
                except ChannelClosed as error:
                    problem = str(error)
                    channel = None
                    await deferLater(self._reactor, 0)  # then its number is free
                except ConnectionEnded as error:
                    if str(error).startswith(HARD_ERROR):
                        self._left_out.add(queue)
                        self._tell(queue, str(error))
                    raise
                self._tell(queue, problem)
        finally:
            if channel is not None:
                channel.close()

    def _tell(self, queue: str, problem: str) -> None:
        if problem and self._told.get(queue) != problem:
            _log.warn(
                "{service}: queue {queue} cannot be declared: {reason}",
                service=self._key,
                queue=queue,
                reason=problem,
            )
        self._told[queue] = problem
