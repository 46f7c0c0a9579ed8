"""help, version and whoami: the console about itself."""

import platform
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from netd.console.arguments import VerbName, did_you_mean, options_help, usage
from netd.console.command import Answer, Command, Context, Failed, HostCommand
from netd.console.facts import installed_version, netd_version
from netd.console.table import Cell, Column, Line, Part, Table

if TYPE_CHECKING:
    from netd.console.console import Console


_EXIT = "exit, quit or logout: leaves the console, as Ctrl-D does"
CONSOLE_WORDS = {
    "watch": "watch VERB [-n SECONDS]: runs a verb again and again and redraws in place, in the console; q ends it",
    **dict.fromkeys(("exit", "logout", "quit"), _EXIT),
}
"""Verbs that only somebody at a terminal can use."""


def describe(command: Command) -> Answer:
    """What `help VERB` and `VERB --help` show."""
    parts: list[Part] = [
        Line([Cell(command.name, "bold"), Cell(f": {command.summary[:1].lower()}{command.summary[1:]}")]),
        f"usage: {usage(command)}",
    ]
    if command.details:
        parts += ["", command.details]
    options = options_help(command)
    parts += ["", Line([Cell("options", "dim")]), _pairs(options)]
    if command.examples:
        parts += ["", Line([Cell("examples", "dim")]), _pairs(command.examples)]
    parts += ["", Line([Cell("role: ", "dim"), Cell(command.role.label)])]
    return Answer({"verbs": [_document(command)]}, parts)


def _pairs(pairs: Sequence[tuple[str, str]]) -> Table:
    table = Table([Column(""), Column("")], indent=2, heads=False)
    for left, right in pairs:
        table.add(Cell(left, "name"), right)
    return table


def _document(command: Command) -> dict[str, object]:
    return {
        "name": command.name,
        "summary": command.summary,
        "usage": usage(command),
        "details": command.details,
        "options": dict(options_help(command)),
        "examples": [{"line": line, "does": does} for line, does in command.examples],
        "role": command.role.label,
    }


class Help(Command):
    """Lists the verbs, or shows one."""

    name = "help"
    summary = "List the verbs, or explain one"
    examples = (("help", "every verb you may run"), ("help close", "usage, options and examples of one"))
    parameters = (click.Argument(["verb"], type=VerbName(), nargs=-1, required=False),)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        words: Sequence[str] = arguments["verb"]
        return _explain(" ".join(words), context.console) if words else _overview(context)


def _explain(name: str, console: "Console") -> Answer:
    commands = console.commands
    if name in commands:
        return describe(commands[name])
    if name in console.host_commands:
        return _describe_host_command(console.host_commands[name])
    if name in CONSOLE_WORDS:
        return Answer({"usage": CONSOLE_WORDS[name]}, [CONSOLE_WORDS[name]])
    group = [each for each in commands.values() if each.name.split()[0] == name]
    if not group:
        raise Failed(f"no verb {name}{did_you_mean(name, [*commands, *console.host_commands])}")
    return Answer({"verbs": [_document(each) for each in group]}, [_verbs_table(group)])


def _overview(context: Context) -> Answer:
    role, commands, host_commands = context.caller.role, context.console.commands, context.console.host_commands
    verbs = [each for each in commands.values() if each.role <= role]
    programs = [each for each in host_commands.values() if each.role <= role]
    parts: list[Part] = [_verbs_table(verbs)]
    if programs:
        table = Table([Column("COMMAND OF THIS HOST"), Column("ROLE", spare=1)])
        for program in programs:
            table.add(Cell(program.usage, "name"), Cell(program.role.label, "dim"))
        parts += ["", table]
    if hidden := len(commands) + len(host_commands) - len(verbs) - len(programs):
        parts += ["", Line([Cell(f"{hidden} more need a higher role than {role.label}", "dim")])]
    parts += ["", "`help VERB` explains one, with examples; every verb takes --json."]
    if context.output.interactive:
        parts += [
            "Here also: watch VERB [-n 2]. Tab completes, Up and Ctrl-R find earlier lines,",
            "Ctrl-C stops a verb, Ctrl-D or exit leaves.",
        ]
    documents = [_document(each) for each in verbs], [_program_document(each) for each in programs]
    return Answer({"verbs": documents[0], "commands": documents[1]}, parts)


def _verbs_table(verbs: Sequence[Command]) -> Table:
    table = Table([Column("VERB"), Column("DOES"), Column("ROLE", spare=1)])
    for each in verbs:
        table.add(Cell(each.name, "name"), each.summary, Cell(each.role.label, "dim"))
    return table


def _describe_host_command(command: HostCommand) -> Answer:
    parts: list[Part] = [
        Line([Cell(command.name, "bold"), Cell(": a command of this host")]),
        f"usage: {command.usage}",
    ]
    if command.choices:
        parts += ["", Line([Cell("where", "dim")])]
        parts.append(_pairs([(f"{{{name}}}", f"matches {pattern}") for name, pattern in command.choices.items()]))
    parts += ["", Line([Cell("role: ", "dim"), Cell(command.role.label)])]
    return Answer({"commands": [_program_document(command)]}, parts)


def _program_document(command: HostCommand) -> dict[str, object]:
    return {
        "name": command.name,
        "usage": command.usage,
        "choices": dict(command.choices),
        "role": command.role.label,
    }


class Version(Command):
    """The versions in use."""

    name = "version"
    summary = "Show which netd runs, and on what"
    examples = (("version --json", "for an inventory"),)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        found = {
            "netd": netd_version(),
            "twisted": installed_version("twisted"),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
        }
        return Answer(
            found,
            [
                Line([Cell(f"netd {found['netd']}", "bold")]),
                f"Twisted {found['twisted']}, Python {found['python']}, {found['system']}",
            ],
        )


class WhoAmI(Command):
    """Who the daemon takes the caller for."""

    name = "whoami"
    summary = "Show who you are to netd, and what you may do"
    examples = (("whoami", "user, role and the address you come from"),)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        caller = context.caller
        document = {
            "user": caller.user,
            "role": caller.role.label,
            "peer": caller.peer,
            "via": caller.via,
            "connection": caller.connection or None,
        }
        where = f", connection {caller.connection}" if caller.connection else ""
        text = f"{caller.user} ({caller.role.label}) from {caller.peer} by {caller.via}{where}"
        return Answer(document, [text])


def host_name() -> str:
    """The name of the machine, short."""
    return socket.gethostname().partition(".")[0]
