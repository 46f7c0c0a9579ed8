"""The spool's database: what is written there, in which transactions, and how it is found again.

Plain calls, made on the spool's own thread. `netd.bridge.spool` says why what is committed here can be answered for.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex

from netd.bridge import blocks
from netd.bridge.blocks import BadBlock
from netd.bridge.messages import Block, Extra, Route

RESERVE = 24 << 20
"""Bytes kept aside in a file of their own, and given up when the disk is full: as much as the log of changes can hold,
so that what is there can still be moved, delivered and released."""

SMALL = 512 << 10
"""Bytes that are written at once while the disk is full, about. They take their room twice for a moment, in the log and
in the database: all that waits, taken together, might never find so much, although there is room for it."""

LOG_ROOM, DATABASE_ROOM = 2 * SMALL, 2 * SMALL
"""Bytes that must be left for what gives room when something has been written that takes some: for a small transaction
in the log, and in the database."""

CHECKPOINT_SIZE = 8 << 20
"""Bytes in the log of changes, about, after which they are moved to the database: measured, larger gains nothing."""
SMALLEST_CHANGE = 8 << 10
"""Bytes that a transaction takes there at least, about: a page or two of 4 KiB."""

CUT, DAMAGED = "-cut-", "-damaged-"
"""In the ids of dead letters that are no whole messages."""

PLACE_BITS = 48
"""Of a row's key that number messages; those above are the lane's or the queue's. At a million a second, nine years."""

APPLICATION_ID = 0x6E657464
"""The letters "netd", for file(1)."""
VERSION = 1

PRAGMAS = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA secure_delete = OFF",
    "PRAGMA temp_store = MEMORY",
)

SCHEMA = """
CREATE TABLE spool (id TEXT NOT NULL);
CREATE TABLE lane (id INTEGER PRIMARY KEY, route TEXT NOT NULL UNIQUE, released INTEGER NOT NULL);
CREATE TABLE block (
    place INTEGER PRIMARY KEY, count INTEGER NOT NULL, accepted INTEGER NOT NULL,
    checksum INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY, netd_id TEXT NOT NULL UNIQUE, lane INTEGER NOT NULL, accepted INTEGER NOT NULL,
    died INTEGER NOT NULL, attempts INTEGER NOT NULL, reason TEXT NOT NULL,
    key BLOB NOT NULL, extra TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE queue (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, taken INTEGER NOT NULL, following INTEGER NOT NULL);
CREATE TABLE queued (
    place INTEGER PRIMARY KEY, origin TEXT NOT NULL, first INTEGER NOT NULL,
    count INTEGER NOT NULL, accepted INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE progress (place INTEGER PRIMARY KEY, settled BLOB NOT NULL);
"""


def place(lane: int, number: int) -> int:
    """The key of a row: lane, or queue, and number, in the order of both."""
    return lane << PLACE_BITS | number


class SpoolFailed(Exception):
    """The database could not do it; the text says why."""

    def __init__(self, text: str, *, full: bool = False) -> None:
        super().__init__(text)
        self.full = full
        """Whether the disk has no room."""


class SpoolInUse(Exception):
    """Another process has it open."""


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A lane as it was left. Its messages are numbered from `released` + 1 up to, not including, `next`."""

    id: int
    route: Route
    origin: str
    released: int
    next: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """A block whose bytes are not what was written."""

    first: int
    after: int
    """The number of the first message after it."""
    accepted: int
    data: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be delivered. With the id 0 it is yet to be written."""

    netd_id: str
    lane: int
    accepted: int
    died: int
    attempts: int
    reason: str
    key: bytes
    extra: Extra
    body: bytes
    id: int = 0

    @property
    def whole(self) -> bool:
        """Whether it is a message as it was sent; not the beginning of a line, nor the bytes of a damaged block."""
        return not any(mark in self.netd_id for mark in (CUT, DAMAGED))


UNREADABLE = (sqlite3.Error, ValueError, TypeError, OverflowError, RecursionError)
"""What reading a damaged file comes to: SQLite's errors, or columns that hold what nobody wrote there."""

