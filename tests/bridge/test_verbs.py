"""The bridge's verbs, and netdctl's commands for it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from twisted.internet.defer import Deferred

from netd.console.console import Console
from netd.console.output import MemoryOutput
from netd.ctl import main
from tests.bridge.served import CONFIG, Served
from tests.console.desk import EVE, OPS
from tests.fakes import configure


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path, publish='framing = "key-tab"')
    yield made
    made.stop()


def run(served: Served, line: str, status: int = 0, caller: object = OPS) -> str:
    output = MemoryOutput()
    running = Deferred.fromCoroutine(Console(served.service.runtime).run(line, caller, output))  # type: ignore[arg-type]  # OPS or EVE
    ends: list[int] = []
    running.addCallback(ends.append)
    for _ in range(100):
        if ends:
            break
        served.settle(0.1)
    assert ends == [status], output.errors
    return output.text + output.errors


def send(served: Served, data: bytes) -> None:
    served.publisher().send(data)
    served.settle(1)
    served.settle(1)


def test_status_shows_where_messages_are(served: Served) -> None:
    send(served, b"hello\ta\nhello\tb\nnowhere\tc\n")
    text = run(served, "bridge status")
    assert "embedded up" in text
    assert "1 dead letter" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["hello", "3", "3", "3", "2", "1", "0", "0", "-", "up"] in rows
    assert ["hello", "hello", "2", "0", "0", "0", "0", "up"] in rows
    document = json.loads(run(served, "bridge status --json"))["bridges"][0]
    assert document["queues"] == {"hello": 2}
    assert document["publish"][0]["returned"] == 1


def test_status_of_a_bridge_that_has_stopped_names_no_broker_and_leaves_no_gap(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.stop()
    lines = [line.strip() for line in run(served, "bridge status").splitlines()]
    assert "broker  away: not started" in lines
    assert "problem away: not started" in lines


def test_dead_letters_are_listed_shown_tried_again_and_dropped(served: Served) -> None:
    assert run(served, "bridge dead list") == "no dead letters\n"
    send(served, b"nowhere\tone\nelsewhere\ttwo\n")
    assert [line.split()[-2:] for line in run(served, "bridge dead list").splitlines()[1:]] == [["312", "NO_ROUTE"]] * 2
    assert "one" in run(served, "bridge dead show 1")
    assert "needs the role operator" in run(served, "bridge dead show 1", 126, EVE)
    assert "1 dead letter on the way again" in run(served, "bridge dead retry 1")
    served.settle(1)
    served.settle(1)
    again = json.loads(run(served, "bridge dead list --json"))
    assert again["total"] == 2
    assert {letter["key"] for letter in again["letters"]} == {"nowhere", "elsewhere"}
    assert "--yes" in run(served, "bridge dead drop --all", 1)
    assert "no dead letter 99" in run(served, "bridge dead drop 99 --yes", 1)
    assert "2 dead letters deleted" in run(served, "bridge dead drop --all --yes")
    assert run(served, "bridge dead list") == "no dead letters\n"


def test_a_cut_line_is_not_published_unless_it_is_named(served: Served) -> None:
    send(served, b"nowhere\tone\n")
    served.service.lanes[0].bury_cut_line(b"hello\ttw", "cut off")
    served.settle(1)
    said = run(served, "bridge dead retry --all")
    assert "1 dead letter on the way again\n1 left: not whole messages." in said
    served.settle(1)
    letters = json.loads(run(served, "bridge dead list --json"))["letters"]
    assert sorted((letter["reason"], letter["attempts"]) for letter in letters) == [("312 NO_ROUTE", 1), ("cut off", 0)]
    (cut,) = [letter["id"] for letter in letters if letter["reason"] == "cut off"]
    assert "1 dead letter on the way again\n" in run(served, f"bridge dead retry {cut}")


def test_dead_letters_that_are_tried_again_during_a_reload_have_no_number_of_another_line(tmp_path: Path) -> None:
    before = Served(tmp_path, publish='framing = "key-tab"')
    send(before, b"nowhere\tone\n")
    before.stop()
    served = Served(tmp_path, publish='framing = "key-tab"\npriority = 1')
    (config,) = configure(CONFIG.format(settings="", publish='framing = "key-tab"', subscribe="")).services
    commits: list[Callable[[], None]] = []
    Deferred.fromCoroutine(served.service.adapt(config)).addCallback(commits.append)
    assert "1 dead letter on the way again" in run(served, "bridge dead retry --all")
    served.settle(1)
    (commit,) = commits
    commit()
    send(served, b"hello\ttwo\n")
    numbers = [lane.row.id for lane in served.service.lanes]
    assert len(numbers) == len(set(numbers)) == 2
    assert served.service.publish_ports["hello"].lane in served.service.lanes
    served.stop()


def test_a_paused_bridge_takes_lines_and_publishes_nothing(served: Served) -> None:
    run(served, "bridge pause")
    client = served.publisher()
    client.send(b"hello\ta\n")
    served.settle(1)
    assert client.value() == b"+OK 1\n"
    assert "paused" in run(served, "bridge status")
    document = json.loads(run(served, "bridge status --json"))["bridges"][0]
    assert document["publish"][0]["backlog"] == 1
    run(served, "bridge resume")
    served.settle(1)
    assert served.service.stats()["confirmed"] == 1


def test_a_paused_bridge_publishes_nothing_in_lanes_that_come_later(tmp_path: Path) -> None:
    before = Served(tmp_path, publish='framing = "key-tab"')
    send(before, b"nowhere\tone\n")
    before.stop()
    served = Served(tmp_path, publish="priority = 1")
    run(served, "bridge pause")
    assert "1 dead letter on the way again" in run(served, "bridge dead retry --all")
    (config,) = configure(CONFIG.format(settings="", publish="priority = 2", subscribe="")).services
    adapted = Deferred.fromCoroutine(served.service.adapt(config))
    served.wait_for(adapted.addCallback(lambda commit: commit()))
    send(served, b"two\n")
    assert len(served.service.lanes) == 3
    assert served.service.stats()["backlog"] == 2
    assert served.service.stats()["published"] == 0
    run(served, "bridge resume")
    served.settle(1)
    assert served.service.stats()["published"] == 2
    served.stop()


def test_a_drain_and_an_operator_hold_each_by_itself(served: Served) -> None:
    served.wait_for(Deferred.fromCoroutine(served.service.drain()))
    run(served, "bridge pause")
    served.wait_for(Deferred.fromCoroutine(served.service.resume()))
    assert {lane.paused for lane in served.service.lanes} == {True}
    served.service.draining = True
    served.wait_for(Deferred.fromCoroutine(served.service.drain()))
    assert run(served, "bridge resume") == "bridge.main publishes once its drain is over: resume bridge.main\n"
    assert {lane.paused for lane in served.service.lanes} == {True}
    served.wait_for(Deferred.fromCoroutine(served.service.resume()))
    assert {lane.paused for lane in served.service.lanes} == {False}


def test_tap_shows_what_passes(served: Served) -> None:
    output = MemoryOutput()
    running = Deferred.fromCoroutine(Console(served.service.runtime).run("bridge tap hello --lines 2", OPS, output))
    send(served, b"hello\tone\nhello\t\x1btwo\nhello\tthree\n")
    ends: list[int] = []
    running.addCallback(ends.append)
    assert ends == [0]
    assert output.text == "one\n\\x1btwo\n"
    assert "nothing passed" in run(served, "bridge tap hello --over 1s")
    assert "no port other" in run(served, "bridge tap other", 1)


def test_a_stopped_spool_can_be_looked_into(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.service.lanes[0].pause()
    send(served, b"a\n\xff\n")
    path = tmp_path / "bridge.main.spool"
    running = CliRunner().invoke(main, ["spool", "inspect", str(path)])
    assert running.exit_code == 69
    assert "in use" in running.output
    served.stop()
    document = json.loads(CliRunner().invoke(main, ["spool", "inspect", str(path)]).output)
    assert document["lanes"][0]["waiting"] == 2
    exported = CliRunner().invoke(main, ["spool", "export", str(path)]).output.splitlines()
    assert [json.loads(line) for line in exported] == [
        {"key": "hello", "body": "a"},
        {"key": "hello", "body_base64": "/w=="},
    ]
