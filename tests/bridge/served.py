"""A bridge on a network in memory; its spool is a real file, its thread works when the test says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred

from netd.bridge.service import BridgeService
from tests.bridge.workbench import SlowThread
from tests.fakes import Client, MemoryNetwork, configure, runtime_on

CONFIG = """
[bridge.main]
{settings}
[bridge.main.publish.hello]
listen = "127.0.0.1:5680"
routing_key = "hello"
{publish}
[bridge.main.subscribe.hello]
listen = "127.0.0.1:5681"
queue = "hello"
{subscribe}
"""


class Thread(SlowThread):
    """A slow thread that a service makes itself."""

    def __init__(self, _reactor: object, _name: str) -> None:
        super().__init__()
        self.stopped = False

    def start(self) -> None:
        """It works by `run`."""

    def stop(self) -> None:
        self.stopped = True


class Slow(BridgeService):
    """A bridge whose thread is the test's."""

    thread = cast("Any", Thread)


class Served:
    """A bridge that is up, and its clients."""

    def __init__(self, directory: Path, *, settings: str = "", publish: str = "", subscribe: str = "") -> None:
        self.network = MemoryNetwork()
        config = configure(CONFIG.format(settings=settings, publish=publish, subscribe=subscribe))
        runtime = runtime_on(self.network)
        runtime.state_dir = directory
        self.service = Slow(config.services[0], runtime)
        runtime.services = (self.service,)
        self.thread: Thread = cast("Any", self.service)._thread
        self.taken: Callable[[], int] = lambda: 0
        port = self.service.subscribe_ports["hello"]
        port.taken = lambda _: self.taken()
        self.wait_for(self.service.startService())

    def wait_for(self, deferred: "Deferred[Any]") -> None:
        """Go on until it has come about; its failure is raised."""
        ends: list[Any] = []
        deferred.addBoth(ends.append)
        for _ in range(100):
            if ends:
                break
            self.settle(0.05)
        assert ends, "it did not come about"
        if hasattr(ends[0], "raiseException"):
            ends[0].raiseException()

    def turn(self, seconds: float = 0.0) -> None:
        """The reactor goes round."""
        self.network.advance(seconds)

    def settle(self, seconds: float = 0.0) -> None:
        """Everything that is under way is done, and what comes of it within a tenth of a second."""
        self.turn(seconds)
        for _ in range(10):
            while self.thread.jobs:
                self.thread.run()
                self.turn()
            self.turn(0.01)

    def publisher(self) -> Client:
        return self.network.client(port=0)

    def subscriber(self) -> Client:
        client = self.network.client(port=1)
        self.settle()
        return client

    def stop(self) -> None:
        self.wait_for(self.service.stopService())
