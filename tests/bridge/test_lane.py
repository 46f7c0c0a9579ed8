"""A lane and its spool, step by step: what is said when, and what is left on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netd.bridge import lane as lane_module
from netd.bridge.broker import Outcome
from netd.bridge.lines import Incoming, Rules
from netd.bridge.spoolfile import SpoolFailed
from tests.bridge.workbench import Teller, Workbench, warnings

Bench = Callable[..., Workbench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made: list[Workbench] = []

    def make(**options: bool | int) -> Workbench:
        made.append(Workbench(tmp_path / f"{len(made)}.spool", **options))  # type: ignore[arg-type]  # each its own
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_nothing_is_said_before_the_commit_has_returned(bench: Bench) -> None:
    one = bench()
    one.send(b"a", b"b")
    one.turn()
    assert one.client.done == []
    one.thread.run()
    assert one.client.done == [2]
    assert one.on_disk(b"b")


def test_lines_that_arrive_during_a_commit_share_the_next_one(bench: Bench) -> None:
    one = bench()
    one.send(b"a")
    one.turn()
    for body in (b"b", b"c", b"d"):
        one.send(body)
        one.turn()
    one.thread.run()
    assert one.client.done == [1]
    one.turn()
    one.thread.run()
    assert one.client.done == [1, 2, 3, 4]
    assert one.spool.commits == 2
    assert one.rows() == 2


def test_who_asks_whether_all_is_committed_during_a_commit_stops_no_later_one(bench: Bench) -> None:
    """As `bridge dead list` does: from then on nothing was committed, and nothing answered."""
    one = bench()
    one.send(b"a")
    one.turn()
    asked: list[object] = []
    one.spool.flushed().addCallback(asked.append)
    assert asked == []
    one.thread.run()
    assert asked == [None]
    one.send(b"b")
    one.turn()
    one.thread.run()
    assert one.client.done == [1, 2]


def test_who_asks_whether_all_is_committed_does_not_wait_for_what_comes_later(bench: Bench) -> None:
    one = bench()
    one.send(b"a")
    one.turn()
    one.send(b"b")
    asked: list[object] = []
    one.spool.flushed().addCallback(asked.append)
    one.thread.run()
    assert asked == []
    one.turn()
    one.send(b"c")
    one.thread.run()
    assert asked == [None]


def test_messages_go_out_in_order_and_are_released_once_confirmed(bench: Bench) -> None:
    one = bench()
    one.send(b"a", b"b", b"c")
    one.finish()
    assert [body for _, body in one.wire.published] == [b"a", b"b", b"c"]
    one.wire.settle(1, 2, Outcome.CONFIRMED)
    one.finish(1)
    assert one.rows() == 1
    one.wire.settle(3, 3, Outcome.CONFIRMED)
    one.finish(1)
    assert one.rows() == 0
    assert (one.lane.backlog, one.lane.confirmed) == (0, 3)


def test_a_returned_message_becomes_a_dead_letter_in_the_same_commit_that_releases_it(bench: Bench) -> None:
    one = bench()
    one.send(b"a", b"b")
    one.finish()
    one.wire.settle(1, 1, Outcome.RETURNED, "312 NO_ROUTE")
    one.wire.settle(2, 2, Outcome.CONFIRMED)
    assert one.dead() == []
    assert one.rows() == 1
    one.finish(1)
    (letter,) = one.dead()
    assert (letter.body, letter.reason, letter.attempts, letter.key) == (b"a", "312 NO_ROUTE", 1, b"work")
    assert one.rows() == 0


def test_the_log_tells_of_dead_letters_once_a_second_how_many_and_why(bench: Bench) -> None:
    one = bench()
    one.send(*[b"body%d" % number for number in range(10)])
    one.finish()
    with warnings() as told:
        one.wire.settle(1, 2, Outcome.RETURNED, "312 NO_ROUTE")
        one.wire.settle(3, 9, Outcome.RETURNED, "404 NOT_FOUND")
        one.lane.bury_cut_line(b"body10", "cut off")
        assert len(told) == 1
        one.finish(1)
        one.wire.settle(10, 10, Outcome.RETURNED, "312 NO_ROUTE")
        one.lane.close()
    assert told == [
        f"{count} message(s) of port lines became dead letters, see `bridge dead list`; the first: {reason}"
        for count, reason in ((2, "312 NO_ROUTE"), (8, "404 NOT_FOUND"), (1, "312 NO_ROUTE"))
    ]


def test_a_lost_range_goes_out_again_in_order_with_the_same_ids_and_before_anything_new(bench: Bench) -> None:
    one = bench()
    one.send(b"a", b"b", b"c")
    one.finish()
    one.wire.settle(2, 2, Outcome.CONFIRMED)
    first = list(one.wire.published)
    one.wire.lose()
    one.send(b"d")
    one.finish()
    one.wire.open()
    one.finish()
    assert one.wire.published[3:5] == [first[0], first[2]]
    assert one.wire.published[5][1] == b"d"


def test_refused_messages_are_tried_again_later_and_later(bench: Bench) -> None:
    one = bench()
    one.send(b"a")
    one.finish()
    waited = []
    for _ in range(9):
        one.wire.settle(1, 1, Outcome.REFUSED, "queue is full")
        assert one.lane.problem == "queue is full"
        before = one.clock.seconds()
        while not one.wire.unsettled:
            one.turn(0.25)
        waited.append(one.clock.seconds() - before)
    assert waited == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    one.wire.settle(1, 1, Outcome.CONFIRMED)
    assert one.lane.problem == ""


def test_while_the_broker_is_away_the_backlog_is_on_disk_and_not_in_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "RECENT_SIZE", 1000)
    monkeypatch.setattr(lane_module, "READ_SIZE", 1000)
    one = bench()
    one.wire.ready = False
    for number in range(200):
        one.send(b"%040d" % number)
        one.finish()
    assert one.lane.backlog == 200
    assert len(one.lane._recent) < 20
    one.wire.open()
    for _ in range(200):
        one.finish()
    assert [int(body) for _, body in one.wire.published] == list(range(200))


def test_what_is_in_flight_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "WINDOW", 10)
    one = bench()
    for number in range(100):
        one.send(b"%d" % number)
        one.finish()
    assert len(one.wire.unsettled) == 10
    one.wire.settle(1, 3, Outcome.CONFIRMED)
    one.finish()
    assert len(one.wire.unsettled) == 10


def test_one_client_that_breaks_does_not_keep_the_others_from_their_reply(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "BLOCK_MESSAGES", 1)
    one = bench()
    one.send(b"a")
    monkeypatch.setattr(one.client, "share_done", lambda _: 1 / 0)
    broken, one.client = one.client, Teller()
    one.send(b"b")
    one.finish()
    assert one.client.done == [2]
    assert broken.done == []
    assert [body for _, body in one.wire.published] == [b"a", b"b"]
    assert one.spool.problem == ""


@pytest.mark.parametrize("failing", ["before", "after"])
def test_a_commit_that_fails_is_no_ok_and_is_done_again_after_a_look_at_the_disk(bench: Bench, failing: str) -> None:
    one = bench()
    one.send(b"a")
    one.turn()
    one.thread.run(failing)
    assert one.client.done == []
    assert "SQLITE_IOERR" in one.spool.problem
    one.turn()
    assert not one.thread.jobs, "not again at once"
    one.turn(1)
    one.thread.run(failing)
    assert one.client.done == []
    one.turn(1)
    one.thread.run()
    assert one.client.done == [1]
    assert one.spool.problem == ""
    one.finish()
    assert [body for _, body in one.wire.published] == [b"a"]
    assert one.rows() == 1


def test_confirms_are_waited_for_where_that_is_asked_for(bench: Bench) -> None:
    one = bench(confirmed=True)
    one.send(b"a", b"b")
    one.send(b"c")
    one.finish()
    assert one.client.done == []
    one.wire.settle(3, 3, Outcome.CONFIRMED)
    one.wire.settle(1, 1, Outcome.CONFIRMED)
    assert one.client.done == [3]
    one.wire.settle(2, 2, Outcome.RETURNED, "312 NO_ROUTE")
    assert one.client.dead == [(2, "312 NO_ROUTE")]
    assert one.client.done == [3, 2]


def test_a_damaged_block_goes_to_the_dead_letters_with_its_bytes_and_the_rest_goes_on(
    bench: Bench, tmp_path: Path
) -> None:
    one = bench()
    one.wire.ready = False
    one.send(b"first")
    one.finish()
    one.send(b"second", b"third")
    one.finish()
    one.send(b"fourth")
    one.finish()
    (data,) = one.spool.file.db.execute("SELECT data FROM block WHERE count = 2").fetchone()
    one.spool.file.db.execute("UPDATE block SET data = ? WHERE count = 2", (data.replace(b"second", b"sEcond"),))
    two = one.crash(tmp_path / "after.spool")
    two.finish()
    assert [body for _, body in two.wire.published] == [b"first", b"fourth"]
    two.wire.settle(1, 1, Outcome.CONFIRMED)
    two.wire.settle(4, 4, Outcome.CONFIRMED)
    two.finish(1)
    (letter,) = two.dead()
    assert b"sEcond" in letter.body
    assert b"third" in letter.body
    assert "checksum" in letter.reason
    assert two.rows() == 0
    two.close()


def test_numbers_are_never_used_twice_even_when_nothing_was_left(bench: Bench, tmp_path: Path) -> None:
    one = bench()
    one.send(b"a", b"b")
    one.finish()
    one.wire.settle(1, 2, Outcome.CONFIRMED)
    one.finish(1)
    two = one.crash(tmp_path / "after.spool")
    two.send(b"c")
    two.finish()
    assert two.wire.published[0][0].endswith("-0000000000000003")
    two.close()


def test_a_dead_letter_tried_again_has_the_id_it_had(bench: Bench) -> None:
    one = bench()
    one.send(b"a")
    one.finish()
    one.wire.settle(1, 1, Outcome.RETURNED, "312 NO_ROUTE")
    one.finish(1)
    one.lane.retry(one.dead())
    one.finish()
    assert one.dead() == []
    assert one.wire.published[1] == one.wire.published[0]
    one.wire.settle(2, 2, Outcome.RETURNED, "312 NO_ROUTE")
    one.finish(1)
    assert [letter.body for letter in one.dead()] == [b"a"]


def test_large_dead_letters_tried_again_are_more_than_one_block(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "BLOCK_SIZE", 1000)
    one = bench()
    bodies = [bytes([number]) * 400 for number in range(ord("a"), ord("k"))]
    one.send(*bodies)
    one.finish()
    one.wire.settle(1, 10, Outcome.RETURNED, "312 NO_ROUTE")
    one.finish(1)
    one.lane.retry(one.dead())
    one.finish()
    assert one.dead() == []
    assert one.rows() == 4
    assert one.wire.published[10:] == one.wire.published[:10]


def test_clients_of_a_port_whose_framing_has_changed_share_no_block(bench: Bench) -> None:
    one = bench()
    raw = one.incoming
    keyed = Incoming(Rules("key-tab", 1 << 20, lambda key: True))
    for incoming, data in ((raw, b"a\n"), (keyed, b"other\tb\n"), (keyed, b"other\tc\n"), (raw, b"d\n")):
        one.lane.accept(incoming.receive(data), len(data), one.client)
    one.finish()
    assert [body for _, body in one.wire.published] == [b"a", b"b", b"c", b"d"]
    assert one.wire.keys == [b"work", b"other", b"other", b"work"]
    assert one.rows() == 3


def test_what_is_on_disk_and_not_known_to_be_is_not_published(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "RECENT_SIZE", 1)
    one = bench(confirmed=True)
    one.wire.ready = False
    for body in (b"a", b"b"):
        one.send(body)
        one.finish()
    one.send(b"c")
    one.turn()
    one.thread.run("after")
    one.wire.open()
    one.thread.run()
    assert [body for _, body in one.wire.published] == [b"a", b"b"]
    one.finish(1)
    assert [body for _, body in one.wire.published] == [b"a", b"b", b"c"]
    one.wire.settle(1, 3, Outcome.CONFIRMED)
    assert one.client.done == [1, 2, 3]


@pytest.mark.parametrize("count", [0, 1, 200], ids="count of {}".format)
def test_a_block_with_a_damaged_count_takes_no_other_with_it(bench: Bench, tmp_path: Path, count: int) -> None:
    one = bench()
    one.wire.ready = False
    for bodies in ([b"first"], [b"second", b"third"], [b"fourth"], [b"fifth"]):
        one.send(*bodies)
        one.finish()
    one.spool.file.db.execute("UPDATE block SET count = ? WHERE count = 2", (count,))
    two = one.crash(tmp_path / "after.spool")
    two.finish()
    assert [body for _, body in two.wire.published] == [b"first", b"fourth", b"fifth"]
    two.wire.settle(1, 1, Outcome.CONFIRMED)
    two.finish(1)
    assert two.rows() == 2
    assert b"second" in two.dead()[0].body
    two.wire.settle(4, 5, Outcome.CONFIRMED)
    two.finish(1)
    assert two.rows() == 0
    two.close()


def test_a_damaged_count_of_the_last_block_leaves_out_nothing_that_comes_after(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "RECENT_SIZE", 1)
    one = bench()
    one.wire.ready = False
    for body in (b"first", b"second"):
        one.send(body)
        one.finish()
    one.spool.file.db.execute("UPDATE block SET count = 200 WHERE place & 0xff = 2")
    one.wire.open()
    one.finish()
    one.send(b"third")
    one.finish()
    assert [body for _, body in one.wire.published] == [b"first", b"third"]
    one.wire.settle(1, 1, Outcome.CONFIRMED)
    one.finish(1)
    assert one.on_disk(b"third")


def test_a_spool_at_its_limit_says_so_until_a_part_of_it_is_free(bench: Bench) -> None:
    one = bench(limit=400_000)
    for _ in range(8):
        one.send(*[b"x" * 1000] * 50)
        one.finish()
    assert one.spool.problem == "the spool is full: spool_limit"
    last = max(one.wire.unsettled)
    one.wire.settle(1, last, Outcome.CONFIRMED)
    one.finish(1)
    one.send(b"now it looks again")
    one.finish(1)
    assert one.spool.problem == ""


def test_how_much_a_spool_holds_is_known_once_all_of_it_is_released(bench: Bench) -> None:
    one = bench()
    empty = one.spool.used
    for _ in range(8):
        one.send(*[b"x" * 1000] * 50)
        one.finish()
    assert one.spool.used > empty + 300_000
    one.wire.settle(1, max(one.wire.unsettled), Outcome.CONFIRMED)
    one.finish(1)
    assert one.spool.used <= empty + 20_000


def test_a_full_disk_takes_releases_before_it_takes_lines(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench()
    one.send(b"old")
    one.finish()
    room = False
    monkeypatch.setattr(type(one.spool.file), "has_room", lambda *_, **__: room)
    one.wire.settle(1, 1, Outcome.CONFIRMED)
    one.send(b"new")
    one.turn()
    _, done = one.thread.jobs[0]
    one.thread.jobs[0] = (_full, done)
    one.thread.run()
    one.finish(0)
    assert one.spool.problem == "the spool cannot be written: the disk is full"
    assert one.client.done == [1]
    assert one.rows() == 0, "the old one has been released"
    room = True
    one.finish(1)
    assert one.client.done == [1, 2]
    assert one.spool.problem == ""


def test_a_full_disk_with_little_room_takes_much_that_waits_a_little_at_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench()
    room = -1
    monkeypatch.setattr(type(one.spool.file), "has_room", lambda _, size, **__: size <= room)
    for _ in range(40):
        one.send(*[b"x" * 1000] * 200)
    waiting = one.spool.waiting
    one.turn()
    _, done = one.thread.jobs[0]
    one.thread.jobs[0] = (_full, done)
    one.finish(0)
    assert one.client.done == []
    assert one.spool.waiting == waiting
    room = waiting // 4
    one.finish(1)
    assert one.client.done == list(range(200, 8001, 200))
    assert one.spool.waiting == 0
    assert one.spool.problem == ""


def test_what_a_full_disk_took_before_it_took_no_more_is_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench()
    rooms = iter([True, True, False])
    monkeypatch.setattr(type(one.spool.file), "has_room", lambda *_, **__: next(rooms, False))
    for _ in range(40):
        one.send(*[b"x" * 1000] * 200)
    one.turn()
    _, done = one.thread.jobs[0]
    one.thread.jobs[0] = (_full, done)
    one.finish(0)
    answered = len(one.client.done)
    assert 0 < answered < 40
    assert one.client.done == list(range(200, 200 * answered + 1, 200))
    assert one.on_disk(b"x" * 1000)
    assert one.lane.durable == 200 * answered
    assert 0 < one.spool.waiting < 40 * 201_000
    assert one.spool.problem == "the spool cannot be written: the disk is full"


def _full() -> None:
    raise SpoolFailed("database or disk is full (SQLITE_FULL)", full=True)


def test_a_commit_that_is_due_while_the_log_is_moved_begins_afterwards(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netd.bridge.spoolfile.CHECKPOINT_SIZE", 1)
    one = bench()
    one.send(b"a")
    one.turn()
    one.send(b"b")
    one.thread.run()
    one.turn(1)
    one.thread.run()
    one.finish(0)
    assert one.client.done == [1, 2]
