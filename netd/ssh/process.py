"""An allowed command at work: a process in a session and group of its own, with nothing of the daemon's about it.

Spawned by posix_spawn, which does not copy the daemon's memory and, unlike Twisted's way to it, makes the session; its
environment is what the client may set, and PATH. Its pipes are read 64 KiB at a time, which doubles the bulk rate, and
not at all while the client does not take what was read. Resuming never asks whether the process still runs: one that
has ended may have left a pipe full of output.

When the client goes, time is up or there is too much output, the whole group is asked to end, and made to a moment
later. What a command leaves running in the background when it ends by itself goes on, as under sshd.
"""

import errno
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.process import Process, ProcessReader
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from netd.console.command import FAILED, TIMED_OUT, UNKNOWN
from netd.console.text import show_bytes, show_duration
from netd.ssh.config import CommandSettings

if TYPE_CHECKING:
    from netd.ssh.sessions import Sessions

READ_SIZE = 64 << 10
"""Bytes of one read: what a pipe holds."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

TOO_MUCH_OUTPUT = 125
"""Exit status of a command that was ended for its output, as 124 is for its time."""
NOT_EXECUTABLE = 126

KILL_AFTER = 1.0
"""Seconds between SIGTERM and SIGKILL."""

SIGNALS = ("ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2")
"""RFC 4254, section 6.10."""

CTRL_C, CTRL_D = b"\x03", b"\x04"
"""What a client's raw terminal sends for its keys: there is no terminal here to make a signal or an end of them."""


class PipeReader(ProcessReader):
    """A pipe that is read in large pieces."""

    def doRead(self) -> Exception | None:
        try:
            data = os.read(self.fd, READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.dataReceived(data)
        return None


class _Process(Process):
    """A process that leads a session of its own."""

    processReaderFactory = PipeReader

    def _fork(  # noqa: PLR0917 - Twisted's
        self,
        path: object,  # noqa: ARG002 - the daemon's own
        uid: object,  # noqa: ARG002 - nobody else's
        gid: object,  # noqa: ARG002
        executable: bytes,
        args: list[bytes],
        environment: Mapping[bytes, bytes],
        **kwargs: Mapping[int, int],
    ) -> None:
        fdmap = kwargs["fdmap"]
        if min(fdmap.values()) <= max(fdmap):
            raise OSError(errno.EBADF, "standard input, output or error of the daemon is closed")
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in fdmap.items()]
        actions += [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inherited()]
        ignored = [each for each in signal.valid_signals() if signal.getsignal(each) == signal.SIG_IGN]
        self.pid = os.posix_spawn(
            executable, args, environment, file_actions=actions, setsid=True, setsigdef=ignored, setsigmask=()
        )
        self.status = -1


@cache
def _inherited() -> list[int]:
    """Descriptors that a child would inherit: what systemd gave the daemon. Python's own are not inheritable."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is wanted
        descriptor = int(name)
        try:
            if descriptor > 2 and os.get_inheritable(descriptor):  # noqa: PLR2004 - beyond the three standard ones
                found.append(descriptor)
        except OSError:
            continue
    return found


class CommandChannel(Protocol):
    """Where a command's output goes: a session of ssh, or a console that shows it at its prompt."""

    sessions: "Sessions"
    term: str | None
    environ: dict[str, str]

    @property
    def bytes_written(self) -> int:
        """By the command, on both streams."""

    def write(self, data: bytes) -> None:
        """Standard output."""

    def write_error(self, data: bytes) -> None:
        """Standard error."""

    def consumed(self, size: int) -> None:
        """The command has taken so much input."""

    def end(self, status: int) -> None:
        """It has ended, with this status."""

    def end_by_signal(self, name: str, *, core: bool) -> None:
        """A signal has ended it."""


