"""A request on its way to Redis: what is sent for it, and what the replies mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from netd.cache.redis_scripts import Name, script
from netd.cache.requests import Answer, Problem, Reply


@dataclass(slots=True)
class Plan:
    """Commands, ready to be sent, that get `count` replies; `take` makes the answer of them, or another plan."""

    data: bytes
    count: int
    take: "Callable[[Sequence[Any]], Answer | Plan]"
    keys: Sequence[bytes] = ()
    """What it touches, as clients name it: dropped from the near cache when it is sent."""
    everything: bool = False
    """Whether it touches all keys there are."""


def command(*words: bytes) -> bytes:
    """A command on the wire."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def run(name: Name, key: bytes, arguments: Sequence[bytes], take: "Callable[[Any], Answer | Plan]") -> Plan:
    """A script on a key; `take` is given its result. Redis may have forgotten the script: then it is told once more."""
    known = script(name)

    def first(replies: Sequence[Reply]) -> "Answer | Plan":
        reply = replies[0]
        if isinstance(reply, Problem) and reply.code == b"NOSCRIPT":
            text = command(b"EVAL", known.text, b"1", key, *arguments)
            return Plan(text, 1, lambda again: problem_or(take, again[0]))
        return problem_or(take, reply)

    return Plan(command(b"EVALSHA", known.digest, b"1", key, *arguments), 1, first)


def problem_or(take: "Callable[[Any], Answer | Plan]", reply: Reply) -> "Answer | Plan":
    """What `take` makes of a reply, unless that is an error."""
    return reply if isinstance(reply, Problem) else take(reply)
