"""The operator's verbs on a cache. They ask the store as a memcached client would."""

import base64
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from netd.cache.requests import (
    HISTORY,
    LONGEST_RELATIVE,
    TTL,
    UNIQUE,
    VALUE,
    Answer,
    Delete,
    Fetch,
    Flush,
    Hit,
    Outcome,
    Problem,
    Put,
    Request,
)
from netd.console import command
from netd.console.arguments import DurationOption, ServiceName
from netd.console.command import Command, Context, Failed, Role
from netd.console.table import Cell, Column, Line, Part, Table
from netd.console.text import plural, show_bytes, show_count, show_duration

if TYPE_CHECKING:
    from netd.cache.service import CacheService

MOST_SHOWN = 4096
"""Bytes of a value that are shown; `--json` has all of them."""

SERVICE = click.Option(
    ["--service", "-s"], type=ServiceName(), metavar="NAME", help="Which cache, if there are several"
)


class CacheCommand(Command):
    """A verb on one cache service."""

    own_parameters: ClassVar[Sequence[click.Parameter]] = ()
    parameters: ClassVar[Sequence[click.Parameter]] = (SERVICE,)

    def __init_subclass__(cls) -> None:
        cls.parameters = (*cls.own_parameters, SERVICE)

    async def run(self, arguments: Mapping[str, Any], context: Context) -> command.Answer:
        return await self.work(_service(arguments["service"], context), arguments, context)

    @abstractmethod
    async def work(self, cache: "CacheService", arguments: Mapping[str, Any], context: Context) -> command.Answer:
        """Do it."""


def _service(given: object, context: Context) -> "CacheService":
    caches = [each for each in context.runtime.services if each.kind == "cache"]
    if given is not None:
        caches = [each for each in caches if each is given]
    if len(caches) == 1:
        return caches[0]  # type: ignore[return-value]  # of this kind
    if not caches:
        raise Failed("that is no cache")
    raise Failed(f"which cache? --service {' | '.join(each.key for each in caches)}")


async def _ask(cache: "CacheService", request: Request) -> Answer:
    """The store's answer to one request; raises Failed for what it cannot do."""
    later: Deferred[Sequence[Answer]] = Deferred()
    answers = cache.store.memcached().execute([request], later.callback)
    (answer,) = await later if answers is None else answers
    if isinstance(answer, Problem):
        raise Failed(answer.text.decode("utf-8", "replace"))
    return answer


def _refused(outcome: object, key: str = "") -> Failed:
    match outcome:
        case None | Outcome.NOT_FOUND:
            return Failed(f"no key {key}")
        case Outcome.NOT_ALLOWED:
            return Failed("the configuration does not allow it: allow_flush is false")
    return Failed(f"not done: {str(getattr(outcome, 'name', outcome)).lower().replace('_', ' ')}")


def _exptime(seconds: float, now: float) -> int:
    """A duration as memcached's exptime; at least a second, since 0 is for ever."""
    whole = max(1, round(seconds))
    return whole if whole <= LONGEST_RELATIVE else int(now) + whole


def _show_ttl(ttl: int) -> str:
    return "for ever" if ttl < 0 else show_duration(ttl)


class CacheStatus(CacheCommand):
    """The store at a glance."""

    name = "cache status"
    summary = "Show a cache: its store, how full it is, how often it has what is asked for"
    examples = (("cache status", "of the only cache"), ("cache status -s cache.main", "of one of several"))

    async def work(self, cache: "CacheService", arguments: Mapping[str, Any], context: Context) -> command.Answer:
        figures = dict(cache.store.stats())
        health = cache.store.health()
        gets, hits = figures.get("cmd_get", 0), figures.get("get_hits", 0)
        used, limit = figures.get("memory_bytes", 0), figures.get("memory_limit_bytes", 0)
        shown: list[tuple[str, Cell | str]] = [
            ("store", cache.place),
            ("state", Cell(health or "up", "bad" if health else "good")),
            ("items", show_count(figures.get("items", 0))),
            ("memory", f"{show_bytes(used)} of {show_bytes(limit)}" if limit else show_bytes(used)),
            ("gets", f"{show_count(gets)}, {100 * hits / gets:.1f} % found" if gets else "none yet"),
            ("sets", show_count(figures.get("cmd_set", 0))),
            ("evicted", show_count(figures.get("items_evicted", 0))),
            ("expired", show_count(figures.get("items_expired", 0))),
        ]
        table = Table([Column(""), Column("")], heads=False)
        for name, cell in shown:
            table.add(Cell(name, "dim"), cell)
        document = {"service": cache.key, "store": cache.place, "health": health, "figures": figures}
        return command.Answer(
            document, [Line([Cell(cache.key, "name")]), table, f"`stats {cache.key}` has every figure."]
        )


