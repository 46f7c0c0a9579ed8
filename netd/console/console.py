"""The operator's console: a line and who typed it → output and an exit status."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - it is not the builtin
from twisted.logger import Logger
from twisted.python.failure import Failure
from wcwidth import wrap

from netd.console import arguments
from netd.console.command import (
    FAILED,
    INTERRUPTED,
    NOT_PERMITTED,
    OK,
    TIMED_OUT,
    UNKNOWN,
    USAGE,
    Answer,
    Caller,
    Command,
    Context,
    Failed,
    HostCommand,
    NotPermitted,
    Output,
)
from netd.console.commands import BUILT_IN
from netd.console.help import CONSOLE_WORDS, describe
from netd.console.table import cut, paint, render
from netd.console.text import printable, show_duration
from netd.console.verbs import INTERACTIVE
from netd.runtime import Runtime

DOCUMENT_VERSION = 1
"""Of what `--json` prints. Keys are added without a new version; none is renamed, removed or changes its meaning."""

LONGEST_VERB = 3
"""Words of a verb's name at most."""

LONGEST_NAME = 64
"""Characters of an unknown verb that are shown again and logged."""

HIDDEN = "…"
"""What an audit has in the place of what is private."""

Finished = Callable[[Caller, str, Sequence[str], int], object]
"""Told (caller, verb, words behind it, status) when a verb has ended, for the audit. Nothing private is in it."""

_log = Logger()


