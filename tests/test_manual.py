"""The manual pages name every command, verb and option, and are well formed."""

import re
import subprocess
from pathlib import Path

import click
import pytest

from netd.admin.ctl import verbs
from netd.console.manual import with_verbs
from netd.ctl import main
from netd.kinds import KINDS
from netd.tap import Options

MAN = Path(__file__).parents[1] / "man"


def shown(page: str) -> str:
    """A page as plain text, in one line."""
    done = subprocess.run(["mandoc", "-T", "ascii", MAN / page], capture_output=True, text=True, check=True)
    return " ".join(re.sub(r".\x08", "", done.stdout).split())


@pytest.mark.parametrize("page", ["netd.8", "netdctl.1"])
def test_a_page_is_well_formed(page: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", MAN / page], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


def test_the_verbs_are_those_there_are() -> None:
    page = (MAN / "netdctl.1").read_text()
    assert with_verbs(page) == page, "run: python -m netd.console.manual man/netdctl.1"


def test_netdctls_own_commands_and_options_are_named() -> None:
    text = shown("netdctl.1")
    commands = {**main.commands}
    for kind in KINDS.values():
        for name in kind.ctl:
            command = commands[name] = kind.load_ctl(name)
            if isinstance(command, click.Group):
                commands |= {f"{name} {each}": inner for each, inner in command.commands.items()}
    for name, command in commands.items():
        assert name in text
        options = [each for each in command.params if isinstance(each, click.Option)] if " " not in name else []
        assert all(option.opts[-1] in text for option in [*options, *main.params])
    assert verbs.list_commands(click.Context(verbs))


def test_every_option_of_the_daemon_is_named() -> None:
    text = shown("netd.8")
    for long, short, *_ in Options.optParameters:
        assert f"-{short}, --{long}" in text
