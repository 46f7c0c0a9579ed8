"""What each verb shows and does."""

from collections.abc import Sequence

from netd.console.command import Caller, Role
from netd.console.sessions import Penalty, Session
from netd.echo.service import EchoService
from tests.console.desk import EVE, OPS, Desk
from tests.fakes import configure, result_of


class Door(EchoService):
    """A service that people log in to, and that is not well."""

    def health(self) -> str:
        return "its backend is away"

    def stats(self) -> dict[str, int | float]:
        return {"lines": 12345, "spool_bytes": 2048, "oldest_seconds": 90.0}

    def sessions(self) -> Sequence[Session]:
        return [Session(7, "ops", "admin", "192.0.2.1:4711", 0.0, "console\x1b[2J")]

    def penalties(self) -> Sequence[Penalty]:
        return [Penalty("198.51.100.9", 12, 100.0)]


def with_door() -> Desk:
    desk = Desk()
    (config,) = configure('[echo.door]\nlisten = "127.0.0.1:1"').services
    door = Door(config, desk.runtime)
    desk.runtime.services = (*desk.runtime.services, door)
    result_of(door.startService())
    return desk


def test_status_shows_the_daemon_at_a_glance() -> None:
    desk = Desk()
    desk.network.client().send(b"x" * 2048)
    desk.network.advance(3700)
    text = desk.run("status").text
    assert "up           1 h 1 m" in text
    assert "services     2, all up" in text
    assert "connections  1 now, 1 accepted, 0 refused" in text
    assert "traffic      2.0 KiB in, 2.0 KiB out" in text
    assert "log          level info, no warnings" in text


def test_status_names_who_is_not_well() -> None:
    desk = with_door()
    assert "3, echo.door not up" in desk.run("status").text
    assert "unwell: its backend is away" in desk.run("services").text
    facts = desk.run("status --json").document["services"][2]
    assert (facts["state"], facts["reason"]) == ("unwell", "its backend is away")


def test_a_service_that_has_stopped_is_down() -> None:
    desk = Desk()
    result_of(desk.runtime.services[1].stopService())
    assert desk.run("services").rows[2][:2] == ["echo.upper", "down"]


def test_services_shows_ports_and_what_passed() -> None:
    desk = Desk()
    desk.network.client().send(b"hello")
    rows = desk.run("services").rows
    assert rows[0] == ["SERVICE", "STATE", "LISTENING", "CONNECTIONS", "ACCEPTED", "REFUSED", "IN", "OUT"]
    assert rows[1] == ["echo.plain", "up", "0.0.0.0:8001", "1", "1", "0", "5", "B", "5", "B"]


def test_refused_connections_are_counted() -> None:
    desk = Desk(config='[echo.plain]\nlisten = "127.0.0.1:1"\nmax_connections = 1')
    desk.network.client()
    assert desk.network.connect() is None
    assert desk.run("services --json").document["services"][0]["refused"] == {"max_connections": 1}
    assert desk.run("stats").rows[3] == ["connections", "refused", "max", "connections", "1"]


def test_connections_lists_who_is_connected() -> None:
    desk = Desk()
    desk.network.client("192.0.2.7").send(b"hello")
    desk.network.client("192.0.2.8", port=1)
    desk.network.advance(60)
    rows = desk.run("connections").rows
    assert rows[1] == ["1", "echo.plain", "192.0.2.7:40000", "1", "m", "0", "s", "5", "B", "5", "B"]
    assert rows[2][:3] == ["2", "echo.upper", "192.0.2.8:40000"]
    assert [row[0] for row in desk.run("connections echo.upper").rows[1:]] == ["2"]
    assert [row[0] for row in desk.run("connections upper").rows[1:]] == ["2"]
    assert [row[0] for row in desk.run("connections --host 192.0.2.7").rows[1:]] == ["1"]


