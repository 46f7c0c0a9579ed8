"""Who is let in to try: how many connections may be logging in at once, and who has to wait for past failures.

A failure to log in costs its address time, as in OpenSSH's PerSourcePenalties: costs add up, and as soon as they come
to LEAST_PENALTY the address is refused until the time is over. One mistyped password therefore costs nothing; a
guesser gets a handful of connections, then one every quarter of a minute, then one in ten minutes.
"""

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from twisted.internet.interfaces import IReactorTime

from netd.settings import Network
from netd.source import source_of
from netd.ssh.config import LimitSettings

Refusal = Literal["startups", "startups_per_host", "penalty"]

COSTS = {"password": 5.0, "grace": 10.0, "protocol": 10.0, "left": 1.0}
"""Seconds that a connection costs which failed to authenticate, ran out of time, spoke nonsense, or just left
(sshd_config(5), PerSourcePenalties)."""
LEAST_PENALTY = 15.0
LONGEST_PENALTY = 600.0
GROWTH = 2.0
"""What each further failure costs more than the last, while the address is remembered. Leaving, as health checks and
ssh-keyscan do, stays at its price."""

MOST_ADDRESSES = 65536
"""That are remembered, some 10 MB; when there are more, those whose time is over first are forgotten first."""


@dataclass(slots=True)
class Penalty:
    """What an address has run up."""

    failures: int = 0
    until: float = 0.0
    """When it is forgotten, in the reactor's seconds."""
    enforced: bool = False


class Gate:
    """Counts connections that have not logged in, and penalties."""

    def __init__(self, limits: LimitSettings, exempt: Sequence[Network], clock: IReactorTime) -> None:
        self._limits = limits
        self._exempt = exempt
        self._clock = clock
        self._startups: Counter[str] = Counter()
        self._total = 0
        self.penalties: dict[str, Penalty] = {}
        """By address, or network of IPv6 addresses."""

    def follow(self, limits: LimitSettings, exempt: Sequence[Network]) -> None:
        """Go over to other limits; what has been counted stays."""
        self._limits = limits
        self._exempt = exempt

    def refusal(self, host: str) -> Refusal | None:
        """Why a client at this address ("" is a unix socket) may not try to log in now."""
        penalty = self.penalties.get(source_of(host))
        waits = penalty is not None and penalty.enforced and self._clock.seconds() < penalty.until
        if waits and not self._is_exempt(host):  # which it may be since a reload
            return "penalty"
        if self._limits.startups and self._total >= self._limits.startups:
            return "startups"
        most = self._limits.startups_per_host
        if host and most and self._startups[source_of(host)] >= most:
            return "startups_per_host"
        return None

    def entered(self, host: str) -> None:
        """A connection begins to log in."""
        self._total += 1
        self._startups[source_of(host)] += 1

    def left(self, host: str) -> None:
        """It has logged in, or gone."""
        source = source_of(host)
        self._total -= 1
        self._startups[source] -= 1
        if not self._startups[source]:
            del self._startups[source]

    def punish(self, host: str, why: str) -> None:
        """A connection ended without having logged in; `why` is a key of COSTS."""
        source = source_of(host)
        if not host or self._is_exempt(host):
            return
        now = self._clock.seconds()
        penalty = self.penalties.pop(source, None)
        if penalty is None or penalty.until <= now:
            penalty = Penalty(until=now)
        cost = COSTS[why]
        if why != "left":
            cost *= GROWTH ** min(penalty.failures, 10)
            penalty.failures += 1
        penalty.until = min(penalty.until + cost, now + LONGEST_PENALTY)
        penalty.enforced = penalty.enforced or penalty.until - now >= LEAST_PENALTY
        self.penalties[source] = penalty
        if len(self.penalties) > MOST_ADDRESSES:
            self.forget()

    def forget(self) -> None:
        """Let go of what is over; while there are too many, of the ones that are over soonest."""
        now = self._clock.seconds()
        left = {source: each for source, each in self.penalties.items() if each.until > now}
        if len(left) > MOST_ADDRESSES:
            latest = sorted(left, key=lambda source: left[source].until)[MOST_ADDRESSES // 10 :]
            left = {source: left[source] for source in latest}
        self.penalties = left

    def _is_exempt(self, host: str) -> bool:
        address = ipaddress.ip_address(host)
        return any(address in network for network in self._exempt)
