"""A connection to one of the brokers that is made anew whenever it ends.

The brokers are tried in turn. When none of them will have netd, the next round waits, twice as long each time up to
five seconds, and by chance up to half of that less, so that a hundred netd do not fall upon a broker that comes back at
the same moment. A connection that lasted makes the wait short again.
"""

from collections.abc import Awaitable, Callable
from random import uniform
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,  # noqa: A004 - Twisted's has a name that Python has too
    DNSLookupError,
    TimeoutError,  # noqa: A004 - Twisted's has a name that Python has too
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.bridge.amqp import AmqpConnection, ConnectionEnded
from netd.bridge.broker import BrokerState
from netd.bridge.config import BridgeSettings, BrokerAddress
from netd.bridge.trust import make_client_context
from netd.runtime import Reactor
from netd.tls import TlsUnusable

CONNECT_TIMEOUT = 10.0
"""Seconds until a host must have answered; a name with several addresses has them tried side by side."""

FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0
"""Seconds between two rounds."""

LASTED = 10.0
"""Seconds after which a connection counts as good."""

_log = Logger()


class LinkUser(Protocol):
    """Who sends or receives over a link."""

    def connected(self, connection: AmqpConnection) -> None:
        """There is a connection; its end is told to the channels that were opened on it."""

    def flow_changed(self) -> None:
        """The broker has begun or ceased to take messages, see `AmqpConnection.blocked`."""


