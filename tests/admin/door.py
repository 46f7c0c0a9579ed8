"""An admin service in memory, beside two echo services, and clients that speak HTTP to it."""

import json
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Factory

from netd.admin.service import AdminService
from netd.config import ServiceConfig
from netd.kinds import KINDS, kind_of
from netd.service import Service
from tests.fakes import Client, MemoryNetwork, configure, result_of, runtime_on

CONFIG = """
[admin]
socket = "netd.sock"
listen = "127.0.0.1:9180"
hosts = ["netd.example.org"]
[echo.plain]
listen = "127.0.0.1:8001"
[echo.upper]
listen = "127.0.0.1:10000"
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def parse(raw: bytes) -> Answer:
    """An answer with its body, whole or in chunks."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = dechunk(body)
    return Answer(int(first.split()[1]), headers, body)


def dechunk(body: bytes) -> bytes:
    """What the chunks hold that have come so far."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        whole += rest[:length]
        body = rest[length + 2 :]
    return whole


class Door:
    """The service, its network, and how to reach it."""

    def __init__(self, config: str = CONFIG) -> None:
        self.network = MemoryNetwork()
        self.runtime = runtime_on(self.network)
        parsed = configure(config)
        services = [self._build(each) for each in parsed.services]
        admin = self._build(parsed.admin)
        assert isinstance(admin, AdminService)
        self.admin = admin
        self.runtime.services = (*services, admin)
        for service in self.runtime.services:
            result_of(service.startService())

    def _build(self, config: ServiceConfig) -> Service:
        kind = KINDS.get(config.kind) or kind_of(config.kind)
        return kind.load_service()(config, self.runtime)

    def client(self) -> Client:
        """A client of the TCP port."""
        ports = [each for each in self.network.tcpServers if each[0] == 9180]
        return self._connect(cast("Factory", ports[0][1]), IPv4Address("TCP", "127.0.0.1", 40000))

    def trusted(self) -> Client:
        """A client of the unix socket."""
        return self._connect(cast("Factory", self.network.unixServers[0][1]), UNIXAddress(None))

    def _connect(self, factory: Factory, address: IAddress) -> Client:
        protocol = factory.buildProtocol(address)
        return Client(cast("IProtocol", protocol), address)

    def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """What a GET by TCP is answered with."""
        fields = {"Host": "127.0.0.1:9180"} | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
        return parse(self.client().send("\r\n".join([*lines, "", ""]).encode()))

    def run(self, *words: str, **more: Any) -> tuple[Client, bytes]:
        """Run a verb by the unix socket; the client, and the answer's bytes so far."""
        client = self.trusted()
        return client, client.send(post("/run", {"words": words, **more}))


def post(path: str, document: object) -> bytes:
    """A POST as netdctl sends it."""
    body = json.dumps(document).encode()
    return f"POST {path} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
