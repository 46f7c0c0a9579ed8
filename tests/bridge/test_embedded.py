"""The contract of brokers on the embedded one, and what it keeps over a restart."""

import shutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from netd.bridge import embedded, queuerows
from netd.bridge.broker import Outcome
from netd.bridge.embedded import EmbeddedBroker
from netd.bridge.queuerows import StoredBlock
from netd.bridge.spool import Spool
from netd.bridge.spoolfile import SpoolFailed, SpoolFile
from netd.bridge.thread import SpoolThread
from tests.bridge.broker_contract import (
    BrokerContract,
    Receiving,
    Sending,
    Stored,
    eventually,
    on_the_reactor,
    reactor,
    route,
    started,
)
from tests.bridge.workbench import warnings

QUEUES: Mapping[str, Mapping[str, object]] = {
    "work": {},
    "other": {},
    "small": {"x-max-length": 2},
    "limited": {"x-delivery-limit": 2},
}


class OwnSpool(EmbeddedBroker):
    """An embedded broker that opens and closes its spool itself."""

    def __init__(self, path: Path, thread: SpoolThread) -> None:
        self.spool = Spool(path, 0, reactor, thread.call, lambda: None)
        super().__init__(QUEUES, self.spool, reactor)

    async def start(self) -> None:
        await self.spool.open()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self.spool.close()

    async def has_noted(self) -> bool:
        """Whether the disk knows that something was delivered."""
        return any(row.taken for row in await self.spool.read(queuerows.read_queues))


class EmbeddedArena:
    """See `Arena`. One broker at a time: a spool is one process's, and one object's in it."""

    def __init__(self, path: Path, thread: SpoolThread) -> None:
        self.path = path
        self.thread = thread
        self.spool: Spool | None = None

    def broker(self) -> OwnSpool:
        broker = OwnSpool(self.path, self.thread)
        self.spool = broker.spool
        return broker

    async def stored(self, queue: str) -> Sequence[Stored]:
        assert self.spool is not None
        await self.spool.flushed()
        return await self.spool.read(lambda file: stored_in(file, queue))


def stored_in(file: SpoolFile, queue: str) -> list[Stored]:
    (row,) = [each for each in queuerows.read_queues(file) if each.name == queue]
    found = []
    for each in queuerows.read(file, row, 0, 1 << 30):
        assert isinstance(each, StoredBlock)
        flags = each.settled or bytes(len(each.block))
        found += [Stored(each.block.bodies[at], each.block.netd_id(at)) for at, flag in enumerate(flags) if not flag]
    return found


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[EmbeddedArena]:
    thread = SpoolThread(reactor, "spool")
    thread.start()
    yield EmbeddedArena(tmp_path / "test.spool", thread)
    thread.stop()


class TestEmbedded(BrokerContract):
    """Queues in the spool's database."""


@asynccontextmanager
async def again(arena: EmbeddedArena) -> AsyncIterator[OwnSpool]:
    """The broker, started anew on the same file."""
    async with started(arena) as broker:
        assert isinstance(broker, OwnSpool)
        yield broker


@on_the_reactor
async def test_messages_are_there_after_a_restart_and_settled_ones_are_not(arena: EmbeddedArena) -> None:
    async with started(arena) as broker:
        sending, receiving = Sending(broker, route()), Receiving(broker, "work", prefetch=3)
        await sending.outcome(sending.send(*[b"%d" % number for number in range(10)]))
        await receiving.received(3)
        receiving.acknowledge(receiving.deliveries[0])
        receiving.acknowledge(receiving.deliveries[2])
    async with again(arena) as broker:
        receiving = Receiving(broker, "work")
        assert await receiving.received(8) == [b"1", *[b"%d" % number for number in range(3, 10)]]
        assert [each.redelivered for each in receiving.deliveries] == [True, True, True, *[False] * 5]
        sending = Sending(broker, route())
        sending.next = 11
        sending.send(b"new")
        assert (await receiving.received(9))[-1] == b"new"


@on_the_reactor
async def test_what_nobody_had_answered_when_netd_stopped_comes_again_as_redelivered(arena: EmbeddedArena) -> None:
    async with started(arena) as broker:
        sending, receiving = Sending(broker, route()), Receiving(broker, "work", prefetch=2)
        await sending.outcome(sending.send(b"a", b"b", b"c"))
        await receiving.received(2)
    async with again(arena) as broker:
        receiving = Receiving(broker, "work")
        await receiving.received(3)
        assert [each.redelivered for each in receiving.deliveries] == [True, True, False]
        assert [each.details().deliveries for each in receiving.deliveries] == [2, 2, 1]
        receiving.give_back(receiving.deliveries[0])
        await receiving.received(4)
        assert receiving.deliveries[-1].details().deliveries == 3


@on_the_reactor
async def test_what_was_delivered_a_moment_before_a_crash_comes_again_as_redelivered(
    arena: EmbeddedArena, tmp_path: Path
) -> None:
    after = EmbeddedArena(tmp_path / "after.spool", arena.thread)
    async with again(arena) as broker:
        sending, receiving = Sending(broker, route()), Receiving(broker, "work", prefetch=1)
        await sending.outcome(sending.send(b"a", b"b"))
        await receiving.received(1)
        await eventually(broker.has_noted)
        for suffix in ("", "-wal"):
            shutil.copy(f"{arena.path}{suffix}", f"{after.path}{suffix}")
    async with again(after) as broker:
        receiving = Receiving(broker, "work")
        await receiving.received(2)
        assert [each.redelivered for each in receiving.deliveries] == [True, False]