class Console:
    """Every verb of a daemon: the built-in ones, those of its services, and `extra_commands`.

    `finished` is told of each verb that ran or was refused, with its exit status; 130 is one that was cancelled.
    `host_commands` are run by somebody else; here they are known by name.
    """

    def __init__(
        self,
        runtime: Runtime,
        extra_commands: Sequence[Command] = (),
        finished: Finished | None = None,
        host_commands: Mapping[str, HostCommand] | None = None,
    ) -> None:
        self.runtime = runtime
        self.host_commands = {} if host_commands is None else host_commands
        self._extra = extra_commands
        self._finished = finished

    @property
    def commands(self) -> Mapping[str, Command]:
        """By name, in the order that help shows; a service's verbs come and go with it."""
        found: dict[str, Command] = {}
        for each in (
            *BUILT_IN,
            *(each for service in self.runtime.services for each in service.commands),
            *self._extra,
        ):
            found.setdefault(each.name, each)
        return found

    def find(self, words: Sequence[str]) -> Command | None:
        """The verb that these words begin with, its longest name first."""
        commands = self.commands
        names = (" ".join(words[:count]) for count in range(min(LONGEST_VERB, len(words)), 0, -1))
        return next((commands[name] for name in names if name in commands), None)

    async def run(self, line: str | Sequence[str], caller: Caller, output: Output, *, again: bool = False) -> int:
        """Run a verb and return its exit status; nothing but CancelledError is raised.

        A string is split at white space, without quoting. Cancel it to stop a verb that runs. `again` is a run of
        `watch` after the first, which no audit needs.
        """
        words = line.split() if isinstance(line, str) else list(line)
        if not words:
            return OK
        command = self.find(words)
        name = command.name if command else cut(printable(words[0]), LONGEST_NAME)
        status = INTERRUPTED
        try:
            if command is None:
                status = self._refuse_unknown(words, name, output)
            else:
                status = await self._run(command, words[len(name.split()) :], caller, output)
        finally:
            if self._finished is not None and not again:
                self._finished(caller, name, self._public(command, words), status)
        return status

    def _public(self, command: Command | None, words: Sequence[str]) -> Sequence[str]:
        """The words behind a verb that an audit may have: not a value, nor what may be a secret in the wrong place."""
        if command is None:
            return []
        words = words[len(command.name.split()) :]
        if not command.private:
            return words
        try:
            private = arguments.parse(command, words, self)[command.private]
        except arguments.Wrong:
            return []
        return [HIDDEN if word in private else word for word in words]

    async def _run(self, command: Command, words: Sequence[str], caller: Caller, output: Output) -> int:
        try:
            if caller.role < command.role:
                raise NotPermitted(f"needs the role {command.role.label}; {caller.user} is {caller.role.label}")
            values = arguments.parse(command, words, self)
            answer = describe(command) if values["help"] else await self._answer(command, values, caller, output)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a verb with a mistake in it must not take the session down
            return self._explain(error, command, output)
        if values["json"]:
            document = {"version": DOCUMENT_VERSION, "verb": command.name, **answer.document}
            output.write(json.dumps(document) + "\n")
        else:
            output.write(render(answer.parts, output.width, colour=output.colour))
        return OK

    def _explain(self, error: Exception, command: Command, output: Output) -> int:
        """Say on standard error what went wrong; returns the exit status."""
        match error:
            case arguments.Wrong():
                complain(command.name, str(error), output)
                output.error(f"usage: {arguments.usage(command)}\n")
                return USAGE
            case NotPermitted():
                status = NOT_PERMITTED
            case Failed():
                status = FAILED
            case TimeoutError():
                error = Failed(f"gave up after {show_duration(command.timeout)}")
                status = TIMED_OUT
            case _:
                _log.failure("the verb {verb} failed", Failure(error), verb=command.name)
                error = Failed("internal error; the daemon's log says more")
                status = FAILED
        complain(command.name, str(error), output)
        for reason in error.reasons if isinstance(error, Failed) else ():
            output.error(f"  {printable(reason)}\n")
        return status

    def _answer(self, command: Command, values: Mapping[str, Any], caller: Caller, output: Output) -> Deferred[Answer]:
        context = Context(self.runtime, caller, output, self, confirmed=values.get("yes", False))
        answer = Deferred.fromCoroutine(command.run(values, context))
        return answer.addTimeout(command.timeout, self.runtime.reactor) if command.timeout else answer

    def _refuse_unknown(self, words: Sequence[str], name: str, output: Output) -> int:
        commands = self.commands
        if group := [each for each in commands if each.split()[0] == words[0]]:
            complain(name, f"which one? {', '.join(group)}", output)
            return USAGE
        if name in CONSOLE_WORDS:
            complain(name, "only in the console, at a terminal: ssh -t", output)
            return UNKNOWN
        known = [*commands, *self.host_commands, *INTERACTIVE]
        pairs = [each for each in known if " " in each]
        hint = arguments.did_you_mean(" ".join(words[:2]), pairs) or arguments.did_you_mean(words[0], known)
        complain(name, f"unknown verb{hint or '; help lists them'}", output)
        return UNKNOWN

    def complete(self, text: str, caller: Caller) -> list[str]:
        """What the last word of `text`, which ends at the cursor, may be: whole words, sorted, [] when nobody knows."""
        *words, last = text.split() if text and not text[-1].isspace() else [*text.split(), ""]
        command = self.find(words)
        if command is not None and len(words) >= len(command.name.split()):
            rest = words[len(command.name.split()) :]
            return arguments.complete(command, rest, last, self)
        at = len(words)
        known = [(name, verb.role) for name, verb in self.commands.items()]
        known += [(each.name if not words else each.usage, each.role) for each in self.host_commands.values()]
        names = [name.split() for name, role in known if role <= caller.role]
        return sorted(
            {
                each[at]
                for each in names
                if len(each) > at and each[:at] == words and each[at].startswith(last) and "{" not in each[at]
            }
        )


def complain(name: str, text: str, output: Output) -> None:
    """Say on standard error what is wrong with a verb: a line, or several on a narrow terminal."""
    line = printable(f"{name}: {text}")
    lines = wrap(line, output.width) if output.width else [line]
    if lines[0].startswith(f"{name}:"):
        lines[0] = paint(f"{name}:", "bad", colour=output.colour) + lines[0].removeprefix(f"{name}:")
    output.error("".join(f"{line}\n" for line in lines))
