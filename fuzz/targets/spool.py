r"""A spool's file that was damaged: an input is changes to a good one, a place in three bytes and then a byte each."""

import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from unittest.mock import patch

from netd.bridge import queuerows, spoolfile
from netd.bridge.messages import Block, Extra, Route
from netd.bridge.queuerows import DamagedBlock, StoredBlock
from netd.bridge.spoolfile import Damaged, DeadLetter, SpoolFailed, SpoolFile

LONGEST = 200
WORDS = (
    b"\0\0\0S",
    b"\0\0\x12\x10",
    b"\0\0\x1c\0",
    b"\0\x10\0\x0d",
    b"\0\x20\0\x0d",
    b"\0\x0f\xff\0",
    b"\xff",
    b"\0\0",
)
ROUTE = Route("lines", "", "work")
CHANGE = 4


_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own in there
_DIRECTORY = tempfile.TemporaryDirectory(prefix="fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)


@cache
def _good() -> tuple[Path, bytes]:
    path = Path(_DIRECTORY.name, "a.spool")
    file = SpoolFile(path)
    row = file.lane_for(ROUTE)
    made = [
        Block(
            ROUTE,
            row.origin,
            1 + 3 * at,
            1,
            [b"one", b"two", b"x" * 50],
            keys=[b"a", b"b", b"c"],
            extras={1: Extra({"h": 1})},
        )
        for at in range(20)
    ]
    file.commit([lambda file, block=block: file.put(row.id, block) for block in made])  # type: ignore[misc]  # bound
    letter = DeadLetter("id-1", row.id, 1, 2, 1, "no queue", b"k", Extra(), b"body")
    file.commit([lambda file: file.bury([letter]), lambda file: file.release(row.id, 6)])
    (queue,) = queuerows.open_queues(file, ["work"])
    for at, block in enumerate(made):
        queuerows.append(file, queue.id, 1 + 3 * at, block)
    queuerows.settle(file, queue, 4, {4: b"\1\0\0"}, [1])
    file.checkpoint(everything=True)
    file.close()
    return path, path.read_bytes()


def check(data: bytes) -> None:
    """Blocks, damaged blocks, or SpoolFailed."""
    with patch.object(spoolfile, "RESERVE", 4096):  # which is a file of its own
        _check(data)


def _check(data: bytes) -> None:
    path, good = _good()
    changed = bytearray(good)
    for at in range(0, len(data) - CHANGE + 1, CHANGE):
        changed[int.from_bytes(data[at : at + 3], "big") % len(good)] = data[at + 3]
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(changed)
    with suppress(SpoolFailed):
        _use(path)


def _use(path: Path) -> None:
    file = SpoolFile(path)
    try:
        for row in file.lanes():
            at = row.released + 1
            for block in file.read(row.id, at, 1 << 20):
                assert isinstance(block, Block | Damaged)
            file.following(row.id, 1)
        for letter in file.dead():
            assert isinstance(letter, DeadLetter)
        for queue in queuerows.read_queues(file):
            for stored in queuerows.read(file, queue, 1, 1 << 20):
                assert isinstance(stored, StoredBlock | DamagedBlock)
        row = file.lane_for(ROUTE)
        file.commit([lambda file: file.put(row.id, Block(row.route, row.origin, row.next, 1, [b"more"]))])
        file.used()
    finally:
        file.close()
