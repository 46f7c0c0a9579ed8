"""The words after a verb: their types, what is wrong with them, how they complete, and how a usage line names them.

click declares and parses; nothing of its command line is used.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import click
from click.shell_completion import CompletionItem

from netd.console.text import printable
from netd.console.verbs import INTERACTIVE
from netd.settings import parse_duration

if TYPE_CHECKING:
    from netd.console.command import Command
    from netd.console.console import Console
    from netd.listener import Connection
    from netd.runtime import Runtime
    from netd.service import Service

MOST_COMPLETIONS = 200
"""Candidates that are offered: more is no help, and ten thousand connections take time to list."""

JSON = click.Option(["--json"], is_flag=True, help="One JSON object, for programs")
HELP_WORDS = frozenset({"--help", "-h"})
"""They win over whatever else is wrong."""
HELP = click.Option(["--help", "-h"], is_flag=True, help="What `help VERB` shows")
YES = click.Option(["--yes", "-y"], is_flag=True, help="Do not ask")


class Wrong(Exception):
    """The words do not fit the verb; the text says how, in one line."""


class ServiceName(click.ParamType["Service"]):
    """A service by its key, "echo.plain", or by its name alone where only one bears it."""

    name = "service"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Service":
        services = _runtime(ctx).services
        found = [each for each in services if each.key == value] or [
            each for each in services if each.key.partition(".")[2] == value
        ]
        if len(found) == 1:
            return found[0]
        if found:
            self.fail(f"{value}: which one? {', '.join(each.key for each in found)}", param, ctx)
        raise Wrong(f"no service {printable(value)}{did_you_mean(value, [each.key for each in services])}")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _items((each.key for each in _runtime(ctx).services), incomplete)


class ConnectionId(click.ParamType[int]):
    """The number of a connection, as `connections` lists it."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < MAX_DIGITS:
            return int(value)
        raise Wrong(f"{printable(str(value))} is no connection id: those are numbers, listed by `connections`")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        ids = sorted(each.id for _, each in connections_of(_runtime(ctx)))
        return _items(map(str, ids), incomplete)


class VerbName(click.ParamType[str]):
    """A word of a verb's name."""

    name = "verb"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        console = cast("Console", ctx.obj)
        words = {verb.split()[0] for verb in console.commands} | set(console.host_commands) | INTERACTIVE
        return _items(sorted(words), incomplete)


class CountOption(click.ParamType[int]):
    """A number from 1 to `most`."""

    name = "count"

    def __init__(self, most: int) -> None:
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not (text.isascii() and text.isdigit() and len(text) < MAX_DIGITS and 1 <= int(text) <= self._most):
            raise Wrong(f"{printable(text)}: expected a number from 1 to {self._most}")
        return int(text)


class DurationOption(click.ParamType[float]):
    """Seconds, from "5s", "2m" or a number, up to `longest`."""

    name = "time"

    def __init__(self, longest: float) -> None:
        self._longest = longest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            seconds = parse_duration(float(text) if text.replace(".", "", 1).isdecimal() else text)
        except ValueError:
            raise Wrong(f"{printable(text)} is no time: write 5s or 2m") from None
        if not 0 < seconds <= self._longest:
            raise Wrong(f"{printable(text)}: more than nothing, and at most {self._longest:g}s")
        return seconds


MAX_DIGITS = 19


def connections_of(runtime: "Runtime", only: "Service | None" = None) -> Iterator[tuple[str, "Connection"]]:
    """Every connection of the daemon, or of one service, with the service's key."""
    for service in runtime.services if only is None else [only]:
        for listener in service.listeners:
            for connection in listener.connections.values():
                yield service.key, connection


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A half-sentence to follow "no such thing": "; did you mean status?", or nothing."""
    close = difflib.get_close_matches(word[:64], list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def parse(command: "Command", words: Sequence[str], console: "Console") -> dict[str, Any]:
    """The values of a verb's parameters, with "json", "help" and "yes"; raises Wrong."""
    if not words:
        return {**_values_without_words(command)}
    if not HELP_WORDS.isdisjoint(words):
        return {"json": "--json" in words, "help": True}
    return _parse(command, words, console)


