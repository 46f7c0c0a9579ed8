"""What may run on a channel, and which of it a client's request means.

First the allowed commands, then the console's verbs; with a terminal, the interactive console. There is no shell.
"""

from typing import TYPE_CHECKING, Protocol

from netd.console.command import UNKNOWN, USAGE
from netd.console.text import printable
from netd.ssh.allowed import AllowedCommand, Refused
from netd.ssh.commands import split_line
from netd.ssh.process import RunningCommand
from netd.ssh.verb import AtTerminal, RunningVerb

if TYPE_CHECKING:
    from netd.ssh.channel import SessionChannel

LONGEST_SHOWN = 80
"""Characters of a line that is shown again."""


class Program(Protocol):
    """What runs on a channel."""

    doing: str
    """What it is, for `sessions`: "console", a verb, a command."""

    @property
    def busy(self) -> bool:
        """Whether it is at work: its connection is not idle then, and a netd that stops waits for it."""

    def begin(self) -> None:
        """Called once, when the client knows that its request succeeded."""

    def receive(self, data: bytes) -> int:
        """Input. Returns how much of it has been dealt with; the rest is reported by `SessionChannel.consumed`."""

    def end_of_input(self) -> None:
        """No more will come."""

    def pause(self) -> None:
        """Write nothing until `resume`."""

    def resume(self) -> None:
        """Write again."""

    def resize(self, width: int, height: int) -> None:
        """The client's window has another size."""

    def signal(self, name: str) -> bool:
        """The client sends a signal, "INT"; whether that was done."""

    def dismiss(self, text: str) -> bool:
        """Finish what is at work and wait for no person; whether one was waited for, who is told why and leaves."""

    def hang_up(self) -> None:
        """The client is gone: end at once, write nothing more."""


class Refusal:
    """Nothing runs: a line to standard error and an exit status."""

    doing = ""
    busy = True

    def __init__(self, channel: "SessionChannel", text: str, status: int) -> None:
        self._channel = channel
        self._text = text
        self._status = status

    def begin(self) -> None:
        end = "\r\n" if self._channel.term is not None else "\n"
        self._channel.write_error(f"netd: {self._text}{end}".encode())
        self._channel.end(self._status)

    def receive(self, data: bytes) -> int:
        return len(data)

    def end_of_input(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def resize(self, width: int, height: int) -> None:
        pass

    def signal(self, name: str) -> bool:  # noqa: ARG002 - nothing runs
        return False

    def dismiss(self, text: str) -> bool:  # noqa: ARG002 - it has ended
        return False

    def hang_up(self) -> None:
        pass


def choose(channel: "SessionChannel", line: bytes | None) -> Program:
    """The program for an exec request, or for a shell request (None)."""
    key = channel.sessions.key
    if key is not None and key.forced is not None:
        line = key.forced.encode()
    if line is not None:
        return _choose_line(channel, line)
    if channel.term is not None:
        return AtTerminal(channel, None)
    return Refusal(channel, "no terminal: ask for one with ssh -t, or give a verb: ssh … help", USAGE)


def _choose_line(channel: "SessionChannel", line: bytes) -> Program:
    words = split_line(line)
    if not words:
        shown = printable(line[: LONGEST_SHOWN * 4].decode("utf-8", "replace"))[:LONGEST_SHOWN]
        return _refuse(channel, shown, "neither a command nor a verb", UNKNOWN)
    command = channel.sessions.server.commands.get(words[0])
    if command is not None:
        return _choose_command(channel, words, command)
    if channel.term is not None:
        return AtTerminal(channel, " ".join(words))
    return RunningVerb(channel, words)


def _choose_command(channel: "SessionChannel", words: list[str], command: AllowedCommand) -> Program:
    line = " ".join(words)
    argv = command.match(words, channel.sessions.caller.role)
    if isinstance(argv, Refused):
        return _refuse(channel, line[:LONGEST_SHOWN], argv.text, argv.status)
    return RunningCommand(channel, line, argv, command.settings)


def _refuse(channel: "SessionChannel", line: str, why: str, status: int) -> Refusal:
    channel.sessions.server.record("refusal", channel.sessions, line=line, status=status)
    return Refusal(channel, f"{line}: {why}", status)
