"""`netdctl ssh …`: what an operator prepares for this kind from a shell, with no daemon running."""

from pathlib import Path
from typing import get_args

import click

from netd.ssh.add_user import CannotDescribe, describe_user
from netd.ssh.config import RoleName


@click.group()
def ssh() -> None:
    """Help with the ssh console."""


@ssh.command("print-user")
@click.argument("name")
@click.option("--key", type=click.Path(path_type=Path), help="The user's public key, such as id_ed25519.pub.")
@click.option("--service", default="console", show_default=True, help="The NAME of the [ssh.NAME] table.")
@click.option(
    "--role", type=click.Choice(get_args(RoleName)), default="operator", show_default=True, help="What the user may do."
)
def print_user(name: str, key: Path | None, service: str, role: str) -> None:
    """Print what to put where so that user NAME may log in; without --key, by password."""
    try:
        click.echo(describe_user(name, key, service, role), nl=False)
    except CannotDescribe as error:
        raise click.UsageError(str(error)) from None
