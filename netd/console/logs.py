"""log level and log tail: what netd says, and how much."""

from collections.abc import Mapping
from typing import Any, get_args

import click

from netd.console.arguments import CountOption
from netd.console.command import Answer, Command, Context, Role
from netd.console.table import Cell, Line, Part
from netd.log import RECENT_LINES, LevelName


class LogLevel(Command):
    """Shows or sets the level."""

    name = "log level"
    summary = "Show or set how much is logged"
    details = (
        "debug logs every connection. It takes effect at once and lasts until netd restarts; setting it needs the role "
        "operator."
    )
    examples = (("log level", "show it"), ("log level debug", "log everything"), ("log level info", "as usual"))
    parameters = (click.Argument(["level"], type=click.Choice(get_args(LevelName)), required=False),)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        log = context.runtime.log
        before, level = log.level, arguments["level"]
        if level is not None:
            context.require(Role.OPERATOR)
            log.level = level
        text = log.level if log.level == before else f"{log.level}, was {before}"
        return Answer({"level": log.level, "before": before}, [text])


class LogTail(Command):
    """Shows the last warnings and errors."""

    name = "log tail"
    summary = "Show the last warnings and errors of the log"
    details = (
        f"The last {RECENT_LINES} are kept in memory; the whole log is where the daemon writes it (journalctl -u netd)."
    )
    examples = (("log tail", "the last 20"), ("log tail -n 200", "all that are kept"))
    parameters = (
        click.Option(
            ["--lines", "-n"],
            type=CountOption(RECENT_LINES),
            default=20,
            metavar="COUNT",
            help=f"How many; default 20, at most {RECENT_LINES}",
        ),
    )

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        lines = list(context.runtime.log.recent)[-arguments["lines"] :]
        parts: list[Part] = [Line([Cell(each)], fit="whole") for line in lines for each in line.split("\n")]
        return Answer({"lines": lines}, parts or [Line([Cell("no warnings since the start", "dim")])])
