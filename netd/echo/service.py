"""Echo: what arrives goes back, for health checks, latency and load.

A client that does not read is not read from either: the transport is registered as its own producer, so that a full
write buffer pauses reading. A client that has finished sending is answered whole before the connection closes.
"""

from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from netd.config import ServiceConfig
from netd.echo.config import EchoSettings
from netd.listener import Connection, Listener, Port
from netd.runtime import Runtime
from netd.service import Service


@implementer(IHalfCloseableProtocol)
class Echo(Connection):
    """Sends back what it receives."""

    __slots__ = ()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, True)  # type: ignore[attr-defined]  # a stream transport is an IConsumer

    def dataReceived(self, data: bytes) -> None:
        size = len(data)
        self.bytes_in += size
        self.bytes_out += size
        self.transport.write(data)

    def close(self) -> None:
        """Send what is left, then close."""
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # a stream transport is an IConsumer
        super().close()

    def readConnectionLost(self) -> None:
        """The client has sent all it had."""
        self.close()

    def writeConnectionLost(self) -> None:
        """Nothing can be answered any more: netd itself never half-closes."""
        self.close()


class UpperEcho(Echo):
    """Sends back what it receives with ASCII letters in upper case."""

    __slots__ = ()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data.upper())


class EchoService(Service):
    """An [echo.NAME] table at work."""

    kind = "echo"

    def __init__(self, config: ServiceConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        self.listeners = [Listener(config.key, _ports(config), config.settings, runtime)]

    async def adapt(self, config: ServiceConfig) -> Callable[[], None]:
        return await self.listeners[0].prepare(_ports(config), config.settings)


def _ports(config: ServiceConfig) -> list[Port]:
    settings = cast("EchoSettings", config.settings)
    protocol = UpperEcho if settings.transform == "upper" else Echo
    return [Port(f"{config.key}.listen", settings.listen, protocol)]
