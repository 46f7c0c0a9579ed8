"""The embedded broker: durable queues in the spool's database, for a machine without RabbitMQ.

The queues that the ports of the configuration name exist; a message for another is returned. A message is confirmed
once it is committed in its queue. Consumers of a queue compete, a message each in turn. What a consumer was given, and
what it has settled, is noted on disk within a moment, and when netd stops, but not at once: after a crash the last
messages may be delivered again, as if for the first time. How often one was given back is known until netd ends.

Of a subscribe port's `declare.arguments` it knows those of RabbitMQ that fit: x-max-length (a full queue refuses; the
lane tries again, and lines wait in the spool) and x-delivery-limit (a message that was given back so often becomes a
dead letter).
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd.bridge import queuerows
from netd.bridge.broker import BrokerState, Consumer, Outcome, Sender
from netd.bridge.burials import Burials
from netd.bridge.config import BridgeSettings
from netd.bridge.messages import ID_HEADER, PEER_HEADER, Block, Delivery, Details, Extra, Route
from netd.bridge.queuerows import DamagedBlock, QueueRow, StoredBlock
from netd.bridge.spool import RELEASE_DELAY, Plain, Spool
from netd.bridge.spoolfile import DAMAGED, DeadLetter, SpoolFailed, SpoolFile, Work
from netd.runtime import CannotStart

READ_SIZE = 1 << 20
"""Bytes of a queue that are read at once."""
LOADED_SIZE = 2 << 20
"""Bytes of a queue that wait in memory to be delivered, about; the rest is on disk."""
MOST_AT_ONCE = 2000
"""Messages of a queue that are delivered before others have their turn: some milliseconds."""
APPEND_DELAY = 0.005
"""Seconds that a message may wait for the commit of the next line to come to its queue with: for who sends line by
line, a sync a line instead of two."""
OVERHEAD = 128
"""Bytes that a block takes beside its messages, about."""

MAX_LENGTH, DELIVERY_LIMIT = "x-max-length", "x-delivery-limit"

_log = Logger()


class _Loaded:
    """A block of a queue in memory."""

    __slots__ = ("block", "counts", "left", "old", "position", "settled", "size")

    def __init__(self, stored: StoredBlock, *, old: bool) -> None:
        self.position = stored.position
        self.block = stored.block
        self.settled = bytearray(stored.settled or bytes(len(stored.block)))
        self.left = self.settled.count(0)
        self.size = OVERHEAD + sum(map(len, stored.block.bodies))
        self.old = old
        """Whether it was there when netd started: how often it was delivered is not known."""
        self.counts: dict[int, int] = {}
        """By index, how often a message was given back."""


class _Delivered:
    """A message on its way to a consumer."""

    __slots__ = ("body", "earlier", "index", "loaded", "queue", "tag")

    def __init__(self, tag: int, queue: "_Queue", loaded: _Loaded, index: int) -> None:
        self.tag = tag
        self.queue = queue
        self.loaded = loaded
        self.index = index
        self.body = loaded.block.bodies[index]
        self.earlier = loaded.old and loaded.position + index <= queue.row.taken
        """Whether it was delivered before netd started: once at least."""

    @property
    def redelivered(self) -> bool:
        """Whether this is not the first time."""
        return self.earlier or self.index in self.loaded.counts

    def details(self) -> Details:
        block = self.loaded.block
        extra = (block.extras or {}).get(self.index, Extra())
        peer = {PEER_HEADER: extra.peer} if extra.peer else {}
        headers = {**extra.headers, ID_HEADER: block.netd_id(self.index), **peer}
        deliveries = 1 + self.earlier + self.loaded.counts.get(self.index, 0)
        return Details(self.queue.row.name, headers, deliveries)


class _Queue:
    """One queue: what of it is in memory, and who consumes it."""

    def __init__(self, row: QueueRow, spool: Spool, clock: IReactorTime, service: str) -> None:
        self.row = row
        self.length = row.length
        """Messages that are not settled, those that are about to be committed too."""
        self._spool = spool
        self._clock = clock
        self._next = row.next
        self._committed = row.next
        self._loaded_upto = 0
        self._fresh: deque[tuple[_Loaded, Iterator[int]]] = deque()
        self._waiting = 0
        """Bytes of the blocks that are loaded and not delivered to their end."""
        self._returned: deque[tuple[_Loaded, int]] = deque()
        self._subscriptions: deque[_Subscription] = deque()
        self._taken = self._noted = row.taken
        self._touched: dict[int, _Loaded] = {}
        self._finished: list[int] = []
        self._noting = False
        self._serving = False
        self._reading = False
        self._burials = Burials(clock, f"queue {row.name}", service)
        self.heed({})

    def heed(self, arguments: Mapping[str, object]) -> None:
        """Its bounds from now on."""
        self.most = int(str(arguments.get(MAX_LENGTH, 0)))
        self._limit = int(str(arguments.get(DELIVERY_LIMIT, 0)))

    def stop(self) -> None:
        """Say what has not been said."""
        self._burials.stop()

    # --- in

    def room(self) -> int:
        """How many messages more it takes."""
        return max(0, self.most - self.length) if self.most else 1 << 62

    def append(self, block: Block, size: int, outlet: "_Outlet") -> None:
        """Commit a block, then confirm it."""
        position = self._next
        self._next += len(block)
        self.length += len(block)
        work: Work = partial(queuerows.append, queue=self.row.id, position=position, block=block)
        done = partial(self._appended, position, block, outlet)
        self._spool.write(Plain(work, done, grows=False, size=size), within=APPEND_DELAY)

    def _appended(self, position: int, block: Block, outlet: "_Outlet") -> None:
        following = position + len(block)
        if self._loaded_upto == position - 1 and self._waiting < LOADED_SIZE and not self._reading:
            self._load(_Loaded(StoredBlock(position, block), old=False))
        self._committed = following
        outlet.tell(block.first, block.first + len(block) - 1, Outcome.CONFIRMED)
        self.serve()

    # --- out

    def subscribe(self, subscription: "_Subscription") -> None:
        self._subscriptions.append(subscription)
        self.serve()

    def unsubscribe(self, subscription: "_Subscription") -> None:
        self._subscriptions.remove(subscription)

    def serve(self) -> None:
        """Deliver what can be, once whoever calls this is done."""
        if not self._serving and self._subscriptions:
            self._serving = True
            self._clock.callLater(0, self._serve)

    def _serve(self) -> None:
        self._serving = False
        idle = 0
        for _ in range(MOST_AT_ONCE + len(self._subscriptions)):
            if idle >= len(self._subscriptions):
                break
            subscription = self._subscriptions[0]
            self._subscriptions.rotate(-1)
            if not subscription.room:
                idle += 1
                continue
            found = self._take()
            if found is None:
                break
            subscription.take(*found)
            idle = 0
        else:
            self.serve()
        if self._taken != self._noted:
            self._note()
        for subscription in list(self._subscriptions):
            subscription.deliver()
        self._read()

    def _take(self) -> tuple[_Loaded, int] | None:
        if self._returned:
            return self._returned.popleft()
        while self._fresh:
            loaded, indexes = self._fresh[0]
            index = next(indexes, None)
            if index is not None:
                self._taken = max(self._taken, loaded.position + index)
                return loaded, index
            self._fresh.popleft()
            self._waiting -= loaded.size
        return None

    def _load(self, loaded: _Loaded) -> None:
        self._loaded_upto = loaded.position + len(loaded.block) - 1
        self._waiting += loaded.size
        unsettled = (index for index, flag in enumerate(bytes(loaded.settled)) if not flag)
        self._fresh.append((loaded, unsettled))

    def _read(self) -> None:
        """Have something in memory for the next who has room."""
        if self._waiting or self._reading or self._loaded_upto + 1 >= self._committed:
            return
        self._reading = True
        reading = self._spool.read(
            partial(queuerows.read, queue=self.row, position=self._loaded_upto + 1, most=READ_SIZE)
        )
        reading.addCallbacks(self._was_read, self._was_not_read).addErrback(
            lambda failure: _log.failure("reading the queue {queue} failed", failure, queue=self.row.name)
        )

    def _was_read(self, found: Sequence[StoredBlock | DamagedBlock]) -> None:
        self._reading = False
        for each in found:
            if isinstance(each, StoredBlock):
                self._load(_Loaded(each, old=each.position < self.row.next))
            else:
                self._loaded_upto = each.position  # and what comes next is found: its count may be what is damaged
                self._bury_damaged(each)
        if not found:
            self._loaded_upto = self._committed - 1
        self.serve()

    def _was_not_read(self, failure: Failure) -> None:
        failure.trap(SpoolFailed)
        self._clock.callLater(1.0, self._reread)

    def _reread(self) -> None:
        self._reading = False
        self.serve()

    # --- settled

    def settle(self, loaded: _Loaded, index: int) -> None:
        """A message is done with."""
        loaded.settled[index] = 1
        loaded.left -= 1
        self.length -= 1
        if loaded.left:
            self._touched[loaded.position] = loaded
        else:
            self._touched.pop(loaded.position, None)
            self._finished.append(loaded.position)
        self._note()

    def give_back(self, messages: Sequence[tuple[_Loaded, int]]) -> None:
        """Messages are to be delivered again, before all others, in their order."""
        again = []
        for loaded, index in messages:
            count = loaded.counts[index] = loaded.counts.get(index, 0) + 1
            if self._limit and count > self._limit:
                self._bury(loaded, index, f"delivered {count} times: {DELIVERY_LIMIT}")
            else:
                again.append((loaded, index))
        self._returned.extendleft(reversed(again))
        self.serve()

    def _bury(self, loaded: _Loaded, index: int, reason: str) -> None:
        block = loaded.block
        key = block.keys[index] if block.keys is not None else self.row.name.encode()
        extra = (block.extras or {}).get(index, Extra())
        attempts = loaded.counts.get(index, 0)
        letter = DeadLetter(
            block.netd_id(index),
            _lane_of(block.origin),
            block.accepted,
            int(time.time()),
            attempts,
            reason,
            key,
            extra,
            block.bodies[index],
        )
        self._spool.write(Plain(partial(SpoolFile.bury, letters=[letter])), within=RELEASE_DELAY)
        self._burials.happened(1, reason)
        self.settle(loaded, index)

    def _bury_damaged(self, damaged: DamagedBlock) -> None:
        _log.error("a block of the queue {queue} is damaged: {reason}", queue=self.row.name, reason=damaged.reason)
        netd_id = f"{damaged.origin}{DAMAGED}{damaged.first:016d}"
        lane = _lane_of(damaged.origin)
        key = self.row.name.encode()
        reason = f"damaged block: {damaged.reason}"
        now = int(time.time())
        letter = DeadLetter(netd_id, lane, damaged.accepted, now, 0, reason, key, Extra(), damaged.data)
        self._spool.write(Plain(partial(SpoolFile.bury, letters=[letter])), within=RELEASE_DELAY)
        self.length -= damaged.count
        self._finished.append(damaged.position)
        self._note()

    def _note(self) -> None:
        if not self._noting:
            self._noting = True
            self._spool.write(_Note(self), within=RELEASE_DELAY)

    def note(self) -> Work:
        """What of the queue has been delivered and settled since the last time."""
        self._noting = False
        self._noted = self._taken
        touched = {position: bytes(loaded.settled) for position, loaded in self._touched.items()}
        finished = self._finished
        self._touched = {}
        self._finished = []
        return partial(queuerows.settle, queue=self.row, taken=self._taken, settled=touched, finished=finished)


class _Note:
    """What of a queue is delivered and settled by the time of the commit."""

    grows = False
    size = 0

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue

    def seal(self) -> Work:
        return self._queue.note()

    def committed(self) -> None:
        """Nobody waits for it."""


class _Subscription:
    """A consumer at a queue."""

    problem = ""

    def __init__(self, queue: _Queue, prefetch: int, consumer: Consumer) -> None:
        self.room = prefetch
        self._queue = queue
        self._consumer = consumer
        self._tag = 0
        self._unsettled: dict[int, tuple[_Loaded, int]] = {}
        self._batch: list[Delivery] = []

    def take(self, loaded: _Loaded, index: int) -> None:
        self._tag += 1
        self.room -= 1
        self._unsettled[self._tag] = (loaded, index)
        self._batch.append(_Delivered(self._tag, self._queue, loaded, index))

    def deliver(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self._consumer.delivered(batch)

    def acknowledge(self, tag: int, *, all_up_to: bool = False) -> None:
        for each in self._settled(tag, all_up_to):
            self._queue.settle(*each)
        self._queue.serve()

    def give_back(self, tag: int, *, all_up_to: bool = False) -> None:
        self._queue.give_back(self._settled(tag, all_up_to))

    def _settled(self, tag: int, all_up_to: bool) -> list[tuple[_Loaded, int]]:
        if tag > self._tag:
            tags = []  # there was none such
        elif not all_up_to:
            tags = [tag] if tag in self._unsettled else []
        else:
            tags = []
            for each in self._unsettled:
                if each > tag:
                    break
                tags.append(each)
        self.room += len(tags)
        return [self._unsettled.pop(each) for each in tags]

    def close(self) -> None:
        self._queue.unsubscribe(self)
        self._batch = []
        unsettled = list(self._unsettled.values())
        self._unsettled = {}
        self._queue.give_back(unsettled)


class _Outlet:
    """A lane's way in."""

    def __init__(self, broker: "EmbeddedBroker", sender: Sender) -> None:
        self.ready = True
        """Not while a refusal is yet to be told: nothing new overtakes it."""
        self.problem = ""
        self._broker = broker
        self._sender: Sender | None = sender

    def opened(self) -> None:
        if self._sender is not None:
            self._sender.opened()

    def publish(self, block: Block, start: int, stop: int) -> None:
        for key, first, after in _runs(block, start, stop):
            self._publish(key, block, first, after)

    def _publish(self, key: bytes, block: Block, start: int, stop: int) -> None:
        first, last = block.first + start, block.first + stop - 1
        queue = self._broker.queue(key)
        if queue is None:
            self._later(first, last, Outcome.RETURNED, "312 NO_ROUTE")
            return
        room = min(queue.room(), stop - start)
        self.problem = ""
        if room:
            piece = _cut(block, start, start + room)
            queue.append(piece, OVERHEAD + sum(map(len, piece.bodies)), self)
        if start + room < stop:
            self.ready = False
            self.problem = f"queue {queue.row.name} is full: {MAX_LENGTH}"
            self._later(first + room, last, Outcome.REFUSED, self.problem)

    def _later(self, first: int, last: int, outcome: Outcome, reason: str) -> None:
        self._broker.clock.callLater(0, self.tell, first, last, outcome, reason)

    def tell(self, first: int, last: int, outcome: Outcome, reason: str = "") -> None:
        self.ready = self.ready or outcome is Outcome.REFUSED
        if self._sender is not None:
            self._sender.settled(first, last, outcome, reason)

    def close(self) -> None:
        self._sender = None