@implementer(IPushProducer)
class RunningCommand(ProcessProtocol):
    """A command on a channel. It is the producer of its own standard input's pipe, to know when that is full."""

    busy = True

    def __init__(self, channel: CommandChannel, line: str, argv: Sequence[str], settings: CommandSettings) -> None:
        self.doing = line
        self._channel = channel
        self._server = channel.sessions.server
        self._argv = argv
        self._settings = settings
        self._process: _Process | None = None
        self._leader = 0
        self._timer: IDelayedCall | None = None
        self._killer: IDelayedCall | None = None
        self._left = settings.output_limit
        self._why: tuple[str, int] | None = None
        self._pty = channel.term is not None
        self._full = False
        self._held = 0
        self._input_open = True
        self._since = self._server.clock.seconds()

    # --- its life

    def begin(self) -> None:
        self._server.record("command", self._channel.sessions, line=self.doing)
        program = shutil.which(self._argv[0], path=PATH)
        if program is None:
            there = Path(self._argv[0]).exists()
            self._never_ran(f"{self._argv[0]}: {'cannot be run' if there else 'not found'} on this host", there=there)
            return
        environ = {"PATH": PATH, **self._channel.environ}
        if self._channel.term is not None:
            environ["TERM"] = self._channel.term
        try:
            process = _Process(
                self._server.reactor,
                os.fsencode(program),
                [os.fsencode(each) for each in self._argv],
                {os.fsencode(name): os.fsencode(value) for name, value in environ.items()},
                None,
                self,
            )
        except OSError as error:
            self._never_ran(f"{self._argv[0]}: {error.strerror}", there=True)
            return
        self._leader = process.pid or 0
        self._server.running.add(self)
        if self._settings.timeout:
            self._timer = self._server.clock.callLater(self._settings.timeout, self._time_out)

    def _never_ran(self, text: str, *, there: bool) -> None:
        self._write_line(text)
        self._end(NOT_EXECUTABLE if there else UNKNOWN)

    def connectionMade(self) -> None:
        self._process = cast("_Process", self.transport)
        self._process.pipes[0].registerProducer(self, True)

    def _time_out(self) -> None:
        self._timer = None
        self._stop(f"{self._argv[0]}: timed out after {show_duration(self._settings.timeout)}", TIMED_OUT)

    def _stop(self, text: str, status: int) -> None:
        if self._why is None:
            self._why = (text, status)
            self._kill()

    def _kill(self) -> None:
        """SIGTERM, and SIGKILL to what is left a moment later."""
        if self._killer is None and self._process is not None:
            self._signal_group(signal.SIGTERM)
            self._killer = self._server.clock.callLater(KILL_AFTER, self._kill_now)

    def _kill_now(self) -> None:
        self._signal_group(signal.SIGKILL)
        # What has left the group may still hold a pipe; nobody reads it any more.
        if self._process is not None:
            self._process.loseConnection()

    def _signal_group(self, number: int) -> None:
        """Only while the group is surely ours: its leader is not reaped yet, or its pipes are still open."""
        if self in self._server.running:
            try:
                os.killpg(self._leader, number)
            except (ProcessLookupError, PermissionError):
                return

    def processExited(self, reason: Failure) -> None:  # noqa: ARG002 - processEnded says it
        if self._killer is not None and self._killer.active():
            self._signal_group(signal.SIGKILL)
        if self._input_open:
            self._close_input()

    def processEnded(self, reason: Failure) -> None:
        self._server.running.discard(self)
        for timer in (self._timer, self._killer):
            if timer is not None and timer.active():
                timer.cancel()
        outcome = cast("ProcessDone | ProcessTerminated", reason.value)
        if self._why is not None:
            text, status = self._why
            self._write_line(text)
            self._end(status)
        elif outcome.signal is None:
            self._end(outcome.exitCode or 0)
        else:
            name = next((each for each in SIGNALS if signal.Signals[f"SIG{each}"] == outcome.signal), None)
            if name is not None:
                self._record_end(name)
                self._channel.end_by_signal(name, core=os.WCOREDUMP(outcome.status))
            else:
                self._end(128 + outcome.signal)

    def _end(self, status: int) -> None:
        self._record_end(status)
        self._channel.end(status)

    def _record_end(self, status: int | str) -> None:
        self._server.command_seconds.observe(self._server.clock.seconds() - self._since)
        sent = self._channel.bytes_written
        self._server.record("end", self._channel.sessions, line=self.doing, status=status, bytes=sent)

    # --- output

    def outReceived(self, data: bytes) -> None:
        self._channel.write(self._within_limit(data))

    def errReceived(self, data: bytes) -> None:
        self._channel.write_error(self._within_limit(data))

    def _within_limit(self, data: bytes) -> bytes:
        if self._settings.output_limit:
            if len(data) > self._left:
                data = data[: self._left]
                limit = show_bytes(self._settings.output_limit)
                self._stop(f"{self._argv[0]}: ended at its output limit of {limit}", TOO_MUCH_OUTPUT)
            self._left -= len(data)
        return data.replace(b"\n", b"\r\n") if self._pty else data

    def _write_line(self, text: str) -> None:
        self._channel.write_error(f"netd: {text}{chr(13) if self._pty else ''}\n".encode())

    def pause(self) -> None:
        if self._process is not None:
            self._process.pauseProducing()

    def resume(self) -> None:
        if self._process is not None:
            self._process.resumeProducing()

    # --- input

    def receive(self, data: bytes) -> int:
        if self._pty:
            if CTRL_C in data:
                self._signal_group(signal.SIGINT)
            ended = CTRL_D in data
            written = data.replace(CTRL_C, b"").partition(CTRL_D)[0].replace(b"\r", b"\n")
        else:
            written, ended = data, False
        if not self._input_open or self._process is None:
            return len(data)
        self._process.writeToChild(0, written)
        if ended:
            self._close_input()
        if self._full:
            self._held += len(data)
            return 0
        return len(data)

    def end_of_input(self) -> None:
        if self._input_open and self._process is not None:
            self._close_input()

    def _close_input(self) -> None:
        self._input_open = False
        if self._process is not None and (pipe := self._process.pipes.get(0)) is not None:
            pipe.unregisterProducer()
            self._process.closeStdin()
        self.resumeProducing()

    def inConnectionLost(self) -> None:
        self._input_open = False
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Standard input's pipe is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """It is empty."""
        self._full = False
        held, self._held = self._held, 0
        if held:
            self._channel.consumed(held)

    def stopProducing(self) -> None:
        """It is gone."""

    # --- what else the client may say

    def resize(self, width: int, height: int) -> None:
        """There is no terminal here."""

    def signal(self, name: str) -> bool:
        if name not in SIGNALS or self._process is None:
            return False
        self._signal_group(signal.Signals[f"SIG{name}"])
        return True

    def dismiss(self, text: str) -> bool:  # noqa: ARG002 - it waits for no person
        return False

    def hang_up(self) -> None:
        if self in self._server.running:
            self._why = self._why or (f"{self._argv[0]}: ended", FAILED)
            self._kill()
            self.resume()
