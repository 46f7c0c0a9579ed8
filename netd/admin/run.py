r"""Verbs by the unix socket: POST /run with `{"words": ["close", "4", "--yes"], "width": 80, "colour": true}`.

The answer is a JSON object a line, as the verb writes: `{"out": "…"}`, `{"err": "…"}`, and at the end `{"exit": 0}`. A
client that goes away cancels the verb. POST /complete with `{"words": ["close", "4"]}` answers with the words that the
last one may become.

Whoever may open the socket is an admin: its file's mode says who may.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.admin.http import AdminRequest
from netd.console.command import FAILED, Caller, Role
from netd.console.console import Console
from netd.console.output import ByteOutput
from netd.console.table import cut
from netd.console.text import printable
from netd.runtime import Runtime

WIDEST = 1000
"""Columns; a terminal that says more does not mean it."""

LONGEST_LINE = 300
"""Characters of a line that was run which the log has."""

NDJSON = b"application/x-ndjson"

_log = Logger()


class WrongRequest(ValueError):
    """A body is not what it should be; the text says how."""


class Verbs:
    """Answers /run and /complete."""

    def __init__(self, runtime: Runtime, service: str) -> None:
        self._console = Console(runtime, finished=self._audit)
        self._service = service

    def _audit(self, caller: Caller, verb: str, words: Sequence[str], status: int) -> None:
        """Who did what, in the log; who only looked is not worth a line."""
        command = self._console.find(verb.split())
        looked = command is not None and command.role is Role.VIEWER
        log = _log.debug if looked else _log.info
        line = cut(printable(" ".join((verb, *words))), LONGEST_LINE)
        log(
            "{user} ran {line}: exit status {status}", user=caller.user, line=line, status=status, service=self._service
        )

    def run(self, request: AdminRequest) -> None:
        """Run a verb, and send what it writes as it writes it."""
        try:
            body = _body(request)
            words, width, colour = _words(body), body.get("width", 0), body.get("colour", False)
            if not isinstance(width, int) or not 0 <= width <= WIDEST or not isinstance(colour, bool):
                raise WrongRequest("width is a number of columns, colour true or false")
        except WrongRequest as error:
            request.respond(400, f"{error}\n".encode())
            return
        request.start(200, NDJSON)
        request.write(b"")
        output = ByteOutput(_line(request, "out"), _line(request, "err"), width=width, colour=colour)
        running = Deferred.fromCoroutine(self._console.run(words, _caller(request), output))
        gone = request.notifyFinish()
        gone.addErrback(lambda _: running.cancel())
        running.addErrback(_explain, words[0])
        running.addCallback(lambda status: _end(request, status))
        running.addErrback(lambda failure: _log.failure("answering a verb failed", failure))

    def complete(self, request: AdminRequest) -> None:
        """Answer with what the last word may be."""
        try:
            words = _words(_body(request))
        except WrongRequest as error:
            request.respond(400, f"{error}\n".encode())
            return
        found = self._console.complete(" ".join(words), _caller(request))
        request.respond(200, json.dumps({"words": found}).encode(), b"application/json")


def _body(request: AdminRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.content.read())
    except (ValueError, RecursionError):
        raise WrongRequest("expected a JSON object") from None
    if not isinstance(body, dict):
        raise WrongRequest("expected a JSON object")
    return body


def _words(body: dict[str, Any]) -> list[str]:
    words = body.get("words")
    if not isinstance(words, list) or not words or not all(isinstance(each, str) for each in words):
        raise WrongRequest("words is a list of strings, a verb first")
    return words


def _caller(request: AdminRequest) -> Caller:
    channel = request.channel
    return Caller(channel.user or "admin", Role.ADMIN, channel.peer, "netdctl", channel.id)


def _line(request: AdminRequest, key: str) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        request.write(json.dumps({key: data.decode()}).encode() + b"\n")

    return write


def _explain(failure: Failure, verb: str) -> int:
    if failure.check(CancelledError) is None:
        _log.failure("the verb {verb} failed", failure, verb=verb)
    return FAILED


def _end(request: AdminRequest, status: int) -> None:
    if request.channel is not None:
        request.write(json.dumps({"exit": status}).encode() + b"\n")
        request.finish()
