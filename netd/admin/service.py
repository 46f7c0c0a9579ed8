"""[admin] at work: the socket of netdctl, the port of the page, and what they show.

It starts first and stops last, and a drain leaves it alone: while everything else goes, operators and load balancers
still ask.

Verbs, metrics and the status take a moment to import, and many a daemon is never asked for them: they are imported when
it is.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from netd.admin.assets import assets
from netd.admin.config import AdminSettings
from netd.admin.events import Events
from netd.admin.history import History
from netd.admin.http import AdminRequest, HttpConnection
from netd.admin.lag import ReactorLag
from netd.admin.readiness import Readiness
from netd.admin.site import Site
from netd.admin.socket import address_of, clear_away, give_to_group
from netd.config import ServiceConfig
from netd.listener import Listener, Port
from netd.runtime import Runtime
from netd.service import Service
from netd.settings import ListenerSettings
from netd.stats import Figure, gauge
from netd.turns import Turns

if TYPE_CHECKING:
    from netd.admin.metrics import Metrics
    from netd.admin.run import Verbs

TICK = 1.0
"""Seconds between two events, two samples of history, and two looks at who is too slow."""

SOCKET_SETTINGS = ListenerSettings(max_connections=64)
"""Of netdctl's socket: it is for people and their scripts."""

_log = Logger()


class AdminService(Service):
    """What operators reach netd by, beside ssh."""

    kind = "admin"
    for_operators = True
    lasting = True
    figures: ClassVar[dict[str, Figure]] = {"watchers": gauge("Pages that are open")}

    def __init__(self, config: ServiceConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        self._settings = cast("AdminSettings", config.settings)
        self._readiness = Readiness(runtime)
        self._lag = ReactorLag(runtime.reactor)
        self._history = History(runtime, self._lag.histogram)
        self._events = Events(self._greet, self._tell)
        self._told = runtime.services
        self._site = self._make_site()
        self._turns = Turns(runtime.reactor)
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = runtime.reactor
        self._shown = Listener(config.key, self._shown_ports(self._settings), self._settings, runtime)
        self.listeners = [Listener(config.key, self._socket_ports(), SOCKET_SETTINGS, runtime), self._shown]

    def _socket_ports(self) -> list[Port]:
        path = self._settings.socket
        if path is None:
            return []
        clock = self.runtime.reactor
        build = partial(HttpConnection, self._site.answer, clock.seconds, Turns(clock), trusted=True)
        return [Port("admin.socket", [address_of(path)], build, last=True)]

    def _shown_ports(self, settings: AdminSettings) -> list[Port]:
        build = partial(HttpConnection, self._site.answer, self.runtime.reactor.seconds, self._turns)
        return [Port("admin.listen", settings.listen, build, last=True)]

    def _make_site(self) -> Site:
        site = Site(self._settings.hosts)
        site.add(
            {
                b"/livez": self._readiness.livez,
                b"/readyz": self._readiness.readyz,
                b"/status": self._answer_status,
                b"/events": self._events.subscribe,
                b"/metrics": self._answer_metrics,
            }
        )
        site.add(assets())
        site.add_trusted({b"/run": self._run, b"/complete": self._complete})
        return site

    def stats(self) -> dict[str, int | float]:
        return {"watchers": len(self._events)}

    # --- life

    async def prepare(self) -> None:
        path, group = self._settings.socket, self._settings.socket_group
        if path is not None:
            clear_away(path)
        await super().prepare()
        if path is not None and group is not None:
            give_to_group(path, group)

    def serve(self) -> None:
        super().serve()
        self._lag.start()
        self._ticking.start(TICK, now=True).addErrback(
            lambda failure: _log.failure("the admin page's clock stopped", failure, service=self.key)
        )

    async def adapt(self, config: ServiceConfig) -> Callable[[], None]:
        settings = cast("AdminSettings", config.settings)
        serve = await self._shown.prepare(self._shown_ports(settings), settings)

        def commit() -> None:
            self._site.hosts = settings.hosts
            serve()

        return commit

    async def drain(self) -> None:
        """Nothing: it stays until the end."""

    async def stop(self) -> None:
        if self._ticking.running:
            self._ticking.stop()
        self._lag.stop()
        await super().stop()

    # --- what it shows

    def _answer_status(self, request: AdminRequest) -> None:
        request.respond(200, json.dumps(self._status()).encode(), b"application/json")

    def _answer_metrics(self, request: AdminRequest) -> None:
        self._metrics.answer(request)

    def _run(self, request: AdminRequest) -> None:
        self._verbs.run(request)

    def _complete(self, request: AdminRequest) -> None:
        self._verbs.complete(request)

    @cached_property
    def _metrics(self) -> "Metrics":
        from netd.admin.metrics import Metrics

        return Metrics(self.runtime, self._lag.histogram)

    @cached_property
    def _verbs(self) -> "Verbs":
        from netd.admin.run import Verbs

        return Verbs(self.runtime, self.key)

    def _status(self) -> dict[str, Any]:
        from netd.admin.status import status

        return status(self.runtime, self._readiness, self._lag.histogram)

    def _greet(self) -> dict[str, Any]:
        """What a page is told as it opens: the last minutes, and what each figure means."""
        services = self.runtime.services
        return {
            "history": self._history.columns(),
            "figures": {
                each.kind: {name: asdict(figure) for name, figure in each.figures.items()} for each in services
            },
            "charts": {each.key: [asdict(chart) for chart in each.charts] for each in services},
            "latencies": {
                each.key: {name: histogram.help for name, histogram in each.histograms().items()} for each in services
            },
        }

    def _tell(self) -> dict[str, Any]:
        """What it is told once a second."""
        return {**self._status(), "sample": self._history.last}

    # --- once a second

    def _tick(self) -> None:
        now = self.runtime.reactor.seconds()
        for listener in self.listeners:
            for connection in list(listener.connections.values()):
                cast("HttpConnection", connection).tick(now)
        try:
            self._history.take()
            services, self._told = self._told, self.runtime.services
            self._events.tick(anew=services is not self._told)
        except Exception:  # noqa: BLE001 - a service that cannot say how it does must not leave slow clients connected
            _log.failure("telling pages how services do failed", service=self.key)
