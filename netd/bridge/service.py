"""A [bridge.NAME] table at work: ports, lanes, the spool and a broker, put together and taken apart in order."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

from twisted.internet.task import deferLater
from twisted.logger import Logger

from netd.bridge.broker import Broker, BrokerState
from netd.bridge.config import BridgeSettings, PublishSettings, SubscribeSettings
from netd.bridge.embedded import EmbeddedBroker
from netd.bridge.figures import CHARTS, FIGURES
from netd.bridge.lane import CONFIRM_SECONDS, Lane
from netd.bridge.publish import PublishConnection, PublishPort
from netd.bridge.spool import Plain, Spool
from netd.bridge.spoolfile import LaneRow, SpoolFailed, SpoolFile, SpoolInUse
from netd.bridge.subscribe import (
    SEGMENT,
    AnsweringSubscriber,
    SubscribeConnection,
    SubscribeCounts,
    SubscribePort,
    TcpSubscriber,
)
from netd.bridge.thread import SpoolThread
from netd.bridge.verbs import COMMANDS
from netd.config import ServiceConfig
from netd.listener import Listener, Port
from netd.runtime import CannotStart, Runtime
from netd.service import Service
from netd.settings import SHARED
from netd.stats import Histogram

DRAIN_TICK = 0.05
"""Seconds between two looks whether the broker has answered for what it was given."""

_log = Logger()


class BridgeService(Service):
    """Lines in and out of a broker."""

    kind = "bridge"
    commands = COMMANDS
    figures = FIGURES
    charts = CHARTS
    thread = SpoolThread

    def __init__(self, config: ServiceConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        self.settings = cast("BridgeSettings", config.settings)
        clock = runtime.reactor
        self.publish_ports = {name: PublishPort(name, each) for name, each in self.settings.publish.items()}
        self._counts: defaultdict[str, SubscribeCounts] = defaultdict(SubscribeCounts)
        self.subscribe_ports = {
            name: SubscribePort(name, each, clock, self._counts[name]) for name, each in self.settings.subscribe.items()
        }
        self.lanes: list[Lane] = []
        self.broker: Broker | None = None
        self._thread = self.thread(clock, config.key)
        self._confirm_seconds = Histogram(CONFIRM_SECONDS)
        self.spool = Spool(
            runtime.state_dir / f"{config.key}.spool",
            self.settings.spool_limit,
            clock,
            self._thread.call,
            self._spool_changed,
        )
        self._talkers: set[PublishConnection] = set()
        """Clients of publish ports that pause because too much waits for a commit."""
        self.paused = False
        """Whether an operator has it publish nothing."""
        self._drained = False
        self._had_problem = ""
        self._closed = False
        ports = _ports(config.key, self.publish_ports, self.subscribe_ports)
        self.listeners = [Listener(config.key, ports, self.settings, runtime)]

    # --- life

    async def prepare(self) -> None:
        self._thread.start()
        await self._open_spool()
        broker = self.broker = self._make_broker()
        await broker.start()
        for lane in self.lanes:
            lane.open(broker)
        for port in self.subscribe_ports.values():
            port.open(broker)
        await super().prepare()

    async def adapt(self, config: ServiceConfig) -> Callable[[], None]:
        """Ports come, go and change; who is connected to one that stays goes on as before, until it leaves.

        Another broker is a restart's: what is under way with this one is not called back.
        """
        settings = cast("BridgeSettings", config.settings)
        if lasting := self.settings.changes(settings) - SHARED - {"publish", "subscribe", "spool_limit"}:
            raise CannotStart(f"{self.key}: {', '.join(sorted(lasting))}: needs a restart")
        assert self.broker is not None  # noqa: S101 - prepared before
        broker = self.broker
        try:
            publish = {name: await self._publish_port(name, each) for name, each in settings.publish.items()}
        except SpoolFailed as error:
            raise CannotStart(f"{self.key}: {self.spool.path}: {error}") from None
        subscribe = {name: self._subscribe_port(name, each) for name, each in settings.subscribe.items()}
        have_queues = await broker.prepare_queues(settings)
        serve = await self.listeners[0].prepare(_ports(self.key, publish, subscribe), settings)

        def commit() -> None:
            self.settings = settings
            self.spool.set_limit(settings.spool_limit)
            have_queues()
            lanes = {lane.row.id: lane for lane in self.lanes}
            for each in publish.values():
                if (lane := lanes.get(each.lane.row.id)) is not None:
                    each.lane = lane  # which a dead letter that is tried again may have opened meanwhile
                else:
                    self._add_lane(each.lane)
            for port in subscribe.values():
                port.open(broker)
            self.publish_ports, self.subscribe_ports = publish, subscribe
            serve()
            self._close_those_whose_port_is_gone()

        return commit

    async def _publish_port(self, name: str, settings: PublishSettings) -> PublishPort:
        """The port that there is, or a new one, of which nobody knows yet."""
        port = self.publish_ports.get(name)
        if port is None or port.settings != settings:
            port = PublishPort(name, settings)
            row = await self.spool.read(partial(SpoolFile.lane_for, route=port.route))
            lane = next((lane for lane in self.lanes if lane.row.id == row.id), None)
            port.open(lane or self._make_lane(row), self.spool, self._talkers)
        return port

    def _subscribe_port(self, name: str, settings: SubscribeSettings) -> SubscribePort:
        port = self.subscribe_ports.get(name)
        if port is None or port.settings != settings:
            port = SubscribePort(name, settings, self.runtime.reactor, self._counts[name])
        return port

    def _close_those_whose_port_is_gone(self) -> None:
        for listener in self.listeners:
            for each in list(listener.connections.values()):
                gone = (isinstance(each, PublishConnection) and each.publish_port.name not in self.publish_ports) or (
                    isinstance(each, SubscribeConnection) and each.subscribe_port.name not in self.subscribe_ports
                )
                if gone:
                    each.close()

    async def _open_spool(self) -> None:
        try:
            rows = await self.spool.open()
            for port in self.publish_ports.values():
                row = await self.spool.read(partial(SpoolFile.lane_for, route=port.route))
                port.open(self._add_lane(self._make_lane(row)), self.spool, self._talkers)
        except SpoolInUse:
            raise CannotStart(f"{self.key}: {self.spool.path}: in use by another process") from None
        except SpoolFailed as error:
            raise CannotStart(f"{self.key}: {self.spool.path}: {error}") from None
        known = {lane.row.id for lane in self.lanes}
        for row in rows:  # accepted under a configuration that was: delivered as was promised then
            if row.id not in known and row.next > row.released + 1:
                self._add_lane(self._make_lane(row))
        if backlog := sum(lane.backlog for lane in self.lanes):
            _log.info("{backlog} message(s) wait in the spool", backlog=backlog, service=self.key)

    def _add_lane(self, lane: Lane) -> Lane:
        self.lanes.append(lane)
        if self._holds:
            lane.pause()
        if self.broker is not None:
            lane.open(self.broker)
        return lane

    def _make_lane(self, row: LaneRow) -> Lane:
        return Lane(row, self.spool, self.runtime.reactor, confirm_seconds=self._confirm_seconds, service=self.key)

    def _make_broker(self) -> Broker:
        if self.settings.embedded:
            return EmbeddedBroker(self.settings.queues(), self.spool, self.runtime.reactor, self.key)
        from netd.bridge.rabbit import RabbitBroker  # noqa: PLC0415 - pika takes a while to import

        return RabbitBroker(self.settings, self.runtime, self.key)

    async def drain(self) -> None:
        """Take nothing new, say what is to be said, and let the broker answer for what it has been given."""
        await super().drain()
        await self.spool.flushed()
        self._drained = True
        self._hold()
        while any(lane.on_way for lane in self.lanes):
            await deferLater(self.runtime.reactor, DRAIN_TICK)

    async def resume(self) -> None:
        await super().resume()
        self._drained = False
        self._hold()

    async def stop(self) -> None:
        """Close everything at once; what is committed stays."""
        await super().stop()
        await self._close()

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for lane in self.lanes:
            lane.close()
        if self.broker is not None:
            await self.broker.stop()
            self.broker = None
        await self.spool.close()
        self._thread.stop()

    # --- room

    def _spool_changed(self) -> None:
        problem = self.spool.problem
        if problem != self._had_problem:
            if problem:
                _log.warn("lines wait: {problem}", problem=problem, service=self.key)
            else:
                _log.info("lines are taken again", service=self.key)
            self._had_problem = problem
            for connection in self._publishers():
                connection.spool_changed()
        if self.spool.crowded:
            for connection in self._publishers():
                connection.pause_for_pressure()
        elif not self.spool.pressure:
            talkers = list(self._talkers)
            self._talkers.clear()
            for connection in talkers:
                connection.pressure_over()

    def _publishers(self) -> list[PublishConnection]:
        found = (each for listener in self.listeners for each in listener.connections.values())
        return [each for each in found if isinstance(each, PublishConnection)]

    # --- for verbs

    def subscribers(self, port: SubscribePort) -> list[SubscribeConnection]:
        """Who is connected to a subscribe port."""
        found = (each for listener in self.listeners for each in listener.connections.values())
        subscribers = (each for each in found if isinstance(each, SubscribeConnection))
        return [each for each in subscribers if each.subscribe_port.name == port.name]

    def lane_of(self, number: int) -> Lane:
        """The lane of a number, opened anew if nothing was left of it."""
        for lane in self.lanes:
            if lane.row.id == number:
                return lane
        return self._add_lane(self._make_lane(next(row for row in self.spool.file.lanes() if row.id == number)))

    def pause(self, paused: bool) -> None:
        """Publish nothing more, in lanes to come neither, or publish again; lines are taken all the same."""
        self.paused = paused
        self._hold()

    @property
    def _holds(self) -> bool:
        """Whether lanes wait, as an operator or a drain has them wait."""
        return self.paused or self._drained

    def _hold(self) -> None:
        """Have them wait, or go on."""
        for lane in self.lanes:
            if self._holds:
                lane.pause()
            else:
                lane.resume()

    def taps_of(self, port: str) -> list[list[Callable[[Sequence[bytes]], object]]]:
        """Where to look on at the ports of a name."""
        incoming = [self.publish_ports[port].lane.taps] if port in self.publish_ports else []
        return incoming + ([self.subscribe_ports[port].taps] if port in self.subscribe_ports else [])

    def forget(self, letters: Sequence[int]) -> None:
        """Delete dead letters."""
        self.spool.write(Plain(partial(SpoolFile.forget, ids=letters)))

    # --- how it does

    def health(self) -> str:
        if self.spool.problem:
            return self.spool.problem
        state = self.broker.state if self.broker is not None else BrokerState("away", "not started")
        if state.state != "up":
            return ": ".join(filter(None, (state.name, state.state, state.reason)))
        problems = [f"{lane.row.route.port}: {lane.problem}" for lane in self.lanes if lane.problem and lane.backlog]
        return problems[0] if problems else ""

    def histograms(self) -> Mapping[str, Histogram]:
        return {"commit": self.spool.commit_seconds, "confirm": self._confirm_seconds}

    def stats(self) -> Mapping[str, int | float]:
        counts = self._counts.values()
        oldest = min((lane.oldest for lane in self.lanes if lane.oldest is not None), default=None)
        return {
            **{name: sum(int(getattr(lane, name)) for lane in self.lanes) for name in COUNTERS},
            "backlog": sum(lane.backlog for lane in self.lanes),
            "oldest_seconds": max(0.0, time.time() - oldest) if oldest is not None else 0.0,
            "dead_letters": self.spool.dead_letters,
            "spool_bytes": self.spool.used,
            "commits": self.spool.commits,
            "delivered": sum(each.delivered for each in counts),
            "acknowledged": sum(each.acknowledged for each in counts),
            "given_back": sum(each.given_back for each in counts),
        }


COUNTERS = ("accepted", "durable", "published", "confirmed", "returned", "refused")
"""Of a lane, in the order a message comes by them."""


def _ports(key: str, publish: Mapping[str, PublishPort], subscribe: Mapping[str, SubscribePort]) -> list[Port]:
    """What the listener opens."""
    incoming = [
        Port(f"{key}.publish.{name}.listen", port.settings.listen, partial(PublishConnection, port))
        for name, port in publish.items()
    ]
    outgoing = [
        Port(f"{key}.subscribe.{name}.listen", port.settings.listen, partial(TcpSubscriber, port), SEGMENT)
        if port.settings.ack == "tcp"
        else Port(f"{key}.subscribe.{name}.listen", port.settings.listen, partial(AnsweringSubscriber, port))
        for name, port in subscribe.items()
    ]
    return incoming + outgoing
