"""RabbitMQ as an arena for netd's broker: queues, messages and faults in a virtual host of its own."""

from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.threads import deferToThread

from netd.bridge.config import BridgeSettings
from netd.bridge.rabbit import RabbitBroker
from netd.log import LogOutput, render_json
from netd.ports import Ports
from netd.runtime import Runtime
from netd.settings import Origin
from tests.bridge.broker_contract import Stored, reactor
from tests.servers import RabbitServer, VirtualHost

PORTS: dict[str, Any] = {
    "publish": {"lines": {"listen": "127.0.0.1:0", "routing_key": "work"}},
    "subscribe": {"lines": {"listen": "127.0.0.1:0", "queue": "work"}},
}


def settings(*urls: str, **more: object) -> BridgeSettings:
    """A bridge with a publish and a subscribe port."""
    broker = {"broker": list(urls)} if urls else {}
    table = {**PORTS, **broker, **more}
    return BridgeSettings.model_validate(table, context=Origin(Path("/nowhere"), {}))


def rabbit_broker(*urls: str, **more: object) -> RabbitBroker:
    """A client of these brokers; `said` holds what it logs."""
    runtime = Runtime(reactor, LogOutput(lambda _: None, render_json, "info"), Path("/nowhere"), Ports(reactor))
    return RabbitBroker(settings(*urls, **more), runtime, "bridge.main")


class RabbitArena:
    """See `Arena`; the management API stands in for an operator."""

    def __init__(self, server: RabbitServer, vhost: VirtualHost, kind: str = "classic") -> None:
        self.server = server
        self.vhost = vhost
        self.kind = kind
        self.make_queue("work")
        self.make_queue("other")
        self.make_queue("small", {"x-max-length": 2, "x-overflow": "reject-publish"})

    def broker(self, **more: object) -> RabbitBroker:
        return rabbit_broker(self.vhost.url, **more)

    def path(self, what: str, name: str) -> str:
        return f"/api/{what}/{self.vhost.name}/{quote(name, safe='')}"

    def make_queue(self, name: str, arguments: dict[str, object] | None = None) -> None:
        body = {"durable": True, "arguments": {"x-queue-type": self.kind, **(arguments or {})}}
        self.server.api("PUT", self.path("queues", name), body)

    def delete_queue(self, name: str) -> None:
        self.server.api("DELETE", self.path("queues", name))

    def queues(self) -> set[str]:
        """The names of those that are there."""
        return {each["name"] for each in self.server.api("GET", f"/api/queues/{self.vhost.name}")}

    def make_exchange(self, name: str, queue: str = "", kind: str = "fanout", **arguments: object) -> None:
        """An exchange, and its binding to a queue."""
        self.server.api("PUT", self.path("exchanges", name), {"type": kind, "durable": True, **arguments})
        if queue:
            self.server.api("POST", f"/api/bindings/{self.vhost.name}/e/{name}/q/{queue}", {"routing_key": "#"})

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """What stands in a queue, as the management API shows it; it stays there."""
        ask = {"count": 100_000, "ackmode": "ack_requeue_true", "encoding": "base64"}
        found: list[dict[str, Any]] = self.server.api("POST", self.path("queues", queue) + "/get", ask)
        return found

    async def stored(self, queue: str) -> Sequence[Stored]:
        found = await deferToThread(self.messages, queue)
        return [Stored(_body(each), each["properties"]["headers"]["x-netd-id"]) for each in found]

    def connections(self) -> list[dict[str, Any]]:
        """Connections to the virtual host; statistics lag by five seconds."""
        found: list[dict[str, Any]] = self.server.api("GET", f"/api/vhosts/{self.vhost.name}/connections")
        return found


def _body(message: dict[str, Any]) -> bytes:
    return b64decode(message["payload"])
