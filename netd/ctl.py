"""netdctl: what an operator does from a shell."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, cast

import click
from click.shell_completion import get_completion_class

from netd.kinds import ADMIN, KINDS, kind_of

PROGRAM, COMPLETION = "netdctl", "_NETDCTL_COMPLETE"


class _Commands(click.Group):
    """The commands of this module, those that kinds of services bring, and the daemon's verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self._own(ctx), *_verbs().list_commands(ctx)})

    def _own(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *(name for kind in KINDS.values() for name in kind.ctl)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        of_kind = (kind.load_ctl(cmd_name) for kind in KINDS.values() if cmd_name in kind.ctl)
        return own or next(of_kind, None) or _verbs().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from netd.console.commands import BUILT_IN  # Twisted takes a moment to import: only where it is asked

        own = [(name, command) for name in self._own(ctx) if (command := self.get_command(ctx, name))]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(90)) for name, command in own])
        with formatter.section("Verbs of the running daemon; `netdctl help` lists those of its services too"):
            rows = sorted((each.name, each.summary) for each in BUILT_IN)
            formatter.write_dl([*rows, ("watch VERB", "Run a verb again and again")])


def _verbs() -> click.Group:
    return cast("click.Group", kind_of(ADMIN).load_ctl("verbs"))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="netd", prog_name=PROGRAM)
@click.option(
    "--socket",
    metavar="PATH",
    type=click.Path(readable=False),
    help="The daemon's socket; else $NETD_SOCKET, else the usual places.",
)
def main(socket: str | None) -> None:
    """Look after a netd daemon: check its configuration, and run the console's verbs.

    Exit status: that of the verb; 69 when no daemon answers, 78 when a configuration is wrong.
    """


@main.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False), default="/etc/netd/netd.toml")
@click.option("--show", is_flag=True, help="Print every setting as it would be in force, secrets hidden.")
def check(file: Path, *, show: bool) -> None:
    """Check a configuration FILE, and the files that it names: every mistake on a line of its own.

    Exit status 0 when there is none, else 78.
    """
    from netd.config import ConfigError, load

    try:
        config = load(file)
    except ConfigError as error:
        _refuse(error.mistakes)
    if any(address.endpoint for _, address in config.addresses()):
        from netd.ports import check_endpoints  # Twisted takes a moment to import: only where it is asked

        if mistakes := check_endpoints(config):
            _refuse(mistakes)
    from netd.files import examine

    mistakes, doubts = examine(config)
    if mistakes:
        _refuse(mistakes)
    for warning in (*config.warnings, *doubts):
        click.echo(f"warning: {warning}", err=True)
    if show:
        from netd.effective import as_toml, effective

        click.echo(as_toml(effective(config)))
    else:
        click.echo(f"{file}: good: " + ", ".join(service.key for service in config.services))


@main.command("hash-password")
def hash_password() -> None:
    """Print the hash of a password, for password_hash in the configuration.

    Asks for it on a terminal; elsewhere reads the first line of standard input.
    """
    from netd.passwords import hash_password

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt="Again", err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    try:
        click.echo(hash_password(password))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a SHELL complete netdctl's words.

    bash: netdctl completion bash > /etc/bash_completion.d/netdctl

    zsh: netdctl completion zsh > a file _netdctl in a directory of $fpath

    fish: netdctl completion fish > ~/.config/fish/completions/netdctl.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"{shell} cannot be completed")
    click.echo(found(main, {}, PROGRAM, COMPLETION).source())


def _refuse(mistakes: Sequence[str]) -> NoReturn:
    for mistake in mistakes:
        click.echo(mistake, err=True)
    sys.exit(os.EX_CONFIG)