Work = Callable[["SpoolFile"], object]
"""A part of a transaction. It may be done again after a failure, and then must come to the same."""


class SpoolFile:
    """One open spool. Every method may raise SpoolFailed."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it; raises SpoolInUse when another process has it."""
        self.path = path
        self.reserve = 0
        """Bytes that are kept aside; less than there should be where the disk is too small."""
        self._changed = 0
        self._lock = _lock(path)
        self._db: sqlite3.Connection | None = None
        try:
            self._open()
            self.keep_reserve()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=64)
            for pragma in PRAGMAS:
                self._db.execute(pragma).fetchall()
            if not self._one("PRAGMA user_version"):
                self._make()
            elif self._one("PRAGMA application_id") != APPLICATION_ID or self._one("PRAGMA user_version") != VERSION:
                raise SpoolFailed("not a spool of this version of netd")
            self.id = str(self._one("SELECT id FROM spool"))
            self.dead_total = int(str(self._one("SELECT count(*) FROM dead")))
            self._lanes = {row.id: row for row in self._read_lanes()}
            self.checkpoint(everything=True)
        except UNREADABLE as error:
            raise failed(error) from None

    def _make(self) -> None:
        self.db.execute("BEGIN")
        for statement in SCHEMA.split(";"):
            self.db.execute(statement)
        self.db.execute("INSERT INTO spool VALUES (?)", (token_hex(6),))
        self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.db.execute(f"PRAGMA user_version = {VERSION}")
        self.db.execute("COMMIT")
        for directory in (self.path.parent, self.path.parent.parent):  # its name is to survive as well
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def reopen(self) -> None:
        """Forget what was believed, and read anew what the disk has."""
        self._disconnect()
        self._open()

    def close(self) -> None:
        """Close it; another process may have it then."""
        self._disconnect()
        os.close(self._lock)

    def _disconnect(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    @property
    def db(self) -> sqlite3.Connection:
        """The connection, for what belongs to a transaction."""
        if self._db is None:
            raise SpoolFailed("closed")
        return self._db

    def _one(self, query: str, *arguments: object) -> object:
        row = self.db.execute(query, arguments).fetchone()
        return row[0] if row else None

    # --- transactions

    def commit(self, works: Sequence[Work]) -> None:
        """Do all of it or nothing; once this returns it is on disk."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            for work in works:
                work(self)
            self.db.execute("COMMIT")
            self._changed += SMALLEST_CHANGE
        except sqlite3.Error as error:
            raise failed(error) from None

    @property
    def wants_checkpoint(self) -> bool:
        """Whether the log of changes is long; or longer than can be moved when the disk is full."""
        return self._changed >= min(CHECKPOINT_SIZE, self.reserve // 2)

    def checkpoint(self, *, everything: bool = False) -> None:
        """Move the log of changes into the database and sync that; `everything` also verifies that nothing is left."""
        mode = "RESTART" if everything else "PASSIVE"
        try:
            busy, left, moved = self.db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            raise failed(error) from None
        if everything and (busy or left != moved):
            raise SpoolFailed(f"its log of changes was not moved: {moved} of {left} pages")
        self._changed = 0

    def used(self) -> int:
        """Bytes that are taken by what is in it; space that was released and will be used again does not count."""
        try:
            pages, free, size = (self._one(f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size"))
        except sqlite3.Error as error:
            raise failed(error) from None
        return (int(str(pages)) - int(str(free))) * int(str(size))

    # --- room in need

    @property
    def _reserve_path(self) -> Path:
        return Path(f"{self.path}-reserve")

    def keep_reserve(self) -> None:
        """Have some room kept aside: as much as it should be, or what there is."""
        if self.reserve == RESERVE:
            return
        with suppress(OSError):
            descriptor = os.open(self._reserve_path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                for self.reserve in (RESERVE, RESERVE // 2, RESERVE // 4, RESERVE // 8, 0):
                    with suppress(OSError):
                        if self.reserve:
                            os.posix_fallocate(descriptor, 0, self.reserve)
                        break
                os.ftruncate(descriptor, self.reserve)
            finally:
                os.close(descriptor)

    def give_up_reserve(self) -> None:
        """Give the room back to the disk."""
        self.reserve = 0
        with suppress(OSError):
            self._reserve_path.unlink()

    def has_room(self, size: int, *, grows: bool) -> bool:
        """Whether so many bytes more can be written, and after them what gives room.

        The log begins anew after each small transaction, so that its room counts once. Free pages of the database are
        room, too: its file never becomes smaller.
        """
        try:
            disk = os.statvfs(self.path)
            log = Path(f"{self.path}-wal").stat().st_size
            reusable = int(str(self._one("PRAGMA freelist_count"))) * int(str(self._one("PRAGMA page_size")))
        except (OSError, sqlite3.Error):
            return False
        pages = size + size // 8  # which are never quite full
        more = max(0, max(pages, LOG_ROOM) - log) + max(0, pages + (DATABASE_ROOM if grows else 0) - reusable)
        return disk.f_bavail * disk.f_frsize >= more

    # --- lanes and blocks

    def _read_lanes(self) -> Iterator[LaneRow]:
        last = "SELECT place, count FROM block WHERE place >= ? AND place < ? ORDER BY place DESC LIMIT 1"
        for lane, route, released in self.db.execute("SELECT id, route, released FROM lane ORDER BY id").fetchall():
            first = self.following(lane, 0)
            done = released if first is None else max(released, first - 1)
            row = self.db.execute(last, (place(lane, 0), place(lane + 1, 0))).fetchone()
            after = row[0] - place(lane, 0) + row[1] if row else 0
            yield LaneRow(lane, Route(**json.loads(route)), f"{self.id}-{lane}", done, max(done + 1, after))

    def lanes(self) -> list[LaneRow]:
        """Every lane, as it was when the spool was opened."""
        return list(self._lanes.values())

    def lane_for(self, route: Route) -> LaneRow:
        """The lane of a route, made if it is not there."""
        for row in self._lanes.values():
            if row.route == route:
                return row
        text = json.dumps(asdict(route), sort_keys=True)
        self.commit([lambda file: file.db.execute("INSERT INTO lane VALUES (NULL, ?, 0)", (text,))])
        lane = int(str(self._one("SELECT id FROM lane WHERE route = ?", text)))
        row = LaneRow(lane, route, f"{self.id}-{lane}", 0, 1)
        self._lanes[lane] = row
        return row

    def queue_names(self) -> list[str]:
        """The queues of the embedded broker."""
        return [name for (name,) in self.db.execute("SELECT name FROM queue ORDER BY name")]

    def put(self, lane: int, block: Block) -> None:
        """Write a block. Part of a transaction."""
        data = blocks.encode(block)
        count = len(block)
        check = blocks.checksum(lane, block.first, count, block.accepted, data)
        row = (place(lane, block.first), count, block.accepted, check, data)
        self.db.execute("INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?, ?)", row)
        self._changed += len(data)

    def release(self, lane: int, upto: int) -> None:
        """Remove the blocks of a lane up to a number. Part of a transaction."""
        self.db.execute("DELETE FROM block WHERE place >= ? AND place <= ?", (place(lane, 0), place(lane, upto)))
        self.db.execute("UPDATE lane SET released = max(released, ?) WHERE id = ?", (upto, lane))

    def read(self, lane: int, first: int, most: int) -> list[Block | Damaged]:
        """The blocks of a lane from a number on: about `most` bytes of them, but at least one if there is any."""
        row = self._lanes[lane]
        query = "SELECT place, count, accepted, checksum, data FROM block WHERE place >= ? AND place < ? ORDER BY place"
        found: list[Block | Damaged] = []
        size = 0
        try:
            for at, count, accepted, check, data in self.db.execute(query, (place(lane, first), place(lane + 1, 0))):
                each = _decode(row, at - place(lane, 0), count, accepted, check, data)
                if isinstance(each, Damaged) and (after := self.following(lane, each.first + 1)) is not None:
                    each = replace(each, after=after)  # its count may be what is damaged
                found.append(each)
                size += len(data) if isinstance(data, bytes) else 0
                if size >= most:
                    break
        except UNREADABLE as error:
            raise failed(error) from None
        return found

    def following(self, lane: int, number: int) -> int | None:
        """The number of the first block of a lane from a number on; None: there is none."""
        query = "SELECT min(place) FROM block WHERE place >= ? AND place < ?"
        found = self._one(query, place(lane, number), place(lane + 1, 0))
        return int(str(found)) - place(lane, 0) if found is not None else None

    def accepted_at(self, lane: int, number: int) -> int | None:
        """When the first block of a lane from a number on was accepted, in Unix seconds; None: there is none."""
        query = "SELECT accepted FROM block WHERE place >= ? AND place < ? ORDER BY place LIMIT 1"
        found = self._one(query, place(lane, number), place(lane + 1, 0))
        return int(str(found)) if found is not None else None

    # --- dead letters

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters; one that is there already stays as it is. Part of a transaction."""
        written = self.db.executemany(
            "INSERT OR IGNORE INTO dead VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    each.netd_id,
                    each.lane,
                    each.accepted,
                    each.died,
                    each.attempts,
                    each.reason,
                    each.key,
                    json.dumps(asdict(each.extra)),
                    each.body,
                )
                for each in letters
            ],
        )
        self.dead_total += max(0, written.rowcount)

    def dead(self, *, ids: Sequence[int] | None = None, limit: int = 100, after: int = 0) -> list[DeadLetter]:
        """Dead letters, the oldest first: those with these ids, or the first ones after an id."""
        chosen = f"id IN ({','.join('?' * len(ids))})" if ids is not None else "id > ?"
        query = (
            "SELECT netd_id, lane, accepted, died, attempts, reason, key, extra, body, id FROM dead "  # noqa: S608 - marks
            f"WHERE {chosen} ORDER BY id LIMIT ?"
        )
        try:
            rows = self.db.execute(query, [*(ids if ids is not None else [after]), limit]).fetchall()
            return [
                DeadLetter(
                    netd_id, lane, accepted, died, attempts, reason, key, Extra(**json.loads(extra)), body, number
                )
                for netd_id, lane, accepted, died, attempts, reason, key, extra, body, number in rows
            ]
        except UNREADABLE as error:
            raise failed(error) from None

    def forget(self, ids: Sequence[int]) -> None:
        """Remove dead letters. Part of a transaction."""
        removed = self.db.executemany("DELETE FROM dead WHERE id = ?", [(each,) for each in ids])
        self.dead_total -= max(0, removed.rowcount)


def _decode(  # noqa: PLR0917 - a row
    lane: LaneRow, first: int, count: int, accepted: int, check: int, data: bytes
) -> Block | Damaged:
    try:
        if blocks.checksum(lane.id, first, count, accepted, data) != check:
            raise BadBlock("the checksum is wrong")
        return blocks.decode(lane.route, lane.origin, first, accepted, data)
    except BadBlock as error:
        count = count if isinstance(count, int) else 1
        accepted = accepted if isinstance(accepted, int) else 0
        return Damaged(first, first + max(1, count), accepted, data if isinstance(data, bytes) else b"", str(error))


def _lock(path: Path) -> int:
    """Open the file and lock it for this process; the system unlocks it when the process ends, however it ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolFailed(str(error.strerror)) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise SpoolInUse("in use by another process") from None
    return descriptor


def failed(error: Exception) -> SpoolFailed:
    """Why the database could not do it."""
    if not isinstance(error, sqlite3.Error):
        return SpoolFailed(f"it is damaged: {error}")
    name = getattr(error, "sqlite_errorname", "")
    return SpoolFailed(f"{error}{f' ({name})' if name else ''}", full=name == "SQLITE_FULL")
