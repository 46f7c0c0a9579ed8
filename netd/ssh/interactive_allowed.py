"""The allowed commands of the configuration, for the prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from netd.console.command import NOT_PERMITTED, UNKNOWN, Role
from netd.ssh.commands import match_words
from netd.ssh.interactive_program import Program, ProgramDialogue, Refused
from netd.ssh.process import RunningCommand

if TYPE_CHECKING:
    from netd.ssh.channel import SessionChannel


class AllowedCommands:
    """What the user of a channel may run beside verbs."""

    def __init__(self, channel: "SessionChannel") -> None:
        self._channel = channel
        self._commands = channel.sessions.server.commands

    def names(self) -> Sequence[str]:
        role = self._channel.sessions.caller.role
        return sorted(name for name, command in self._commands.items() if Role.parse(command.role) <= role)

    def make(self, words: list[str], channel: ProgramDialogue) -> Program | Refused:
        command = self._commands.get(words[0])
        if command is None or words[0] not in self.names():
            return Refused("not for you", NOT_PERMITTED)
        argv = match_words(words[0], command.words(), words)
        if argv is None:
            return Refused(f"only this is allowed: {' '.join([words[0], *command.argv[1:]])}", UNKNOWN)
        stand_in = cast("SessionChannel", _Channel(self._channel, channel))
        return RunningCommand(stand_in, " ".join(words), argv, command)


class _Channel:
    """To a running command, the channel; what it writes goes to the console's terminal instead."""

    def __init__(self, real: "SessionChannel", dialogue: ProgramDialogue) -> None:
        self.sessions = real.sessions
        self.term = real.term
        self.environ = real.environ
        self.write = dialogue.write
        self.write_error = dialogue.write_error
        self.consumed = dialogue.consumed
        self.end = dialogue.end
        self.end_by_signal = dialogue.end_by_signal
        self._dialogue = dialogue

    @property
    def bytes_written(self) -> int:
        return self._dialogue.bytes_written
