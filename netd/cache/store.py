"""Where cached values live, as conversations see it.

The unit of work is the batch: what one client asked in one read. A batch goes to the store in one call with one
callback, and there is no Deferred per request. An embedded store, or a near cache that has everything, answers at once
by returning; one that must ask Redis returns None and calls back.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from netd.cache.batch import Found, Pairs, Results
from netd.cache.config import CacheUserSettings
from netd.cache.counters import Counters
from netd.cache.requests import Answer, Request
from netd.cache.resp import RespCodec

if TYPE_CHECKING:
    from netd.cache.conversation import Conversation


class Session(Protocol):
    """What one connection talks to: a store, or something before it that knows who is connected (log-in, transactions).

    Its methods return the answers, one for each request and in their order, when all are there at once. Otherwise they
    return None and call `done` with them once, later, never from within the call: also when the server is lost, and
    within the configured timeout, with a `Problem` for each request without an answer. Nothing is raised for what a
    client or a server does wrong. `done` never raises, and may be called after `close`: it is ignored then.

    Requests of one session take effect in the order they were handed in, whatever the order of the callbacks. The
    sequence that was handed in is the callee's from then on.
    """

    def lookup(self, keys: list[bytes], done: Callable[[Found], None]) -> Found | None:
        """The hot path: plain gets of one key each. The same as `execute(keys, done)`, and no slower than it can be."""

    def write(self, pairs: Pairs, done: Callable[[Results], None]) -> Results | None:
        """The other hot path: plain sets."""

    def execute(self, requests: list[Request], done: Callable[[Sequence[Answer]], None]) -> Sequence[Answer] | None:
        """A mixed batch; plain gets and sets in it are keys and pairs, as above."""

    def close(self) -> None:
        """The connection is gone. Answers under way are no longer awaited. Called once."""


class Store(Protocol):
    """Every client's values, shared by all connections of a service."""

    counters: Counters

    async def start(self) -> None:
        """Ready to be asked. A server that cannot be reached is no reason to fail: `health` tells."""

    async def stop(self) -> None:
        """Let go of everything; what is under way is answered with a `Problem`."""

    def know(self, users: Mapping[str, CacheUserSettings]) -> None:
        """Have other users who may log in as Redis clients; who is logged in stays."""

    def health(self) -> str:
        """Why it cannot do its work, in a line; "" when it can."""

    def stats(self) -> Mapping[str, int | float]:
        """Its figures by name, in base units, for the console and metrics.

        Those of `Counters`, and of what it keeps in this process `items`, `items_stored`, `items_evicted`,
        `items_expired`, `memory_bytes`, `memory_limit_bytes`; others as it likes.
        """

    def memcached(self) -> Session:
        """The session of a client that speaks memcached, or of an operator: they are all alike."""

    def redis(self, connection: "Conversation", codec: RespCodec) -> Session:
        """The session of a client that speaks Redis: it answers HELLO, AUTH, CLIENT and the like by itself."""
