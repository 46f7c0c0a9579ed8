"""The durable queue between publish ports and the broker: what a line answered `+OK` rests on.

The way of a message

    received → spooled (committed, synced; `+OK`) → published → confirmed | returned | refused → released

`Lane` walks it; this module answers for the second step and the last.

Why a committed line is on disk

1. The lines that arrive while a commit is under way are committed together by the next one (group commit): one
   transaction, and one sync of SQLite's log of changes (WAL, `synchronous = FULL`), for all of them. SQLite appends the
   changed pages, then a commit mark, then calls fdatasync, and only then returns. `committed()` is called after that,
   and nothing else leads to a `+OK`.
2. After a crash SQLite takes from the log whatever is whole up to the last commit mark: each page there is chained to
   the ones before it by a checksum. What was synced is whole, on a disk that keeps what it synced. What was not may be
   there or not; nobody was told.
3. Pages go from the log to the database by a checkpoint: log synced, pages written, database synced, and only then is
   the log begun anew. A crash in between does it again.
4. The names of the files are synced with their directories when the spool is made.

When a commit fails, nothing is known: the kernel tells of a failed sync once, then takes the pages that it could not
write for clean, and the next sync succeeds without having written them. So a failed transaction is neither taken for
absent nor for done. The file is closed, opened anew, so that SQLite reads its log again, and everything that was found
there is moved into the database by a checkpoint, whose own sync must succeed: from then on the log is empty, and what
is in the database is on disk or was never committed. Then the *same* changes are written once more, as a new
transaction into a new log. Every change may be done twice with the same result (rows have their keys before they are
written), so whichever of the two is found after a crash, it is right. Until that succeeds no `+OK` is said, reading
stops (`*WAIT`), and it is tried again every second. Lines that wait for it stay in memory, and are bounded.

When the disk is full, what gives room (released blocks, dead letters for them; a block's move to a queue of the
embedded broker, whose release follows) is written before what takes room, by the help of a reserve: a file that is
removed in need. Else the disk could stay full although the broker takes everything, because a deletion needs room in
the log first. And both are written a little at a time, with a checkpoint after each, and told of as far as it went.

Released blocks are not worth a sync of their own: a release is written with the next commit, or after a moment. Lost in
a crash, it makes a block go out once more, each message with the `x-netd-id` it had.

A block on disk is verified by its checksum when it is read, not when the spool is opened: a gigabyte of backlog opens
at once. One that is damaged goes to the dead letters with its bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.bridge.spoolfile import SMALL, LaneRow, SpoolFailed, SpoolFile, Work
from netd.stats import Histogram

WAITING_LIMIT = 8 << 20
"""Bytes that may wait for a commit before reading pauses: some tens of milliseconds of a disk's time."""
WAITING_MOST = 16 << 20
"""The same before everybody's reading pauses, not only that of who sends just then."""
RELEASE_DELAY = 0.25
"""Seconds that what nobody waits for may wait for a commit to go with."""
MEASURE_EVERY = 32
"""Commits after which it is asked again how much the file holds: the question costs a tenth of a sync. After those that
only give room it is always asked."""
NEVER = float("inf")
RETRY_DELAY = 1.0
"""Seconds between two attempts to write again after a failure."""
FULL_MARGIN = 20
"""A spool that has reached its limit takes lines again once a twentieth of it is free."""

T = TypeVar("T")
InThread = Callable[[Callable[[], T]], "Deferred[T]"]

_log = Logger()


class Change(Protocol):
    """Something to be committed."""

    grows: bool
    """Whether it takes room; what only gives room is written even when the disk is full."""
    size: int
    """Bytes that it takes, about."""

    def seal(self) -> Work:
        """What to do in the transaction, which begins now: nothing can be added from here on. Asked once."""

    def committed(self) -> None:
        """It is on disk."""


@dataclass(slots=True)
class Plain:
    """A change that is complete from the beginning."""

    work: Work
    done: Callable[[], object] = lambda: None
    grows: bool = False
    size: int = 0

    def seal(self) -> Work:
        return self.work

    def committed(self) -> None:
        self.done()


_Sealed = tuple[Change, Work]
"""A change, and what it comes to, however often that has to be written."""


