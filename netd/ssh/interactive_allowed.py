"""The allowed commands of the configuration, for the prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from netd.ssh.allowed import Refused
from netd.ssh.interactive_program import Program, ProgramDialogue
from netd.ssh.process import RunningCommand

if TYPE_CHECKING:
    from netd.ssh.channel import SessionChannel


class AllowedCommands:
    """What the user of a channel may run beside verbs."""

    def __init__(self, channel: "SessionChannel") -> None:
        self._channel = channel
        self._commands = channel.sessions.server.commands

    def names(self) -> Sequence[str]:
        return list(self._commands)

    def make(self, words: list[str], channel: ProgramDialogue) -> Program | Refused:
        command, sessions, line = self._commands[words[0]], self._channel.sessions, " ".join(words)
        argv = command.match(words, sessions.caller.role)
        if isinstance(argv, Refused):
            sessions.server.record("refusal", sessions, line=line, status=argv.status)
            return argv
        return RunningCommand(_AtPrompt(self._channel, channel), line, argv, command.settings)


class _AtPrompt:
    """A `CommandChannel`: who and where are those of the console's channel, the rest is the dialogue's."""

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
