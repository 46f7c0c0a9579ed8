"""A publish port's messages on their way: received → spooled → published → confirmed | returned | refused → released.

Numbers. Messages of a lane are numbered from 1 without gaps, across restarts. Everything else is a position in that
row: `released` ≤ what is on its way ≤ `cursor` (the next to be published) ≤ `committed` + 1 ≤ `next` (the next to be
received).

    released            cursor           committed      next
    ───┼──── in flight ────┼── backlog ─────┼── open ─────┼
                           └ recent ┘

Blocks in flight are kept until every message of theirs has come to an end: confirmed, or a dead letter. They are
released in order, so that two numbers say what is left. What is in flight is bounded (WINDOW); so a message whose
confirm does not come holds up its lane after a while, and never another lane.

The backlog is on disk; `recent` is as much of its beginning as has come to memory, either because it has just been
committed and the broker keeps up, or by reading it back.

Order. Blocks are published in order. After a lost connection what is LOST is given again before anything new, in order:
a range repeats, nothing overtakes. What the broker REFUSED is given again after a pause that grows, and the lane waits
until then: messages that it took meanwhile, those in flight, are ahead of them.
"""

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from secrets import token_hex

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.bridge.broker import Broker, Outcome, Outlet
from netd.bridge.burials import Burials
from netd.bridge.lines import Received
from netd.bridge.messages import Block, Extra
from netd.bridge.shares import Client, Share, Shares
from netd.bridge.spool import RELEASE_DELAY, Plain, Spool
from netd.bridge.spoolfile import CUT, DAMAGED, Damaged, DeadLetter, LaneRow, SpoolFailed, SpoolFile, Work
from netd.stats import Histogram

BLOCK_MESSAGES = 1024
"""Messages after which a block takes no more: a fraction of the window, so that several are on their way."""
BLOCK_SIZE = 256 << 10
"""The same in bytes."""
WINDOW = 4096
"""Messages in flight, about: a quorum queue confirms no more of them with a larger window, and answers later."""
WINDOW_SIZE = 8 << 20
"""Bytes in flight."""
RECENT_SIZE = 4 << 20
"""Bytes of the backlog that are kept in memory when they have just been committed."""
READ_SIZE = 1 << 20
"""Bytes of the backlog that are read back at once."""
BACK_OFF, LONGEST_BACK_OFF = 0.25, 30.0
"""Seconds until what was refused is tried again, doubled each time."""
OVERHEAD = 128
"""Bytes that a block takes beside its messages, about."""
MOST_SHARES = 10_000
"""Reads of one client that may wait for the broker's confirm before it is read no further."""

_log = Logger()


class _Open:
    """A block that grows until its commit begins."""

    grows = True

    def __init__(self, lane: "Lane", first: int, accepted: int, also: Work | None = None) -> None:
        self.first = first
        self.accepted = accepted
        self.bodies: list[bytes] = []
        self.keys: list[bytes] | None = None
        self.extras: dict[int, Extra] = {}
        self.size = OVERHEAD
        self.shares: list[Share] = []
        self._lane = lane
        self._also = also
        self._block: Block | None = None

    def seal(self) -> Work:
        self._block = self._lane.seal(self)
        return partial(_write, self._lane.row.id, self._block, self._also)

    def committed(self) -> None:
        assert self._block is not None  # noqa: S101 - sealed before
        self._lane.spooled(self._block, self.size, self.shares)


def _write(lane: int, block: Block, also: Work | None, file: SpoolFile) -> None:
    file.put(lane, block)
    if also is not None:
        also(file)


CONFIRM_SECONDS = "From publishing to confirm"


class _Flight:
    """A block in memory, and how many of its messages have come to no end yet."""

    __slots__ = ("attempts", "block", "first", "last", "left", "sent", "size")

    def __init__(self, block: Block, size: int) -> None:
        self.block = block
        self.first = block.first
        self.last = block.first + len(block.bodies) - 1
        self.left = len(block.bodies)
        self.size = size
        self.attempts = 0
        self.sent = 0.0