class Link:
    """A connection that is kept; `purpose` names it in the broker's list of connections.

    `prepare` is done on each new connection before it has users; ConnectionEnded is all that it raises.
    """

    def __init__(
        self,
        settings: BridgeSettings,
        key: str,
        purpose: str,
        reactor: Reactor,
        prepare: Callable[[AmqpConnection], Awaitable[None]] | None = None,
    ) -> None:
        self.users: set[LinkUser] = set()
        self.connection: AmqpConnection | None = None
        self._settings = settings
        self._key = key
        self._name = f"netd {key} {purpose}"
        self._purpose = purpose
        self._reactor = reactor
        self._prepare = prepare
        self._broker = ""
        self._reason = "not connected yet"
        self._logged = ("", "")
        self._keeping: Deferred[None] | None = None
        self._ended: Deferred[None] | None = None
        self._stopping = False

    @property
    def state(self) -> BrokerState:
        """How the connection is."""
        if self.connection is None:
            return BrokerState("away", self._reason, self._broker)
        blocked = self.connection.blocked
        return BrokerState("blocked" if blocked else "up", blocked, self._broker)

    def join(self, user: LinkUser) -> None:
        """Use the link; `user.connected` follows, now or later."""
        self.users.add(user)
        if self.connection is not None:
            self._reactor.callLater(0, self._greet, user, self.connection)

    def _greet(self, user: LinkUser, connection: AmqpConnection) -> None:
        if user in self.users and connection is self.connection:
            user.connected(connection)

    def leave(self, user: LinkUser) -> None:
        """Use it no more."""
        self.users.discard(user)

    # --- its life

    def start(self) -> None:
        """Begin to connect."""
        self._broker = next(map(str, self._addresses()), "")
        self._keeping = Deferred.fromCoroutine(self._keep())
        self._keeping.addErrback(self._stopped)

    def _stopped(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("the link to the broker failed", failure, service=self._key)

    async def stop(self) -> None:
        """Disconnect, politely where that is possible."""
        self._stopping = True
        self.users.clear()
        if self._keeping is not None:
            self._keeping.cancel()
        if self.connection is not None:
            connection, self.connection = self.connection, None
            await connection.close()

    async def _keep(self) -> None:
        turn = failures = 0
        while True:
            addresses = self._addresses()
            connection = await self._attempt(addresses[turn % len(addresses)]) if addresses else None
            turn += 1
            if connection is not None:
                since = self._reactor.seconds()
                await self._use(connection)
                failures = 0 if self._reactor.seconds() - since >= LASTED else failures + 1
            elif addresses and turn % len(addresses):
                continue
            else:
                failures += 1
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures, 20))
            await deferLater(self._reactor, uniform(wait / 2, wait))  # noqa: S311 - no secret

    def _addresses(self) -> tuple[BrokerAddress, ...]:
        try:
            return self._settings.brokers()
        except (OSError, ValueError) as error:
            self._failed("", f"broker_file: {error}")
            return ()

    async def _attempt(self, address: BrokerAddress) -> AmqpConnection | None:
        connection = AmqpConnection(
            address,
            self._reactor,
            heartbeat=self._settings.heartbeat,
            name=self._name,
            flow_changed=self._flow_changed,
            has_ended=self._connection_ended,
        )
        try:
            connecting = self._endpoint(address).connect(_Once(connection))
            await connecting.addTimeout(CONNECT_TIMEOUT, self._reactor)  # a name server may take its time, too
            await connection.ready
            if self._prepare is not None:
                await self._prepare(connection)
            if connection.ended is None:
                return connection
            self._failed(str(address), str(connection.ended))
        except TlsUnusable as error:
            self._failed(str(address), f"broker_tls.{error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, netd must try again
            connection.abort("netd has left" if self._stopping else "netd has failed")
            if self._stopping:
                raise CancelledError from None
            if not isinstance(error, _FORESEEN):
                _log.failure("connecting failed", service=self._key)
            self._failed(str(address), _words(error))
        return None

    def _endpoint(self, address: BrokerAddress) -> IStreamClientEndpoint:
        endpoint = HostnameEndpoint(self._reactor, address.host, address.port, timeout=CONNECT_TIMEOUT)
        if not address.tls:
            return endpoint
        return wrapClientTLS(make_client_context(self._settings.broker_tls, address.host), endpoint)

    async def _use(self, connection: AmqpConnection) -> None:
        self._ended = Deferred()
        self.connection = connection
        self._broker = str(connection.address)
        self._logged = ("", "")
        _log.info(
            "{service}: connected to {broker} to {purpose}",
            service=self._key,
            broker=self._broker,
            purpose=self._purpose,
        )
        for user in list(self.users):
            self._greet(user, connection)
        await self._ended

    def _connection_ended(self, connection: AmqpConnection) -> None:
        if connection is self.connection and self._ended is not None:
            self.connection = None
            self._failed(self._broker, str(connection.ended))
            self._ended.callback(None)

    def _flow_changed(self, connection: AmqpConnection) -> None:
        if connection.blocked:
            _log.warn(
                "{service}: {broker} takes no messages: {reason}",
                service=self._key,
                broker=self._broker,
                reason=connection.blocked,
            )
        else:
            _log.info("{service}: {broker} takes messages again", service=self._key, broker=self._broker)
        for user in list(self.users):
            user.flow_changed()

    def _failed(self, broker: str, reason: str) -> None:
        """Note why there is no connection; the log tells it once as long as it stays the same."""
        self._broker, self._reason = broker, reason
        if self._logged != (broker, reason):
            self._logged = broker, reason
            _log.warn("{service}: no connection to {broker}: {reason}", service=self._key, broker=broker, reason=reason)


_FORESEEN = (ConnectionEnded, ConnectError, ConnectingCancelledError, DNSLookupError, DeferTimeout, ValueError)
"""ValueError is what Twisted makes of a host name that is none, ConnectingCancelledError of an attempt timed out."""


class _Once(Factory):
    """Makes the one protocol it is given."""

    noisy = False

    def __init__(self, protocol: AmqpConnection) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> AmqpConnection:  # noqa: ARG002 - Twisted's interface
        return self._protocol


def _words(error: Exception) -> str:
    """Why there is no connection to a host."""
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case TimeoutError() | DeferTimeout() | ConnectingCancelledError():
            return f"no answer within {CONNECT_TIMEOUT:g} s"
        case DNSLookupError():
            return "the host name cannot be resolved"
    return str(error)
