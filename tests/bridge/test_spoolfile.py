"""The spool's file: how quickly it opens, and that space is used again."""

import time
from pathlib import Path

from netd.bridge.messages import Block, Route
from netd.bridge.spoolfile import SpoolFile

ROUTE = Route("lines", "", "work")


def filled(path: Path, blocks: int, size: int) -> SpoolFile:
    file = SpoolFile(path)
    row = file.lane_for(ROUTE)
    for start in range(0, blocks, 500):
        made = [Block(ROUTE, row.origin, number + 1, 0, [bytes(size)]) for number in range(start, start + 500)]
        file.commit([lambda file, block=block: file.put(row.id, block) for block in made])  # type: ignore[misc]  # bound
    return file


def test_opening_a_large_backlog_takes_no_time(tmp_path: Path) -> None:
    filled(tmp_path / "a.spool", 30_000, 4000).close()
    before = time.process_time()
    file = SpoolFile(tmp_path / "a.spool")
    took = time.process_time() - before
    (row,) = file.lanes()
    assert (row.released, row.next) == (0, 30_001)
    assert file.used() > 120_000_000
    assert took < 0.1
    file.close()


def test_released_space_is_used_again(tmp_path: Path) -> None:
    file = filled(tmp_path / "a.spool", 2000, 4000)
    row = file.lanes()[0]
    size = (tmp_path / "a.spool").stat().st_size
    for turn in range(1, 6):
        file.commit([lambda file, turn=turn: file.release(row.id, turn * 2000)])  # type: ignore[misc]  # bound
        blocks = [Block(ROUTE, row.origin, turn * 2000 + at, 0, [bytes(4000)]) for at in range(1, 2001)]
        file.commit([lambda file, block=block: file.put(row.id, block) for block in blocks])  # type: ignore[misc]  # bound
        file.checkpoint(everything=True)
    assert (tmp_path / "a.spool").stat().st_size < max(size, 9_000_000) * 1.1
    file.close()
