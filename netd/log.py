"""What is logged, how it looks, and where it goes.

netd logs events through `twisted.logger`; this module is the observer at the end. A JSON line carries each value of the
event under its own key; a text line is for a person at a terminal. In both, bytes that came from a client can forge
neither a line nor a terminal escape: JSON is ASCII only, text escapes everything that does not print, and the lines of
a traceback are indented behind a bar.

What Twisted itself says at info (that a protocol factory starts, that the main loop ended) is debug here.
"""

import json
import os
import stat
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

from constantly import NamedConstant
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from netd.settings import LogSettings

LevelName = Literal["debug", "info", "warn", "error"]

REPEAT_INTERVAL = 1.0
"""Seconds between two log lines about the same nuisance, such as refused connections."""

RECENT_LINES = 200
"""How many lines of warning and above are kept for the console and the page."""

LONGEST_MESSAGE = 8192
"""Characters of one message or value; more is cut, because journald and syslog cut less kindly."""

_PRIORITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
"""syslog(3) numbers; sd-daemon(3) reads them as <N> before a line."""
_ORDER = {name: index for index, name in enumerate(_PRIORITIES)}

_PROMOTED = {
    "EMFILE encountered; releasing reserved file descriptor.": (
        "out of file descriptors: new connections are closed until others end; "
        "raise LimitNOFILE= (ulimit -n) or lower max_connections"
    ),
    "Could not accept new connection ({acceptError})": "cannot accept connections: {acceptError}",
}

Render = Callable[[LogEvent, str], str]


@implementer(ILogObserver)
class LogOutput:
    """The observer: filters by level, renders, writes."""

    def __init__(self, write: Callable[[str], object], render: Render, level: LevelName) -> None:
        self._write = write
        self._render = render
        self.level: LevelName = level
        self._promoted = 0.0
        self.recent: deque[str] = deque(maxlen=RECENT_LINES)
        """The last lines of warning and above, as text."""
        self.counts = dict.fromkeys(_ORDER, 0)
        """How many events there were, by level."""

    @property
    def debug(self) -> bool:
        """Whether debug events are written; asked before an event on a busy path is made."""
        return self.level == "debug"

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_format") in _PROMOTED:
            event = self._promote(event)
        level = level_of(event)
        self.counts[level] += 1
        if _ORDER[level] >= _ORDER["warn"]:
            self.recent.append(render_text(event, level))
        if _ORDER[level] >= _ORDER[self.level]:
            self._write(self._render(event, level))

    def _promote(self, event: LogEvent) -> LogEvent:
        """Twisted says this at info, many times a second; an operator wants it as a warning, and not so often."""
        now = event["log_time"]
        if now - self._promoted < REPEAT_INTERVAL:
            return event
        self._promoted = now
        return event | {"log_level": LogLevel.warn, "log_format": _PROMOTED[event["log_format"]]}


def make_output(settings: LogSettings, stream: TextIO, environ: Mapping[str, str]) -> LogOutput:
    """The observer that a configuration asks for, writing to `stream`."""
    text = settings.format == "text" or (settings.format == "auto" and stream.isatty())
    render: Render = render_text if text else render_json
    if _is_journal(stream, environ):
        render = _with_priority(render)

    def write(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    return LogOutput(write, render, settings.level)


def level_of(event: LogEvent) -> str:
    """The name of an event's level; the chatter of libraries below warn counts as debug."""
    constant = event.get("log_level")
    level = constant.name if isinstance(constant, NamedConstant) else "info"
    ours = str(event.get("log_namespace", "")).startswith("netd.")
    return level if ours or level != "info" else "debug"


def render_text(event: LogEvent, level: str) -> str:
    """A line for a person: time, level, who, what; a traceback follows, indented."""
    time = _moment(event).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    who = event.get("service") or event.get("log_namespace", "-")
    lines = [f"{time} {level:<5} {_printable(str(who))}: {_printable(_message(event))}"]
    lines += [f"    | {_printable(line)}" for line in _traceback(event).splitlines()]
    return "\n".join(lines)


def render_json(event: LogEvent, level: str) -> str:
    """One JSON object in ASCII: time, level, logger, message, the event's format and each of its values."""
    record: dict[str, object] = {
        "time": _moment(event).isoformat(timespec="milliseconds"),
        "level": level,
        "logger": str(event.get("log_namespace", "-")),
        "message": _message(event),
    }
    if (form := event.get("log_format")) and "{" in form:
        record["event"] = str(form)
    for key, value in event.items():
        if not key.startswith("log_") and key not in record and key not in _LEGACY_KEYS:
            record[key] = value if isinstance(value, bool | int | float | None) else _cut(str(value))
    if trace := _traceback(event):
        record["traceback"] = trace
    return json.dumps(record)


_LEGACY_KEYS = frozenset({"format", "system", "isError", "failure", "why", "time", "message", "logLevel", "log_legacy"})
"""What `twisted.python.log` adds to an event; said already by other keys."""


def _moment(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0.0), UTC)


def _message(event: LogEvent) -> str:
    return _cut(formatEvent(event) or "")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "…"


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    return failure.getTraceback() if failure is not None else ""


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def _with_priority(render: Render) -> Render:
    def render_with_priority(event: LogEvent, level: str) -> str:
        prefix = f"<{_PRIORITIES[level]}>"
        return "\n".join(prefix + line for line in render(event, level).splitlines())

    return render_with_priority


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream goes to journald: $JOURNAL_STREAM names the device and inode of its socket (systemd.exec(5))."""
    named = environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return stat.S_ISSOCK(status.st_mode) and named == f"{status.st_dev}:{status.st_ino}"


class Repeated:
    """Reports a nuisance that may repeat a thousand times a second: at once the first time, then once an interval.

    `report(count)` is given how often it happened since the last report.
    """

    def __init__(self, clock: IReactorTime, report: Callable[[int], object]) -> None:
        self._clock = clock
        self._report = report
        self._pending = 0
        self._timer: IDelayedCall | None = None

    def happened(self, count: int = 1) -> None:
        """Count one more, or several, and report them now if none was reported within the interval."""
        self._pending += count
        if self._timer is None:
            self._flush()

    def stop(self) -> None:
        """Report what is pending and let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            count, self._pending = self._pending, 0
            self._report(count)

    def _flush(self) -> None:
        self._timer = None
        if not self._pending:
            return
        count, self._pending = self._pending, 0
        self._timer = self._clock.callLater(REPEAT_INTERVAL, self._flush)
        self._report(count)
