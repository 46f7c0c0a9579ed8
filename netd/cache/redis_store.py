"""The store that is a Redis: what clients ask goes to it on one shared link, or is answered by the near cache.

Every batch that arrives in a turn of the reactor leaves with the others in one write. The order of requests on the link
is the order in which they were asked, whoever asked: so a client that wrote reads what it wrote.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import time
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from netd.cache.batch import Found, Pairs, Results, Wired
from netd.cache.config import CacheSettings, CacheUserSettings
from netd.cache.conversation import Conversation
from netd.cache.counters import Counters
from netd.cache.layout import value_of
from netd.cache.near import Fill, Near, Waiter
from netd.cache.redis import Greeting, Link, Listener, Replies, Upstream, pack
from netd.cache.redis_door import RedisDoor
from netd.cache.redis_exchange import Done, Exchange
from netd.cache.redis_flush import flush
from netd.cache.redis_login import LogIn
from netd.cache.redis_memcached import MemcachedPlans
from netd.cache.redis_pass import CommandPlans
from netd.cache.redis_pinned import PinnedPool
from netd.cache.redis_plan import Plan, command
from netd.cache.redis_scripts import NAMES, script
from netd.cache.redis_session import RedisPort, RedisSession
from netd.cache.redis_table import Table
from netd.cache.redis_words import FLUSHES, Refused
from netd.cache.requests import OK, Answer, Command, Fetch, Flush, Outcome, Problem, Reply, Request, deadline_of
from netd.cache.resp import RespCodec
from netd.cache.store import Session
from netd.runtime import Runtime

_log = Logger()

INVALIDATE = b"__redis__:invalidate"
"""The channel on which Redis tells which keys have changed."""
INFO = (b"INFO", b"server")
"""What tells one Redis from another, by its `run_id`."""
TRACKING_AGAIN = 2.0
"""Seconds before another try when Redis does not track, as it was too slow to say so or is two at the moment."""
START_STEP = 0.01
"""Seconds between two looks whether Redis has been reached, while starting."""


class RedisStore:
    """A `netd.cache.store.Store` with a Redis behind."""

    def __init__(self, settings: CacheSettings, key: str, runtime: Runtime) -> None:
        reactor = runtime.reactor
        self.counters = Counters()
        self.near: Near | None = None
        self.prefix = settings.key_prefix.encode()
        self.settings = settings
        self._reactor = reactor
        self.commands = CommandPlans(self.prefix, settings.max_item_size)
        self._memcached = MemcachedPlans(self.prefix, settings.max_item_size)
        self._port = RedisPort(LogIn(settings.users, reactor), reactor.seconds)
        self._listener: Listener | None = None
        self._listener_id = 0
        self._asked_run = self._heard_run = b""
        self._tracking_again: IDelayedCall | None = None
        self._flushing: IDelayedCall | None = None
        greetings: list[Greeting] = [
            ([(b"SCRIPT", b"LOAD", script(name).text) for name in NAMES], lambda _: ""),
            ([(b"COMMAND",), INFO], self._learn),
        ]
        self.upstream = Upstream(
            settings.store, settings.timeout, reactor, greetings=greetings, changed=self._links_changed, service=key
        )
        self._pool = PinnedPool(self.upstream)
        if settings.near:
            self.near = near = Near(settings.max_memory, reactor.seconds, serve_stale=settings.serve_stale)
            self._listener = Listener(
                settings.store,
                settings.timeout,
                reactor,
                greetings=[([(b"CLIENT", b"ID"), INFO], self._learn_id), ([(b"SUBSCRIBE", INVALIDATE)], _subscribed)],
                changed=self._links_changed,
                service=key,
                heard=self._invalidated,
                alive=near.alive,
            )

    # --- life

    async def start(self) -> None:
        """Connect, and wait for it no longer than a batch would."""
        self.upstream.start()
        if self._listener is not None:
            self._listener.start()
        deadline = self._reactor.seconds() + self.settings.timeout
        while self.upstream.link is None and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, START_STEP)

    async def stop(self) -> None:
        """Disconnect, and forget everything: after a reload the garbage collector may not look at it for long."""
        self._forget_flush()
        self._forget_tracking_again()
        self._port.login.stop()
        self._pool.stop()
        await self.upstream.stop()
        if self._listener is not None:
            await self._listener.stop()
        if self.near is not None:
            self.near.end()
            self.near.drop_all()

    def know(self, users: Mapping[str, CacheUserSettings]) -> None:
        """Have other users who may log in."""
        self._port.login.know(users)

    def health(self) -> str:
        """Why Redis is not to be had."""
        return "" if self.upstream.link is not None else self.upstream.problem

    def stats(self) -> Mapping[str, int | float]:
        """What was asked, and what the near cache did."""
        found: dict[str, int | float] = {**self.counters.read(), "redis_connects": self.upstream.connects}
        found["redis_pinned"] = len(self._pool)
        if (near := self.near) is not None:
            found |= {
                "near_hits": near.hits,
                "near_misses": near.misses,
                "near_coalesced": near.coalesced,
                "near_invalidated": near.invalidated,
                "near_stale_hits": near.stale_hits,
                "near_evicted": near.items.evicted,
                "near_items": len(near.items),
                "memory_bytes": near.items.used,
                "memory_limit_bytes": near.items.max_bytes,
            }
        return found

    def memcached(self) -> Session:
        """All memcached clients are alike."""
        return self

    def redis(self, connection: Conversation, codec: RespCodec) -> Session:
        """A Redis client has a name, a log-in, and perhaps a connection of its own."""
        door = RedisDoor(self, self._pool, connection)
        session = RedisSession(connection, codec.requests, self, self._port)
        session.put_behind(door)
        door.client = session
        return session

    # --- the two links

    def _learn(self, replies: Replies) -> str:
        described, info = replies
        if isinstance(described, Problem):
            return f"Redis refuses COMMAND: {described.text.decode('utf-8', 'replace')}"
        self._asked_run = _run_of(info)
        self.commands.table = Table(described)  # type: ignore[arg-type]  # an array
        return ""

    def _learn_id(self, replies: Replies) -> str:
        number, info = replies
        if not isinstance(number, int):
            return f"Redis refuses CLIENT ID: {number!r}"
        self._listener_id, self._heard_run = number, _run_of(info)
        return ""

    def _links_changed(self) -> None:
        """A link is there, or is no more: have Redis track when both are."""
        near, listener, link = self.near, self._listener, self.upstream.link
        if near is None or listener is None:
            return
        near.end()
        self._forget_tracking_again()
        listening = listener.link
        if link is None or listening is None:
            return
        if self._asked_run != self._heard_run:  # the address has moved on: there the number may be another client's
            self._track_again(partial(listening.cut, "it leads to another Redis than the one for requests"))
            return
        words = [b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", b"%d" % self._listener_id, b"BCAST", b"NOLOOP"]
        if self.prefix:
            words += [b"PREFIX", self.prefix]
        data = pack(b"CLIENT", b"TRACKING", b"OFF") + pack(*words)
        link.submit(data, 2, partial(self._tracked, link, listening))

    def _tracked(self, link: Link, listening: Link, replies: Replies) -> None:
        current = self._listener.link if self._listener is not None else None
        if self.near is None or link is not self.upstream.link or listening is not current:
            return
        if replies[1] == b"OK":
            self.near.begin()
        else:
            self._track_again(self._links_changed)

    def _track_again(self, try_: Callable[[], None]) -> None:
        self._forget_tracking_again()
        self._tracking_again = self._reactor.callLater(TRACKING_AGAIN, try_)

    def _forget_tracking_again(self) -> None:
        if self._tracking_again is not None and self._tracking_again.active():
            self._tracking_again.cancel()
        self._tracking_again = None

    def _invalidated(self, message: Reply) -> None:
        if self.near is None:
            return
        if isinstance(message, list):
            cut = len(self.prefix)
            self.near.invalidate([key[cut:] for key in message if key.startswith(self.prefix)])
        else:
            self.near.invalidate(None)

    # --- as a session

    def close(self) -> None:
        """Nothing is kept for a connection."""

    def lookup(self, keys: list[bytes], done: Callable[[Found], None]) -> Found | None:
        near = self.near
        self.counters.cmd_get += len(keys)
        if near is not None:
            if (found := near.lookup(keys)) is not None:
                if None not in found:
                    self.counters.get_hits += len(keys)
                    return found
                return self._fill(near, keys, found, done)
            if near.stale and self.upstream.link is None:
                return self._stale(near, keys)
            near.drop(keys)  # who reads past it must not come back to an older value, once it is fresh again
        link = self.upstream.link
        if link is None:
            return [self._away()] * len(keys)
        data = keys.wire if keys.__class__ is Wired and not self.prefix else gets(keys, self.prefix)
        link.submit(data, len(keys), partial(self._found, done))
        return None

    def write(self, pairs: Pairs, done: Callable[[Results], None]) -> Results | None:
        self.counters.cmd_set += len(pairs)
        if self.near is not None:
            self.near.drop([key for key, _ in pairs])
        link = self.upstream.link
        if link is None:
            return [self._away()] * len(pairs)
        data = pairs.wire if pairs.__class__ is Wired and not self.prefix else _sets(pairs, self.prefix)
        link.submit(data, len(pairs), done)  # type: ignore[arg-type]  # Redis's replies are results
        return None

    def _found(self, done: Callable[[Any], None], values: Replies) -> None:
        misses = values.count(None)
        self.counters.get_misses += misses
        self.counters.get_hits += len(values) - misses
        done(values)

    def _stale(self, near: Near, keys: list[bytes]) -> Found:
        found = near.items.fetch(keys)
        near.stale_hits += len(keys) - found.count(None)
        return [self._away() if value is None else value for value in found]

    def _away(self) -> Problem:
        return Problem(self.upstream.problem.encode("utf-8", "replace"))

    def _fill(self, near: Near, keys: list[bytes], found: list[Any], done: Callable[[Any], None]) -> Found | None:
        exchange = Exchange(found, partial(self._found, done))
        parts: list[_Part] = []
        for place, value in enumerate(found):
            if value is None:
                exchange.missing += 1
                self._join_or_fill(near, keys[place], partial(exchange.settle, place), parts)
        self._send(parts)
        return exchange.result()

    def _join_or_fill(self, near: Near, key: bytes, waiter: Waiter, parts: "list[_Part]") -> None:
        if not near.join(key, waiter):
            fill = near.fill(key, waiter)
            parts.append((_fill_of(self.prefix + key), 2, partial(_filled, near, fill)))

    def execute(self, requests: list[Request], done: Done) -> Sequence[Answer] | None:
        exchange = Exchange([None] * len(requests), done)
        parts: list[_Part] = []
        for place, request in enumerate(requests):
            if request.__class__ is bytes:
                self._get(request, place, exchange, parts, None)
            elif request.__class__ is tuple:
                self._set(request, place, exchange, parts)
            elif request.__class__ is Fetch and self._memcached.looks(request):
                self._get(request.key, place, exchange, parts, partial(self._memcached.found, request))
            elif self.near is not None and _is_mget(request):
                self._mget(
                    request.words[1:],  # type: ignore[union-attr]  # it is a Command
                    place,
                    exchange,
                    parts,
                )
            else:
                self._do(request, place, exchange, parts)
        requests.clear()
        self._send(parts)
        return exchange.result()

    def _mget(self, keys: list[bytes], place: int, exchange: Exchange, parts: "list[_Part]") -> None:
        """MGET as so many gets, which the near cache knows."""
        exchange.missing += 1
        each = Exchange([None] * len(keys), lambda values: exchange.settle(place, _all_bare(values)))
        for at, key in enumerate(keys):
            self._get(key, at, each, parts, None)
        if (values := each.result()) is not None:
            each.done(values)

    def _do(self, request: Request, place: int, exchange: Exchange, parts: "list[_Part]") -> None:
        try:
            answer = self._plan(request)
        except Refused as refused:
            answer = refused.problem
        if isinstance(answer, Plan):
            exchange.missing += 1
            parts.append(self._part(answer, exchange, place))
        else:
            exchange.answers[place] = answer

    def _get(self, key: bytes, place: int, exchange: Exchange, parts: "list[_Part]", make: "_Make | None") -> None:
        """A get in a mixed batch; `make` makes the answer of the value if that is more than the value."""
        self.counters.cmd_get += 1
        near = self.near
        exchange.missing += 1
        waiter = partial(self._got, exchange, place, make)
        if near is not None and (hit := near.lookup([key])) is not None:
            if (value := hit[0]) is None:
                self._join_or_fill(near, key, waiter, parts)
            else:
                self._got(exchange, place, make, value)
        elif near is not None and near.stale and self.upstream.link is None:
            [found] = self._stale(near, [key])
            self._got(exchange, place, make, found)
        else:
            if near is not None:
                near.drop([key])
            parts.append((command(b"GET", self.prefix + key), 1, lambda replies: waiter(replies[0])))

    def _got(self, exchange: Exchange, place: int, make: "_Make | None", value: Reply) -> None:
        self.counters.get_hits += value is not None
        self.counters.get_misses += value is None
        answer = value if make is None else make(value)
        if isinstance(answer, Plan):
            self._send([self._part(answer, exchange, place)])
        else:
            exchange.settle(place, answer)

    def _set(self, pair: tuple[bytes, bytes], place: int, exchange: Exchange, parts: "list[_Part]") -> None:
        """A plain set in a mixed batch."""
        self.counters.cmd_set += 1
        if self.near is not None:
            self.near.drop(pair[:1])
        exchange.missing += 1
        parts.append((_sets([pair], self.prefix), 1, partial(_first, exchange, place)))

    def _send(self, parts: "list[_Part]") -> None:
        """Send what is to be sent, all of it at once; each part is told its own replies."""
        if not parts:
            return
        link = self.upstream.link
        if link is None:
            for _, count, told in parts:
                told([self._away()] * count)
        else:
            data = b"".join([data for data, _, _ in parts])
            hear = [part[1:] for part in parts]  # what was sent is not kept: a link that is stuck may have much of it
            link.submit(data, sum([count for count, _ in hear]), partial(_tell, hear))

    def _part(self, plan: Plan, exchange: Exchange, place: int) -> "_Part":
        """A plan that is sent now."""
        if self.near is not None:
            if plan.everything:
                self.near.drop_all()
            else:
                self.near.drop(plan.keys)
        data, plan.data = plan.data, b""
        return data, plan.count, partial(self._take, exchange, place, plan)

    def _take(self, exchange: Exchange, place: int, plan: Plan, replies: Replies) -> None:
        try:
            answer = plan.take(replies)
        except Exception:  # noqa: BLE001 - our mistake with one request must not end the link that serves all
            _log.failure("a reply of Redis made netd fail")
            answer = Problem(b"netd could not make sense of Redis's reply")
        if isinstance(answer, Plan):
            answer.keys = answer.keys or plan.keys
            self._send([self._part(answer, exchange, place)])
        else:
            exchange.settle(place, answer)

    def _plan(self, request: Request) -> "Answer | Plan":
        if isinstance(request, Command):
            return self._command(request.words)
        if isinstance(request, Flush):
            return self._flush(request)
        return self._memcached.plan(request)  # type: ignore[arg-type]  # what is left is memcached's

    def _command(self, words: list[bytes]) -> "Answer | Plan":
        name = words[0].upper()
        table = self.commands.table
        if words[0] not in table.plain and table.refused(words, allow_flush=self.settings.may_flush):
            raise Refused("this command is not allowed here", b"NOPERM")
        if name in FLUSHES:
            self.counters.cmd_flush += 1
            return flush(self.prefix, OK)
        return self.commands.plan(words)

    def _flush(self, request: Flush) -> "Answer | Plan":
        self.counters.cmd_flush += 1
        if not self.settings.may_flush:
            return Outcome.NOT_ALLOWED
        self._forget_flush()
        if request.delay <= 0:
            return flush(self.prefix, Outcome.DONE)
        seconds = deadline_of(request.delay, time()) - time()
        self._flushing = self._reactor.callLater(max(0.0, seconds), self._flush_late)
        return Outcome.DONE

    def _forget_flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None

    def _flush_late(self) -> None:
        self._flushing = None
        exchange = Exchange([None], _nobody)
        exchange.missing = 1
        self._send([self._part(flush(self.prefix, Outcome.DONE), exchange, 0)])


def _nobody(_: Sequence[Answer]) -> None:
    """Nobody waits for the answer."""


def _is_mget(request: Request) -> bool:
    return isinstance(request, Command) and len(request.words) > 1 and request.words[0].upper() == b"MGET"


def _all_bare(values: Sequence[Any]) -> Reply:
    """MGET's reply: what is no string counts as missing there."""
    bare: list[Reply] = []
    for value in values:
        if isinstance(value, Problem):
            if value.code != b"WRONGTYPE":
                return value
            bare.append(None)
        else:
            bare.append(None if value is None else value_of(value))
    return bare


