"""What every verb has in common: exit statuses, errors, usage, JSON, completion, the audit."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from netd.console.command import Answer, Caller, Command, Context, Failed, HostCommand, Role
from netd.console.commands import BUILT_IN
from netd.console.console import Console
from netd.console.help import CONSOLE_WORDS
from netd.console.output import ByteOutput, MemoryOutput
from netd.console.verbs import BUILT_IN as BUILT_IN_NAMES
from netd.console.verbs import INTERACTIVE, VERBS
from tests.console.desk import EVE, OPS, Desk
from tests.fakes import result_of


class Stuck(Command):
    name = "stuck"
    summary = "Never answer"

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        await Deferred()
        raise AssertionError


class Broken(Command):
    name = "broken"
    summary = "Raise"

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        raise ZeroDivisionError


class Wipe(Command):
    name = "wipe"
    summary = "Remove everything"
    role = Role.ADMIN
    asks = True

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        await context.confirm("Wipe?")
        return Answer({"wiped": True}, ["wiped"])


def with_verbs(*verbs: Command) -> Desk:
    desk = Desk()
    desk.console = Console(desk.runtime, verbs, desk.note)
    return desk


def test_an_unknown_verb_is_127_and_says_what_may_have_been_meant() -> None:
    result = Desk().run("statsu")
    assert (result.status, result.text) == (127, "")
    assert result.errors == "statsu: unknown verb; did you mean stats?\n"


def test_an_unknown_verb_far_from_any_points_to_help() -> None:
    assert Desk().run("frobnicate").errors == "frobnicate: unknown verb; help lists them\n"


def test_an_empty_line_does_nothing() -> None:
    result = Desk().run("   ")
    assert (result.status, result.text, result.errors) == (0, "", "")


def test_a_role_too_low_is_126() -> None:
    result = Desk().run("close 1 --yes", EVE)
    assert result.status == 126
    assert result.errors == "close: needs the role operator; eve is viewer\n"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("status --frob", "no such option '--frob'"),
        ("whoami now", "unexpected extra argument"),
        ("close", "missing argument"),
        ("close x --yes", "x is no connection id"),
        ("stats echo.plan", "no service echo.plan; did you mean echo.plain?"),
        ("connections --sort size", "size is not one of id, in, out, traffic"),
        ("connections --limit 5000", "5000: expected a number from 1 to 500"),
        ("log tail -n x", "x: expected a number from 1 to 200"),
        ("stats --over 5y", "5y is no time"),
        ("log", "which one? log level, log tail"),
    ],
)
def test_wrong_words_are_2_with_the_usage(line: str, error: str) -> None:
    result = Desk().run(line)
    assert (result.status, result.text) == (2, "")
    assert error in result.errors
    assert line == "log" or f"usage: {line.split(maxsplit=1)[0]}" in result.errors


def test_a_verb_that_takes_too_long_is_124() -> None:
    desk = with_verbs(Stuck())
    running, output = desk.begin("stuck")
    desk.network.advance(30)
    assert result_of(running) == 124
    assert output.errors == "stuck: gave up after 30 s\n"


def test_a_verb_that_is_cancelled_stops_and_counts_as_130() -> None:
    desk = with_verbs(Stuck())
    running, _ = desk.begin("stuck")
    running.cancel()
    with pytest.raises(CancelledError):
        result_of(running)
    assert desk.finished == [("ops", "stuck", 130)]


def test_a_mistake_in_a_verb_is_1_and_logged() -> None:
    events: list[LogEvent] = []
    observer = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(observer)
    try:
        result = with_verbs(Broken()).run("broken")
    finally:
        globalLogPublisher.removeObserver(observer)
    assert (result.status, result.errors) == (1, "broken: internal error; the daemon's log says more\n")
    assert [event["log_failure"].type for event in events if "log_failure" in event] == [ZeroDivisionError]


def test_what_cannot_be_undone_needs_yes_where_nobody_can_be_asked() -> None:
    desk = with_verbs(Wipe())
    assert desk.run("wipe").status == 1
    assert desk.run("wipe").errors == "wipe: this cannot be undone: say --yes\n"
    assert desk.run("wipe --yes").text == "wiped\n"


def test_json_is_one_versioned_object() -> None:
    for line in [
        "status",
        "services",
        "connections",
        "stats",
        "log level",
        "log tail",
        "sessions",
        "whoami",
        "version",
    ]:
        document = Desk().run(f"{line} --json").document
        assert (document["version"], document["verb"]) == (1, line)


def test_help_of_a_verb_is_the_same_both_ways() -> None:
    desk = Desk()
    assert desk.run("help close").text == desk.run("close --help").text
    assert "usage: close ID... [--now] [--yes] [--json]" in desk.run("help close").text


def test_help_lists_what_the_caller_may_run() -> None:
    assert ["close"] not in [row[:1] for row in Desk().run("help", EVE).rows]
    assert "6 more need a higher role than viewer" in Desk().run("help", EVE).text
    assert ["close"] in [row[:1] for row in Desk().run("help", OPS).rows]


def test_help_of_a_word_shared_by_verbs_lists_them() -> None:
    assert [row[:2] for row in Desk().run("help log").rows[1:]] == [["log", "level"], ["log", "tail"]]
    assert Desk().run("help clos").errors == "help: no verb clos; did you mean close?\n"


def test_every_verb_has_a_summary_an_example_and_a_reserved_name() -> None:
    for verb in BUILT_IN:
        assert verb.summary[0].isupper(), verb.name
        assert not verb.summary.endswith("."), verb.name
        assert verb.examples, verb.name
        assert all(line.startswith((verb.name, "watch")) for line, _ in verb.examples), verb.name
    assert {verb.name.split()[0] for verb in BUILT_IN} == BUILT_IN_NAMES <= VERBS


def test_the_examples_work() -> None:
    desk = Desk()
    for verb in BUILT_IN:
        for line, _ in verb.examples:
            if not line.startswith(("watch", "close", "config diff")) and "--over" not in line:
                assert desk.run(line).status == 0, line


def test_a_service_adds_its_own_verbs_once() -> None:
    desk = Desk()
    for service in desk.runtime.services:
        service.commands = [Wipe()]
    assert desk.run("wipe --yes").status == 0
    assert list(desk.console.commands).count("wipe") == 1


def test_the_audit_hears_of_every_verb_but_repeats() -> None:
    desk = Desk()
    desk.run("status")
    desk.run("close 1", EVE)
    desk.run("nonsense pa55word")
    result_of(desk.console.run("status", OPS, MemoryOutput(), again=True))
    assert desk.finished == [("ops", "status", 0), ("eve", "close 1", 126), ("ops", "nonsense", 127)]


class Keep(Wipe):
    """Takes something that is nobody's business."""

    name = "status keep"
    parameters = (click.Argument(["place"]), click.Argument(["value"], nargs=-1, required=True))
    private = "value"


