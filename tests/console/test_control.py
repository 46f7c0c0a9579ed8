"""The verbs that change what the daemon serves."""

from netd.console.command import Caller, Role
from tests.console.desk import EVE, Desk

OPERATOR = Caller("anna", Role.OPERATOR, "192.0.2.3:4711", "ssh")


def test_reload_says_what_became_of_each_service() -> None:
    desk = Desk()
    result = desk.run("reload")
    assert result.status == 0
    assert result.text == "changed: log.level\nuntouched: echo.plain\n"
    assert desk.run("reload --json").document["untouched"] == ["echo.plain"]


def test_a_reload_that_is_refused_fails_with_every_reason() -> None:
    desk = Desk()
    desk.asked.refusal = ["netd.toml: echo.plain.listen: in use", "netd.toml: log.format: needs a restart"]
    result = desk.run("reload")
    assert result.status == 1
    assert result.errors == (
        "reload: nothing was changed\n"
        "  netd.toml: echo.plain.listen: in use\n"
        "  netd.toml: log.format: needs a restart\n"
    )


def test_reload_takes_an_admin_and_drain_an_operator() -> None:
    desk = Desk()
    assert desk.run("reload", OPERATOR).status == 126
    assert desk.run("drain", OPERATOR).status == 0
    desk.asked.heard.clear()
    assert desk.run("drain", EVE).status == 126
    assert desk.run("resume", EVE).status == 126
    assert desk.asked.heard == []


def test_drain_and_resume_take_one_service_or_all_but_the_console() -> None:
    desk = Desk()
    assert desk.run("drain echo.plain").status == 0
    assert desk.run("resume").status == 0
    assert desk.asked.heard == [("drain", "echo.plain"), ("resume", "echo.plain", "echo.upper")]


def test_the_way_in_by_which_one_came_is_not_drained_from_there() -> None:
    desk = Desk()
    desk.network.client()
    (connection,) = desk.runtime.services[0].listeners[0].connections
    caller = Caller("anna", Role.OPERATOR, "192.0.2.3:4711", "ssh", connection)
    result = desk.run("drain echo.plain", caller)
    assert (result.status, result.errors) == (
        1,
        "drain: echo.plain is how you came in, and would wait for you: netdctl drain echo.plain\n",
    )
    assert desk.asked.heard == []


def test_drain_says_why_it_cannot_be() -> None:
    desk = Desk()
    desk.asked.refusal = ["a reload is under way: try again when it is done"]
    result = desk.run("drain")
    assert (result.status, result.errors) == (1, "drain: a reload is under way: try again when it is done\n")
