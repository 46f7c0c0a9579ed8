"""Log lines: for machines, for people, and never by the grace of a client."""

import io
import json
import os
import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import Logger, LogPublisher
from twisted.python import log as legacy

from netd.log import LogOutput, Repeated, make_output, render_json, render_text
from netd.settings import LogSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(settings: LogSettings, stream: io.StringIO | None = None) -> tuple[Logger, io.StringIO]:
    stream = stream or io.StringIO()
    return Logger("netd.test", observer=make_output(settings, stream, {})), stream


def test_a_json_line_has_the_message_and_each_value() -> None:
    logger, stream = written(LogSettings())
    logger.info("published {count} to {queue}", count=3, queue="hello", service="bridge.main")
    record = json.loads(stream.getvalue())
    assert record.pop("time").endswith("+00:00")
    assert record == {
        "level": "info",
        "logger": "netd.test",
        "message": "published 3 to hello",
        "event": "published {count} to {queue}",
        "count": 3,
        "queue": "hello",
        "service": "bridge.main",
    }


def test_a_terminal_gets_text_and_a_pipe_json() -> None:
    logger, stream = written(LogSettings(), Terminal())
    logger.warn("mind the gap", service="echo.plain")
    assert stream.getvalue().endswith(" warn  echo.plain: mind the gap\n")
    logger, stream = written(LogSettings(format="json"), Terminal())
    logger.warn("mind the gap")
    assert json.loads(stream.getvalue())["message"] == "mind the gap"


def test_below_the_level_nothing_is_written_and_the_level_can_change() -> None:
    lines: list[str] = []
    output = LogOutput(lines.append, render_text, "info")
    logger = Logger("netd.test", observer=output)
    logger.debug("hidden")
    assert not output.debug
    output.level = "debug"
    logger.debug("shown")
    assert output.debug
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["shown"]


def test_what_libraries_say_at_info_is_debug() -> None:
    lines: list[str] = []
    output = LogOutput(lines.append, render_text, "info")
    Logger("twisted.internet.tcp", observer=output).info("Factory starting")
    Logger("twisted.internet.tcp", observer=output).warn("trouble")
    assert len(lines) == 1


def test_warnings_are_kept_for_the_console() -> None:
    output = LogOutput(lambda _: None, render_json, "error")
    Logger("netd.test", observer=output).info("fine")
    Logger("netd.test", observer=output).warn("trouble")
    assert [line.rsplit(" ", 1)[1] for line in output.recent] == ["trouble"]


@given(st.text())
def test_client_text_forges_neither_a_line_nor_an_escape(text: str) -> None:
    for settings in (LogSettings(format="text"), LogSettings(format="json")):
        logger, stream = written(settings)
        logger.info("said {text}", text=text)
        line = stream.getvalue()
        assert line.endswith("\n")
        assert line[:-1].isprintable()


def test_a_traceback_stays_behind_its_bar() -> None:
    logger, stream = written(LogSettings(format="text"))
    try:
        raise ValueError("first\n2026-01-01 00:00:00.000 info  netd: forged \x1b[31m")
    except ValueError:
        logger.failure("it broke")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("critical netd.test: it broke")
    assert rest
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)
    assert any("forged \\x1b[31m" in line for line in rest)


def test_messages_of_the_old_log_module_are_readable_too() -> None:
    lines: list[str] = []
    publisher = LogPublisher(LogOutput(lines.append, render_json, "debug"))
    observer = legacy.LogPublisher(publishPublisher=publisher)
    observer.msg("old", "words")
    assert json.loads(lines[0])["message"] == "old words"


def test_priorities_stand_before_lines_only_in_the_journal() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("w") as stream:
        status = os.fstat(ours.fileno())
        for journal, prefix in ((f"{status.st_dev}:{status.st_ino}", "<4>"), ("1:2", "{"), ("", "{")):
            output = make_output(LogSettings(), stream, {"JOURNAL_STREAM": journal} if journal else {})
            Logger("netd.test", observer=output).warn("x")
            assert theirs.recv(1000).decode().startswith(prefix)


def test_a_nuisance_is_reported_at_once_and_then_once_a_second() -> None:
    clock: Any = Clock()
    reports: list[int] = []
    nuisance = Repeated(clock, reports.append)
    for _ in range(5):
        nuisance.happened()
    assert reports == [1]
    clock.advance(1)
    assert reports == [1, 4]
    nuisance.happened()
    assert reports == [1, 4]
    clock.advance(1)
    assert reports == [1, 4, 1]
    clock.advance(1)
    nuisance.happened()
    nuisance.happened()
    nuisance.stop()
    assert reports == [1, 4, 1, 1, 1]
    nuisance.happened(2000)
    assert reports[-1] == 2000
    nuisance.stop()
    assert not clock.getDelayedCalls()