def test_the_audit_does_not_hear_what_is_private() -> None:
    desk = with_verbs(Keep())
    desk.run("status keep --yes cellar two words")
    desk.run("status keep --yess cellar two words")
    assert desk.finished == [("ops", "status keep --yes cellar … …", 0), ("ops", "status keep", 2)]


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("", sorted(BUILT_IN_NAMES)),
        ("st", ["stats", "status"]),
        ("log ", ["level", "tail"]),
        ("log l", ["level"]),
        ("log level d", ["debug"]),
        ("stats ", ["echo.plain", "echo.upper"]),
        ("stats echo.u", ["echo.upper"]),
        ("stats echo.upper ", []),
        ("connections --so", ["--sort"]),
        ("connections --sort ", ["id", "in", "out", "traffic"]),
        ("connections --json --", ["--help", "--host", "--limit", "--sort"]),
        ("close ", ["1", "2"]),
        ("close 2 ", ["1"]),
        ("help co", ["config", "connections"]),
        ("help w", ["watch", "whoami"]),
        ("nonsense ", []),
    ],
)
def test_tab_completes(text: str, candidates: list[str]) -> None:
    desk = Desk()
    desk.network.client(port=0)
    desk.network.client(port=1)
    assert desk.console.complete(text, OPS) == candidates


