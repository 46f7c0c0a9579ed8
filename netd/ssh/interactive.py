"""The interactive console: a prompt, verbs, watch, a pager and questions, over a terminal that only moves bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.console.command import FAILED, INTERRUPTED, OK, Caller, Role
from netd.console.console import Console
from netd.console.facts import netd_version, service_facts
from netd.console.output import wants_colour
from netd.console.table import Cell as TextCell
from netd.console.table import Line, paint, render
from netd.console.text import plural, printable, show_duration
from netd.ssh.interactive_keyboard import Keyboard
from netd.ssh.interactive_pager import Pager
from netd.ssh.interactive_program import NO_PROGRAMS, Programs
from netd.ssh.interactive_run import Runner
from netd.ssh.terminal import Ended, Entered, Event, LineEditor
from netd.ssh.terminal_history import History
from netd.ssh.terminal_keys import Key
from netd.ssh.terminal_screen import DEFAULT_WIDTH, Cell, cells_of
from netd.turns import Turns

DEFAULT_HEIGHT = 24
"""For a client that says 0."""

PASTE_BRACKETED, PASTE_PLAIN = "\x1b[?2004h", "\x1b[?2004l"
"""Asks the terminal to mark what is pasted (xterm's mode 2004); for the whole session, as type-ahead may be pasted."""

WAYS_OUT = frozenset({"exit", "quit", "logout"})

_log = Logger()


class TerminalChannel(Protocol):
    """What the session needs of the ssh channel with the pty."""

    def write(self, data: bytes) -> None:
        """Send to the client's terminal."""

    def leave(self, status: int) -> None:
        """Send what is written, then the exit status, then close. Called once."""


@dataclass(frozen=True, slots=True)
class Pty:
    """What the client said of its terminal in pty-req and env."""

    term: str
    width: int
    """Columns; 0 when the client does not know."""
    height: int
    environ: Mapping[str, str]
    """Of which NO_COLOR counts."""


class InteractiveSession:
    """One operator at a terminal.

    The ssh session calls `start` once, then `receive`, `resize`, `pause` and `resume` as it pleases, and `stop` when
    the channel is gone. `start("close 42")` runs one line, for `ssh -t host close 42`, and leaves with its status.
    """

    def __init__(
        self,
        console: Console,
        caller: Caller,
        channel: TerminalChannel,
        *,
        pty: Pty,
        host: str,
        history: History,
        clock: IReactorTime,
        turns: Turns,
        programs: Programs = NO_PROGRAMS,
    ) -> None:
        """`host` is shown in the prompt; `history` is the user's, kept by the service between log-ins.

        `turns` are shared by all sessions: how long their keys may take.
        """
        self.console = console
        self.caller = caller
        self.clock = clock
        self.programs = programs
        self.dumb = pty.term in {"", "dumb", "unknown"}
        self.colour = wants_colour(pty.term, pty.environ)
        self.width = pty.width or DEFAULT_WIDTH
        self.height = pty.height or DEFAULT_HEIGHT
        self.keyboard = Keyboard(self._press, clock)
        self._channel = channel
        self._host = host
        self._turns = turns
        self._waits = False
        """For its turn."""
        self._editor = LineEditor(self.width, history, self._complete, dumb=self.dumb)
        self._runner = Runner(self)
        self._reading: Deferred[Event] | None = None
        self._conversation: Deferred[None] | None = None
        self._status = OK
        self._dismissed = False
        self.gone = False

    # --- what the ssh session calls

    def start(self, line: str | None = None) -> None:
        """Greet and prompt; or run `line` and leave."""
        if not self.dumb:
            self.write(PASTE_BRACKETED)
        conversation = Deferred.fromCoroutine(self._converse() if line is None else self._runner.run(line))
        self._conversation = conversation.addCallbacks(self._leave, self._failed)

    def receive(self, data: bytes) -> None:
        """Bytes from the client's keyboard, cut anyhow."""
        self.keyboard.receive(data)
        self._go_on()

    def end_of_input(self) -> None:
        """The client will send nothing more (SSH_MSG_CHANNEL_EOF): leave once what was typed has run."""
        self.keyboard.end()
        self._go_on()

    def resize(self, width: int, height: int) -> None:
        """The client's window changed."""
        self.width, self.height = width or DEFAULT_WIDTH, height or DEFAULT_HEIGHT
        self._editor.resize(self.width)
        if self.keyboard.dialogue is not None:
            self.keyboard.dialogue.resize(self.width, self.height)
        elif self._reading is not None:
            self.write(self._editor.draw())

    def pause(self) -> None:
        """The client does not read: write little until `resume`."""
        self.keyboard.pause()

    def resume(self) -> None:
        """The client reads again."""
        self.keyboard.resume()
        self._go_on()

    @property
    def prompting(self) -> bool:
        """Whether it waits for a person: for a line, or for a page of output to be turned."""
        return self._reading is not None or isinstance(self.keyboard.dialogue, Pager)

    def dismiss(self, text: str) -> None:
        """Say why, end what waits for a person, and leave once what runs has ended: netd stops, or nobody types.

        Nothing else is begun, whatever was typed ahead: the user may no longer be allowed to.
        """
        self._dismissed = True
        self._say(text)
        self.keyboard.forget()
        self.end_of_input()

    def _say(self, text: str) -> None:
        """Tell a line without disturbing what is being typed."""
        line = paint(printable(text), "warn", colour=self.colour) + "\r\n"
        if self._reading is not None:
            self._editor.interject(line)
            self.write(self._editor.draw())
        else:
            self.write("\r\n" + line)

    def stop(self) -> None:
        """The channel is gone: cancel what runs, write nothing more."""
        self.gone = True
        if self._conversation is not None:
            self._conversation.cancel()

    # --- the conversation

    async def _converse(self) -> int:
        self._greet()
        while (lines := await self._read()) is not None:
            for line in lines:
                if self._dismissed or line.split()[0] in WAYS_OUT:
                    return OK
                self._status = await self._runner.run(line)
                await self._breathe()
        return OK

    def _greet(self) -> None:
        runtime = self.console.runtime
        states = [service_facts(service)["state"] for service in runtime.services]
        unwell = len(states) - states.count("up")
        up = show_duration(runtime.reactor.seconds() - runtime.started)
        health = f"{unwell} not up: see `status`" if unwell else "all up"
        text = f"netd {netd_version()} on {self._host}, up {up}; {plural(len(states), 'service')}, {health}."
        caller = f"You are {self.caller.user} ({self.caller.role.label})."
        lines = [
            Line([TextCell(text, "warn" if unwell else "")], fit="wrap"),
            Line([TextCell(f"{caller} `help` lists the verbs, Tab completes, Ctrl-D leaves.")], fit="wrap"),
        ]
        self.write(render(lines, self.width, colour=self.colour).replace("\n", "\r\n"))

    async def _breathe(self) -> None:
        """Between two lines others have their turn, and a client that does not read is waited for."""
        await deferLater(self.clock, 0)
        if self.keyboard.paused is not None:
            await self.keyboard.paused

    async def _read(self) -> Sequence[str] | None:
        """The lines of one prompt; None when the operator leaves."""
        while True:
            self._editor.begin(self._prompt())
            reading: Deferred[Event] = Deferred()
            self._reading = reading
            self.keyboard.prompting = True
            self._go_on()
            match await reading:
                case Ended():
                    return None
                case Entered(lines) if lines:
                    return lines
                case Entered():
                    pass
                case _:
                    self._status = INTERRUPTED

    def _prompt(self) -> list[Cell]:
        name = cells_of(f"{self.caller.user}@{self._host}", "1;32" if self.colour else "")
        status = cells_of(f" {self._status}", "31" if self.colour else "") if self._status else []
        return [*name, *status, *cells_of("# " if self.caller.role is Role.ADMIN else "> ")]

    def _go_on(self) -> None:
        """Take the keys that are there, when it is this session's turn."""
        if not self._waits:
            self._waits = True
            self._turns.take(self._take_turn)

    def _take_turn(self) -> None:
        self._waits = False
        try:
            if not self.gone:
                self._take_keys()
        except Exception:  # noqa: BLE001 - a mistake of ours must cost this session, and no other its turn
            self._failed(Failure())

    def _take_keys(self) -> None:
        """Edit with some of the keys, then draw once."""
        if self.keyboard.hand_out():
            self._go_on()
        if self._reading is not None:
            self.write(self._editor.draw())
            if self.keyboard.ended and self.keyboard.empty:
                self._read_done(Ended())

    def _press(self, key: Key) -> None:
        event = self._editor.press(key)
        if event is not None:
            self._read_done(event)

    def _read_done(self, event: Event) -> None:
        self.write(self._editor.draw())
        self.keyboard.prompting = False
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.callback(event)

    def _complete(self, text: str) -> Sequence[str]:
        first, space, rest = text.lstrip().partition(" ")
        if not space:
            own = [word for word in ("exit", "watch") if word.startswith(first)]
            return sorted([*self.console.complete(text, self.caller), *own])
        return self.console.complete(rest if first == "watch" else text, self.caller)

    # --- the end

    def _failed(self, failure: Failure) -> None:
        if self.gone and failure.check(CancelledError):
            return
        _log.failure("the console of {user} failed", failure, user=self.caller.user)
        self.write("\r\nnetd: internal error; the daemon's log says more\r\n")
        self._leave(FAILED)

    def _leave(self, status: int) -> None:
        if not self.dumb:
            self.write(PASTE_PLAIN)
        if not self.gone:
            self.gone = True
            self._channel.leave(status)

    def write(self, text: str) -> None:
        """Send text to the terminal."""
        self.send(text.encode("utf-8", "replace"))

    def send(self, data: bytes) -> None:
        """Send bytes to the terminal."""
        if data and not self.gone:
            self._channel.write(data)
