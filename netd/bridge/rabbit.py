"""RabbitMQ as a Broker: links for what goes in, links for what comes out.

An alarm stops the connections that publish, and must not stop those that consume, or nothing would end the alarm: so
they are apart. A link serves many lanes or consumers, each on a channel of its own.
"""

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed

from netd.bridge.amqp import ConnectionEnded
from netd.bridge.broker import BrokerState, Consumer, Outlet, Sender, Subscription
from netd.bridge.config import BridgeSettings
from netd.bridge.declaring import Declaring
from netd.bridge.link import Link
from netd.bridge.messages import Route
from netd.bridge.outlet import RabbitOutlet
from netd.bridge.subscription import RabbitSubscription
from netd.bridge.trust import make_client_context
from netd.runtime import CannotStart, Runtime
from netd.tls import TlsUnusable

CHANNELS = 1000
"""Channels on one connection; RabbitMQ allows 2047, and many on one make it slow to fail and to begin again."""


class RabbitBroker:
    """See `netd.bridge.broker.Broker`."""

    def __init__(self, settings: BridgeSettings, runtime: Runtime, key: str) -> None:
        self._settings = settings
        self._runtime = runtime
        self._key = key
        self._declaring = Declaring(key, runtime.reactor, settings.declarations())
        self._making: Deferred[object] = succeed(None)
        self._links: dict[str, list[Link]] = {"publish": [], "consume": []}
        self._started = False

    @property
    def state(self) -> BrokerState:
        """The worst state of its links."""
        states = [link.state for links in self._links.values() for link in links]
        for wanted in ("away", "blocked"):
            for state in states:
                if state.state == wanted:
                    return state
        return states[0] if states else BrokerState("away", "not started")

    async def start(self) -> None:
        """Begin to connect; raises CannotStart if a file that is needed for it cannot be used."""
        try:
            for address in self._settings.brokers():
                if address.tls:
                    make_client_context(self._settings.broker_tls, address.host)
        except (OSError, ValueError) as error:
            raise CannotStart(f"{self._key}.broker_file: {error}") from None
        except TlsUnusable as error:
            raise CannotStart(f"{self._key}.broker_tls.{error}") from None
        self._started = True
        if self._settings.publish:
            self._link("publish")
        if self._settings.subscribe:
            self._link("consume")

    async def stop(self) -> None:
        """Disconnect."""
        self._making.cancel()
        links = [link for links in self._links.values() for link in links]
        await gatherResults([Deferred.fromCoroutine(link.stop()) for link in links])

    async def prepare_queues(self, settings: BridgeSettings) -> Callable[[], None]:
        """Queues are RabbitMQ's; those with a declaration are made if they are not there."""

        def commit() -> None:
            wanted = settings.declarations()
            if wanted == self._declaring.wanted:
                return
            self._declaring.wanted = wanted
            self._making.cancel()
            links = [*self._links["consume"], *self._links["publish"]]  # an alarm holds up those that publish
            if connection := next((link.connection for link in links if link.connection is not None), None):
                self._making = Deferred.fromCoroutine(self._declaring.make_queues(connection))
                # When it ends, or there is none, the next connection begins with it.
                self._making.addErrback(lambda failure: failure.trap(ConnectionEnded, CancelledError))

        return commit

    def outlet(self, route: Route, sender: Sender) -> Outlet:
        """A way in for the messages of one lane."""
        return RabbitOutlet(self._link("publish"), route, sender, self._runtime.reactor)

    def subscribe(self, queue: str, prefetch: int, consumer: Consumer) -> Subscription:
        """A way out."""
        link, reactor = self._link("consume"), self._runtime.reactor
        return RabbitSubscription(link, consumer, reactor, queue=queue, prefetch=prefetch, declaring=self._declaring)

    def _link(self, purpose: str) -> Link:
        """A link that has room for another user."""
        links = self._links[purpose]
        for link in links:
            if len(link.users) < CHANNELS:
                return link
        declares = purpose == "publish" or not self._links["publish"]
        prepare = self._declaring.make_queues if declares else None
        link = Link(self._settings, self._key, purpose, self._runtime.reactor, prepare)
        links.append(link)
        if self._started:
            link.start()
        return link