def test_tab_offers_no_verb_that_the_caller_may_not_run() -> None:
    assert Desk().console.complete("clo", EVE) == []


def with_host_commands() -> Desk:
    desk = Desk()
    df = HostCommand("df", "df -h", Role.VIEWER, {})
    ping = HostCommand("ping", "ping -c {n}", Role.OPERATOR, {"n": "[1-5]"})
    desk.console = Console(desk.runtime, host_commands={"df": df, "ping": ping})
    return desk


def test_help_tells_of_the_hosts_commands_that_the_caller_may_run() -> None:
    desk = with_host_commands()
    assert ["df", "-h", "viewer"] in desk.run("help").rows
    assert ["ping", "-c", "{n}", "operator"] in desk.run("help").rows
    assert "ping" not in desk.run("help", EVE).text
    assert "7 more need a higher role than viewer" in desk.run("help", EVE).text
    assert [each["name"] for each in desk.run("help --json").document["commands"]] == ["df", "ping"]


def test_help_explains_a_command_of_the_host() -> None:
    result = with_host_commands().run("help ping")
    assert "usage: ping -c {n}" in result.text
    assert ["{n}", "matches", "[1-5]"] in result.rows
    assert with_host_commands().run("help pnig").errors == "help: no verb pnig; did you mean ping?\n"


def test_commands_of_the_host_complete_and_are_meant() -> None:
    console = with_host_commands().console
    assert console.complete("d", OPS) == ["df", "drain"]
    assert console.complete("ping ", OPS) == ["-c"]
    assert console.complete("ping -c ", OPS) == []
    assert console.complete("pi", EVE) == []
    assert console.complete("help pi", OPS) == ["ping"]
    assert with_host_commands().run("pnig").errors == "pnig: unknown verb; did you mean ping?\n"


def test_an_error_is_broken_at_spaces_on_a_narrow_terminal() -> None:
    errors = Desk().run("stats echo.plan", width=40).errors
    assert errors.splitlines()[:2] == ["stats: no service echo.plan; did you", "mean echo.plain?"]


def test_the_start_is_told_in_the_time_of_day_and_not_in_the_reactors() -> None:
    desk = Desk()
    desk.network.advance(3600)
    document = desk.run("status --json").document
    started = datetime.fromisoformat(document["started"])
    assert document["uptime_seconds"] == 3600
    assert abs((datetime.now(UTC) - started).total_seconds() - 3600) < 5


@given(st.text(max_size=60))
def test_no_line_raises_or_reaches_the_terminal_raw(line: str) -> None:
    desk = Desk()
    for text in (line, f"status {line}", f"close {line}", f"stats {line}", f"connections --host {line}"):
        result = desk.run(text, width=40)
        assert all(c == "\n" or c.isprintable() for c in result.text + result.errors)
    desk.console.complete(line, OPS)


def test_output_for_a_pty_ends_its_lines_with_cr_lf() -> None:
    written: list[bytes] = []
    output = ByteOutput(written.append, written.append, pty=True)
    result_of(Desk().console.run("log level", Caller("é", Role.VIEWER, "", "ssh"), output))
    assert b"".join(written) == b"info\r\n"


def test_what_only_the_console_has_is_said_and_explained_elsewhere() -> None:
    desk = Desk()
    assert set(CONSOLE_WORDS) == INTERACTIVE
    result = desk.run("watch status")
    assert (result.status, result.errors) == (127, "watch: only in the console, at a terminal: ssh -t\n")
    assert "watch VERB [-n SECONDS]" in desk.run("help watch").text
    assert "Ctrl-D" in desk.run("help quit").text
    assert desk.run("wacth status").errors == "wacth: unknown verb; did you mean watch?\n"


def test_a_failure_says_why() -> None:
    class Refuses(Command):
        name = "refuses"
        summary = "Fail"

        async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
            raise Failed("the moon is full")

    assert with_verbs(Refuses()).run("refuses").errors == "refuses: the moon is full\n"
