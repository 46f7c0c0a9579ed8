"""Allowed commands at the prompt: `df` there does what `ssh host df` does.

A program writes to the terminal while it runs, and is paused while the client does not read. It has no input: keys are
kept for the next prompt. Ctrl-C interrupts it; a second one ends it.
"""

import signal
from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from netd.ssh.allowed import Refused
from netd.ssh.interactive_keyboard import INTERRUPT
from netd.ssh.terminal_keys import Key

KILLED = 128
"""A shell's exit status of a program that a signal ended, less the signal's number."""


class Program(Protocol):
    """What is needed here of `netd.ssh.programs.Program`."""

    def begin(self) -> None:
        """Start; called once."""

    def end_of_input(self) -> None:
        """There is no input."""

    def pause(self) -> None:
        """Write nothing until `resume`."""

    def resume(self) -> None:
        """Write again."""

    def signal(self, name: str) -> bool:
        """Send it a signal, "INT"."""

    def hang_up(self) -> None:
        """End at once."""


class Programs(Protocol):
    """The commands that a user may run."""

    def names(self) -> Sequence[str]:
        """Their first words."""

    def make(self, words: list[str], channel: "ProgramDialogue") -> Program | Refused:
        """The program for a line; it writes to `channel`, and tells it its end."""


class _NoPrograms:
    def names(self) -> Sequence[str]:
        return ()

    def make(self, words: list[str], channel: "ProgramDialogue") -> Program | Refused:  # noqa: ARG002 - there is none
        return Refused("no such command", 127)


NO_PROGRAMS: Programs = _NoPrograms()
"""For a console without any."""


class ProgramDialogue:
    """Stands between a program and the terminal: to the program it is a channel, to the keyboard a dialogue."""

    def __init__(self, send: Callable[[bytes], object], keep: Callable[[Key], object]) -> None:
        self.bytes_written = 0
        self._send = send
        self._keep = keep
        self._program: Program | None = None
        self._done: Deferred[int] = Deferred(self._hang_up)
        self._interrupted = False
        self._at_line_start = True

    def run(self, program: Program) -> Deferred[int]:
        """Start the program; fires with its exit status. Cancelled, it ends the program."""
        self._program = program
        program.begin()
        program.end_of_input()
        return self._done

    # --- for the program

    def write(self, data: bytes) -> None:
        """Its output, ready for a raw terminal."""
        if data:
            self.bytes_written += len(data)
            self._at_line_start = data.endswith(b"\n")
            self._send(data)

    def write_error(self, data: bytes) -> None:
        """Its standard error: the same terminal."""
        self.write(data)

    def consumed(self, size: int) -> None:
        """Input that it took: there is none."""

    def end_by_signal(self, name: str, *, core: bool) -> None:  # noqa: ARG002 - a shell says no more either
        """A signal has ended it: the status is a shell's."""
        self.end(KILLED + signal.Signals[f"SIG{name}"])

    def end(self, status: int | None = None) -> None:
        """It has ended. Without a status it is the keyboard that says so, and the program goes on without it."""
        if status is not None and not self._done.called:
            if not self._at_line_start:
                self._send(b"\r\n")
            self._done.callback(status)

    # --- for the keyboard

    def press(self, key: Key) -> None:
        """Ctrl-C is for the program, other keys for the next prompt."""
        if key != INTERRUPT or self._program is None:
            self._keep(key)
        elif self._interrupted:
            self._program.hang_up()
        else:
            self._interrupted = True
            self.write(b"^C\r\n")
            self._program.signal("INT")

    def resize(self, width: int, height: int) -> None:
        """It has no terminal."""

    def pause(self) -> None:
        """The client does not read."""
        if self._program is not None:
            self._program.pause()

    def resume(self) -> None:
        """It reads again."""
        if self._program is not None:
            self._program.resume()

    def _hang_up(self, _done: Deferred[int]) -> None:
        if self._program is not None:
            self._program.hang_up()
