"""The interactive console in memory: what an operator types, and what stands on the terminal then."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from netd.console.command import Answer, Caller, Command, Context, Failed, HostCommand, Role
from netd.console.console import Console
from netd.ssh.allowed import Refused
from netd.ssh.interactive import InteractiveSession, Pty
from netd.ssh.interactive_keyboard import TYPE_AHEAD
from netd.ssh.interactive_program import NO_PROGRAMS, Program, ProgramDialogue, Programs
from netd.ssh.terminal import LineEditor
from netd.ssh.terminal_history import History
from netd.ssh.terminal_keys import Key
from netd.turns import Turns
from tests.console.desk import Desk
from tests.ssh.terminals import Terminal

ENTER, CTRL_C, CTRL_D = "\r", "\x03", "\x04"


class Slow(Command):
    name = "slow"
    summary = "Take ten seconds"

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        await deferLater(context.runtime.reactor, 10)
        return Answer({}, ["slow is done"])


class Long(Command):
    name = "long"
    summary = "Answer a hundred lines"

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        return Answer({}, [f"line {n}" for n in range(1, 101)])


class Count(Command):
    name = "count"
    summary = "Count its runs"

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
        self.runs += 1
        return Answer({}, [f"run {self.runs}", *["more"] * (self.runs % 3)])


sessions: list[InteractiveSession] = []
"""Of the test that runs."""


@pytest.fixture(autouse=True)
def _stop_sessions() -> Iterator[None]:
    yield
    while sessions:
        sessions.pop().stop()


class Operator:
    """At a terminal, with a console on the other end."""

    def __init__(
        self,
        line: str | None = None,
        *,
        term: str = "xterm",
        width: int = 60,
        height: int = 20,
        environ: Mapping[str, str] | None = None,
        role: Role = Role.ADMIN,
        history: History | None = None,
        programs: Programs = NO_PROGRAMS,
    ) -> None:
        self.desk = Desk()
        self.clock = self.desk.network
        self.count = Count()
        named = {name: HostCommand(name, name, Role.VIEWER, {}) for name in programs.names()}
        console = Console(self.desk.runtime, [Slow(), Long(), self.count], host_commands=named)
        self.terminal = Terminal(width, height)
        self.left: list[int] = []
        self.session = InteractiveSession(
            console,
            Caller("ops", role, "192.0.2.1:4711", "ssh", 9),
            self,
            pty=Pty(term, width, height, environ or {}),
            host="web1",
            history=history or History(),
            clock=self.clock,
            turns=Turns(self.clock),
            programs=programs,
        )
        sessions.append(self.session)
        self.session.start(line)

    def write(self, data: bytes) -> None:
        self.terminal.write(data.decode())

    def leave(self, status: int) -> None:
        self.left.append(status)

    def type(self, keys: str) -> "Operator":
        self.session.receive(keys.encode())
        self.clock.advance(0)
        return self

    @property
    def rows(self) -> list[str]:
        return self.terminal.rows

    @property
    def last(self) -> str:
        """The row of the cursor."""
        return self.terminal.screen.display[self.terminal.cursor[0]].rstrip()


def test_the_operator_is_greeted_and_prompted_with_the_host() -> None:
    one = Operator()
    assert one.rows[0].startswith("netd ")
    assert "on web1, up 0 s; 2 services, all up." in one.rows[0]
    assert "You are ops (admin)." in " ".join(one.rows)
    assert one.last == "ops@web1#"
    assert Operator(role=Role.VIEWER).last == "ops@web1>"


def test_a_verb_runs_and_its_status_shows_in_the_next_prompt() -> None:
    one = Operator().type("log level\r")
    assert one.rows[-2:] == ["info", "ops@web1#"]
    one.type("close 99\r")
    assert one.rows[-2:] == ["close: no connection 99: nothing was closed", "ops@web1 1#"]
    assert one.type("whoami\r").last == "ops@web1#"


def test_ctrl_c_stops_a_running_verb() -> None:
    one = Operator().type("slow\r")
    one.type(CTRL_C)
    assert one.rows[-2:] == ["^C", "ops@web1 130#"]
    one.clock.advance(20)
    assert "slow is done" not in one.rows


def test_ctrl_c_forgets_what_was_typed_ahead() -> None:
    one = Operator().type("slow\r").type("whoami\r").type(CTRL_C)
    assert not any(row.startswith("ops (admin)") for row in one.rows)


def test_what_is_typed_while_a_verb_runs_is_kept() -> None:
    one = Operator().type("slow\r").type("log level\rwho")
    assert "log level" not in " ".join(one.rows)
    one.clock.advance(10)
    one.clock.advance(0)
    one.clock.advance(0)
    assert one.rows[-4:] == ["slow is done", "ops@web1# log level", "info", "ops@web1# who"]


def test_type_ahead_has_a_limit() -> None:
    one = Operator(height=100).type("slow\r").type("x" * (TYPE_AHEAD + 100))
    one.clock.advance(10)
    one.clock.advance(0)
    one.type(ENTER)
    assert "x" * 59 in " ".join(one.rows)
    assert sum(row.count("x") for row in one.rows) < TYPE_AHEAD + 100


def test_lines_of_a_paste_run_one_after_the_other() -> None:
    one = Operator().type("\x1b[200~log level\nlog level debug\n\x1b[201~")
    assert "info" not in one.rows
    one.type(ENTER).type("")
    assert one.rows[-3:] == ["info", "debug, was info", "ops@web1#"]


def test_ctrl_d_exit_quit_and_logout_leave_with_0() -> None:
    for way in (CTRL_D, "exit\r", "quit\r", "logout\r"):
        one = Operator().type("close 99\r").type(way)
        assert one.left == [0], way
        assert one.terminal.received.endswith("\x1b[?2004l"), way


def test_the_end_of_input_leaves_after_what_was_typed() -> None:
    one = Operator().type("log level\r")
    one.session.receive(b"log level\r")
    one.session.end_of_input()
    assert one.left == []
    one.clock.advance(0)
    assert one.left == [0]
    assert one.rows.count("info") == 2


def test_one_line_at_a_terminal_leaves_with_its_status() -> None:
    one = Operator("close 99")
    assert one.left == [1]
    assert one.rows == ["close: no connection 99: nothing was closed"]


def test_tab_completes_verbs_options_services_and_connections() -> None:
    one = Operator()
    one.desk.network.client()
    assert one.type("connec\te\tu\t--so\t").last == "ops@web1# connections echo.upper --sort"
    one.type("\x15")
    assert one.type("close \t").last == "ops@web1# close 1"
    one.type("\x15")
    assert one.type("wat\tserv\t").last == "ops@web1# watch services"


def test_help_tells_of_what_only_the_console_has() -> None:
    assert "watch VERB" in " ".join(Operator(height=40).type("help\r").rows)


# --- questions


def with_client() -> tuple[Operator, Any]:
    one = Operator()
    return one, one.desk.network.client("192.0.2.7")


def test_close_asks_and_yes_closes() -> None:
    one, client = with_client()
    one.type("close 1\r")
    assert "Close connection 1 of echo.plain from 192.0.2.7:40000" in " ".join(one.rows)
    assert one.last.endswith("[y/N]")
    one.type("y\r")
    assert client.disconnecting
    assert one.rows[-2:] == ["closed 1", "ops@web1#"]


def test_anything_but_yes_is_no() -> None:
    for answer in ("\r", "n\r", "yeah\r", CTRL_C, CTRL_D):
        one, client = with_client()
        one.type("close 1\r").type(answer)
        assert not client.disconnecting, answer
        assert one.rows[-2:] == ["close: nothing was done", "ops@web1 1#"], answer


def test_what_was_typed_ahead_answers_no_question() -> None:
    one = Operator()
    client = one.desk.network.client()
    one.type("slow\r").type("close 1\ry\r")
    one.clock.advance(10)
    one.clock.advance(0)
    assert one.last.endswith("[y/N]")
    assert not client.disconnecting
    one.type("n\r").type("")
    assert "y: unknown verb; help lists them" in one.rows


def test_a_question_nobody_answers_is_given_up() -> None:
    one, client = with_client()
    one.type("close 1\r").clock.advance(30)
    one.clock.advance(0)
    assert one.rows[-2:] == ["close: gave up after 30 s", "ops@web1 124#"]
    one.type("y\r")
    assert not client.disconnecting


# --- the pager


def test_long_output_stops_at_a_screenful() -> None:
    one = Operator().type("long\r")
    assert one.rows[-2] == "line 19"
    assert one.last.startswith(" 19 %   Space: page   Enter: line")
    one.type(ENTER)
    assert one.rows[-2] == "line 20"
    one.type(" ")
    assert one.rows[-2] == "line 39"
    one.type("q")
    assert one.rows[-2:] == ["line 39", "ops@web1#"]


def test_the_pager_ends_by_itself_or_shows_the_rest() -> None:
    one = Operator().type("long\r")
    for _ in range(5):
        one.type(" ")
    assert one.rows[-2:] == ["line 100", "ops@web1#"]
    assert Operator().type("long\r").type("G").rows[-2:] == ["line 100", "ops@web1#"]


def test_ctrl_c_ends_the_pager() -> None:
    assert Operator().type("long\r").type(CTRL_C).last == "ops@web1#"


def test_the_pager_follows_the_window() -> None:
    one = Operator().type("long\r")
    one.terminal.screen.resize(10, 60)
    one.session.resize(60, 10)
    one.type(" ")
    assert one.rows[-2] == "line 28"


def test_no_pager_without_cursor_motion_or_once_input_has_ended() -> None:
    one = Operator(term="dumb").type("long\r")
    assert one.last == "ops@web1#"
    assert "\x1b" not in one.terminal.received
    two = Operator("long")
    two.session.end_of_input()
    assert two.left == [0]


# --- watch


def test_watch_redraws_in_place() -> None:
    one = Operator().type("watch count\r")
    begin = len(one.rows)
    assert one.rows[-2:] == ["run 1", "more"]
    one.clock.advance(2)
    assert one.rows[-3:] == ["run 2", "more", "more"]
    one.clock.advance(2)
    assert (one.rows[-1], len(one.rows)) == ("run 3", begin - 1)
    assert "count, every 2 s" in one.rows[-2]
    one.type("q")
    assert one.rows[-2:] == ["run 3", "ops@web1#"]
    one.clock.advance(10)
    assert one.count.runs == 3


def test_watch_hides_the_cursor_only_while_it_runs() -> None:
    one = Operator().type("watch count\r")
    assert one.terminal.screen.cursor.hidden
    one.type(CTRL_C)
    assert not one.terminal.screen.cursor.hidden


def test_watch_has_its_interval_before_or_after_the_verb() -> None:
    for line in ("watch count -n 5", "watch -n 5s count"):
        one = Operator().type(line + ENTER)
        one.clock.advance(4.9)
        assert one.count.runs == 1, line
        one.clock.advance(0.2)
        assert one.count.runs == 2, line
    one = Operator().type("watch count\r").type(" ")
    assert one.count.runs == 2


def test_an_n_that_the_verb_knows_is_the_verb_s() -> None:
    one = Operator()
    one.desk.runtime.log.recent.extend(["first", "second"])
    assert "log tail -n 1, every 2 s" in " ".join(one.type("watch log tail -n 1\r").rows)
    assert "first" not in one.rows


def test_watch_says_what_it_cannot_do() -> None:
    for line, error in [
        ("watch", "watch: which verb?"),
        ("watch frob", "watch: frob: unknown verb"),
        ("watch close 1", "watch: close is not for repeating"),
        ("watch count -n", "watch: -n takes seconds"),
        ("watch -n 0.1 count", "watch: not more often than every 0.5 s"),
    ]:
        one = Operator().type(line + ENTER)
        assert error in one.rows, line
        assert one.last == "ops@web1 2#", line
    assert "stats: no service nope" in Operator().type("watch stats nope\r").rows


def test_a_watch_longer_than_the_window_says_so() -> None:
    one = Operator().type("watch long\r")
    assert len([row for row in one.rows if row.startswith("line")]) == 17
    assert one.rows[-1] == "… 83 more rows"


def test_watch_draws_nothing_while_the_client_does_not_read() -> None:
    one = Operator().type("watch count\r")
    one.session.pause()
    one.terminal.received = ""
    one.clock.advance(2)
    one.clock.advance(2)
    assert (one.terminal.received, one.count.runs) == ("", 1)
    one.session.resume()
    one.clock.advance(2)
    assert one.count.runs == 2


# --- the terminal and the channel


def test_colour_only_where_it_is_welcome() -> None:
    assert "\x1b[0;1;32m" in Operator().terminal.received
    for one in (Operator(environ={"NO_COLOR": "1"}), Operator(term="dumb")):
        assert "32m" not in one.type("status\r").terminal.received


def test_a_client_that_does_not_read_is_not_written_to_without_end() -> None:
    one = Operator()
    one.session.pause()
    one.terminal.received = ""
    one.type("status\r" * 1000)
    one.clock.advance(60)
    assert one.terminal.received == ""
    one.session.resume()
    one.clock.advance(0)
    assert "all up" in one.terminal.received


def test_a_resize_redraws_the_line() -> None:
    one = Operator().type("x" * 20)
    one.terminal.screen.resize(20, 80)
    one.session.resize(80, 20)
    assert one.last == "ops@web1# " + "x" * 20


def test_an_operator_at_a_prompt_is_told_why_and_leaves() -> None:
    one = Operator().type("stat")
    one.session.dismiss("netd stops\x1b[2J")
    one.clock.advance(0)
    assert one.rows[-2:] == ["netd stops\\x1b[2J", "ops@web1# stat"]
    assert one.left == [0]
    assert one.terminal.received.endswith("\x1b[?2004l")


def test_who_is_to_leave_sees_the_end_of_what_runs_first() -> None:
    for line, shown in (("slow\r", "slow is done"), ("watch count\r", "run 1"), ("long\r", "line 9")):
        one = Operator().type(line)
        one.session.dismiss("netd stops")
        one.clock.advance(10)
        one.clock.advance(0)
        assert one.left == [0], line
        assert shown in one.rows, line
        assert "netd stops" in one.rows, line


@pytest.mark.parametrize("typed", ["slow\rcount\r", "\x1b[200~slow\ncount\n\x1b[201~\r"])
def test_who_is_to_leave_runs_nothing_more_of_what_was_typed(typed: str) -> None:
    one = Operator().type(typed)
    one.session.dismiss("the configuration no longer has you like this")
    one.clock.advance(10)
    one.clock.advance(0)
    assert one.left == [0]
    assert one.count.runs == 0


def test_a_channel_that_is_gone_stops_everything() -> None:
    for line in ("", "slow\r", "watch count\r", "long\r", "close 1\r"):
        one = Operator()
        one.desk.network.client()
        if line:
            one.type(line)
        one.session.stop()
        one.terminal.received = ""
        one.clock.advance(60)
        one.session.receive(b"whoami\r")
        assert (one.left, one.terminal.received) == ([], ""), line
        assert not [call for call in one.clock.getDelayedCalls() if call.active() and "Watch" in repr(call)], line


@pytest.mark.parametrize("line", ["", "close 1\r"])
def test_a_flood_of_keys_lets_others_have_their_turn(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Operator()
    one.desk.network.client()
    one.type(line)
    pressed = 0

    def dawdle(editor: LineEditor, key: Key) -> None:
        nonlocal pressed
        pressed += 1
        one.clock.rightNow += 0.001

    monkeypatch.setattr(LineEditor, "press", dawdle)
    for _ in range(50):
        one.session.receive(b"xx")
    assert pressed <= 5
    one.clock.advance(0)
    assert pressed == 100


def test_a_flood_of_lines_lets_others_have_their_turn() -> None:
    one = Operator()
    one.session.receive(b"count\r" * 50)
    assert one.count.runs == 1
    one.clock.advance(0)
    assert one.count.runs == 50


def test_history_outlives_the_session() -> None:
    history = History()
    Operator(history=history).type("whoami\r")
    assert Operator(history=history).type("\x1b[A").last == "ops@web1# whoami"


def test_a_verb_that_fails_in_a_watch_is_shown_and_tried_again() -> None:
    class Flaky(Command):
        name = "flaky"
        summary = "Fail"

        async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
            raise Failed("not now")

    one = Operator()
    one.session.console = Console(one.desk.runtime, [Flaky()])
    one.type("watch flaky\r")
    assert one.rows[-1] == "flaky: not now"
    one.clock.advance(2)
    assert one.rows[-1] == "flaky: not now"
    assert one.type("q").last == "ops@web1#"


def test_ctrl_c_stops_a_watch_whose_verb_hangs() -> None:
    class Hangs(Command):
        name = "hangs"
        summary = "Hang"
        timeout = 0

        async def run(self, arguments: Mapping[str, Any], context: Context) -> Answer:
            await Deferred()
            raise AssertionError

    one = Operator()
    one.session.console = Console(one.desk.runtime, [Hangs()])
    one.type("watch hangs\r").type(CTRL_C)
    assert one.last == "ops@web1#"


# --- allowed commands at the prompt


class Ping:
    """A program that runs until it is told to end, and its only name."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def names(self) -> Sequence[str]:
        return ["ping"]

    def make(self, words: list[str], channel: ProgramDialogue) -> Program | Refused:
        self.channel = channel
        return self if words == ["ping"] else Refused("only this is allowed: ping", 127)

    def begin(self) -> None:
        self.channel.write(b"pong\r\npo")

    def end_of_input(self) -> None:
        self.told.append("end of input")

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def signal(self, name: str) -> bool:
        self.told.append(name)
        return True

    def hang_up(self) -> None:
        self.told.append("hang up")


