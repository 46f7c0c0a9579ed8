"""What a Kind builds: something with ports that starts, drains and stops."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from twisted.application import service
from twisted.internet.defer import Deferred

from netd.config import ServiceConfig
from netd.listener import Listener
from netd.runtime import Runtime
from netd.stats import Chart, Figure, Histogram

if TYPE_CHECKING:
    from netd.console.command import Command


class Service(service.Service):
    """One [KIND.NAME] table at work. `start` and `stop` are called once each, `drain` between them or not at all."""

    kind: ClassVar[str]
    lasting: ClassVar[bool] = False
    """Whether it serves until everything else has stopped, and what is connected to it holds up no drain."""
    commands: Sequence["Command"] = ()
    """Verbs of this kind, beside the built-in ones. A verb names its service by an argument: of two services of a kind,
    the first one's are taken."""
    figures: ClassVar[Mapping[str, Figure]] = {}
    """What each figure of `stats` means, for metrics and the page."""
    charts: ClassVar[Sequence[Chart]] = ()
    """What of it the page draws."""

    def __init__(self, config: ServiceConfig, runtime: Runtime) -> None:
        self.setName(config.key)
        self.key = config.key
        self.runtime = runtime
        self.listeners: list[Listener] = []

    def health(self) -> str:
        """Why it does not do its work, in a line; "" when all is well."""
        return ""

    def stats(self) -> Mapping[str, int | float]:
        """Its figures beside those of its listeners, by name, in base units: bytes, seconds, counts."""
        return {}

    def histograms(self) -> Mapping[str, Histogram]:
        """How long things take, by what takes the time: "upstream", "commit"."""
        return {}

    async def start(self) -> None:
        """Open what the service needs, its ports last; raises CannotStart, with nothing left open."""
        for listener in self.listeners:
            await listener.bind()

    async def drain(self) -> None:
        """Take nothing new and finish what is in flight. The daemon cancels it when time is up."""
        for listener in self.listeners:
            await listener.drain()

    async def stop(self) -> None:
        """Close everything at once."""
        for listener in self.listeners:
            await listener.stop()

    def startService(self) -> Deferred[None]:
        super().startService()
        return Deferred.fromCoroutine(self.start())

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self.stop())