class Lane:
    """One route's messages, from the port to their end. A `Sender`."""

    def __init__(
        self,
        row: LaneRow,
        spool: Spool,
        clock: IReactorTime,
        *,
        wall: Callable[[], float] = time.time,
        confirm_seconds: Histogram | None = None,
        service: str = "",
    ) -> None:
        self.row = row
        self.confirm_seconds = confirm_seconds or Histogram(CONFIRM_SECONDS)
        self.paused = False
        self.accepted = self.published = self.confirmed = self.returned = self.refused = 0
        """Messages since the start."""
        self.taps: list[Callable[[Sequence[bytes]], object]] = []
        """Who looks on: called with the bodies that are received."""
        self._spool = spool
        self._clock = clock
        self._wall = wall
        self._shares = Shares()
        self._open: _Open | None = None
        self._next = row.next
        self._committed = row.next - 1
        self._cursor = row.released + 1
        self._released = row.released
        self._recent: deque[_Flight | Damaged] = deque()
        self._recent_size = 0
        self._flights: list[_Flight] = []
        self._flying = 0
        self._flying_size = 0
        self._on_way = 0
        self._again: list[tuple[_Flight, int, int]] = []
        self._outlet: Outlet | None = None
        self._reading = False
        self._letters: list[DeadLetter] = []
        self._burials = Burials(clock, f"port {row.route.port}", service)
        self._ends: _Ends | None = None
        self._timer: IDelayedCall | None = None
        self._back_off = BACK_OFF
        self._refusal = ""

    # --- what is known of it

    @property
    def durable(self) -> int:
        """Messages that have been committed since the start."""
        return self._committed + 1 - self.row.next

    @property
    def backlog(self) -> int:
        """Messages that are on disk and not released."""
        return self._committed - self._released

    @property
    def on_way(self) -> int:
        """Messages that the broker has, and has said nothing of."""
        return self._on_way

    @property
    def oldest(self) -> int | None:
        """When the oldest message that is not released was received, in Unix seconds."""
        if self._flights:
            return self._flights[0].block.accepted
        if self._recent:
            first = self._recent[0]
            return first.block.accepted if isinstance(first, _Flight) else first.accepted
        return self._open.accepted if self._open is not None else None

    @property
    def problem(self) -> str:
        """Why nothing is published, in a line."""
        if self.paused:
            return "paused"
        return self._refusal or (self._outlet.problem if self._outlet is not None else "")

    # --- received

    def accept(self, received: Received, size: int, client: Client, *, confirmed: bool = False) -> Share:
        """Take messages of about `size` bytes, at least one; the share that the client will be told about.

        It is told once they are on disk; with `confirmed`, once the broker has answered for them.
        """
        bodies = received.bodies
        block = self._open
        keyed = received.keys is not None
        if block is None or (block.keys is not None) is not keyed:  # after a reload clients of two framings may be here
            block = self._open = _Open(self, self._next, int(self._wall()))
            block.keys = [] if keyed else None
            self._spool.write(block)
        at = len(block.bodies)
        block.bodies += bodies
        if block.keys is not None and received.keys is not None:
            block.keys += received.keys
        if received.extras is not None:
            block.extras |= {at + index: extra for index, extra in received.extras.items()}
        block.size += size
        self._spool.grow(size)
        self.accepted += len(bodies)
        share = Share(client, received.upto, self._next, received.numbers, confirmed=confirmed)
        block.shares.append(share)
        self._next += len(bodies)
        if len(block.bodies) >= BLOCK_MESSAGES or block.size >= BLOCK_SIZE:
            self._open = None
        for tap in self.taps:
            tap(bodies)
        return share

    def retry(self, letters: Sequence[DeadLetter]) -> None:
        """Take dead letters back, with the `x-netd-id` they had."""
        self._open = None  # what comes after is numbered after
        part: list[DeadLetter] = []
        size = 0
        for letter in letters:
            part.append(letter)
            size += len(letter.body)
            if size >= BLOCK_SIZE or letter is letters[-1]:  # SQLite takes no block of a gigabyte
                self._retry(part, size)
                part, size = [], 0

    def _retry(self, letters: Sequence[DeadLetter], size: int) -> None:
        forget = partial(SpoolFile.forget, ids=[letter.id for letter in letters])
        block = _Open(self, self._next, int(self._wall()), also=forget)
        block.bodies = [letter.body for letter in letters]
        block.keys = [letter.key for letter in letters]
        block.extras = {
            index: Extra(each.extra.headers, each.extra.message_id, each.extra.peer, each.netd_id)
            for index, each in enumerate(letters)
        }
        block.size += size
        self._next += len(letters)
        self.accepted += len(letters)
        self._spool.write(block)

    def bury_cut_line(self, body: bytes, reason: str) -> None:
        """A line that will never have its end: a dead letter at once."""
        letter = self._letter(f"{self.row.origin}{CUT}{token_hex(8)}", int(self._wall()), body, reason)
        self._spool.write(Plain(lambda file: file.bury([letter]), grows=True, size=len(body) + OVERHEAD))
        self._burials.happened(1, reason)

    def _letter(self, netd_id: str, accepted: int, body: bytes, reason: str) -> DeadLetter:
        key = self.row.route.routing_key.encode()
        return DeadLetter(netd_id, self.row.id, accepted, int(self._wall()), 0, reason, key, Extra(), body)

    # --- spooled

    def seal(self, block: _Open) -> Block:
        """The commit of a block begins."""
        if self._open is block:
            self._open = None
        route, origin = self.row.route, self.row.origin
        extras = block.extras or None
        return Block(route, origin, block.first, block.accepted, block.bodies, keys=block.keys, extras=extras)

    def spooled(self, block: Block, size: int, shares: Sequence[Share]) -> None:
        """A block has been committed."""
        if block.first == self._tail and self._recent_size < RECENT_SIZE and not self._reading:
            self._recent.append(_Flight(block, size))
            self._recent_size += size
        self._committed = block.first + len(block.bodies) - 1
        try:
            for share in shares:
                if share.confirmed:
                    self._shares.add(share)
                else:
                    share.client.share_done(share)
        finally:
            self._pump()

    @property
    def _tail(self) -> int:
        """The number after the last message that has come to memory."""
        if not self._recent:
            return self._cursor
        last = self._recent[-1]
        return last.last + 1 if isinstance(last, _Flight) else last.after

    # --- published

    def open(self, broker: Broker) -> None:
        """Begin to publish by this broker."""
        self._outlet = broker.outlet(self.row.route, self)
        self._pump()

    def opened(self) -> None:
        """The outlet takes messages."""
        self._pump()

    def pause(self) -> None:
        """Publish nothing until `resume`; lines are taken all the same."""
        self.paused = True

    def resume(self) -> None:
        """Go on."""
        self.paused = False
        self._pump()

    def close(self) -> None:
        """Publish no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._outlet is not None:
            self._outlet.close()
            self._outlet = None
        self._burials.stop()

    def _pump(self) -> None:
        """Give the outlet as much as may be on its way."""
        self._read_back()
        outlet = self._outlet
        if outlet is None or self.paused or self._timer is not None:
            return
        while outlet.ready and self._again and self._on_way < WINDOW:
            self._publish(outlet, *self._again.pop(0))
        while outlet.ready and self._recent and not self._again:
            if self._flying >= WINDOW or self._flying_size >= WINDOW_SIZE:
                break
            flight = self._recent.popleft()
            if isinstance(flight, Damaged):
                self._bury_damaged(flight)
                continue
            self._recent_size -= flight.size
            self._cursor = flight.last + 1
            self._flights.append(flight)
            self._flying += flight.left
            self._flying_size += flight.size
            self._publish(outlet, flight, 0, flight.left)
        self._read_back()

    def _publish(self, outlet: Outlet, flight: _Flight, start: int, stop: int) -> None:
        flight.attempts += 1
        flight.sent = self._clock.seconds()
        self.published += stop - start
        self._on_way += stop - start
        outlet.publish(flight.block, start, stop)

    def _read_back(self) -> None:
        """Have the next of the backlog in memory."""
        if self._recent or self._reading or self._cursor > self._committed:
            return
        self._reading = True
        reading = self._spool.read(partial(_read, self.row.id, self._cursor))
        reading.addCallbacks(self._was_read, self._was_not_read).addErrback(
            lambda failure: _log.failure("reading the backlog of {port} failed", failure, port=self.row.route.port)
        )

    def _was_read(self, found: Sequence[Block | Damaged]) -> None:
        self._reading = False
        found = [each for each in found if each.first <= self._committed]  # more is there after a commit that failed
        if not found:
            _log.error("the spool has no block where {port} has a backlog", port=self.row.route.port)
            self._cursor = self._committed + 1
        for each in found:
            if isinstance(each, Damaged):
                self._recent.append(replace(each, after=min(each.after, self._committed + 1)))
            else:
                flight = _Flight(each, OVERHEAD + sum(map(len, each.bodies)))
                self._recent.append(flight)
                self._recent_size += flight.size
        self._pump()

    def _was_not_read(self, failure: Failure) -> None:
        """The spool is not well, and says so itself: try again when it may be."""
        failure.trap(SpoolFailed)
        self._clock.callLater(1.0, self._reread)

    def _reread(self) -> None:
        self._reading = False
        if self._outlet is not None:
            self._pump()

    def _bury_damaged(self, damaged: Damaged) -> None:
        _log.error(
            "a block of {port} is damaged: {reason}; its bytes are in the dead letters",
            port=self.row.route.port,
            reason=damaged.reason,
        )
        self._cursor = damaged.after
        netd_id = f"{self.row.origin}{DAMAGED}{damaged.first:016d}"
        self._letters.append(self._letter(netd_id, damaged.accepted, damaged.data, f"damaged block: {damaged.reason}"))
        gone = _Flight(Block(self.row.route, self.row.origin, damaged.first, damaged.accepted, []), 0)
        gone.last = damaged.after - 1
        self._flights.append(gone)
        self.returned += damaged.after - damaged.first
        self._release()

    # --- what became of them

    def settled(self, first: int, last: int, outcome: Outcome, reason: str = "") -> None:
        """What became of messages that were given to the outlet."""
        count = last - first + 1
        self._on_way -= count
        pieces = list(self._pieces(first, last))
        match outcome:
            case Outcome.CONFIRMED:
                self.confirmed += count
                now = self._clock.seconds()
                for flight, _, _ in pieces:
                    self.confirm_seconds.observe(now - flight.sent)
                self._end(pieces)
                self._back_off = BACK_OFF
                self._refusal = ""
            case Outcome.RETURNED:
                self.returned += count
                self._bury(pieces, reason)
                self._burials.happened(count, reason)
                self._end(pieces)
            case Outcome.REFUSED:
                self.refused += count
                self._give_again(pieces)
                self._wait(reason)
            case Outcome.LOST:
                self._give_again(pieces)
        self._pump()

    def _pieces(self, first: int, last: int) -> Iterator[tuple[_Flight, int, int]]:
        """The parts of blocks that a range of numbers covers, as `publish` takes them."""
        at = max(0, bisect_right(self._flights, first, key=lambda flight: flight.first) - 1)
        while at < len(self._flights) and (flight := self._flights[at]).first <= last:
            yield flight, max(first, flight.first) - flight.first, min(last, flight.last) - flight.first + 1
            at += 1

    def _end(self, pieces: Sequence[tuple[_Flight, int, int]]) -> None:
        for flight, start, stop in pieces:
            flight.left -= stop - start
            if self._shares:
                self._shares.settle(flight.first + start, flight.first + stop - 1)
        self._release()

    def _release(self) -> None:
        """Let go of the first blocks that have come to their end."""
        ended = 0
        while ended < len(self._flights) and not self._flights[ended].left:
            flight = self._flights[ended]
            self._flying -= len(flight.block.bodies)
            self._flying_size -= flight.size
            self._released = flight.last
            ended += 1
        if ended:
            del self._flights[:ended]
            self._write_ends()

    def _bury(self, pieces: Sequence[tuple[_Flight, int, int]], reason: str) -> None:
        for flight, *ends in pieces:
            for index in range(*ends):
                self._letters.append(self._letter_of(flight, index, reason))
                if self._shares:
                    self._shares.bury(flight.first + index, reason)
        self._write_ends()

    def _write_ends(self) -> None:
        if self._ends is None:
            self._ends = _Ends(self)
            self._spool.write(self._ends, within=RELEASE_DELAY)

    def ends(self) -> Work:
        """Write what has come to its end since the last time: dead letters, and blocks that are released."""
        self._ends = None
        letters, self._letters = self._letters, []
        return partial(_write_ends, self.row.id, self._released, letters)

    def _letter_of(self, flight: _Flight, index: int, reason: str) -> DeadLetter:
        block = flight.block
        key = block.keys[index] if block.keys is not None else block.route.routing_key.encode()
        extra = block.extras.get(index, Extra()) if block.extras is not None else Extra()
        return DeadLetter(
            block.netd_id(index),
            self.row.id,
            block.accepted,
            int(self._wall()),
            flight.attempts,
            reason,
            key,
            extra,
            block.bodies[index],
        )

    def _give_again(self, pieces: Sequence[tuple[_Flight, int, int]]) -> None:
        for flight, start, stop in pieces:
            at = bisect_right(self._again, flight.first + start, key=_number_of)
            if at and self._again[at - 1][0] is flight and self._again[at - 1][2] == start:
                self._again[at - 1] = (flight, self._again[at - 1][1], stop)
            else:
                self._again.insert(at, (flight, start, stop))

    def _wait(self, reason: str) -> None:
        """The broker wants nothing of this lane for a while."""
        self._refusal = reason
        if self._timer is None:
            _log.warn(
                "{port}: refused: {reason}; again in {seconds:g} s",
                port=self.row.route.port,
                reason=reason,
                seconds=self._back_off,
            )
            self._timer = self._clock.callLater(self._back_off, self._waited)
            self._back_off = min(2 * self._back_off, LONGEST_BACK_OFF)

    def _waited(self) -> None:
        self._timer = None
        self._pump()


class _Ends:
    """What has come to its end in a lane by the time of the commit."""

    grows = False
    size = 0

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def seal(self) -> Work:
        return self._lane.ends()

    def committed(self) -> None:
        """Nobody waits for it."""


def _write_ends(lane: int, upto: int, letters: Sequence[DeadLetter], file: SpoolFile) -> None:
    file.release(lane, upto)
    file.bury(letters)


def _number_of(piece: tuple[_Flight, int, int]) -> int:
    return piece[0].first + piece[1]


def _read(lane: int, first: int, file: SpoolFile) -> list[Block | Damaged]:
    return file.read(lane, first, READ_SIZE)
