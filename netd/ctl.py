"""netdctl: what an operator does from a shell."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from netd.config import ConfigError, load
from netd.kinds import KINDS


class _Commands(click.Group):
    """The commands of this module, and those that kinds of services bring, loaded when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *(name for kind in KINDS.values() for name in kind.ctl)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        return own or next((kind.load_ctl(cmd_name) for kind in KINDS.values() if cmd_name in kind.ctl), None)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="netd", prog_name="netdctl")
def main() -> None:
    """Look after a netd daemon."""


@main.command()
@click.argument("file", type=click.Path(path_type=Path), default="/etc/netd/netd.toml")
def check(file: Path) -> None:
    """Check a configuration FILE: every mistake on a line of its own.

    Exit status 0 when there is none, else 78.
    """
    try:
        config = load(file)
    except ConfigError as error:
        _refuse(error.mistakes)
    if any(address.endpoint for _, address in config.addresses()):
        from netd.listener import check_endpoints  # Twisted takes a moment to import: only where it is asked

        if mistakes := check_endpoints(config):
            _refuse(mistakes)
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
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


def _refuse(mistakes: list[str]) -> NoReturn:
    for mistake in mistakes:
        click.echo(mistake, err=True)
    sys.exit(os.EX_CONFIG)