@on_the_reactor
async def test_a_queue_knows_its_length_after_a_restart(arena: EmbeddedArena) -> None:
    async with started(arena) as broker:
        sending = Sending(broker, route("small"))
        await sending.outcome(sending.send(b"a", b"b"))
    async with again(arena) as broker:
        queue = broker.queue(b"small")
        assert queue is not None
        assert queue.length == 2
        sending = Sending(broker, route("small"))
        sending.next = 3
        assert await sending.outcome(sending.send(b"c")) == [Outcome.REFUSED]


@on_the_reactor
async def test_nothing_overtakes_a_refusal_that_is_yet_to_be_told(arena: EmbeddedArena) -> None:
    async with started(arena) as broker:
        sending, receiving = Sending(broker, route("small")), Receiving(broker, "small")
        await sending.outcome(sending.send(b"a", b"b"))
        await receiving.received(2)
        refused = sending.send(b"c")
        receiving.acknowledge(receiving.deliveries[0])  # now there is room
        assert not sending.outlet.ready
        assert await sending.outcome(refused) == [Outcome.REFUSED]
        assert sending.outlet.ready


@pytest.mark.parametrize("settled", [5, "1", b"\1", b"\1\0\0\0", b"\1\7\0"])
@on_the_reactor
async def test_a_block_of_which_the_disk_has_forgotten_what_was_settled_is_delivered_again_and_whole(
    arena: EmbeddedArena, settled: object
) -> None:
    async with started(arena) as broker:
        sending, receiving = Sending(broker, route()), Receiving(broker, "work")
        await sending.outcome(sending.send(b"a", b"b", b"c"))
        await receiving.received(3)
        receiving.acknowledge(receiving.deliveries[0])
    file = SpoolFile(arena.path)
    file.db.execute("UPDATE progress SET settled = ?", (settled,))
    file.close()
    async with again(arena) as broker:
        queue = broker.queue(b"work")
        assert queue is not None
        assert queue.length == 3
        receiving = Receiving(broker, "work")
        assert await receiving.received(3) == [b"a", b"b", b"c"]
        receiving.acknowledge(receiving.deliveries[-1], all_up_to=True)
        assert queue.length == 0


@on_the_reactor
async def test_a_block_with_a_damaged_count_holds_up_no_other(
    arena: EmbeddedArena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "READ_SIZE", 1)
    async with started(arena) as broker:
        sending = Sending(broker, route())
        for body in (b"a", b"b", b"c"):
            await sending.outcome(sending.send(body))
    file = SpoolFile(arena.path)
    file.db.execute("UPDATE queued SET count = 200 WHERE place & 0xff = 1")
    file.close()
    async with again(arena) as broker:
        assert await Receiving(broker, "work").received(2) == [b"b", b"c"]


@pytest.mark.parametrize("column", ["name", "taken", "following"])
def test_a_queue_with_values_of_other_kinds_is_told_as_damage(tmp_path: Path, column: str) -> None:
    file = SpoolFile(tmp_path / "a.spool")
    queuerows.open_queues(file, ["work"])
    file.db.execute(f"UPDATE queue SET {column} = ?", (b"x",))
    with pytest.raises(SpoolFailed, match="damaged"):
        queuerows.read_queues(file)
    file.close()


@on_the_reactor
async def test_a_message_given_back_too_often_becomes_a_dead_letter(arena: EmbeddedArena) -> None:
    with warnings() as told:
        await _give_back_too_often(arena)
    (line,) = told
    assert line.startswith("1 message(s) of queue limited became dead letters, see `bridge dead list`; the first: ")
    assert "poison" not in line


async def _give_back_too_often(arena: EmbeddedArena) -> None:
    async with again(arena) as broker:
        sending, receiving = Sending(broker, route("limited")), Receiving(broker, "limited")
        sending.send(b"poison")
        for count in range(1, 4):
            await receiving.received(count)
            assert receiving.deliveries[-1].details().deliveries == count
            receiving.give_back(receiving.deliveries[-1])
        await broker.spool.flushed()
        (letter,) = await broker.spool.read(SpoolFile.dead)
        assert (letter.body, letter.key) == (b"poison", b"limited")
        assert "x-delivery-limit" in letter.reason
        queue = broker.queue(b"limited")
        assert queue is not None
        assert queue.length == 0


@on_the_reactor
async def test_a_long_queue_is_read_from_disk_in_parts_and_in_order(arena: EmbeddedArena) -> None:
    async with started(arena) as broker:
        sending = Sending(broker, route())
        for at in range(0, 20000, 2000):
            sending.send(*[b"%d" % number for number in range(at, at + 2000)])
        await sending.outcome(range(1, 20001))
        receiving = Receiving(broker, "work", prefetch=700)
        for count in range(700, 20001, 700):
            await receiving.received(count)
            receiving.acknowledge(receiving.deliveries[-1], all_up_to=True)
        assert await receiving.received(20000) == [b"%d" % number for number in range(20000)]
