"""Queues that subscribe ports declare: made on each new connection before anybody uses it.

So no line is published before its queue is there. A queue that cannot be made holds up nothing; the log tells it.
"""

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from netd.bridge.amqp import AmqpConnection, ChannelClosed, Nobody
from netd.bridge.config import DeclareSettings

PATIENCE = 10.0
"""Seconds for all of a bridge's queues; a quorum queue takes a tenth of a second, or waits for its quorum."""

_log = Logger()


class Declaring:
    """The queues of one bridge."""

    def __init__(self, key: str, reactor: IReactorTime, wanted: Mapping[str, DeclareSettings]) -> None:
        self.wanted = wanted
        self._key = key
        self._reactor = reactor
        self._told: dict[str, str] = {}

    async def make_queues(self, connection: AmqpConnection) -> None:
        """Make them; raises ConnectionEnded."""
        making = Deferred.fromCoroutine(self._make_each(connection))
        try:
            await making.addTimeout(PATIENCE, self._reactor)
        except DeferTimeout:
            _log.warn(
                "{service}: the broker has not answered for the queues that it is to declare, within {patience} s",
                service=self._key,
                patience=round(PATIENCE),
            )

    async def _make_each(self, connection: AmqpConnection) -> None:
        for queue, declaration in self.wanted.items():
            channel = connection.channel(Nobody())
            problem = ""
            try:
                await channel.opened()
                await channel.declare_queue(queue, declaration)
            except ChannelClosed as error:
                problem = str(error)
            finally:
                channel.close()
            if problem and self._told.get(queue) != problem:
                _log.warn(
                    "{service}: queue {queue} cannot be declared: {reason}",
                    service=self._key,
                    queue=queue,
                    reason=problem,
                )
            self._told[queue] = problem
