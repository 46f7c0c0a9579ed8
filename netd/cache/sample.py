"""Which keys are asked for most, found out by looking for a while, and only then."""

import random
from collections import Counter
from collections.abc import Iterable

from netd.cache.requests import Command, Flush, Request

MOST_KEYS = 10_000
"""Different keys that a sample counts; it is the frequent ones that matter, and those come early."""


class Sample:
    """Where conversations note one key of each batch while anybody wants to know."""

    def __init__(self) -> None:
        self.counters: list[Counter[bytes]] = []
        """One for each who wants to know."""

    def note(self, requests: "Iterable[Request]") -> None:
        """Count one of these requests, any one, for those who are looking."""
        keys = [key for each in requests if (key := _key_of(each)) is not None]
        if not keys:
            return
        key = random.choice(keys)  # noqa: S311 - no secret
        for counter in self.counters:
            if key in counter or len(counter) < MOST_KEYS:
                counter[key] += 1


def _key_of(request: Request) -> bytes | None:
    match request:
        case bytes():
            return request
        case tuple():
            return request[0]
        case Command(words):
            return words[1] if len(words) > 1 else None
        case Flush():
            return None
    return request.key
