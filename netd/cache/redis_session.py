"""What one Redis client is to netd: who it is, whether it may ask anything, and what it asks of netd itself.

A session answers what concerns the connection (PING, HELLO, AUTH, CLIENT, SELECT, RESET and the like) and hands the
rest on to the store, in the client's order. Checking a password takes a thread and time; what the client has sent
behind its AUTH waits for the outcome.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol, cast

from netd.cache.batch import Found, Pairs, Results
from netd.cache.redis_commands import fits
from netd.cache.redis_login import MOST_WRONG, LogIn
from netd.cache.redis_own import OWN, WRONGPASS, Check
from netd.cache.redis_words import Refused, upper, wrong_arity
from netd.cache.requests import Answer, Command, Problem, Reply, Request, Status
from netd.cache.resp import Requests, Switched
from netd.cache.store import Session
from netd.listener import Connection

if TYPE_CHECKING:
    from netd.cache.conversation import Conversation

NOAUTH = Problem(b"Authentication required.", b"NOAUTH")
PINNED_TOO: Final = frozenset({"PING", "ECHO"})
"""What a connection of the client's own answers better: in a transaction, in a subscription."""
_TRANSACTION: Final = {"MULTI": True, "EXEC": False, "DISCARD": False, "RESET": False}
"""Whether what comes behind it is queued."""
_SWITCHES: Final = frozenset({"HELLO", "RESET"})
"""They change in which protocol is answered: what was asked before them comes first."""
_FORWARD: Final = Status(b"forwarded")


class OwnConnection(Session, Protocol):
    """A client's way to a connection to Redis of its own."""

    @property
    def pinned(self) -> bool:
        """Whether it has one."""

    def needs(self, request: Request) -> bool:
        """Whether it must have one for this."""

    def leave(self) -> None:
        """Give it back, once everything asked on it is answered."""


@dataclass(slots=True)
class RedisPort:
    """What the clients of one redis port share."""

    login: LogIn
    seconds: Callable[[], float]
    """The clock of connections."""
    sessions: dict[int, "RedisSession"] = field(default_factory=dict)
    """Who is connected, by the number of the connection."""
    answers: Mapping[str, Callable[[list[bytes]], Reply]] = field(default_factory=dict)
    """What the store knows to answer about itself, by the command's name: COMMAND and INFO of the embedded one."""


@dataclass(slots=True)
class _Batch:
    """A batch on its way: the answers there are, and how many parts are still awaited."""

    requests: list[Request]
    done: Callable[[Sequence[Answer]], None]
    answers: list[Answer] = field(default_factory=list)
    at: int = 0
    awaited: int = 0
    late: bool = False

    def __post_init__(self) -> None:
        self.answers = [None] * len(self.requests)

    @property
    def complete(self) -> bool:
        """Whether every answer is there."""
        return not self.awaited and self.at == len(self.answers)


