"""What the daemon lends to its services."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReactorCore, IReactorFromThreads, IReactorTime

from netd.log import LogOutput

if TYPE_CHECKING:
    from netd.config import Config
    from netd.ports import Ports
    from netd.reload import Difference
    from netd.service import Service


class Reactor(IReactorCore, IReactorTime, IReactorFromThreads):
    """What netd asks of a reactor beside the endpoints in use."""


class Control(Protocol):
    """What an operator may do to the daemon as a whole. Each raises `CannotReload` or `ValueError` with the reason."""

    async def reload(self) -> "Difference":
        """Read the configuration again and go over to it, or change nothing."""

    async def drain_services(self, keys: Sequence[str]) -> None:
        """Have services take nothing new and finish what is in flight."""

    async def resume_services(self, keys: Sequence[str]) -> None:
        """Open their ports again."""


@dataclass(slots=True)
class Runtime:
    """The reactor, where logs go, where state is kept, and every service of the daemon."""

    reactor: Reactor
    log: LogOutput
    state_dir: Path
    ports: "Ports"
    """Every port that is open."""
    config: "Config | None" = None
    """What is in force; the daemon sets it."""
    control: Control | None = None
    """The daemon."""
    services: Sequence["Service"] = ()
    """In the order of the configuration; the daemon fills it in once all are built."""
    connection_ids: Iterator[int] = field(default_factory=lambda: count(1))
    """Numbers of connections, unique in the daemon."""
    started: float = field(init=False)
    """When the daemon was made, in the reactor's seconds."""

    def __post_init__(self) -> None:
        self.started = self.reactor.seconds()


class CannotStart(Exception):
    """The daemon cannot start or go on; the text is one line that begins with the key or the path concerned."""
