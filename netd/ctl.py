"""netdctl: what an operator does from a shell."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from netd.config import ConfigError, load


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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


def _refuse(mistakes: list[str]) -> NoReturn:
    for mistake in mistakes:
        click.echo(mistake, err=True)
    sys.exit(os.EX_CONFIG)
