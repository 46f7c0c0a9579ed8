"""The operator's verbs of a bridge: how it does, its dead letters, pausing, looking on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from twisted.internet.task import deferLater

from netd.bridge.embedded import EmbeddedBroker
from netd.bridge.spoolfile import DeadLetter, SpoolFailed, SpoolFile
from netd.console.arguments import DurationOption
from netd.console.command import Answer, Command, Context, Failed, Role
from netd.console.table import Cell, Column, Line, Part, Table
from netd.console.text import plural, show_bytes, show_count, show_duration, show_moment

if TYPE_CHECKING:
    from netd.bridge.lane import Lane
    from netd.bridge.service import BridgeService
    from netd.runtime import Runtime

MOST_LETTERS = 1000
"""Dead letters that one verb lists, tries again or drops; say it again for more."""
MOST_TAPPED = 200
"""Messages that a look at a port shows."""
TAPPED_SIZE = 200
"""Bytes of each that are shown."""

_SERVICE = click.Option(["--service"], metavar="NAME", help="Which bridge, where there are several")


def bridges(runtime: "Runtime", name: str | None = None) -> "list[BridgeService]":
    """The bridges of the daemon, or the one of this name; raises Failed."""
    from netd.bridge.service import BridgeService  # noqa: PLC0415 - which has these verbs

    found = [each for each in runtime.services if isinstance(each, BridgeService)]
    if name is not None:
        found = [each for each in found if name in {each.key, each.key.partition(".")[2]}]
    if not found:
        raise Failed(f"no bridge {name}" if name else "no bridge")
    return found


def one_bridge(arguments: Mapping[str, Any], context: Context) -> "BridgeService":
    """The bridge that is meant; raises Failed."""
    found = bridges(context.runtime, arguments["service"])
    if len(found) > 1:
        raise Failed(f"which one? --service {', '.join(each.key for each in found)}")
    return found[0]


class BridgeStatus(Command):
    """Where messages are."""

    name = "bridge status"
    summary = "Show where a bridge's messages are, and how its broker does"
    details = "Counters are since the start; backlog is what is on disk and not released."
    examples = (("bridge status", "once"), ("watch bridge status", "again and again, in the console"))
    parameters = (_SERVICE,)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        documents = []
        parts: list[Part] = []
        for bridge in bridges(context.runtime, arguments["service"]):
            document = status_of(bridge)
            documents.append(document)
            parts += [*([""] if parts else []), *_status_parts(document)]
        return Answer({"bridges": documents}, parts)


def status_of(bridge: "BridgeService") -> dict[str, Any]:
    """What `bridge status` shows, as a document."""
    now = time.time()
    broker = bridge.broker
    state = broker.state if broker is not None else None
    lengths = broker.lengths() if isinstance(broker, EmbeddedBroker) else {}
    return {
        "name": bridge.key,
        "broker": {
            "name": state.name if state else "",
            "state": state.state if state else "away",
            "reason": state.reason if state else "not started",
        },
        "problem": bridge.health(),
        "spool_bytes": bridge.spool.used,
        "spool_limit": bridge.settings.spool_limit,
        "dead_letters": bridge.spool.dead_letters,
        "publish": [_lane_document(lane, now) for lane in bridge.lanes],
        "subscribe": [
            {
                "port": port.name,
                "queue": port.settings.queue,
                "clients": len(bridge.subscribers(port)),
                **asdict(port.counts),
                "problem": next((each.problem for each in bridge.subscribers(port) if each.problem), ""),
            }
            for port in bridge.subscribe_ports.values()
        ],
        "queues": lengths,
    }


def _lane_document(lane: "Lane", now: float) -> dict[str, Any]:
    return {
        "port": lane.row.route.port,
        "exchange": lane.row.route.exchange,
        "routing_key": lane.row.route.routing_key,
        "accepted": lane.accepted,
        "durable": lane.durable,
        "published": lane.published,
        "confirmed": lane.confirmed,
        "returned": lane.returned,
        "refused": lane.refused,
        "backlog": lane.backlog,
        "oldest_seconds": round(max(0.0, now - lane.oldest), 1) if lane.oldest is not None else 0.0,
        "paused": lane.paused,
        "problem": lane.problem,
    }


def _status_parts(document: Mapping[str, Any]) -> list[Part]:
    broker = document["broker"]
    style = {"up": "good", "blocked": "warn"}.get(broker["state"], "bad")
    limit = f" of {show_bytes(document['spool_limit'])}" if document["spool_limit"] else ""
    name = f"{broker['name']} " if broker["name"] else ""
    reason = f": {broker['reason']}" if broker["reason"] else ""
    head: list[Part] = [
        Line([Cell(document["name"], "name")]),
        Line([Cell("broker  ", "dim"), Cell(f"{name}{broker['state']}{reason}", style)], indent=2),  # type: ignore[arg-type]  # one of its styles
        Line(
            [
                Cell("spool   ", "dim"),
                Cell(
                    f"{show_bytes(document['spool_bytes'])}{limit}, {plural(document['dead_letters'], 'dead letter')}"
                ),
            ],
            indent=2,
        ),
    ]
    if document["problem"]:
        head.append(Line([Cell("problem ", "dim"), Cell(document["problem"], "bad")], fit="wrap", indent=2))
    return [*head, *_lanes_table(document["publish"]), *_ports_table(document["subscribe"], document["queues"])]


def _lanes_table(lanes: Sequence[Mapping[str, Any]]) -> list[Part]:
    if not lanes:
        return []
    counters = ("accepted", "durable", "published", "confirmed", "returned", "refused", "backlog")
    heads = [
        Column(name.upper(), right=True, spare=at) for at, name in zip((0, 5, 4, 0, 2, 3, 0), counters, strict=True)
    ]
    table = Table([Column("PUBLISH"), *heads, Column("OLDEST", right=True), Column("STATE")], indent=2)
    for lane in lanes:
        table.add(
            Cell(lane["port"], "name"),
            *(show_count(lane[name]) for name in counters),
            show_duration(lane["oldest_seconds"]) if lane["backlog"] else "-",
            Cell(lane["problem"], "warn") if lane["problem"] else Cell("up", "good"),
        )
    return ["", table]


def _ports_table(ports: Sequence[Mapping[str, Any]], lengths: Mapping[str, int]) -> list[Part]:
    if not ports:
        return []
    table = Table(
        [
            Column("SUBSCRIBE"),
            Column("QUEUE"),
            Column("WAITING", right=True),
            Column("CLIENTS", right=True),
            Column("DELIVERED", right=True),
            Column("ACKNOWLEDGED", right=True),
            Column("GIVEN BACK", right=True, spare=1),
            Column("STATE"),
        ],
        indent=2,
    )
    for port in ports:
        table.add(
            Cell(port["port"], "name"),
            port["queue"],
            show_count(lengths[port["queue"]]) if port["queue"] in lengths else "-",
            show_count(port["clients"]),
            show_count(port["delivered"]),
            show_count(port["acknowledged"]),
            show_count(port["given_back"]),
            Cell(port["problem"], "warn") if port["problem"] else Cell("up", "good"),
        )
    return ["", table]


# --- dead letters


async def _letters(bridge: "BridgeService", ids: Sequence[int]) -> list[DeadLetter]:
    """The dead letters with these ids, or the oldest ones; raises Failed when one is not there."""
    try:
        await bridge.spool.flushed()
        read = partial(SpoolFile.dead, ids=list(ids) if ids else None, limit=MOST_LETTERS)
        found = await bridge.spool.read(read)
    except SpoolFailed as error:
        raise Failed(str(error)) from None
    if missing := set(ids) - {letter.id for letter in found}:
        raise Failed(f"no dead letter {', '.join(map(str, sorted(missing)))}")
    return found


def _letter_document(letter: DeadLetter, *, whole: bool) -> dict[str, object]:
    document: dict[str, object] = {
        "id": letter.id,
        "netd_id": letter.netd_id,
        "key": letter.key.decode("utf-8", "replace"),
        "reason": letter.reason,
        "attempts": letter.attempts,
        "accepted": letter.accepted,
        "died": letter.died,
        "bytes": len(letter.body),
    }
    if whole:
        document["headers"] = dict(letter.extra.headers)
        document["body"] = letter.body.decode("utf-8", "backslashreplace")
    return document


_IDS = click.Argument(["ids"], type=click.IntRange(min=1), nargs=-1, metavar="ID")
_ALL = click.Option(["--all", "everything"], is_flag=True, help=f"The oldest {MOST_LETTERS}")


class DeadList(Command):
    """What could not be delivered."""

    name = "bridge dead list"
    summary = "List dead letters: messages that could not be delivered, with the reason"
    parameters = (_SERVICE,)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        bridge = one_bridge(arguments, context)
        letters = await _letters(bridge, [])
        table = Table(
            [
                Column("ID", right=True),
                Column("DIED", spare=1),
                Column("KEY"),
                Column("BYTES", right=True, spare=2),
                Column("ATTEMPTS", right=True, spare=3),
                Column("REASON"),
            ]
        )
        for each in letters:
            key = each.key.decode("utf-8", "replace")
            size = show_count(len(each.body))
            table.add(str(each.id), show_moment(each.died), key, size, show_count(each.attempts), each.reason)
        total = bridge.spool.dead_letters
        note = [f"{len(letters):,} of {total:,} dead letters"] if total > len(letters) else []
        parts: list[Part] = [table, *note] if letters else ["no dead letters"]
        return Answer({"total": total, "letters": [_letter_document(each, whole=False) for each in letters]}, parts)


class DeadShow(Command):
    """One of them."""

    name = "bridge dead show"
    summary = "Show a dead letter, its body too"
    role = Role.OPERATOR
    parameters = (click.Argument(["number"], type=click.IntRange(min=1), metavar="ID"), _SERVICE)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        (letter,) = await _letters(one_bridge(arguments, context), [arguments["number"]])
        document = _letter_document(letter, whole=True)
        table = Table([Column(""), Column("")], heads=False)
        for name, value in document.items():
            moment = name in {"accepted", "died"}
            table.add(Cell(name.replace("_", " "), "dim"), show_moment(int(str(value))) if moment else str(value))
        return Answer(document, [table])


class DeadRetry(Command):
    """Again."""

    name = "bridge dead retry"
    summary = "Publish dead letters again, with the x-netd-id they had; --all leaves out what is no whole message"
    role = Role.OPERATOR
    parameters = (_IDS, _ALL, _SERVICE)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        bridge = one_bridge(arguments, context)
        chosen = await _chosen(bridge, arguments)
        letters = [letter for letter in chosen if letter.whole or not arguments["everything"]]
        for lane in {letter.lane for letter in letters}:
            bridge.lane_of(lane).retry([letter for letter in letters if letter.lane == lane])
        await bridge.spool.flushed()
        parts: list[Part] = [f"{plural(len(letters), 'dead letter')} on the way again"]
        if left := len(chosen) - len(letters):
            parts.append(f"{left} left: not whole messages. To publish the bytes of one all the same, name its id.")
        return Answer({"retried": len(letters), "left": left}, parts)


class DeadDrop(Command):
    """For good."""

    name = "bridge dead drop"
    summary = "Delete dead letters for good"
    role = Role.ADMIN
    asks = True
    parameters = (_IDS, _ALL, _SERVICE)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        bridge = one_bridge(arguments, context)
        letters = await _chosen(bridge, arguments)
        await context.confirm(f"Delete {plural(len(letters), 'dead letter')} for good?")
        bridge.forget([letter.id for letter in letters])
        await bridge.spool.flushed()
        return Answer({"dropped": len(letters)}, [f"{plural(len(letters), 'dead letter')} deleted"])


async def _chosen(bridge: "BridgeService", arguments: Mapping[str, Any]) -> list[DeadLetter]:
    if bool(arguments["ids"]) == arguments["everything"]:
        raise Failed("which ones? ids, as `bridge dead list` shows them, or --all")
    if letters := await _letters(bridge, arguments["ids"]):
        return letters
    raise Failed("no dead letters")


# --- pausing and looking on


class BridgePause(Command):
    """Hold."""

    name = "bridge pause"
    summary = "Publish nothing more; lines are taken all the same, and wait in the spool"
    role = Role.OPERATOR
    parameters = (_SERVICE,)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        bridge = one_bridge(arguments, context)
        bridge.pause(True)
        return Answer({"paused": True}, [f"{bridge.key} publishes nothing until `bridge resume`"])


class BridgeResume(Command):
    """Go."""

    name = "bridge resume"
    summary = "Publish again"
    role = Role.OPERATOR
    parameters = (_SERVICE,)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        bridge = one_bridge(arguments, context)
        bridge.pause(False)
        drained = f" once its drain is over: resume {bridge.key}" if bridge.draining else ""
        return Answer({"paused": False}, [f"{bridge.key} publishes{drained}"])


class BridgeTap(Command):
    """A look."""

    name = "bridge tap"
    summary = "Look at what passes a port: the next messages, as they come"
    details = (
        f"It ends after --lines messages or after --over, whichever is first; {TAPPED_SIZE} bytes of each are shown."
    )
    role = Role.OPERATOR
    timeout = 0
    parameters = (
        click.Argument(["port"]),
        click.Option(["--lines"], type=click.IntRange(1, MOST_TAPPED), default=20, help="How many messages at most"),
        click.Option(["--over"], type=DurationOption(60.0), default="5s", metavar="TIME", help="For how long at most"),
        _SERVICE,
    )

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        bridge = one_bridge(arguments, context)
        taps = bridge.taps_of(arguments["port"])
        if not taps:
            raise Failed(f"no port {arguments['port']}: {', '.join([*bridge.publish_ports, *bridge.subscribe_ports])}")
        seen: list[bytes] = []
        most: int = arguments["lines"]

        def look(bodies: Sequence[bytes]) -> None:
            seen.extend(body[:TAPPED_SIZE] for body in bodies[: most - len(seen)])

        for tap in taps:
            tap.append(look)
        try:
            until = context.runtime.reactor.seconds() + arguments["over"]
            while len(seen) < most and context.runtime.reactor.seconds() < until:
                await deferLater(context.runtime.reactor, 0.1)
        finally:
            for tap in taps:
                tap.remove(look)
        shown = [body.decode("utf-8", "backslashreplace") for body in seen]
        return Answer({"messages": shown}, [*(Line([Cell(each)]) for each in shown)] or ["nothing passed"])


COMMANDS: tuple[Command, ...] = (
    BridgeStatus(),
    DeadList(),
    DeadShow(),
    DeadRetry(),
    DeadDrop(),
    BridgePause(),
    BridgeResume(),
    BridgeTap(),
)
