"""How the interactive console runs a line: a verb, with its pager and its questions, or watch."""

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred

from netd.console.arguments import Wrong
from netd.console.command import INTERRUPTED, USAGE
from netd.console.console import complain
from netd.console.output import MemoryOutput
from netd.ssh.allowed import Refused
from netd.ssh.interactive_pager import Pager
from netd.ssh.interactive_program import ProgramDialogue
from netd.ssh.interactive_question import Question
from netd.ssh.interactive_watch import Watch, parse_watch

if TYPE_CHECKING:
    from netd.ssh.interactive import InteractiveSession


class Runner:
    """Runs lines for a session, one at a time."""

    def __init__(self, session: "InteractiveSession") -> None:
        self._session = session

    async def run(self, line: str) -> int:
        """Run a line to its end, the paging of its output included; returns its exit status."""
        session, words = self._session, line.split()
        output = _TerminalOutput(session)
        if words[0] == "watch":
            running = Deferred.fromCoroutine(self._watch(words[1:], output))
        elif words[0] in session.programs.names():
            running = Deferred.fromCoroutine(self._program(words, output))
        else:
            running = Deferred.fromCoroutine(session.console.run(words, session.caller, output))
        session.keyboard.interrupt = running.cancel
        try:
            status = await running
        except CancelledError:
            if session.gone:
                raise
            session.write("^C\r\n")
            return INTERRUPTED
        finally:
            session.keyboard.interrupt = None
        await self._show(output.text)
        return status

    async def _show(self, text: str) -> None:
        session = self._session
        if session.dumb or session.keyboard.ended or not Pager.needed(text, session.width, session.height):
            session.write(text.replace("\n", "\r\n"))
            return
        pager = Pager(text, session.width, session.height, session.write)
        pager.start()
        await session.keyboard.converse(pager, pager.done)

    async def _watch(self, words: list[str], output: "_TerminalOutput") -> int:
        session = self._session

        async def frame(again: bool) -> tuple[int, str]:
            memory = MemoryOutput(width=session.width - 1, colour=session.colour)
            status = await session.console.run(asked.words, session.caller, memory, again=again)
            return status, memory.text + memory.errors

        try:
            if session.dumb:
                raise Wrong("this terminal (TERM=dumb) cannot redraw")
            asked = parse_watch(words, session.console)
        except Wrong as error:
            complain("watch", str(error), output)
            output.error("usage: watch VERB [-n SECONDS]\n")
            return USAGE
        watch = Watch(asked, frame, session.clock, session)
        return await session.keyboard.converse(watch, Deferred.fromCoroutine(watch.run()))

    async def _program(self, words: list[str], output: "_TerminalOutput") -> int:
        session = self._session
        dialogue = ProgramDialogue(session.send, session.keyboard.keep)
        program = session.programs.make(words, dialogue)
        if isinstance(program, Refused):
            complain(words[0], program.text, output)
            return program.status
        return await session.keyboard.converse(dialogue, dialogue.run(program))


class _TerminalOutput:
    """A verb's way to the terminal: what it answers is kept, to be paged; errors go at once."""

    interactive = True

    def __init__(self, session: "InteractiveSession") -> None:
        self._session = session
        self.text = ""

    @property
    def width(self) -> int:
        return self._session.width

    @property
    def colour(self) -> bool:
        return self._session.colour

    def write(self, text: str) -> None:
        self.text += text

    def error(self, text: str) -> None:
        self._session.write(text.replace("\n", "\r\n"))

    def confirm(self, question: str) -> Deferred[bool]:
        session = self._session
        asking = Question(question, session.width, session.write, dumb=session.dumb)
        return Deferred.fromCoroutine(session.keyboard.converse(asking, asking.done))
