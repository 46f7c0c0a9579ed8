"""Verbs on a channel: one for `ssh host verb`, or the interactive console where the client has a terminal."""

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.console.command import FAILED, INTERRUPTED
from netd.console.output import ByteOutput
from netd.ssh.interactive import InteractiveSession, Pty
from netd.ssh.interactive_allowed import AllowedCommands

if TYPE_CHECKING:
    from netd.ssh.channel import SessionChannel

_log = Logger()


class RunningVerb:
    """A verb without a terminal."""

    busy = True

    def __init__(self, channel: "SessionChannel", words: list[str]) -> None:
        self.doing = words[0]
        self._channel = channel
        self._words = words
        self._running: Deferred[int] | None = None

    def begin(self) -> None:
        sessions = self._channel.sessions
        output = ByteOutput(self._channel.write, self._channel.write_error)
        self._running = Deferred.fromCoroutine(sessions.server.console.run(self._words, sessions.caller, output))
        self._running.addCallbacks(self._channel.end, self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            _log.failure("the verb {verb} failed", failure, verb=self.doing)
            self._channel.end(FAILED)
        else:
            self._channel.end(INTERRUPTED)

    def receive(self, data: bytes) -> int:
        return len(data)

    def end_of_input(self) -> None:
        """It reads none."""

    def pause(self) -> None:
        """It answers all at once: what waits is bounded by what a verb answers."""

    def resume(self) -> None:
        """See `pause`."""

    def resize(self, width: int, height: int) -> None:
        """It has no width."""

    def signal(self, name: str) -> bool:
        if name not in {"INT", "TERM"} or self._running is None:
            return False
        self._running.cancel()
        return True

    def dismiss(self, text: str) -> bool:  # noqa: ARG002 - it waits for no person
        return False

    def hang_up(self) -> None:
        if self._running is not None:
            self._running.cancel()


class AtTerminal:
    """The interactive console, or one verb at a terminal."""

    def __init__(self, channel: "SessionChannel", line: str | None) -> None:
        self._channel = channel
        self._line = line
        self.doing = "console" if line is None else line.split(" ", 1)[0]
        sessions = channel.sessions
        self._session = InteractiveSession(
            sessions.server.console,
            sessions.caller,
            self,
            pty=Pty(channel.term or "", channel.width, channel.height, channel.environ),
            host=sessions.server.host,
            history=sessions.server.history_of(sessions.user.name),
            clock=sessions.server.clock,
            turns=sessions.server.typing,
            programs=AllowedCommands(channel),
        )

    @property
    def busy(self) -> bool:
        """A prompt is not, nor is a page of output."""
        return not self._session.prompting

    def begin(self) -> None:
        self._session.start(self._line)

    def write(self, data: bytes) -> None:
        """To the client's terminal, for the session."""
        self._channel.write(data)

    def leave(self, status: int) -> None:
        """The session is over, says the session."""
        self._channel.end(status)

    def receive(self, data: bytes) -> int:
        self._session.receive(data)
        return len(data)

    def end_of_input(self) -> None:
        self._session.end_of_input()

    def pause(self) -> None:
        self._session.pause()

    def resume(self) -> None:
        self._session.resume()

    def resize(self, width: int, height: int) -> None:
        self._session.resize(width, height)

    def signal(self, name: str) -> bool:
        if name == "INT":
            self._session.receive(b"\x03")
        return name == "INT"

    def dismiss(self, text: str) -> bool:
        self._session.dismiss(text)
        return True

    def hang_up(self) -> None:
        self._session.stop()
