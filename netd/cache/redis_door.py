"""A Redis client before a real Redis: it shares the link with all others until it asks for what cannot be shared.

From then on it has a connection of its own, and no part in the near cache, until it leaves: also after RESET, as what
it wrote there may still be on its way to the near cache as an invalidation. What it had asked before has been done by
then: the last that it sends on the shared link is a PING, whose reply it waits for.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from netd.cache.batch import Found, Pairs, Results
from netd.cache.conversation import Conversation
from netd.cache.layout import value_of
from netd.cache.redis import BUSY, pack
from netd.cache.redis_exchange import Done, Exchange
from netd.cache.redis_names import KeyNames
from netd.cache.redis_own import OWN_COMMANDS
from netd.cache.redis_pinned import PUSHED_MESSAGES, SUBSCRIBES, Pinned, PinnedPool, Unavailable
from netd.cache.redis_plan import command
from netd.cache.redis_session import PINNED_TOO, RedisSession
from netd.cache.redis_table import ALIKE
from netd.cache.redis_words import Refused
from netd.cache.requests import Answer, Command, Problem, Request
from netd.cache.resp import Raw

if TYPE_CHECKING:
    from netd.cache.redis_store import RedisStore

UNBLOCKED_AFTER = 0.05
"""Seconds between two looks whether a client takes messages again."""

_TRANSACTIONS: Final = frozenset({b"MULTI", b"EXEC", b"DISCARD"})
_UNQUEUED: Final = frozenset(name.encode() for name in OWN_COMMANDS.keys() - PINNED_TOO)
"""What a session answers itself; in a transaction it cannot."""

_WRONG: Final = pack(b"GET")
"""Asked in place of what is refused: a command that is wrong, so that a transaction comes to nothing, as in Redis."""

_log = Logger()


class RedisDoor:
    """The session of one Redis client, behind its `RedisSession`."""

    __slots__ = ("_closed", "_connection", "_names", "_pinned", "_pool", "_store", "_waiting", "client")

    client: RedisSession

    def __init__(self, store: "RedisStore", pool: PinnedPool, connection: Conversation) -> None:
        self._store = store
        self._pool = pool
        self._connection = connection
        self._names = KeyNames(store.prefix) if store.prefix else None
        self._pinned: Pinned | None = None
        self._waiting: list[tuple[list[Request], Exchange, int] | None] | None = None
        """What is asked while it is being connected; None stands for RESET."""
        self._closed = False

    @property
    def pinned(self) -> bool:
        """Whether it has a connection of its own, or is about to get one."""
        return self._pinned is not None or self._waiting is not None

    def lookup(self, keys: list[bytes], done: Callable[[Found], None]) -> Found | None:
        if not self.pinned:
            return self._store.lookup(keys, done)
        return self._all_pinned(list(keys), done)  # type: ignore[no-any-return]  # answers to keys

    def write(self, pairs: Pairs, done: Callable[[Results], None]) -> Results | None:
        if not self.pinned:
            return self._store.write(pairs, done)
        return self._all_pinned(list(pairs), done)  # type: ignore[no-any-return]  # answers to pairs

    def execute(self, requests: list[Request], done: Done) -> Sequence[Answer] | None:
        if not self.pinned and not any(map(self.needs, requests)):
            return self._store.execute(requests, done)
        return self._all_pinned(requests, done)  # type: ignore[no-any-return]  # answers

    def _all_pinned(self, requests: list[Any], done: Any) -> Any:
        exchange = Exchange([None] * len(requests), done)
        exchange.missing = len(requests)
        self._dispatch(requests, exchange, 0)
        return exchange.result()

    def _dispatch(self, requests: list[Request], exchange: Exchange, place: int) -> None:
        """Have requests done where they have to be done now; their answers go to the exchange, from `place` on."""
        if self._waiting is not None:
            self._waiting.append((requests, exchange, place))
            return
        if self._pinned is not None:
            self._ask(self._pinned, requests, exchange, place)
            return
        first = next((at for at, request in enumerate(requests) if self.needs(request)), len(requests))
        shared, own = requests[:first], requests[first:]
        if shared:
            settle = partial(_settle_all, exchange, place)
            if (answers := self._store.execute(shared, settle)) is not None:
                settle(answers)
        if own:
            self._pin()
            self._dispatch(own, exchange, place + first)

    def close(self) -> None:
        """The client has gone."""
        self._closed = True
        self._waiting = None
        pinned, self._pinned = self._pinned, None
        if pinned is not None:
            pinned.release()

    def leave(self) -> None:
        """RESET: forget transactions, subscriptions and the like; a connection of its own it keeps."""
        if self._waiting is not None:
            self._waiting.append(None)
        elif self._pinned is not None:
            self._pool.renew(self._pinned)

    def needs(self, request: Request) -> bool:
        """Whether this cannot be asked on the shared link."""
        if not isinstance(request, Command):
            return False
        table = self._store.commands.table
        if request.words[0] in table.plain:
            return False
        name = request.words[0].upper()
        if table.refused(request.words, allow_flush=self._store.settings.may_flush):
            return False
        if table.needs_own_connection(name):
            return True
        return self.client.version == 3 and table.knows(name) and name not in ALIKE  # noqa: PLR2004 - RESP3

    # --- getting one

    def _pin(self) -> None:
        self._waiting = []
        self.client.route()
        taking = Deferred.fromCoroutine(self._take())
        taking.addErrback(lambda failure: _log.failure("unexpected error while connecting a client", failure))

    async def _take(self) -> None:
        done: Deferred[Any] = Deferred()
        link = self._store.upstream.link
        if link is not None:
            link.submit(pack(b"PING"), 1, done.callback)
            await done
        why = ""
        pinned = None
        try:
            pinned = await self._pool.take(self.client.version)
        except Unavailable as error:
            why = str(error)
        waiting, self._waiting = self._waiting, None
        if waiting is None or self._closed:
            if pinned is not None:
                pinned.release()
            return
        if pinned is None:
            self._refuse(list(filter(None, waiting)), Problem(why.encode("utf-8", "replace")))
            return
        pinned.push, pinned.lost = self._push, self._lost
        self._pinned = pinned
        for each in waiting:
            if each is None:
                self.leave()
            else:
                self._dispatch(*each)

    def _refuse(self, waiting: list[tuple[list[Request], Exchange, int]], problem: Problem) -> None:
        """There is none to be had. Who has begun a transaction is hung up on: the rest of it must not be done."""
        transaction = any(map(_begins_transaction, chain.from_iterable(requests for requests, _, _ in waiting)))
        self._waiting = [] if transaction else None
        self.client.route()
        for requests, exchange, place in waiting:
            for at in range(len(requests)):
                exchange.settle(place + at, problem)
        if transaction:
            self._connection.hang_up()

    def _lost(self, _why: str) -> None:
        """Redis or the network has ended it: transactions and subscriptions are gone, and so is the client.

        What the client has sent behind that is refused by what it had: the rest of a transaction must not be done.
        """
        if not self._closed:
            self._connection.close()

    def _push(self, data: bytes) -> None:
        # In RESP3 messages may come at any time, and what is owed may be the reply to what blocks.
        self._connection.push(data, at_once=data.startswith(PUSHED_MESSAGES))
        if self._connection.blocked and self._pinned is not None:
            self._pinned.transport.pauseProducing()
            self._pool.reactor.callLater(UNBLOCKED_AFTER, self._look_again)

    def _look_again(self) -> None:
        if self._pinned is None or self._closed:
            return
        if self._connection.blocked:
            self._pool.reactor.callLater(UNBLOCKED_AFTER, self._look_again)
        else:
            self._pinned.transport.resumeProducing()

    # --- asking it

    def _ask(self, pinned: Pinned, requests: list[Request], exchange: Exchange, place: int) -> None:
        for at, request in enumerate(requests, place):
            if pinned.version != self.client.version:
                pinned.version = self.client.version
                pinned.ask(pack(b"HELLO", b"%d" % pinned.version), _ignored)
            try:
                self._ask_one(pinned, _words(request), partial(exchange.settle, at))
            except Refused as refused:
                pinned.ask(_WRONG, partial(_settle, exchange, at, refused.problem))

    def _ask_one(self, pinned: Pinned, words: list[bytes], answer: Callable[[Any], None]) -> None:
        name = words[0].upper()
        table = self._store.commands.table
        if table.refused(words, allow_flush=self._store.settings.may_flush):
            raise Refused("this command is not allowed here", b"NOPERM")
        if name in _UNQUEUED:
            raise Refused("this command cannot be queued here: ask it outside of the transaction")
        if self._pool.crowded and name not in _TRANSACTIONS:
            raise Refused(BUSY.decode())
        sent = self._store.commands.alone(name, words)
        patient = table.blocks(name)
        if (names := self._names) is not None:
            whole = answer

            def answer(reply: Raw | Problem) -> None:
                whole(names.bare(name, reply))

        pinned.ask(command(*sent), answer, patient=patient, subscribes=name in SUBSCRIBES)


def _begins_transaction(request: Request) -> bool:
    return isinstance(request, Command) and request.words[0].upper() == b"MULTI"


def _words(request: Request) -> list[bytes]:
    if isinstance(request, Command):
        return request.words
    if isinstance(request, bytes):
        return [b"GET", request]
    key, kept = request  # type: ignore[misc]  # a Redis client's request is a key, a pair or a Command
    return [b"SET", key, value_of(kept)]


def _settle(exchange: Exchange, place: int, answer: Answer, _: Any) -> None:
    exchange.settle(place, answer)


def _settle_all(exchange: Exchange, place: int, answers: Sequence[Answer]) -> None:
    for at, answer in enumerate(answers, place):
        exchange.settle(at, answer)


def _ignored(_: Any) -> None:
    """Nobody waits for it."""