KEY = click.Argument(["key"])


class CacheGet(CacheCommand):
    """One item."""

    name = "cache get"
    summary = "Show what stands under a key"
    details = (
        f"At most {MOST_SHOWN} bytes of it; --json has the whole value, in base64 if it is no text. "
        "It does not count as an access."
    )
    examples = (("cache get user:7", "its value, size, flags and time to live"),)
    role = Role.OPERATOR
    own_parameters = (KEY,)

    async def work(self, cache: "CacheService", arguments: Mapping[str, Any], context: Context) -> command.Answer:
        key = arguments["key"]
        hit = await _ask(cache, Fetch(key.encode(), VALUE | TTL | UNIQUE | HISTORY, peek=True))
        if not isinstance(hit, Hit):
            raise _refused(hit, key)
        facts = {"key": key, "size": len(hit.value), "flags": hit.flags, "ttl_seconds": hit.ttl, "cas": hit.unique}
        about = f"{show_bytes(len(hit.value))}, flags {hit.flags}, {_show_ttl(hit.ttl)}"
        cut = len(hit.value) > MOST_SHOWN
        parts: list[Part] = [
            Line([Cell(about, "dim")]),
            Line([Cell(hit.value[:MOST_SHOWN].decode("utf-8", "replace") + "…" * cut)], fit="whole"),
        ]
        return command.Answer({**facts, **_value(hit.value)}, parts)


def _value(value: bytes) -> dict[str, str]:
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value).decode()}


class CacheSet(CacheCommand):
    """Writes an item."""

    name = "cache set"
    summary = "Put a value under a key"
    details = "Words are put together with a space between them. Without --ttl it stays for ever."
    examples = (("cache set greeting hello", ""), ("cache set motd back at noon --ttl 2h", "for two hours"))
    role = Role.OPERATOR
    own_parameters = (
        KEY,
        click.Argument(["value"], nargs=-1, required=True),
        click.Option(["--ttl"], type=DurationOption(10 * 365 * 86400.0), metavar="TIME", help="How long it stays"),
        click.Option(
            ["--flags"], type=click.IntRange(0, 2**32 - 1), default=0, metavar="N", help="memcached's client flags"
        ),
    )
    private = "value"

    async def work(self, cache: "CacheService", arguments: Mapping[str, Any], context: Context) -> command.Answer:
        key, value = arguments["key"], " ".join(arguments["value"]).encode()
        ttl = arguments["ttl"]
        exptime = _exptime(ttl, cache.now()) if ttl else 0
        outcome = await _ask(cache, Put(key.encode(), value, arguments["flags"], exptime))
        if outcome is not Outcome.DONE:
            raise _refused(outcome)
        return command.Answer({"key": key, "size": len(value)}, [f"stored {show_bytes(len(value))} under {key}"])


class CacheDelete(CacheCommand):
    """Removes items."""

    name = "cache delete"
    summary = "Remove keys"
    examples = (("cache delete user:7", ""), ("cache delete user:7 user:8", "says which were there"))
    role = Role.OPERATOR
    own_parameters = (click.Argument(["key"], nargs=-1, required=True),)

    async def work(self, cache: "CacheService", arguments: Mapping[str, Any], context: Context) -> command.Answer:
        outcomes = {key: await _ask(cache, Delete(key.encode())) for key in arguments["key"]}
        deleted = [key for key, outcome in outcomes.items() if outcome is Outcome.DONE]
        missing = [key for key in outcomes if key not in deleted]
        if not deleted:
            raise _refused(None, ", ".join(missing))
        parts: list[Part] = [f"deleted {', '.join(deleted)}"]
        if missing:
            parts.append(f"not there: {', '.join(missing)}")
        return command.Answer({"deleted": deleted, "missing": missing}, parts)