class Spool:
    """Group commit to a `SpoolFile` on a thread of its own, and whether there is room for more.

    `changed` is called whenever `pressure` or `problem` may have changed.
    """

    def __init__(
        self,
        path: Path,
        limit: int,
        clock: IReactorTime,
        in_thread: Callable[[Callable[[], T]], "Deferred[T]"],
        changed: Callable[[], object],
    ) -> None:
        self.path = path
        self.used = 0
        """Bytes on disk, about."""
        self.commits = 0
        self.commit_seconds = Histogram("The spool commits in")
        self._began = 0.0
        self._limit = limit
        self._clock = clock
        self._in_thread: InThread[object] = in_thread  # type: ignore[assignment]  # mypy has no word for a generic attribute
        self._changed = changed
        self._file: SpoolFile | None = None
        self._gathering: list[Change] = []
        self._gathering_size = 0
        self._committing: list[_Sealed] = []
        self._committing_size = 0
        self._written: list[_Sealed] = []
        """What a recovery that failed in the middle had committed; of the thread's, while it is busy."""
        self._busy = False
        self._due = NEVER
        self._timer: IDelayedCall | None = None
        self._failure = ""
        self._full = False
        self._over = False
        self._closing = False
        self._now_told: list[Deferred[None]] = []
        """Who waits for the commit that is under way."""
        self._next_told: list[Deferred[None]] = []
        """Who waits for the next one."""

    # --- whether there is room

    @property
    def waiting(self) -> int:
        """Bytes that are not on disk yet."""
        return self._gathering_size + self._committing_size

    @property
    def pressure(self) -> bool:
        """Whether who sends should pause for a moment."""
        return self._gathering_size + self._committing_size > WAITING_LIMIT

    @property
    def problem(self) -> str:
        """Why nothing more can be taken, in a line; "" when all is well."""
        if self._failure:
            return f"the spool cannot be written: {self._failure}"
        return "the spool is full: spool_limit" if self._over else ""

    def set_limit(self, limit: int) -> None:
        """From now on it may hold so many bytes; 0: as many as the disk takes."""
        self._limit = limit
        self._over = False
        self._check_limit()
        self._changed()

    # --- life

    async def open(self) -> list[LaneRow]:
        """Open the file; raises SpoolFailed or SpoolInUse."""
        self._file = await self._call(lambda: SpoolFile(self.path))
        self.used = await self._call(self._file.used)
        self._check_limit()
        return self._file.lanes()

    async def close(self) -> None:
        """Commit what waits, if that can be, and close the file."""
        self._closing = True
        while not self._failure and (self._gathering or self._committing):
            await self.flushed()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._file is not None:
            file, self._file = self._file, None
            await self._call(partial(_close, file))

    def flushed(self) -> "Deferred[None]":
        """Fires once all that is known now has been committed."""
        waiting: Deferred[None] = Deferred()
        if not (self._gathering or self._committing):
            waiting.callback(None)
            return waiting
        if self._gathering:
            self._next_told.append(waiting)
            self._due = self._clock.seconds()
            self._schedule()
        else:  # nothing is due: a time in the past would keep what comes later from being it
            self._now_told.append(waiting)
        return waiting

    def _call(self, work: Callable[[], T]) -> "Deferred[T]":
        return self._in_thread(work)  # type: ignore[return-value]

    def read(self, work: Callable[[SpoolFile], T]) -> "Deferred[T]":
        """Ask the file something; fails with SpoolFailed."""
        return self._call(lambda: work(self.file))

    @property
    def file(self) -> SpoolFile:
        """The open file, for use on its thread."""
        if self._file is None:
            raise SpoolFailed("closed")
        return self._file

    # --- commits

    def write(self, change: Change, *, within: float = 0.0) -> None:
        """Have a change committed, together with what else comes until then; it may wait `within` seconds for that."""
        self._gathering.append(change)
        if change.size:
            self.grow(change.size)
        due = self._clock.seconds() + within
        if due < self._due:
            self._due = due
            self._schedule()

    @property
    def dead_letters(self) -> int:
        """How many there are."""
        return self._file.dead_total if self._file is not None else 0

    def grow(self, size: int) -> None:
        """A change that waits has become larger."""
        before = self._gathering_size + self._committing_size
        self._gathering_size += size
        if before <= WAITING_MOST < before + size:
            self._changed()

    @property
    def crowded(self) -> bool:
        """Whether even those should pause who have not sent anything just now."""
        return self._gathering_size + self._committing_size > WAITING_MOST

    def _schedule(self) -> None:
        """Begin when something is due: at the earliest once this turn's connections have all been read."""
        if self._busy or self._failure or self._due == NEVER:
            return
        delay = max(0.0, self._due - self._clock.seconds())
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._begin)
        else:
            self._timer.reset(delay)

    def _begin(self) -> None:
        self._timer = None
        if self._busy or self._file is None:
            return  # what is due stays due, and begins when the thread is free
        sealed = [(change, change.seal()) for change in self._gathering]
        self._due = NEVER
        self._busy = True
        self._began = self._clock.seconds()
        self._committing += sealed
        self._committing_size += self._gathering_size
        self._gathering = []
        self._gathering_size = 0
        self._now_told += self._next_told
        self._next_told = []
        if self._failure:
            portions = list(_portions(self._committing) if self._full else [self._committing])
            call: Callable[[], int | None] = partial(_recover, self._file, portions, self._written, full=self._full)
        else:
            measure = self._over or self.commits % MEASURE_EVERY == 0 or not self._committing_size
            works = [work for _, work in self._committing]
            call = partial(_transact, self._file, works, self._committing_size, measure=measure)
        self._in_thread(call).addCallbacks(self._committed, self._failed).addErrback(self._broken)

    def _committed(self, used: object) -> None:
        self._busy = False
        self._written = []
        done, self._committing = self._committing, []
        self.used = int(str(used)) if used is not None else self.used + self._committing_size
        self._committing_size = 0
        self.commits += 1
        self.commit_seconds.observe(self._clock.seconds() - self._began)
        if self._failure:
            _log.info("the spool {path} is written again", path=str(self.path))
            self._failure = ""
            self._full = False
        told, self._now_told = self._now_told, []
        for change, _ in done:
            self._tell(change)
        self._check_limit()
        self._changed()
        if self._file is not None and self._file.wants_checkpoint:
            self._busy = True
            self._in_thread(partial(_tidy, self._file)).addCallbacks(self._checkpointed, self._failed).addErrback(
                self._broken
            )
        else:
            self._next()
        for waiting in told:
            waiting.callback(None)

    def _tell(self, change: Change) -> None:
        """Say that a change is on disk; who cannot bear to hear it must not keep the others from hearing it."""
        try:
            change.committed()
        except Exception:  # noqa: BLE001 - as above
            _log.failure("unexpected error after a commit of {path}", path=str(self.path))

    def _checkpointed(self, _: object) -> None:
        self._busy = False
        self._next()

    def _next(self) -> None:
        if self._gathering:
            self._schedule()

    def _failed(self, failure: Failure) -> None:
        """Nothing is known of what was to be written: write it again, from the beginning."""
        error = failure.value
        if not isinstance(error, SpoolFailed):
            failure.raiseException()
        self._busy = False
        if str(error) != self._failure:
            _log.error("the spool {path} cannot be written: {reason}", path=str(self.path), reason=str(error))
        first = not self._failure
        self._failure = str(error)
        self._full = self._full or error.full
        written, self._written = self._written, []
        if written:
            gone = set(map(id, written))
            self._committing = [each for each in self._committing if id(each) not in gone]
            self._committing_size -= sum(change.size for change, _ in written)
            for change, _ in written:
                self._tell(change)
        if self._closing:
            told = self._now_told + self._next_told
            self._now_told, self._next_told = [], []
            for waiting in told:
                waiting.callback(None)
            return
        if self._timer is not None:
            self._timer.cancel()
        hopeful = written or (first and self._full)
        self._timer = self._clock.callLater(0 if hopeful else RETRY_DELAY, self._begin)
        self._changed()

    def _broken(self, failure: Failure) -> None:
        """A mistake of ours: what was not committed never will be, and nobody is told that it was."""
        _log.failure("unexpected error of the spool {path}", failure, path=str(self.path))
        self._failure = f"unexpected error: {failure.getErrorMessage()}"
        self._changed()

    def _check_limit(self) -> None:
        if not self._limit:
            return
        taken = self.used + self.waiting
        self._over = taken >= (self._limit - self._limit // FULL_MARGIN if self._over else self._limit)


# --- on the thread


def _transact(file: SpoolFile, works: Sequence[Work], size: int, *, measure: bool) -> int | None:
    if not file.reserve and size and not file.has_room(size, grows=True):
        raise SpoolFailed("the disk is full", full=True)
    file.commit(works)
    return file.used() if measure else None


def _tidy(file: SpoolFile) -> None:
    file.checkpoint()
    file.keep_reserve()


def _portions(changes: Sequence[_Sealed]) -> Iterator[list[_Sealed]]:
    """What is written at once on a full disk: a little at a time, and first what gives most room."""
    for _, alike in groupby(sorted(changes, key=_room), _room):
        portion: list[_Sealed] = []
        size = 0
        for each in alike:
            more = each[0].size
            if portion and size + more > SMALL:
                yield portion
                portion, size = [], 0
            portion.append(each)
            size += more
        yield portion


def _room(sealed: _Sealed) -> tuple[bool, bool]:
    """Whether it takes room for good, or for a moment; releases do neither."""
    change, _ = sealed
    return change.grows, change.size > 0


def _recover(file: SpoolFile, portions: Sequence[Sequence[_Sealed]], written: list[_Sealed], *, full: bool) -> int:
    """Find out what is on disk, and write again what may not be; raises SpoolFailed as long as that cannot be.

    What a full disk took until then is added to `written`.
    """
    if full:
        file.give_up_reserve()
    file.reopen()
    for portion in portions:
        size = sum(change.size for change, _ in portion)
        if full and size and not file.has_room(size, grows=portion[0][0].grows):
            raise SpoolFailed("the disk is full", full=True)
        file.commit([work for _, work in portion])
        if full:
            file.checkpoint(everything=True)
            written += portion
    file.keep_reserve()
    return file.used()


def _close(file: SpoolFile) -> None:
    try:
        file.checkpoint(everything=True)
    except SpoolFailed:
        pass  # what is committed is in its log of changes
    finally:
        file.close()
