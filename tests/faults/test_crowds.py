"""Ten thousand connections at once, and storms of five thousand new ones a second: everybody gets the right answer."""

import json
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import Tell
from tests.faults.crowd import Member, build_storm
from tests.faults.world import World

PATIENCE = 120.0
ROUNDS = 3
RATE, SECONDS, STORM_PATIENCE = 5000, 20, 40
CROWD = {"echo": 4000, "memcached": 3000, "redis": 2500, "publish": 500}
MEMORY_OF_ONE = 16 << 10
"""Bytes resident for each connection that has asked something; an idle one takes 2.5 KB, see test_limits.py."""


def all_answered(members: list[Member], turn: int) -> tuple[float, int]:
    """Everybody asks, and is answered; the seconds it took, and how many were told that Redis is late."""
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for member in members:
            member.ask(turn)
            selector.register(member.socket, selectors.EVENT_READ, member)
        while selector.get_map():
            assert time.monotonic() < began + PATIENCE, f"{len(selector.get_map())} were not answered"
            for key, _ in selector.select(1):
                if key.data.hear():
                    selector.unregister(key.data.socket)
    return time.monotonic() - began, sum(member.refused for member in members)


def test_ten_thousand_connections(world: World, tell: Tell) -> None:
    with world.everybody() as others, world.lines("lines") as load, ExitStack() as crowd:
        memory = world.netd.rss()
        members = [Member(door, world.doors[door], number) for door, count in CROWD.items() for number in range(count)]
        for member in members:
            crowd.callback(member.socket.close)
        rounds = [all_answered(members, turn) for turn in range(1, ROUNDS + 1)]
        each = (world.netd.rss() - memory) / len(members)
        others.recovered()
        crowd.close()
        took = others.recovered()
        wanted = {(f"crowd{number}", turn) for number in range(CROWD["publish"]) for turn in range(1, ROUNDS + 1)}
        load.until(lambda: wanted <= load.came(), "every line of the crowd has come")
        load.settle()
        others.settle()
    others.check(refused=True)  # while everybody is at it Redis may be late
    load.check()
    assert each < MEMORY_OF_ONE
    slowest, refused = max(seconds for seconds, _ in rounds), sum(count for _, count in rounds)
    said = f"{len(members):,} connections, {ROUNDS * len(members) - refused:,} answers right, {refused} refused"
    said += f", all of a round within {slowest:.1f} s, {each / 1024:.1f} KiB each"
    tell("a crowd", f"{said}, others: {others.said()}", took)


# --- storms


@dataclass(frozen=True)
class Storm:
    """What each connection says, and what it must be answered; what is beyond a limit may be closed at once instead."""

    request: str
    answer: str
    limited: bool = False


STORMS = {
    "echo": Storm("storm %d", "storm %d"),
    "memcached": Storm("ms storm 5 T60 O%d\r\nvalue\r\n", "HD O%d\r\n"),
    "redis": Storm("ECHO %d\r\n", "$7\r\n%d\r\n"),
    "publish": Storm("storm %d\n", "+OK 1\n"),
    "ssh": Storm("SSH-2.0-storm\r\n", "SSH-2.0-", limited=True),
    "admin": Storm("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "HTTP/1.1 200 OK\r\n", limited=True),
}


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_storm(tmp_path_factory.mktemp("storm"))


@contextmanager
def raging(program: Path, port: int, storm: Storm) -> Iterator[dict[str, float]]:
    """A storm; what came of it is there afterwards."""
    arguments = [str(each) for each in (port, RATE, SECONDS, STORM_PATIENCE)]
    told: dict[str, float] = {}
    with subprocess.Popen([program, *arguments, storm.request, storm.answer], stdout=subprocess.PIPE) as process:
        try:
            yield told
            told.update(json.loads(process.communicate(timeout=PATIENCE)[0]))
        finally:
            process.kill()


@pytest.mark.parametrize("door", STORMS)
def test_a_storm_of_connections(world: World, tell: Tell, storm: Path, door: str) -> None:
    wanted = STORMS[door]
    memory = world.netd.rss()
    without = [door] if wanted.limited else []  # who keeps to a limit cannot tell a client from a storm
    with world.everybody(*without) as others, world.lines("lines") as load:
        with raging(storm, world.doors[door], wanted) as told:
            others.recovered()
        took = others.recovered()
        if door == "publish":
            lines = {("storm", number) for number in range(1, int(told["begun"]) + 1)}
            load.until(lambda: lines <= load.came(), "every line of the storm has come", PATIENCE)
        load.settle()
        others.settle()
    if wanted.limited:
        with world.callers(door, each=1) as newcomer:
            newcomer.settle()
        newcomer.check()
    others.check(refused=True)  # while everybody is at it Redis may be late
    load.check()
    assert told["wrong"] == told["unanswered"] == 0
    assert told["answered"] > 0
    assert wanted.limited or told["broken"] == 0
    rate = told["begun"] / told["seconds"]
    said = f"{told['begun']:,} connections, {rate:,.0f}/s, {told['answered']:,} answered right"
    said += f", {told['broken']:,} sent away" if wanted.limited else f", within {told['slowest']:.2f} s"
    grown = (world.netd.rss() - memory) / (1 << 20)
    tell(f"a storm at {door}", f"{said}, {grown:+.0f} MiB, others: {others.said()}", took)
