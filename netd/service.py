"""What a Kind builds: something with ports that starts, follows the configuration, drains and stops.

It starts in two steps: all services of a configuration `prepare`, and serve once none of them has failed. A reload does
the same with those that it adds, and asks the others to `adapt`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from twisted.application import service
from twisted.internet.defer import Deferred

from netd.config import ServiceConfig
from netd.listener import Listener
from netd.runtime import CannotStart, Runtime
from netd.stats import Chart, Figure, Histogram

if TYPE_CHECKING:
    from netd.console.command import Command


class Service(service.Service):
    """One [KIND.NAME] table at work. It is started and stopped once; `drain` comes between them or not at all."""

    kind: ClassVar[str]
    for_operators: ClassVar[bool] = False
    """Whether operators come by it: then it is stopped after the services that they look after."""
    lasting: ClassVar[bool] = False
    """Whether it serves to the very end, and what is connected to it holds up no drain."""
    commands: Sequence["Command"] = ()
    """Verbs of this kind, beside the built-in ones. A verb names its service by an argument: of two services of a kind,
    the first one's are taken."""
    figures: ClassVar[Mapping[str, Figure]] = {}
    """What each figure of `stats` means, for metrics and the page."""
    charts: Sequence[Chart] = ()
    """What of it the page draws."""

    def __init__(self, config: ServiceConfig, runtime: Runtime) -> None:
        self.key = config.key
        self.runtime = runtime
        self.listeners: list[Listener] = []
        self.draining = False
        """It takes nothing new: the daemon or an operator drains it, or has."""
        self._serve: Sequence[Callable[[], None]] | None = None

    def health(self) -> str:
        """Why it does not do its work, in a line; "" when all is well."""
        return ""

    def stats(self) -> Mapping[str, int | float]:
        """Its figures beside those of its listeners, by name, in base units: bytes, seconds, counts."""
        return {}

    def histograms(self) -> Mapping[str, Histogram]:
        """How long things take, by what takes the time: "upstream", "commit"."""
        return {}

    # --- the way up

    async def prepare(self) -> None:
        """Acquire all that can fail, ports last, and serve nobody yet; raises CannotStart. Then it is stopped."""
        self._serve = [await listener.prepare() for listener in self.listeners]

    def serve(self) -> None:
        """What is prepared begins; it cannot fail."""
        for serve in self._serve or ():
            serve()
        self._serve = ()

    async def adapt(self, config: ServiceConfig) -> Callable[[], None] | None:  # noqa: ARG002 - what kinds look at
        """Prepare to go on under a changed configuration of its name; the answer puts that in force, and cannot fail.

        None: it cannot be done in place, and a new service takes over the ports while this one drains. Raises
        CannotStart.
        """
        return None

    async def start(self) -> None:
        """Serve, having prepared if that is still to do; raises CannotStart, with no port left open."""
        if self._serve is None:
            try:
                await self.prepare()
            except CannotStart:
                await self.runtime.ports.close_unserved()
                raise
        self.serve()

    # --- the way down

    async def drain(self) -> None:
        """Take nothing new and finish what is in flight. The daemon cancels it when time is up."""
        for listener in self.listeners:
            await listener.drain()

    async def resume(self) -> None:
        """Take clients again after a drain; raises CannotStart."""
        for serve in [await listener.prepare() for listener in self.listeners]:
            serve()

    async def stop(self) -> None:
        """Close everything at once, whatever of it is open: it may have prepared in part only."""
        for listener in self.listeners:
            await listener.stop()

    # --- as a part of Twisted's tree

    def startService(self) -> Deferred[None]:
        super().startService()
        return Deferred.fromCoroutine(self.start())

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self.stop())
