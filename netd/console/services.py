"""status, services and stats: how the daemon does."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
from twisted.internet.task import deferLater

from netd.console.arguments import DurationOption, ServiceName
from netd.console.command import Answer, Command, Context
from netd.console.facts import ServiceFacts, daemon_facts, service_facts
from netd.console.help import host_name
from netd.console.table import Cell, Column, Line, Part, Style, Table
from netd.console.text import plural, show_bytes, show_count, show_duration
from netd.service import Service

_STATES: Mapping[str, Style] = {"up": "good", "unwell": "warn", "draining": "warn", "drained": "warn", "down": "bad"}


class Status(Command):
    """The daemon at a glance."""

    name = "status"
    summary = "Show the daemon at a glance"
    details = (
        "A service is up, unwell (it runs, but its backend does not answer, say), draining or drained (it takes no "
        "new clients), or down; with the reason."
    )
    examples = (
        ("status", "once"),
        ("watch status", "again and again, in the console"),
        ("status --json", "for scripts"),
    )

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        facts = daemon_facts(context.runtime, host_name())
        up = facts["uptime_seconds"]
        started = facts["started"]
        unwell = [each["name"] for each in facts["services"] if each["state"] != "up"]
        descriptors = facts["descriptors"]
        warnings = int(str(facts["log"]["warnings"]))
        pairs: list[tuple[str, Cell]] = [
            ("up", Cell(f"{show_duration(up)}, since {started.replace('T', ' ').removesuffix('+00:00')} UTC")),
            (
                "services",
                Cell(f"{len(facts['services'])}, {', '.join(unwell)} not up", "warn")
                if unwell
                else Cell(f"{len(facts['services'])}, all up", "good"),
            ),
            (
                "connections",
                Cell(
                    f"{show_count(facts['connections'])} now, {show_count(facts['accepted'])} accepted, "
                    f"{show_count(facts['refused'])} refused"
                ),
            ),
            ("traffic", Cell(f"{show_bytes(facts['bytes_in'])} in, {show_bytes(facts['bytes_out'])} out")),
            (
                "process",
                Cell(
                    f"{show_bytes(facts['memory_bytes'])} of memory, {show_duration(facts['cpu_seconds'])} of CPU, "
                    f"{show_count(descriptors['open'])} of {show_count(descriptors['limit'])} descriptors"
                ),
            ),
            (
                "log",
                Cell(f"level {facts['log']['level']}, {plural(warnings, 'warning')}: log tail", "warn")
                if warnings
                else Cell(f"level {facts['log']['level']}, no warnings"),
            ),
        ]
        table = Table([Column(""), Column("")], heads=False)
        for name, cell in pairs:
            table.add(Cell(name, "dim"), cell)
        title = Line([Cell(f"netd {facts['netd']}", "bold"), Cell(f" on {facts['host']}, pid {facts['pid']}")])
        return Answer({**facts}, [title, table, "", _services_table(facts["services"], brief=True)])


class Services(Command):
    """The services with their ports."""

    name = "services"
    summary = "List the services, their ports and what passed through them"
    examples = (("services", "state, addresses, connections and bytes of each"),)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        facts = [service_facts(service) for service in context.runtime.services]
        return Answer({"services": facts}, [_services_table(facts, brief=False)])


def _services_table(services: Sequence[ServiceFacts], *, brief: bool) -> Table:
    columns = [
        Column("SERVICE"),
        Column("STATE"),
        Column("LISTENING", spare=1),
        Column("CONNECTIONS", right=True),
        *([] if brief else [Column("ACCEPTED", right=True, spare=3), Column("REFUSED", right=True, spare=2)]),
        Column("IN", right=True, spare=4),
        Column("OUT", right=True, spare=4),
    ]
    table = Table(columns)
    for each in services:
        refused = sum(each["refused"].values())
        more: list[Cell | str] = (
            [] if brief else [show_count(each["accepted"]), Cell(show_count(refused), "warn" if refused else "")]
        )
        table.add(
            Cell(each["name"], "name"),
            Cell(each["state"] + (f": {each['reason']}" if each["state"] == "unwell" else ""), _STATES[each["state"]]),
            ", ".join(each["listening"]) or "-",
            show_count(each["connections"]),
            *more,
            show_bytes(each["bytes_in"]),
            show_bytes(each["bytes_out"]),
        )
    return table


class Stats(Command):
    """The counters."""

    name = "stats"
    summary = "Show counters, and how fast they grow"
    details = "With --over the counters are read twice, that long apart, and what they grew by per second is shown too."
    examples = (
        ("stats", "everything since the start"),
        ("stats echo.plain", "one service"),
        ("stats --over 5s", "per second, over the next five"),
    )
    parameters = (
        click.Argument(["service"], type=ServiceName(), required=False),
        click.Option(["--over"], type=DurationOption(20.0), metavar="TIME", help='Measure for this long, such as "5s"'),
    )

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        services: Sequence[Service] = [arguments["service"]] if arguments["service"] else context.runtime.services
        over: float | None = arguments["over"]
        before = [_figures(service) for service in services]
        if over:
            await deferLater(context.runtime.reactor, over)
        after = [_figures(service) for service in services] if over else before
        documents = []
        parts: list[Part] = []
        for service, earlier, figures in zip(services, before, after, strict=True):
            rates = {name: (value - earlier.get(name, 0)) / over for name, value in figures.items()} if over else {}
            documents.append({"name": service.key, "figures": figures, **({"per_second": rates} if over else {})})
            table = Table(
                [Column("FIGURE"), Column("VALUE", right=True), *([Column("PER SECOND", right=True)] if over else [])],
                indent=2,
                heads=bool(over),
            )
            for name, value in figures.items():
                table.add(
                    Cell(name.replace("_", " "), "dim"),
                    _show(name, value),
                    *([_show(name, rates[name])] if over else []),
                )
            parts += [*([""] if parts else []), Line([Cell(service.key, "name")]), table]
        return Answer({"seconds": over, "services": documents}, parts)


def _figures(service: Service) -> dict[str, int | float]:
    facts = service_facts(service)
    return {
        "connections": facts["connections"],
        "connections_accepted": facts["accepted"],
        **{f"connections_refused_{reason}": count for reason, count in facts["refused"].items()},
        "bytes_in": facts["bytes_in"],
        "bytes_out": facts["bytes_out"],
        **service.stats(),
    }


def _show(name: str, value: float) -> str:
    if "bytes" in name:
        return show_bytes(value)
    if name.endswith("seconds"):
        return show_duration(value)
    return show_count(value)
