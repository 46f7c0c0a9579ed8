"""Where messages go and where they come from: what the embedded broker and RabbitMQ have in common.

In. An `Outlet` is one lane's way to the broker. Its sender gives it pieces of blocks, in order, while it is `ready`,
and is told what became of every message, in ranges of their numbers and exactly once for each time it was given:

- CONFIRMED: a queue has it, and the broker answers for it.
- RETURNED: it cannot be delivered as it is (no queue for its key, no such exchange, not permitted): dead letters, with
  the reason. The broker's own words are in it: "312 NO_ROUTE", "404 NOT_FOUND no exchange 'x' in vhost '/'".
- REFUSED: the broker did not want it now (a full queue): try again later.
- LOST: nobody knows, as the connection has ended; or it was not sent yet and would overtake what was refused. Give it
  again once the outlet is ready.

While the broker takes its time nothing is said: an outlet never gives up by a clock. A range may be told before an
earlier one, and may reach over the pieces of several `publish` calls. How much is on its way at once is the sender's to
bound; an outlet keeps no more than references to it.

Out. A `Subscription` brings at most `prefetch` deliveries that are neither acknowledged nor given back. When the broker
loses them (its connection ends, the queue goes away) its consumer is told that they will come again: their tags are
void, and settling them does nothing. A subscription goes on by itself once its queue is there.

Brokers keep themselves connected. All of this is called, and calls back, on the reactor's thread; the callbacks never
from within a call of the same outlet or subscription.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from netd.bridge.config import BridgeSettings
from netd.bridge.messages import Block, Delivery, Route


class Outcome(Enum):
    """What became of a message that was given to an outlet."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"
    REFUSED = "refused"
    LOST = "lost"


class Sender(Protocol):
    """Who gives blocks to an outlet."""

    def settled(self, first: int, last: int, outcome: Outcome, reason: str = "") -> None:
        """The messages numbered `first` to `last` have come to this outcome; a reason unless they are CONFIRMED."""

    def opened(self) -> None:
        """The outlet has become ready."""


class Outlet(Protocol):
    """A lane's way to the broker."""

    @property
    def ready(self) -> bool:
        """Whether it takes messages now: connected, not blocked by an alarm, and no refusal is yet to be told."""

    @property
    def problem(self) -> str:
        """Why it is not ready, or what went wrong with the last messages, in a line; "" when all is well."""

    def publish(self, block: Block, start: int, stop: int) -> None:
        """Send the messages of a block from index `start` up to, not including, `stop`. Only while it is ready."""

    def close(self) -> None:
        """The sender needs it no more; nothing is told from now on."""


class Consumer(Protocol):
    """Who gets the messages of a subscription."""

    def delivered(self, deliveries: Sequence[Delivery]) -> None:
        """Messages have come, in the order of the queue."""

    def interrupted(self, reason: str) -> None:
        """Whatever is not settled will come again, here or elsewhere; its tags are void."""


class Subscription(Protocol):
    """One consumer at a queue, competing with the others there."""

    @property
    def problem(self) -> str:
        """Why nothing can come, in a line; "" while it consumes."""

    def acknowledge(self, tag: int, *, all_up_to: bool = False) -> None:
        """The message is done with; with `all_up_to` so is every one before it."""

    def give_back(self, tag: int, *, all_up_to: bool = False) -> None:
        """The message goes back to its queue, to be delivered again, here or elsewhere."""

    def close(self) -> None:
        """Consume no more: what is not settled goes back to the queue. Nothing is told from now on."""


@dataclass(frozen=True, slots=True)
class BrokerState:
    """How a broker does."""

    state: Literal["up", "blocked", "away"]
    reason: str = ""
    """Why it is not up, in its own words, in a line."""
    name: str = ""
    """Which one it is, for people: "embedded", or "amqp://host:5672/vhost"; never with a password."""


class Broker(Protocol):
    """Where messages go and where they come from."""

    @property
    def state(self) -> BrokerState:
        """How it does."""

    async def start(self) -> None:
        """Begin to connect, and return at once; raises CannotStart where no waiting would help."""

    async def stop(self) -> None:
        """Disconnect. What is not settled never will be."""

    async def prepare_queues(self, settings: BridgeSettings) -> Callable[[], None]:
        """Be ready to have the queues of a changed configuration beside those it has; the answer puts that in force.

        Raises CannotStart.
        """

    def outlet(self, route: Route, sender: Sender) -> Outlet:
        """A way in for the messages of one lane; `sender.opened()` follows when it is ready."""

    def subscribe(self, queue: str, prefetch: int, consumer: Consumer) -> Subscription:
        """A way out; deliveries follow as soon as the queue is there."""
