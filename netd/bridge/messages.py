"""What travels between ports, spool and broker: blocks of messages on their way in, deliveries on their way out.

A block is the unit of work: the messages of one port that are committed by the same sync. It holds its messages as
columns, not as objects: at three hundred thousand lines a second an object a line would cost more than all the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

HeaderValue = str | int | float | bool | None
"""What a header of a message may be: AMQP's longstr, 64-bit integer, double, boolean and void."""

ID_HEADER = "x-netd-id"
"""The header by which a consumer recognises a repeat."""
PEER_HEADER = "x-netd-peer"
"""The header that names the client, where a port's `peer_header` asks for it."""
APP_ID = "netd"


@dataclass(frozen=True, slots=True)
class Route:
    """A publish port as brokers see it: where its messages go, and what they have in common.

    A message keeps the route it was accepted for, whatever the configuration says later.
    """

    port: str
    """The NAME of [bridge.X.publish.NAME]."""
    exchange: str
    routing_key: str
    """For messages that name none."""
    content_type: str = ""
    priority: int | None = None
    expiration: int | None = None
    """Milliseconds."""


@dataclass(frozen=True, slots=True)
class Extra:
    """What one message has beside its body and its key."""

    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    message_id: str = ""
    """As the client named it; "": the same as the `x-netd-id`."""
    peer: str = ""
    """For the header `x-netd-peer`; "": none."""
    netd_id: str = ""
    """The `x-netd-id` of a dead letter that is tried again; "": the block says it."""


class Block:
    """Messages of one lane with consecutive numbers. Never changed once it is on disk."""

    __slots__ = ("accepted", "bodies", "extras", "first", "keys", "origin", "route")

    def __init__(
        self,
        route: Route,
        origin: str,
        first: int,
        accepted: int,
        bodies: Sequence[bytes],
        *,
        keys: Sequence[bytes] | None = None,
        extras: Mapping[int, Extra] | None = None,
    ) -> None:
        self.route = route
        self.origin = origin
        """Of the lane, always the same and ASCII; with a message's number it makes its `x-netd-id`."""
        self.first = first
        """The number of the first message."""
        self.accepted = accepted
        """When, in Unix seconds: the AMQP timestamp."""
        self.bodies = bodies
        self.keys = keys
        """A routing key for each message, at most 255 bytes of UTF-8; None: the route's for all."""
        self.extras = extras
        """By index into `bodies`, those messages that have any; None: none has."""

    def netd_id(self, index: int) -> str:
        """The `x-netd-id` of a message; those of a lane are all of one length."""
        if self.extras is not None and (extra := self.extras.get(index)) is not None and extra.netd_id:
            return extra.netd_id
        return f"{self.origin}-{self.first + index:016d}"

    def __len__(self) -> int:
        return len(self.bodies)


@dataclass(frozen=True, slots=True)
class Details:
    """What a delivery has beside its body."""

    key: str
    headers: Mapping[str, object]
    deliveries: int
    """Which delivery of the message this is, from 1; where the broker does not count, 2 for any repeat."""


class Delivery(Protocol):
    """A message that a subscription brings, to be acknowledged or given back by its tag."""

    @property
    def tag(self) -> int:
        """Its number: rising by delivery, and never used again in the life of the subscription."""

    @property
    def body(self) -> bytes:
        """The message."""

    @property
    def redelivered(self) -> bool:
        """Whether it may have been delivered before."""

    def details(self) -> Details:
        """The rest, decoded when asked for."""