class RedisSession:
    """A `netd.cache.store.Session` before the store's own one."""

    # Ten thousand of these are to cost little.
    __slots__ = (
        "_checking",
        "_pins",
        "_requests",
        "_shared",
        "_store",
        "_transaction",
        "_wrong",
        "connection",
        "last_command",
        "library",
        "logged_in",
        "lookup",
        "name",
        "own_connection",
        "port",
        "user",
        "version",
        "write",
    )

    lookup: Callable[[list[bytes], Callable[[Found], None]], Found | None]
    write: Callable[[Pairs, Callable[[Results], None]], Results | None]

    def __init__(self, connection: Connection, requests: Requests, store: Session, port: RedisPort) -> None:
        self.name = b""
        self.library: dict[bytes, bytes] = {}
        self.version = 2
        self.last_command = b"NULL"
        self.connection = connection
        self.port = port
        self.own_connection: OwnConnection | None = None
        self._requests = requests
        self._shared = self._store = store
        self._pins = False
        self._transaction = False
        """Whether the client is within a MULTI, where netd's own answer would come instead of the QUEUED it expects."""
        self._wrong = 0
        self._checking: deque[tuple[list[Request], Callable[[Sequence[Answer]], None]]] | None = None
        self.log_out()
        port.sessions[connection.id] = self

    def put_behind(self, door: "OwnConnection") -> None:
        """Ask through a door to a connection of the client's own, in all but plain gets and sets while it has none."""
        self.own_connection = self._store = door

    def close(self) -> None:
        """The connection is gone."""
        self._checking = None
        self.port.sessions.pop(self.connection.id, None)
        self._store.close()

    def route(self) -> None:
        """Plain gets and sets go straight to the store, where nothing stands between."""
        open_ = self.logged_in and self._checking is None
        shared = self.own_connection is None or not self.own_connection.pinned
        self.lookup = self._shared.lookup if open_ and shared else self._lookup
        self.write = self._shared.write if open_ and shared else self._write

    def _lookup(self, keys: list[bytes], done: Callable[[Found], None]) -> Found | None:
        return cast("Found | None", self.execute(list(keys), cast("Callable[[Sequence[Answer]], None]", done)))

    def _write(self, pairs: Pairs, done: Callable[[Results], None]) -> Results | None:
        return cast("Results | None", self.execute(list(pairs), cast("Callable[[Sequence[Answer]], None]", done)))

    def execute(self, requests: list[Request], done: Callable[[Sequence[Answer]], None]) -> Sequence[Answer] | None:
        """A mixed batch."""
        if self._checking is not None:
            self._checking.append((requests, done))
            return None
        batch = _Batch(requests, done)
        self._go_on(batch)
        if batch.complete:
            return batch.answers
        batch.late = True
        return None

    def _go_on(self, batch: _Batch) -> None:
        """Answer or hand on the rest of a batch, up to a password that has to be checked."""
        forwarded: list[Request] = []
        places: list[int] = []
        check = None
        again = self._pins = False
        for place, request in islice(enumerate(batch.requests), batch.at, None):
            batch.at = place + 1
            if forwarded and isinstance(request, Command) and upper(request.words[0]) in _SWITCHES:
                batch.at = place
                again = True
                break
            answer = self._answer(request)
            if answer is _FORWARD:
                forwarded.append(request)
                places.append(place)
            elif isinstance(answer, Check):
                check = answer
                break
            else:
                batch.answers[place] = cast("Answer", answer)
        if forwarded:
            batch.awaited += 1
            arrived = partial(self._arrived, batch, places)
            answers = self._store.execute(forwarded, arrived)
            if answers is not None:
                arrived(answers)
        if again:
            self._go_on(batch)
        elif check is None:
            batch.requests.clear()  # a store that is stuck may owe answers to many
        else:
            batch.awaited += 1
            self._checking = deque()
            self.route()
            checked = self.port.login.check(self.connection.host, check.user, check.password)
            checked.addCallback(self._checked, check, batch, batch.at - 1)

    def _arrived(self, batch: _Batch, places: list[int], answers: Sequence[Answer]) -> None:
        for place, answer in zip(places, answers, strict=True):
            batch.answers[place] = answer
        batch.awaited -= 1
        if batch.late and batch.complete:
            batch.done(batch.answers)

    def _checked(self, right: bool, check: Check, batch: _Batch, place: int) -> None:
        waiting = self._checking
        if waiting is None:
            return  # the client has gone
        self._checking = None
        self.route()
        if right:
            self.user = check.user
            self._let_in()
            batch.answers[place] = cast("Answer", check.then())
        else:
            batch.answers[place] = WRONGPASS
            self._wrong += 1
        batch.awaited -= 1
        if self._wrong >= MOST_WRONG:
            self._turn_away(batch)
            return
        self._go_on(batch)
        if batch.complete:
            batch.done(batch.answers)
        while waiting and self.connection.id in self.port.sessions:
            requests, done = waiting.popleft()
            answers = self.execute(requests, done)
            if answers is not None:
                done(answers)

    def _turn_away(self, batch: _Batch) -> None:
        """Guessing is over: answer this batch, do nothing more, and close."""
        self._checking = deque()
        batch.answers[batch.at :] = [NOAUTH] * (len(batch.answers) - batch.at)
        batch.at = len(batch.answers)
        if batch.complete:
            batch.done(batch.answers)
        cast("Conversation", self.connection).hang_up()

    def _let_in(self) -> None:
        self._wrong = 0
        self.logged_in = True
        self._requests.stranger = False
        self.route()

    def leave(self) -> None:
        """Give back the connection of its own, if it has one."""
        self._pins = False
        if self.own_connection is not None:
            self.own_connection.leave()

    def log_out(self) -> None:
        """As when the connection was new."""
        self.user = "default"
        self.logged_in = not self.port.login.required
        self._requests.stranger = not self.logged_in
        self.route()

    # --- what concerns the connection

    def _answer(self, request: Request) -> "Answer | Switched | Check":
        """The answer that the session itself has, `_FORWARD` when the store has it."""
        if not isinstance(request, Command):
            return _FORWARD if self.logged_in else NOAUTH
        words = request.words
        name = upper(words[0])
        self.last_command = words[0]
        if not self.logged_in and name not in {"AUTH", "HELLO", "RESET"}:
            return NOAUTH
        own = OWN.get(name)
        if self.own_connection is not None and self._goes_there(request, name, self.own_connection):
            return _FORWARD
        try:
            if own is None:
                answers = self.port.answers.get(name)
                return answers(words) if answers is not None else _FORWARD
            answer, arity = own
            if not fits(arity, words):
                raise wrong_arity(name)
            return answer(self, words)
        except Refused as refused:
            return refused.problem

    def _goes_there(self, request: Command, name: str, own_connection: OwnConnection) -> bool:
        """Whether what a session answers itself goes to the client's own connection: to be answered, or refused."""
        self._pins = self._pins or own_connection.pinned or own_connection.needs(request)
        if len(request.words) == 1:
            self._transaction = _TRANSACTION.get(name, self._transaction)
        return self._transaction or (self._pins and name in PINNED_TOO)
