"""One operator verb: what it is, who may run it, what it is given and what it answers.

A verb returns an `Answer`, a document for machines and parts for people, and never writes itself: so the same verb
serves a terminal, a pipe, netdctl and HTTP. It fails by raising `Failed` (exit status 1), `NotPermitted` (126) or
click's UsageError (2).

Text from clients may stand in an answer as it came: whoever writes it out makes it printable.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import click
    from twisted.internet.defer import Deferred

    from netd.console.console import Console
    from netd.console.table import Part
    from netd.runtime import Runtime

OK, FAILED, USAGE, TIMED_OUT, NOT_PERMITTED, UNKNOWN, INTERRUPTED = 0, 1, 2, 124, 126, 127, 130
"""Exit statuses of a verb: those of a shell and of timeout(1)."""

TIMEOUT = 30.0
"""Seconds a verb may take unless it says otherwise: an operator who waits longer wants to know why."""


class Role(IntEnum):
    """What a user may do; each may do what the ones before it may. `Role.parse("admin")`, `role.label`."""

    VIEWER = 1
    """Looks."""
    OPERATOR = 2
    """Changes what is running: closes connections, sets the log level."""
    ADMIN = 3
    """Does what cannot be undone for others."""

    @classmethod
    def parse(cls, name: str) -> "Role":
        """From "viewer", "operator" or "admin"; raises KeyError."""
        return cls[name.upper()]

    @property
    def label(self) -> str:
        """As the configuration names it: "viewer"."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who runs a verb, and from where."""

    user: str
    role: Role
    peer: str
    """The address, as `Connection.peer` shows it."""
    via: str
    """The way in: "ssh", "netdctl" or "http"."""
    connection: int = 0
    """The number of the connection the caller came by, 0 when there is none."""


@dataclass(frozen=True, slots=True)
class HostCommand:
    """A program of the host that users may run beside the verbs, for `help` and completion."""

    name: str
    usage: str
    """What to type: "ping -c {n} {host}"."""
    role: Role
    choices: Mapping[str, str]
    """What {n} may be: a regular expression."""


class Output(Protocol):
    """Where a verb's text goes. `netd.console.output` has the ones that netd uses."""

    @property
    def width(self) -> int:
        """Columns of the terminal; 0 when there is none, and lines may be as long as they need."""

    @property
    def colour(self) -> bool:
        """Whether SGR sequences are welcome: a pty, TERM other than dumb, no NO_COLOR."""

    @property
    def interactive(self) -> bool:
        """Whether `confirm` may be called: somebody is there to be asked."""

    def write(self, text: str) -> None:
        r"""Write to standard output; lines end in "\n"."""

    def error(self, text: str) -> None:
        """The same to standard error."""

    def confirm(self, question: str) -> "Deferred[bool]":
        """Ask; called only when interactive. Cancelling it takes the question back."""


class Failed(Exception):
    """The verb could not do what it was asked; the text says why, in one line, and `reasons` has more, a line each."""

    def __init__(self, text: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.reasons = reasons


class NotPermitted(Exception):
    """The caller's role does not suffice; the text names the one that does."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb found or did."""

    document: Mapping[str, object]
    """For `--json`, which puts "version" and "verb" before it."""
    parts: Sequence["Part"]
    """For people: lines and tables."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a verb works with."""

    runtime: "Runtime"
    caller: Caller
    output: Output
    console: "Console"
    confirmed: bool = False
    """Whether `--yes` was given."""

    def require(self, role: Role) -> None:
        """Raise NotPermitted unless the caller has this role."""
        if self.caller.role < role:
            raise NotPermitted(f"needs the role {role.label}; {self.caller.user} is {self.caller.role.label}")

    async def confirm(self, question: str) -> None:
        """Go on only if the operator agrees, by `--yes` or by answering; raises Failed otherwise."""
        if self.confirmed:
            return
        if not self.output.interactive:
            raise Failed("this cannot be undone: say --yes")
        if not await self.output.confirm(question):
            raise Failed("nothing was done")


class Command(ABC):
    """A verb. Its name may be two or three words, such as "log level"; the first stands in `netd.console.verbs`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line that says what it does, without a full stop."""
    details: ClassVar[str] = ""
    """More, for `help VERB`: a paragraph or two."""
    examples: ClassVar[Sequence[tuple[str, str]]] = ()
    """Lines to type, each with what it does."""
    role: ClassVar[Role] = Role.VIEWER
    parameters: ClassVar[Sequence["click.Parameter"]] = ()
    """Arguments and options, as click declares them; their types may complete (`click.ParamType.shell_complete`, with
    the Console as `context.obj`)."""
    private: ClassVar[str] = ""
    """The name of an argument of many words that is left out of audits and logs."""
    asks: ClassVar[bool] = False
    """It does what cannot be undone: it calls `Context.confirm`, and takes `--yes`."""
    timeout: ClassVar[float] = TIMEOUT
    """Seconds it may take; 0: as long as it likes."""

    @abstractmethod
    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        """Do it. `arguments` has a value for each parameter, by click's names."""
