"""A Redis in memory, at the end of a unix socket: it refuses, accepts, answers and falls silent as it is told."""

from typing import cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import ClientFactory
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from netd.cache.redis import Greeting, Upstream
from netd.runtime import Reactor
from netd.settings import Secret
from tests.fakes import MemoryNetwork, result_of

LONGEST_WAIT = 20.0
"""Seconds of the clock until the next attempt, or it has given up."""

STEP = 1 / 1024
"""Seconds that the clock goes on at once: a fraction that sums up exactly."""

GREETING: Greeting = ([(b"PING",)], lambda _: "")
"""As a store has one: a link is not ready before it is answered."""


class Transport(StringTransport):
    """To a Redis that accepts a connection."""

    protocol: IProtocol

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__()
        self._network = network

    def abortConnection(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._network.callLater(0, self.hang_up)

    def hang_up(self) -> None:
        """The connection is gone."""
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionLost()))


class Redis:
    """The Redis at the end of a unix socket, and the attempts to reach it."""

    def __init__(self, timeout: float) -> None:
        self.network = MemoryNetwork()
        store = Secret(text="redis+unix:///redis.sock")
        self.upstream = Upstream(store, timeout, cast("Reactor", self.network))
        self._answered = 0

    @property
    def _attempts(self) -> int:
        return len(self.network.unixClients) - self._answered

    @property
    def _factory(self) -> ClientFactory:
        """Of the attempt that is under way."""
        assert self._attempts == 1
        return cast("ClientFactory", self.network.unixClients[-1][1])

    def refuse(self) -> None:
        """Nobody is there."""
        factory, self._answered = self._factory, self._answered + 1
        factory.clientConnectionFailed(None, Failure(ConnectError()))  # type: ignore[arg-type]  # nobody looks at it

    def accept(self) -> Transport:
        factory, self._answered = self._factory, self._answered + 1
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        transport = Transport(self.network)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        self.network.advance(0)
        return transport

    def wait(self) -> float:
        """Let time pass until the next attempt; how much that was."""
        began = self.network.seconds()
        while not self._attempts:
            self.network.advance(STEP)
            assert self.network.seconds() - began < LONGEST_WAIT, "it has given up"
        return self.network.seconds() - began

    def close(self) -> None:
        """Let go of it."""
        stopping = Deferred.fromCoroutine(self.upstream.stop())
        self.network.advance(0)
        result_of(stopping)


def start(monkeypatch: pytest.MonkeyPatch, timeout: float = 1.0) -> Redis:
    """One that netd tries to reach from now on, on the reactor that txredisapi and its ClientService find."""
    redis = Redis(timeout)
    monkeypatch.setattr("twisted.internet.reactor", redis.network)
    monkeypatch.setattr("txredisapi.reactor", redis.network)
    redis.upstream.start()
    return redis
