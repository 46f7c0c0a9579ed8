"""connections and close: who is connected, and no longer."""

import heapq
from collections.abc import Callable, Mapping
from typing import Any

import click

from netd.console.arguments import ConnectionId, CountOption, ServiceName, connections_of
from netd.console.command import Answer, Command, Context, Failed, Role
from netd.console.table import Cell, Column, Line, Part, Table
from netd.console.text import plural, show_bytes, show_duration
from netd.listener import Connection

MOST_ROWS = 500
"""Connections listed at most: laying them out holds the reactor for some 15 ms, and nobody reads more."""

_ORDERS: Mapping[str, Callable[[Connection], int]] = {
    "id": lambda each: each.id,
    "in": lambda each: -each.bytes_in,
    "out": lambda each: -each.bytes_out,
    "traffic": lambda each: -each.bytes_in - each.bytes_out,
}


class Connections(Command):
    """The table of connections."""

    name = "connections"
    summary = "List who is connected"
    details = "In the order they came, or by --sort the busiest first. What --limit leaves out is counted below."
    examples = (
        ("connections", "the hundred oldest"),
        ("connections echo.plain --sort traffic", "of one service, the busiest first"),
        ("connections --host 192.0.2.7", "from one address"),
    )
    parameters = (
        click.Argument(["service"], type=ServiceName(), required=False),
        click.Option(["--sort"], type=click.Choice(list(_ORDERS)), default="id", help="The order; default id"),
        click.Option(["--host"], metavar="ADDRESS", help="Only from this address"),
        click.Option(
            ["--limit", "-n"],
            type=CountOption(MOST_ROWS),
            default=100,
            metavar="COUNT",
            help=f"How many to show; default 100, at most {MOST_ROWS}",
        ),
    )

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        service, host, limit = arguments["service"], arguments["host"], arguments["limit"]
        order = _ORDERS[arguments["sort"]]
        found = [each for each in connections_of(context.runtime, service) if host in {None, each[1].host}]
        shown = heapq.nsmallest(limit, found, key=lambda each: order(each[1]))
        now = context.runtime.reactor.seconds()
        documents = [_document(key, each, now) for key, each in shown]
        table = Table(
            [
                Column("ID", right=True),
                Column("SERVICE", spare=3),
                Column("PEER"),
                Column("AGE", right=True, spare=1),
                Column("IN", right=True, spare=2),
                Column("OUT", right=True, spare=2),
                Column("", spare=1),
            ]
        )
        for key, each in shown:
            note = "you" if each.id == context.caller.connection else "closing" if each.closing else ""
            table.add(
                str(each.id),
                Cell(key, "name"),
                each.peer,
                show_duration(now - each.since),
                show_bytes(each.bytes_in),
                show_bytes(each.bytes_out),
                Cell(note, "dim"),
            )
        parts: list[Part] = [table] if shown else [Line([Cell("nobody is connected", "dim")])]
        if len(shown) < len(found):
            parts.append(Line([Cell(f"{len(shown):,} of {plural(len(found), 'connection')}: --limit, --host", "dim")]))
        return Answer({"connections": documents, "total": len(found)}, parts)


def _document(key: str, connection: Connection, now: float) -> dict[str, object]:
    return {
        "id": connection.id,
        "service": key,
        "peer": connection.peer,
        "age_seconds": round(now - connection.since, 1),
        "bytes_in": connection.bytes_in,
        "bytes_out": connection.bytes_out,
        "closing": connection.closing,
    }


class Close(Command):
    """Ends connections."""

    name = "close"
    summary = "Close connections"
    details = (
        "What is written is still sent, for as long as the client takes it; with --now the connection is cut at once. "
        "The client may come again: `allow` in the configuration keeps it out."
    )
    examples = (
        ("close 42", "asks, then closes connection 42"),
        ("close 42 43 --yes", "closes two and does not ask; needed where nobody can be asked"),
    )
    role = Role.OPERATOR
    parameters = (
        click.Argument(["id"], type=ConnectionId(), nargs=-1, required=True),
        click.Option(["--now"], is_flag=True, help="Cut it; what is not sent is lost"),
    )
    asks = True

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        numbers = dict.fromkeys(arguments["id"])
        chosen = _find(numbers, context)
        now = context.runtime.reactor.seconds()
        what = _describe(*chosen[0], now, context) if len(chosen) == 1 else plural(len(chosen), "connection")
        await context.confirm(f"Close {what}?")
        present = [each for _, each in chosen if each.id in each.listener.connections]
        for each in present:
            each.abort() if arguments["now"] else each.close()
        gone = [each.id for _, each in chosen if each not in present]
        parts: list[Part] = [f"closed {', '.join(str(each.id) for each in present)}"] if present else []
        if gone:
            parts.append(f"gone already: {', '.join(map(str, gone))}")
        return Answer({"closed": [each.id for each in present], "gone": gone}, parts)


def _find(numbers: Mapping[int, None], context: Context) -> list[tuple[str, Connection]]:
    chosen = [
        (service.key, listener.connections[number])
        for number in numbers
        for service in context.runtime.services
        for listener in service.listeners
        if number in listener.connections
    ]
    missing = numbers.keys() - {each.id for _, each in chosen}
    if missing:
        raise Failed(f"no connection {', '.join(map(str, sorted(missing)))}: nothing was closed")
    return chosen


def _describe(key: str, connection: Connection, now: float, context: Context) -> str:
    yours = ", your own" if connection.id == context.caller.connection else ""
    return (
        f"connection {connection.id} of {key} from {connection.peer} "
        f"({show_duration(now - connection.since)}, {show_bytes(connection.bytes_in)} in{yours})"
    )