class CacheTtl(CacheCommand):
    """Shows or changes how long an item stays."""

    name = "cache ttl"
    summary = "Show how long a key stays, or change it"
    details = 'A time, such as "5m", or "never" changes it; that takes the role operator.'
    examples = (("cache ttl user:7", ""), ("cache ttl user:7 1h", "an hour from now"), ("cache ttl user:7 never", ""))
    own_parameters = (KEY, click.Argument(["time"], required=False))

    async def work(self, cache: "CacheService", arguments: Mapping[str, Any], context: Context) -> command.Answer:
        key, time = arguments["key"], arguments["time"]
        touch = None
        if time is not None:
            context.require(Role.OPERATOR)
            seconds = 0.0 if time == "never" else DurationOption(10 * 365 * 86400.0).convert(time, None, None)
            touch = _exptime(seconds, cache.now()) if seconds else 0
        hit = await _ask(cache, Fetch(key.encode(), TTL, touch, peek=True))
        if not isinstance(hit, Hit):
            raise _refused(hit, key)
        return command.Answer({"key": key, "ttl_seconds": hit.ttl}, [_show_ttl(hit.ttl)])


class CacheFlush(CacheCommand):
    """Forgets everything."""

    name = "cache flush"
    summary = "Forget every item"
    details = "On a Redis behind it takes allow_flush = true, since others may use it too."
    examples = (("cache flush", "asks first"), ("cache flush --yes", "does not"))
    role = Role.ADMIN
    asks = True

    async def work(self, cache: "CacheService", arguments: Mapping[str, Any], context: Context) -> command.Answer:
        if not cache.settings.may_flush:
            raise _refused(Outcome.NOT_ALLOWED)
        await context.confirm(f"Forget every item of {cache.key} ({cache.place})?")
        outcome = await _ask(cache, Flush())
        if outcome is not Outcome.DONE:
            raise _refused(outcome)
        return command.Answer({"flushed": cache.key}, [f"{cache.key} is empty"])


class CacheTop(CacheCommand):
    """The hot keys."""

    name = "cache top"
    summary = "Show which keys are asked for most"
    details = "It looks at one request of each batch for a while, five seconds unless --over says otherwise."
    examples = (("cache top", ""), ("cache top --over 20s -n 50", "look longer, show more"))
    own_parameters = (
        click.Option(
            ["--over"], type=DurationOption(25.0), default=5.0, metavar="TIME", help="How long to look; default 5s"
        ),
        click.Option(
            ["--limit", "-n"], type=click.IntRange(1, 500), default=20, metavar="COUNT", help="How many to show"
        ),
    )

    async def work(self, cache: "CacheService", arguments: Mapping[str, Any], context: Context) -> command.Answer:
        counter: Counter[bytes] = Counter()
        cache.sample.counters.append(counter)
        try:
            await deferLater(context.runtime.reactor, arguments["over"])
        finally:
            cache.sample.counters.remove(counter)
        total = counter.total()
        found = [(key.decode("utf-8", "replace"), count) for key, count in counter.most_common(arguments["limit"])]
        table = Table([Column("SHARE", right=True), Column("SEEN", right=True), Column("KEY")])
        for key, count in found:
            table.add(f"{100 * count / total:.1f} %", show_count(count), key)
        parts: list[Part] = [table] if found else [Line([Cell("nobody asked for anything", "dim")])]
        parts.append(Line([Cell(f"{plural(total, 'request')} looked at", "dim")]))
        keys = [{"key": key, "seen": count, "share": round(count / total, 4)} for key, count in found]
        return command.Answer({"service": cache.key, "looked_at": total, "keys": keys}, parts)


COMMANDS: tuple[Command, ...] = (
    CacheStatus(),
    CacheGet(),
    CacheSet(),
    CacheDelete(),
    CacheTtl(),
    CacheFlush(),
    CacheTop(),
)
