"""The verbs for netdctl(1): `python -m netd.console.manual man/netdctl.1` writes them into the page.

What help and the manual say comes from the same place, and a test sees that the page is not behind.
"""

import re
import sys
from pathlib import Path

import click

from netd.console.command import Command
from netd.console.commands import BUILT_IN
from netd.kinds import KINDS

BEGIN = '.\\" made by: python -m netd.console.manual man/netdctl.1\n'
END = '.\\" end\n'


def with_verbs(page: str) -> str:
    """The page with the verbs between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + _verbs() + END + after


def _verbs() -> str:
    """The built-in ones, then those of each kind of service."""
    brought = [command for kind in KINDS.values() for command in kind.load_service().commands]
    return "".join([".Bl -tag -width Ds\n", *map(_verb, [*BUILT_IN, *brought]), ".El\n"])


def _verb(command: Command) -> str:
    arguments = [each for each in command.parameters if isinstance(each, click.Argument)]
    options = [each for each in command.parameters if isinstance(each, click.Option)]
    head = f".It Cm {command.name}" + "".join(_argument(each) for each in arguments) + "\n"
    text = f"{_escape(command.summary)}.\n" + _sentences(command.details)
    if options:
        text += ".Bl -tag -width Ds -compact\n" + "".join(map(_option, options)) + ".El\n"
    return head + text


def _argument(argument: click.Argument) -> str:
    words = f"Ar {argument.metavar or argument.name}" + (" ..." if argument.nargs == -1 else "")
    return f" {words}" if argument.required else f" Op {words}"


def _option(option: click.Option) -> str:
    names = " , ".join(f"Fl {name[1:]}" for name in sorted(option.opts, key=len))
    value = "" if option.is_flag else f" Ar {(option.metavar or option.name or '').lower()}"
    return f".It {names}{value}\n{_escape(option.help or '')}.\n"


def _sentences(text: str) -> str:
    """A sentence a line, as mdoc wants it."""
    return "".join(f"{_escape(each)}\n" for each in re.split(r"(?<=\.) ", text) if each)


def _escape(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(with_verbs(file.read_text(encoding="utf-8")), encoding="utf-8")
