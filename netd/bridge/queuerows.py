"""The embedded broker's queues on disk: rows of blocks in the spool's database, and what of them is settled.

Plain calls, made on the spool's own thread as parts of its transactions; each may be done twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netd.bridge import blocks
from netd.bridge.blocks import BadBlock
from netd.bridge.messages import Block, Route
from netd.bridge.spoolfile import UNREADABLE, SpoolFile, failed, place


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue as it was left."""

    id: int
    name: str
    taken: int
    """The highest position that was ever delivered."""
    next: int
    """The position of the next message."""
    length: int


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block in a queue, from a position on; a byte for each message, 1 once it is settled."""

    position: int
    block: Block
    settled: bytes = b""
    """Empty: none is."""


@dataclass(frozen=True, slots=True)
class DamagedBlock:
    """One whose bytes are not what was written."""

    position: int
    count: int
    data: bytes
    reason: str
    origin: str
    first: int
    accepted: int


def open_queues(file: SpoolFile, names: Sequence[str]) -> list[QueueRow]:
    """The queues of these names, made if they are not there."""
    file.commit(
        [
            lambda file: file.db.executemany(
                "INSERT OR IGNORE INTO queue VALUES (NULL, ?, 0, 1)", [(name,) for name in names]
            )
        ]
    )
    return [row for row in read_queues(file) if row.name in names]


def read_queues(file: SpoolFile) -> list[QueueRow]:
    """Every queue there is. How long one is takes a look at its rows, without their bytes: 0.1 s for a million.

    Raises SpoolFailed.
    """
    try:
        return list(_read_queues(file))
    except UNREADABLE as error:
        raise failed(error) from None


def _read_queues(file: SpoolFile) -> Iterator[QueueRow]:
    for queue, name, taken, following in file.db.execute("SELECT id, name, taken, following FROM queue").fetchall():
        ends = (place(queue, 0), place(queue + 1, 0))
        summed = "SELECT coalesce(sum(count), 0) FROM queued WHERE place >= ? AND place < ?"
        (length,) = file.db.execute(summed, ends).fetchone()
        newest = "SELECT place - ? + count FROM queued WHERE place >= ? AND place < ? ORDER BY place DESC LIMIT 1"
        (after,) = file.db.execute(newest, (ends[0], *ends)).fetchone() or (0,)
        settled = "SELECT settled, count FROM progress JOIN queued USING (place) WHERE place >= ? AND place < ?"
        length -= sum(_flags(*row).count(1) for row in file.db.execute(settled, ends))
        row = QueueRow(queue, name, taken, max(following, after), length)
        if not (isinstance(name, str) and all(isinstance(number, int) for number in (taken, row.next, length))):
            raise ValueError("a queue that is none")
        yield row


def _flags(settled: object, count: object) -> bytes:
    """What of a block is settled; where that cannot be told nothing is, and all of it is delivered again."""
    if isinstance(settled, bytes) and len(settled) == count and not settled.strip(b"\0\1"):
        return settled
    return b""


def append(file: SpoolFile, queue: int, position: int, block: Block) -> None:
    """Add a block to a queue."""
    data = blocks.encode(block)
    at = place(queue, position)
    check = blocks.checksum(at, block.first, len(block), block.accepted, data)
    row = (at, block.origin, block.first, len(block), block.accepted, check, data)
    file.db.execute("INSERT OR REPLACE INTO queued VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def settle(file: SpoolFile, queue: QueueRow, taken: int, settled: Mapping[int, bytes], finished: Sequence[int]) -> None:
    """Note what of the blocks at some positions is settled, and remove those of which all is."""
    file.db.executemany("DELETE FROM queued WHERE place = ?", [(place(queue.id, at),) for at in finished])
    file.db.executemany("DELETE FROM progress WHERE place = ?", [(place(queue.id, at),) for at in finished])
    rows = [(place(queue.id, at), flags) for at, flags in settled.items()]
    file.db.executemany("INSERT OR REPLACE INTO progress VALUES (?, ?)", rows)
    following = max(finished, default=0)
    file.db.execute(
        "UPDATE queue SET taken = max(taken, ?), following = max(following, ?) WHERE id = ?",
        (taken, max(following, taken + 1), queue.id),
    )


def read(file: SpoolFile, queue: QueueRow, position: int, most: int) -> list[StoredBlock | DamagedBlock]:
    """The blocks of a queue from a position on: about `most` bytes of them, but at least one if there is any."""
    query = (
        "SELECT queued.place, origin, first, count, accepted, checksum, data, settled FROM queued "
        "LEFT JOIN progress USING (place) WHERE queued.place >= ? AND queued.place < ? ORDER BY queued.place"
    )
    route = Route("", "", queue.name)
    found: list[StoredBlock | DamagedBlock] = []
    size = 0
    try:
        for row in file.db.execute(query, (place(queue.id, position), place(queue.id + 1, 0))):
            at, origin, first, count, accepted, check, data, flags = row
            start = at - place(queue.id, 0)
            try:
                if blocks.checksum(at, first, count, accepted, data) != check:
                    raise BadBlock("the checksum is wrong")
                block = blocks.decode(route, origin, first, accepted, data)
                found.append(StoredBlock(start, block, _flags(flags, len(block))))
            except BadBlock as error:
                found.append(_damaged(start, row, str(error)))
            size += len(data) if isinstance(data, bytes) else 0
            if size >= most:
                break
    except UNREADABLE as error:
        raise failed(error) from None
    return found


def _damaged(position: int, row: tuple[Any, ...], reason: str) -> DamagedBlock:
    """What its columns hold, where that is of the kind that belongs there."""
    _, origin, first, count, accepted, _, data, _ = row
    first, count, accepted = (each if isinstance(each, int) else 0 for each in (first, count, accepted))
    return DamagedBlock(
        position, max(1, count), data if isinstance(data, bytes) else b"", reason, str(origin), first, accepted
    )