class EmbeddedBroker:
    """Queues by name. The spool is open before `start`, and is closed after `stop`."""

    def __init__(
        self, queues: Mapping[str, Mapping[str, object]], spool: Spool, clock: IReactorTime, service: str = ""
    ) -> None:
        self.clock = clock
        self._service = service
        self._wanted = queues
        self._spool = spool
        self._queues: dict[bytes, _Queue] = {}

    @property
    def state(self) -> BrokerState:
        return BrokerState("up", name="embedded")

    async def start(self) -> None:
        (await self._prepare(self._wanted))()

    async def prepare_queues(self, settings: BridgeSettings) -> Callable[[], None]:
        return await self._prepare(settings.queues())

    async def _prepare(self, queues: Mapping[str, Mapping[str, object]]) -> Callable[[], None]:
        new = [name for name in queues if name.encode() not in self._queues]
        try:
            rows = await self._spool.read(lambda file: queuerows.open_queues(file, new)) if new else []
        except SpoolFailed as error:
            raise CannotStart(f"{self._spool.path}: {error}") from None

        def commit() -> None:
            for row in rows:
                self._queues[row.name.encode()] = _Queue(row, self._spool, self.clock, self._service)
            for name, arguments in queues.items():
                self._queues[name.encode()].heed(arguments)

        return commit

    async def stop(self) -> None:
        for queue in self._queues.values():
            queue.stop()
        self._queues.clear()

    def outlet(self, route: Route, sender: Sender) -> _Outlet:  # noqa: ARG002 - the interface says so
        outlet = _Outlet(self, sender)
        self.clock.callLater(0, outlet.opened)
        return outlet

    def subscribe(self, queue: str, prefetch: int, consumer: Consumer) -> _Subscription:
        found = self._queues[queue.encode()]
        subscription = _Subscription(found, prefetch, consumer)
        found.subscribe(subscription)
        return subscription

    def queue(self, key: bytes) -> _Queue | None:
        """The queue that a routing key names."""
        return self._queues.get(key)

    def lengths(self) -> dict[str, int]:
        """How many messages each queue has, those on their way to consumers too."""
        return {queue.row.name: queue.length for queue in self._queues.values()}


def _runs(block: Block, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """The parts of a piece whose messages have the same key."""
    if block.keys is None:
        yield block.route.routing_key.encode(), start, stop
        return
    first = start
    for index in range(start, stop):
        if block.keys[index] != block.keys[first]:
            yield block.keys[first], first, index
            first = index
    yield block.keys[first], first, stop


def _cut(block: Block, start: int, stop: int) -> Block:
    if start == 0 and stop == len(block):
        return block
    extras = {index - start: extra for index, extra in (block.extras or {}).items() if start <= index < stop}
    keys = block.keys[start:stop] if block.keys is not None else None
    bodies = list(islice(block.bodies, start, stop))
    return Block(
        block.route, block.origin, block.first + start, block.accepted, bodies, keys=keys, extras=extras or None
    )


def _lane_of(origin: str) -> int:
    """The lane's number within an origin."""
    return int(origin.rpartition("-")[2])
