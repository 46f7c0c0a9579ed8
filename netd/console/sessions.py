"""What a service that people log in to tells the console about them, and the verb `sessions`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from netd.console.command import Answer, Command, Context
from netd.console.table import Cell, Column, Line, Part, Table
from netd.console.text import show_count, show_duration


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in, or about to."""

    connection: int
    """The id of the connection, as `connections` shows it."""
    user: str
    """"" before the log-in."""
    role: str
    peer: str
    since: float
    """When it began, in the reactor's seconds."""
    doing: str
    """What runs: "console", a verb, an allowed command, "logging in"."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """An address that is made to wait for its failures to log in."""

    address: str
    failures: int
    until: float
    """When it is over, in the reactor's seconds."""


@runtime_checkable
class SessionSource(Protocol):
    """A service that people log in to."""

    def sessions(self) -> Sequence[Session]:
        """Who is there now."""

    def penalties(self) -> Sequence[Penalty]:
        """Which addresses have to wait."""


class Sessions(Command):
    """Shows who is logged in."""

    name = "sessions"
    summary = "Show who is logged in, and which addresses have to wait"
    details = (
        "An address that failed to log in waits longer with each failure; `penalty_exempt` in the configuration "
        "excepts networks."
    )
    examples = (("sessions", "who is here and what they do"),)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        now = context.runtime.reactor.seconds()
        sources = [(each.key, each) for each in context.runtime.services if isinstance(each, SessionSource)]
        people = Table(
            [
                Column("ID", right=True),
                Column("USER"),
                Column("ROLE", spare=2),
                Column("FROM"),
                Column("SINCE", right=True, spare=1),
                Column("DOING", spare=1),
                Column("SERVICE", spare=3),
                Column("", spare=4),
            ]
        )
        waiting = Table([Column("ADDRESS"), Column("FAILURES", right=True), Column("WAITS", right=True)])
        document: dict[str, list[dict[str, object]]] = {"sessions": [], "penalties": []}
        for key, source in sources:
            for each in source.sessions():
                age = now - each.since
                you = Cell("you" if each.connection == context.caller.connection else "", "dim")
                people.add(
                    str(each.connection),
                    Cell(each.user or "-", "name"),
                    each.role or "-",
                    each.peer,
                    show_duration(age),
                    each.doing,
                    key,
                    you,
                )
                document["sessions"].append(
                    {
                        "id": each.connection,
                        "service": key,
                        "user": each.user,
                        "role": each.role,
                        "peer": each.peer,
                        "seconds": round(age, 1),
                        "doing": each.doing,
                    }
                )
            for penalty in source.penalties():
                left = max(penalty.until - now, 0.0)
                waiting.add(penalty.address, show_count(penalty.failures), Cell(show_duration(left), "warn"))
                document["penalties"].append(
                    {
                        "service": key,
                        "address": penalty.address,
                        "failures": penalty.failures,
                        "seconds": round(left, 1),
                    }
                )
        parts: list[Part] = [people] if people.rows else [Line([Cell("nobody is logged in", "dim")])]
        if waiting.rows:
            parts += ["", waiting]
        return Answer(dict(document), parts)