def test_connections_puts_the_busiest_first_and_says_what_it_left_out() -> None:
    desk = Desk()
    for size in (1, 3, 2):
        desk.network.client().send(b"x" * size)
    result = desk.run("connections --sort traffic --limit 2")
    assert [row[0] for row in result.rows[1:3]] == ["2", "3"]
    assert result.text.endswith("2 of 3 connections: --limit, --host\n")
    assert desk.run("connections --limit 2 --json").document["total"] == 3


def test_connections_marks_your_own() -> None:
    desk = Desk()
    desk.network.client()
    me = Caller("ops", Role.ADMIN, "", "ssh", connection=1)
    assert desk.run("connections", me).rows[1][-1] == "you"
    assert desk.run("connections", OPS).rows[1][-1] == "B"


def test_nobody_connected_is_said() -> None:
    assert Desk().run("connections").text == "nobody is connected\n"


def test_close_ends_a_connection() -> None:
    desk = Desk()
    client = desk.network.client()
    result = desk.run("close 1 --yes")
    assert (result.status, result.text) == (0, "closed 1\n")
    assert client.disconnecting
    assert desk.run("connections").text == "nobody is connected\n"


def test_close_now_cuts_a_client_that_does_not_read() -> None:
    desk = Desk()
    client = desk.network.client()
    client.reads = False
    desk.run("close 1 --yes")
    assert desk.run("connections").rows[1][-1] == "closing"
    desk.run("close 1 --now --yes")
    assert desk.run("connections").text == "nobody is connected\n"


def test_close_with_one_id_wrong_closes_nothing() -> None:
    desk = Desk()
    client = desk.network.client()
    result = desk.run("close 1 9 8 --yes")
    assert (result.status, result.errors) == (1, "close: no connection 8, 9: nothing was closed\n")
    assert not client.disconnecting


def test_stats_shows_a_service_with_its_own_figures() -> None:
    rows = with_door().run("stats echo.door").rows
    assert ["lines", "12,345"] in rows
    assert ["spool", "bytes", "2.0", "KiB"] in rows
    assert ["oldest", "seconds", "1", "m", "30", "s"] in rows


def test_stats_over_a_time_shows_how_fast_counters_grow() -> None:
    desk = Desk()
    client = desk.network.client()
    running, output = desk.begin("stats plain --over 2s --json")
    client.send(b"x" * 100)
    desk.network.advance(2)
    assert result_of(running) == 0
    assert '"bytes_in": 50.0' in output.text


def test_log_level_is_shown_and_set() -> None:
    desk = Desk()
    assert desk.run("log level", EVE).text == "info\n"
    assert desk.run("log level debug").text == "debug, was info\n"
    assert desk.runtime.log.level == "debug"
    assert desk.run("log level info", EVE).status == 126
    assert desk.runtime.log.level == "debug"


def test_log_tail_shows_the_last_warnings_whole() -> None:
    desk = Desk()
    desk.runtime.log.recent.extend(["one", "two\n    | a traceback", "x" * 100])
    assert desk.run("log tail --lines 2", width=20).text == f"two\n    | a traceback\n{'x' * 100}\n"
    assert Desk().run("log tail").text == "no warnings since the start\n"


def test_sessions_shows_who_is_logged_in_and_who_has_to_wait() -> None:
    desk = with_door()
    desk.network.advance(40)
    rows = desk.run("sessions", Caller("ops", Role.ADMIN, "", "ssh", connection=7)).rows
    assert rows[1] == ["7", "ops", "admin", "192.0.2.1:4711", "40", "s", "console\\x1b[2J", "echo.door", "you"]
    assert rows[-1] == ["198.51.100.9", "12", "1", "m", "0", "s"]
    assert desk.run("sessions --json").document["penalties"][0]["seconds"] == 60.0
    assert Desk().run("sessions").text == "nobody is logged in\n"


def test_whoami_and_version() -> None:
    assert Desk().run("whoami").text == "ops (admin) from 192.0.2.1:4711 by ssh\n"
    assert Desk().run("version").text.startswith("netd ")