@cache
def _values_without_words(command: "Command") -> dict[str, Any]:
    """Kept, because click takes as long over a verb without words as a log-in does over its key."""
    return _parse(command, (), None)


def _parse(command: "Command", words: Sequence[str], console: "Console | None") -> dict[str, Any]:
    try:
        context = _click(command).make_context(command.name, list(words), obj=console)
    except click.MissingParameter as error:
        raise Wrong(_one_line(error.format_message())) from None
    except click.BadParameter as error:
        raise Wrong(_one_line(error.message).replace("'", "")) from None
    except click.UsageError as error:
        raise Wrong(_one_line(error.format_message())) from None
    return context.params


def usage(command: "Command") -> str:
    """As in "close ID... [--yes] [--json]"."""
    words = [command.name]
    options = [each for each in parameters_of(command) if isinstance(each, click.Option) and each is not HELP]
    words += [_argument(each) for each in command.parameters if isinstance(each, click.Argument)]
    words += [f"[{_option(each)}]" for each in options]
    return " ".join(words)


def options_help(command: "Command") -> list[tuple[str, str]]:
    """Each option with what it does."""
    return [
        (", ".join(sorted(each.opts, key=len)) + _metavar(each), each.help or "")
        for each in parameters_of(command)
        if isinstance(each, click.Option)
    ]


def complete(command: "Command", words: Sequence[str], incomplete: str, console: "Console") -> list[str]:
    """What `incomplete`, the word after `words`, may become."""
    parameters = parameters_of(command)
    options = {name: each for each in parameters if isinstance(each, click.Option) for name in each.opts}
    arguments = [each for each in parameters if isinstance(each, click.Argument)]
    context = click.Context(_click(command), info_name=command.name, obj=console, resilient_parsing=True)
    positional, pending = 0, None
    for word in words:
        option = options.get(word)
        if pending is not None:
            pending = None
        elif option is not None:
            pending = None if option.is_flag else option
        elif not word.startswith("-"):
            positional += 1
    if pending is not None:
        return [each.value for each in pending.shell_complete(context, incomplete)]
    if incomplete.startswith("-"):
        given = {each for word in words if (each := options.get(word)) is not None}
        names = {max(each.opts, key=len) for each in options.values() if each not in given}
        return sorted(name for name in names if name.startswith(incomplete))
    if positional >= len(arguments) and not (arguments and arguments[-1].nargs == -1):
        return []
    argument = arguments[min(positional, len(arguments) - 1)]
    already = set(words) if argument.nargs == -1 else set()
    return [each.value for each in argument.shell_complete(context, incomplete) if each.value not in already]


def parameters_of(command: "Command") -> list[click.Parameter]:
    """A verb's own parameters and those of every verb."""
    return [*command.parameters, *([YES] if command.asks else []), JSON, HELP]


def _click(command: "Command") -> click.Command:
    return click.Command(command.name, params=parameters_of(command), add_help_option=False)


def _runtime(context: click.Context | None) -> "Runtime":
    if context is None:
        raise TypeError("parsed without a runtime")
    return cast("Console", context.obj).runtime


def _items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    found = []
    for word in words:
        if word.startswith(incomplete):
            found.append(CompletionItem(word))
            if len(found) == MOST_COMPLETIONS:
                break
    return found


def _argument(argument: click.Argument) -> str:
    name = (argument.metavar or argument.name or "").upper()
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _option(option: click.Option) -> str:
    return max(option.opts, key=len) + _metavar(option)


def _metavar(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return " " + "|".join(str(each) for each in option.type.choices)
    return f" {option.metavar or (option.name or '').upper()}"


def _one_line(message: str) -> str:
    """A sentence of click's in the console's voice: no capital, no full stop."""
    text = printable(" ".join(message.split())).rstrip(".")
    return text[:1].lower() + text[1:]