def test_an_allowed_command_runs_at_the_prompt() -> None:
    ping = Ping()
    one = Operator(programs=ping).type("pi\t\r")
    assert one.rows[-2:] == ["pong", "po"]
    one.type("who")
    ping.channel.end(3)
    one.clock.advance(0)
    assert one.rows[-2:] == ["po", "ops@web1 3# who"]
    assert ping.told == ["end of input"]


def test_an_allowed_command_with_other_words_does_not_run() -> None:
    one = Operator(programs=Ping()).type("ping -f\r")
    assert one.rows[-2:] == ["ping: only this is allowed: ping", "ops@web1 127#"]


def test_ctrl_c_interrupts_an_allowed_command_and_a_second_ends_it() -> None:
    ping = Ping()
    one = Operator(programs=ping).type("ping\r").type(CTRL_C)
    assert ping.told[-1] == "INT"
    one.type(CTRL_C)
    assert ping.told[-1] == "hang up"
    ping.channel.end_by_signal("TERM", core=False)
    one.clock.advance(0)
    assert one.last == "ops@web1 143#"


def test_an_allowed_command_is_paused_while_the_client_does_not_read_and_ends_with_the_channel() -> None:
    ping = Ping()
    one = Operator(programs=ping).type("ping\r")
    one.session.pause()
    one.session.resume()
    one.session.stop()
    assert ping.told == ["end of input", "pause", "resume", "hang up"]


def test_help_names_the_allowed_commands() -> None:
    assert "ping                  viewer" in Operator(programs=Ping(), height=40).type("help\r").rows


def test_a_command_of_the_host_is_not_watched() -> None:
    one = Operator(programs=Ping()).type("watch ping\r")
    assert "only verbs are watched" in " ".join(one.rows)


def test_the_prompt_takes_keys_again_after_a_dialogue() -> None:
    for begin, end in [("close 1\r", "n\r"), ("long\r", "q"), ("watch count\r", "q"), ("watch count\r", CTRL_C)]:
        one = Operator()
        one.desk.network.client()
        one.type(begin).type(end).type("log lev\t\r")
        assert one.rows[-2:] == ["info", "ops@web1#"], begin


def test_ctrl_c_at_the_prompt_gives_up_the_line_after_a_verb_too() -> None:
    one = Operator().type("whoami\r").type("clos" + CTRL_C)
    assert one.rows[-2:] == ["ops@web1# clos^C", "ops@web1 130#"]
