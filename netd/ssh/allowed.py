"""An allowed command of the configuration: who may run it, by which words, and what is said to others."""

from collections.abc import Sequence
from dataclasses import dataclass

from netd.console.command import NOT_PERMITTED, UNKNOWN, HostCommand, Role
from netd.ssh.commands import Word, match_words
from netd.ssh.config import CommandSettings


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a command does not run."""

    text: str
    status: int


@dataclass(frozen=True, slots=True)
class AllowedCommand(HostCommand):
    """One entry of [ssh.NAME.commands]."""

    settings: CommandSettings
    words: Sequence[Word]

    def match(self, given: Sequence[str], role: Role) -> list[str] | Refused:
        """The argv for the words that somebody gave, the command's name first; or why not."""
        if role < self.role:
            return Refused(f"needs the role {self.role.label}", NOT_PERMITTED)
        argv = match_words(self.name, self.words, given)
        if argv is not None:
            return argv
        where = " and ".join(f"{{{name}}} is {pattern}" for name, pattern in self.choices.items())
        return Refused(f"only this is allowed: {self.usage}{f', where {where}' if where else ''}", UNKNOWN)


def make_command(name: str, settings: CommandSettings) -> AllowedCommand:
    """The command of a configuration that has been checked."""
    usage = " ".join([name, *settings.argv[1:]])
    return AllowedCommand(name, usage, Role.parse(settings.role), settings.args, settings, settings.words())