def gets(keys: list[bytes], prefix: bytes) -> bytes:
    """GET for each key."""
    if len(keys) == 1:
        key = prefix + keys[0]
        return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key)
    return b"".join([b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(prefix) + len(key), prefix + key) for key in keys])


def _sets(pairs: Pairs, prefix: bytes) -> bytes:
    """SET for each pair."""
    if len(pairs) == 1:
        key, kept = pairs[0]
        size = len(prefix) + len(key)
        return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b%b\r\n$%d\r\n%b\r\n" % (size, prefix, key, len(kept), kept)
    out: list[bytes] = []
    for key, kept in pairs:
        size = len(prefix) + len(key)
        out += (b"*3\r\n$3\r\nSET\r\n$%d\r\n%b%b\r\n$%d\r\n" % (size, prefix, key, len(kept)), kept, b"\r\n")
    return b"".join(out)


def _fill_of(key: bytes) -> bytes:
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n*2\r\n$4\r\nPTTL\r\n$%d\r\n%b\r\n" % (len(key), key, len(key), key)


_Part = tuple[bytes, int, Callable[[Replies], None]]
"""Commands, how many replies they get, and who is told those."""


_Make = Callable[[Reply], "Answer | Plan"]
"""Makes an answer of a value."""


def _tell(parts: list[tuple[int, Callable[[Replies], None]]], replies: Replies) -> None:
    at = 0
    for count, told in parts:
        told(replies[at : at + count])
        at += count


def _filled(near: Near, fill: Fill, replies: Replies) -> None:
    near.filled(fill, replies[0], replies[1])


def _first(exchange: Exchange, place: int, replies: Replies) -> None:
    exchange.settle(place, replies[0])


def _run_of(info: Reply) -> bytes:
    """Which run of which Redis INFO is about; nothing where it does not say."""
    found = re.search(rb"run_id:(\w+)", info) if isinstance(info, bytes) else None
    return found[1] if found else b""


def _subscribed(replies: Replies) -> str:
    reply = replies[0]
    return "" if isinstance(reply, list) else f"Redis refuses SUBSCRIBE: {reply!r}"
