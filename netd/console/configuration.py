"""config show and config diff: what is in force, and what the file would change."""

from collections.abc import Mapping
from typing import Any

import click

from netd.config import Config, ConfigError, load
from netd.console.arguments import ServiceName
from netd.console.command import Answer, Command, Context, Failed, Role
from netd.console.table import Cell, Line, Part
from netd.effective import changes, effective


def _running(context: Context) -> Config:
    if context.runtime.config is None:
        raise Failed("there is no configuration here")
    return context.runtime.config


class ConfigShow(Command):
    """Shows the configuration in force."""

    name = "config show"
    summary = "Show the configuration in force, defaults too, secrets hidden"
    details = "The text is TOML again. What the file does not say is marked as a default."
    examples = (("config show", "all of it"), ("config show echo.plain", "one service"))
    role = Role.OPERATOR
    parameters = (click.Argument(["service"], type=ServiceName(), required=False),)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        config = _running(context)
        only = arguments["service"].key if arguments["service"] else None
        settings = [each for each in effective(config) if only in {None, each.table}]
        parts: list[Part] = [] if only else [Line([Cell(f"# {config.path}", "dim")], fit="whole")]
        table = ""
        for each in settings:
            if each.table != table:
                table = each.table
                parts += ["", Line([Cell(f"[{table}]", "name")])] if parts else [Line([Cell(f"[{table}]", "name")])]
            text = f"{each.name} = {each.text}"
            note = Cell("" if each.given else f"{'':<{max(40 - len(text), 0)}} # default", "dim")
            parts.append(Line([Cell(text), note], fit="whole"))
        document = {each.key: {"toml": each.text, "default": not each.given} for each in settings}
        return Answer({"path": str(config.path), "settings": document}, parts)


class ConfigDiff(Command):
    """Compares the configuration in force with its file."""

    name = "config diff"
    summary = "Show what a reload would change: the file against what is in force"
    details = "Nothing is changed. A file with mistakes is refused with all of them, as `reload` would."
    examples = (("config diff", "before a reload"),)
    role = Role.OPERATOR

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        config = _running(context)
        try:
            new = load(config.path)
        except ConfigError as error:
            raise Failed("the file is wrong", error.mistakes) from None
        found = changes(effective(config), effective(new))
        parts: list[Part] = []
        for each in found:
            parts.append(Line([Cell(each.key, "name")]))
            if each.before is not None:
                parts.append(Line([Cell(f"- {each.before}", "bad")], fit="whole", indent=2))
            if each.after is not None:
                parts.append(Line([Cell(f"+ {each.after}", "good")], fit="whole", indent=2))
        document = [{"key": each.key, "running": each.before, "file": each.after} for each in found]
        return Answer({"path": str(config.path), "changes": document}, parts or ["no difference"])
