"""`netdctl VERB …`: the console's verbs, run by the daemon, with the same output and exit statuses."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem

from netd.admin.client import NoDaemon, Refused, complete, find_socket, run
from netd.console.verbs import BUILT_IN, RESERVED

HELP_WORDS = frozenset({"--help", "-h"})


class _Verb(click.Command):
    """A verb. Its words go to the daemon as they are, which alone knows what they mean."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            callback=lambda words: _run([name, *words]),
            params=[click.Argument(["words"], nargs=-1, type=_Words(name))],
            context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
            add_help_option=False,
        )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Called for what looks like an option."""
        return _complete(ctx, self.name or "", incomplete)


class _Words(click.ParamType[str]):
    """Words that the daemon completes."""

    name = "words"

    def __init__(self, verb: str) -> None:
        self._verb = verb

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _complete(ctx, self._verb, incomplete)


def _complete(ctx: click.Context, verb: str, incomplete: str) -> list[CompletionItem]:
    words = [verb, *(ctx.params.get("words") or ()), incomplete]
    try:
        return [CompletionItem(each) for each in complete(find_socket(_given(ctx)), words)]
    except (NoDaemon, Refused):
        return []


class _Verbs(click.Group):
    """Every word that is not netdctl's own is a verb: services bring theirs, and only the daemon knows them all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(BUILT_IN | RESERVED | {"watch"})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        return watch if cmd_name == "watch" else _Verb(cmd_name)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-n", "seconds", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="How often.")
@click.argument("words", nargs=-1, required=True, metavar="VERB [WORDS]...")
def watch(seconds: float, words: Sequence[str]) -> None:
    """Run a verb again and again, until Ctrl-C or until it fails."""
    clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
    while True:
        told: list[str] = []
        status = _ask(words, told.append)
        _write(clear + "".join(told))
        if status:
            sys.exit(status)
        time.sleep(seconds)


verbs = _Verbs("verbs")


def _run(words: Sequence[str]) -> None:
    """Run a verb and exit with its status."""
    sys.exit(_ask(words, _write))


def _ask(words: Sequence[str], write: Callable[[str], object]) -> int:
    """Run a verb; returns its status."""
    terminal = sys.stdout.isatty()
    colour = terminal and os.environ.get("TERM") not in {None, "", "dumb"} and not os.environ.get("NO_COLOR")
    try:
        return run(
            find_socket(_given(click.get_current_context())),
            words,
            write,
            lambda text: click.echo(text, nl=False, err=True),
            width=shutil.get_terminal_size().columns if terminal else 0,
            colour=colour,
        )
    except NoDaemon as error:
        status = os.EX_OK if _asks_for_help(words) and _help(words) else os.EX_UNAVAILABLE
        if status:
            click.echo(f"netdctl: {error}", err=True)
    except Refused as error:
        click.echo(f"netdctl: the daemon refused: {error}", err=True)
        status = os.EX_SOFTWARE
    return status


def _asks_for_help(words: Sequence[str]) -> bool:
    return words[0] == "help" or not HELP_WORDS.isdisjoint(words)


def _help(words: Sequence[str]) -> bool:
    """Explain a built-in verb while no daemon is there to do it; whether these words name one."""
    from netd.console.commands import BUILT_IN
    from netd.console.help import describe
    from netd.console.table import render

    named = " ".join(each for each in words if each not in HELP_WORDS).removeprefix("help ")
    if named == "help":
        click.echo(click.get_current_context().find_root().get_help())
        return True
    found = [each for each in BUILT_IN if each.name == named]
    for each in found:
        _write(render(describe(each).parts, 0, colour=False))
    return bool(found)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _given(context: click.Context) -> str | None:
    """--socket, as netdctl was given it."""
    given: str | None = context.find_root().params.get("socket")
    return given
