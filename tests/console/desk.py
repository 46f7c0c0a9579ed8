"""A console over a daemon in memory, for tests of verbs."""

import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from netd.console.command import Caller, Role
from netd.console.console import Console
from netd.console.output import MemoryOutput
from netd.kinds import KINDS
from netd.reload import CannotReload, Difference
from netd.runtime import Runtime
from netd.service import Service
from tests.fakes import MemoryNetwork, configure, result_of, runtime_on

SERVICES = """
[echo.plain]
listen = "127.0.0.1:8001"
[echo.upper]
listen = "127.0.0.1:10000"
transform = "upper"
"""

OPS = Caller("ops", Role.ADMIN, "192.0.2.1:4711", "ssh")
EVE = Caller("eve", Role.VIEWER, "192.0.2.2:4711", "ssh")


class Result:
    """What a verb wrote, and its exit status."""

    def __init__(self, status: int, output: MemoryOutput) -> None:
        self.status = status
        self.text = output.text
        self.errors = output.errors

    @property
    def rows(self) -> list[list[str]]:
        """The words of each line."""
        return [line.split() for line in self.text.splitlines()]

    @property
    def document(self) -> dict[str, Any]:
        document = json.loads(self.text)
        assert isinstance(document, dict)
        return document


class Asked:
    """Stands for the daemon where verbs change it: notes what was asked, and answers as it is told to."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.refusal: list[str] = []
        self.difference = Difference([], [], [], ["echo.plain"], ["log.level"], [])

    def _hear(self, *words: object) -> None:
        self.heard.append(words)
        if self.refusal:
            raise CannotReload(self.refusal)

    async def reload(self) -> Difference:
        self._hear("reload")
        return self.difference

    async def drain_services(self, keys: Sequence[str]) -> None:
        self._hear("drain", *keys)

    async def resume_services(self, keys: Sequence[str]) -> None:
        self._hear("resume", *keys)


class Desk:
    """Two echo services, and an operator who runs verbs on them."""

    def __init__(self, *more: Service, config: str = SERVICES) -> None:
        self.network = MemoryNetwork()
        self.runtime: Runtime = runtime_on(self.network)
        self.runtime.control = self.asked = Asked()
        self.runtime.config = parsed = configure(config)
        services = [KINDS[each.kind].load_service()(each, self.runtime) for each in parsed.services]
        self.runtime.services = (*services, *more)
        for service in self.runtime.services:
            result_of(service.startService())
        self.finished: list[tuple[str, str, int]] = []
        self.console = Console(self.runtime, finished=self.note)

    def note(self, caller: Caller, verb: str, words: Sequence[str], status: int) -> None:
        """A verb has ended."""
        self.finished.append((caller.user, " ".join((verb, *words)), status))

    def begin(self, line: str, caller: Caller = OPS, **output: Any) -> tuple[Deferred[int], MemoryOutput]:
        """Start a verb that takes its time."""
        memory = MemoryOutput(**output)
        return Deferred.fromCoroutine(self.console.run(line, caller, memory)), memory

    def run(self, line: str, caller: Caller = OPS, **output: Any) -> Result:
        """Run a verb that answers at once."""
        running, memory = self.begin(line, caller, **output)
        return Result(result_of(running), memory)
