"""The configuration of a [bridge.NAME] service."""

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self
from urllib.parse import quote, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from netd.settings import (
    Address,
    Addresses,
    Duration,
    ListenerSettings,
    Pem,
    Secret,
    SecretPem,
    SecretUrl,
    Settings,
    Size,
    show,
)

EMBEDDED = "embedded:"
AMQP_PORT, AMQPS_PORT = 5672, 5671
SHORT_STRING = 255
"""Bytes of a routing key, a queue's name, a header's name: AMQP's shortstr (AMQP 0-9-1, 4.2.5.3)."""
LONGEST_LINE = 8 << 20
"""What a bridge keeps in memory while it waits for a commit; a line that is longer never could."""
MOST_PREFETCH = 65535
"""AMQP's basic.qos counts in 16 bits."""
LARGEST_NUMBER = (1 << 63) - 1
"""Of a queue's argument: AMQP has eight bytes for it."""
EMBEDDED_ARGUMENTS = ("x-max-length", "x-delivery-limit")
"""Of a queue, as RabbitMQ names them."""
NOT_THE_CLIENT = ("haproxy:", "ssl:", "unix:")
"""Endpoints where what the kernel has acknowledged says nothing of the client, or nothing at all."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """One RabbitMQ and the way to log in there."""

    host: str
    port: int
    tls: bool = False
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"

    def __str__(self) -> str:
        """As a URL without its password, otherwise as the configuration takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, vhost = quote(self.user, safe=""), quote(self.vhost, safe="")
        return f"{'amqps' if self.tls else 'amqp'}://{user}@{host}:{self.port}/{vhost}"


def parse_brokers(text: str) -> tuple[BrokerAddress, ...]:
    """The addresses of a `broker` setting, a URL a line; none for the embedded broker. Raises ValueError."""
    urls = text.split()
    if urls == [EMBEDDED]:
        return ()
    if not urls:
        raise ValueError(f'expected "{EMBEDDED}" or "amqp://user:password@host:port/vhost"')
    return tuple(_parse_url(url) for url in urls)


def _parse_url(url: str) -> BrokerAddress:
    expected = f'"{EMBEDDED}", "amqp://user:password@host:port/vhost", "amqps://…" or a list of those'
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # which may have a piece of the password in its text
        raise ValueError(
            f"expected {expected}; in a user or password, characters such as / and @ are written as %2F and %40"
        ) from None
    if parts.scheme not in {"amqp", "amqps"} or not host:
        raise ValueError(f"expected {expected}")
    if parts.query or parts.fragment or "/" in parts.path[1:]:
        raise ValueError("a broker's URL ends with its vhost, in which / is written %2F; there are no parameters")
    tls = parts.scheme == "amqps"
    return BrokerAddress(
        host,
        port or (AMQPS_PORT if tls else AMQP_PORT),
        tls,
        unquote(parts.username or "guest"),
        unquote(parts.password or "guest"),
        unquote(parts.path[1:]) or "/",
    )


def _join_urls(value: object) -> object:
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        if len(value) > 1 and EMBEDDED in value:
            raise ValueError(f"{EMBEDDED} stands alone")
        return "\n".join(value)
    return value


def _check_urls(secret: Secret) -> Secret:
    if secret.text is not None:
        parse_brokers(secret.text)
    return secret


BrokerUrls = Annotated[SecretUrl, BeforeValidator(_join_urls), AfterValidator(_check_urls)]


def _short(value: str) -> str:
    if len(value.encode("utf-8", "surrogatepass")) > SHORT_STRING:
        raise ValueError(f"expected at most {SHORT_STRING} bytes; got {show(value)}")
    return value


Short = Annotated[StrictStr, AfterValidator(_short)]


def _milliseconds(value: float) -> float:
    if not 0 < value < 1 << 32 or value * 1000 != int(value * 1000):
        raise ValueError("expected whole milliseconds, at least one")
    return value


class BrokerTlsSettings(Settings):
    """How netd trusts and is trusted by an amqps:// broker; its host name is always verified."""

    ca: Pem | None = None
    """PEM file of the authorities that may have signed the broker's certificate; default: those of the system."""
    certificate: Pem | None = None
    """PEM file: netd's own certificate, where the broker wants one…"""
    private_key: SecretPem | None = None
    """…and its key, PEM without a passphrase; also as private_key_file."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")
        return self


def _parse_argument(value: object) -> bool | int | str:
    if isinstance(value, bool | int | str):
        return value
    raise ValueError(f"expected true, false, a whole number or a string; got {show(value)}")


Argument = Annotated[bool | int | str, PlainValidator(_parse_argument)]


class DeclareSettings(Settings):
    """A queue that is made if it is not there."""

    durable: StrictBool = True
    """Whether it outlives the broker's restart."""
    type: Literal["", "classic", "quorum", "stream"] = ""
    """ "": the broker's default."""
    arguments: dict[Short, Argument] = Field(default_factory=dict)
    """Such as { x-max-length = 100000 }."""


Declare = Annotated[DeclareSettings | None, BeforeValidator(lambda value: None if value is False else value)]


class PublishSettings(Settings):
    """A port where lines come in."""

    listen: Addresses
    """Where to listen: one address or a list."""
    exchange: Short = ""
    """"": the default exchange, whose routing keys are the names of queues."""
    routing_key: Short = ""
    """For lines that name none."""
    key_patterns: tuple[StrictStr, ...] = ("*",)
    """Routing keys that lines may name: shell patterns, of which one must match."""
    framing: Literal["raw", "key-tab", "json"] = "raw"
    """raw: the line is the body; key-tab: routing key, tab, body; json: an object a line."""
    reply: Literal["durable", "confirmed", "off"] = "durable"
    """When `+OK` is said: once on disk, once the broker has confirmed, or never."""
    tail: Literal["publish", "dead"] = "publish"
    """What becomes of a last line without its LF, when the client has finished sending."""
    max_line: Size = 64 << 10
    """A longer line is refused."""
    content_type: Short = ""
    """Of every message."""
    priority: Annotated[StrictInt, Field(ge=0, le=255)] | None = None
    """Of every message; queues with x-max-priority heed it."""
    expiration: Annotated[Duration, AfterValidator(_milliseconds)] | None = None
    """How long a message may wait in a queue."""
    peer_header: StrictBool = False
    """Whether messages have the header x-netd-peer: the client's address."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.framing == "raw" and not self.exchange and not self.routing_key:
            raise ValueError("routing_key is required: the default exchange routes to the queue of that name")
        if not 1 <= self.max_line <= LONGEST_LINE:
            raise ValueError(f"max_line is from 1 to {LONGEST_LINE >> 20} MiB")
        if not self.key_patterns:
            raise ValueError('key_patterns has at least one pattern; "*" means any key')
        return self

    def may_name(self, key: str) -> bool:
        """Whether a line may have this routing key."""
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in self.key_patterns)


class SubscribeSettings(Settings):
    """A port where a queue's messages go out."""

    listen: Addresses
    """Where to listen: one address or a list."""
    queue: Annotated[Short, Field(min_length=1)]
    """The queue; every client is one consumer of it, and they compete."""
    ack: Literal["tcp", "client"] = "tcp"
    """When a message is done with: once the client's kernel has its bytes, or once the client says so."""
    framing: Literal["raw", "escaped", "json"] = "raw"
    r"""raw: the body, then LF; escaped: LF and backslash within the body as \n and \\; json: an object a line."""
    prefetch: Annotated[StrictInt, Field(ge=1, le=MOST_PREFETCH)] = 1000
    """Messages a client may have that are not done with."""
    ack_timeout: Duration = 30.0
    """Without any progress for this long, a client's messages go back to the queue. 0: never."""
    declare: Declare = None
    """false: the queue is the broker's, and must be there; a table: netd makes it where it is not."""


class BridgeSettings(ListenerSettings):
    """Lines in and out of RabbitMQ."""

    broker: BrokerUrls = Secret(text=EMBEDDED)
    """Where messages go: "embedded:", a URL, or a list of URLs that are tried in turn; also as broker_file, a URL a
    line."""
    broker_tls: BrokerTlsSettings = BrokerTlsSettings()
    """For amqps:// brokers."""
    heartbeat: Annotated[Duration, Field(ge=1, le=600)] = 10.0
    """How often netd and the broker assure each other that they live."""
    spool_limit: Size = 1 << 30
    """What may wait on disk for the broker, dead letters included; then reading stops. 0: as much as the disk takes."""
    publish: dict[StrictStr, PublishSettings] = Field(default_factory=dict)
    """Ports where lines come in, by name."""
    subscribe: dict[StrictStr, SubscribeSettings] = Field(default_factory=dict)
    """Ports where messages go out, by name."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        mistakes = list(self._mistakes())
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def _mistakes(self) -> Iterator[str]:
        if not self.publish and not self.subscribe:
            yield "no port: add a table such as publish.hello or subscribe.hello"
        for name in (*self.publish, *self.subscribe):
            if not _NAME.fullmatch(name):
                yield f"{show(name)}: names are letters, digits, - and _, at most 64"
        if self.embedded:
            yield from self._not_embedded()
        yield from self._misdeclared()
        for name, out in self.subscribe.items():
            hidden = self.tls is not None or any(each.text.startswith(NOT_THE_CLIENT) for each in out.listen)
            if out.ack == "tcp" and hidden:
                yield (
                    f'subscribe.{name}.ack: "tcp" is counted at the client\'s own TCP socket, and there is TLS, '
                    'a proxy or none; use "client"'
                )

    def _misdeclared(self) -> Iterator[str]:
        declared: dict[str, tuple[str, DeclareSettings]] = {}
        for name, out in self.subscribe.items():
            if not out.declare:
                continue
            other, declaration = declared.setdefault(out.queue, (name, out.declare))
            if declaration != out.declare:
                yield f"subscribe.{name}.declare: subscribe.{other} declares the same queue otherwise"
            for argument, value in out.declare.arguments.items():
                if isinstance(value, int) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
                    yield f"subscribe.{name}.declare.arguments.{argument}: expected at most {LARGEST_NUMBER}"

    def _not_embedded(self) -> Iterator[str]:
        for name, port in self.publish.items():
            if port.exchange:
                yield f"publish.{name}.exchange: the embedded broker has queues and no exchanges; leave it empty"
        for name, out in self.subscribe.items():
            if not out.declare:
                continue
            if not out.declare.durable or out.declare.type:
                yield f"subscribe.{name}.declare: the embedded broker's queues are durable, and of one type"
            for argument, value in out.declare.arguments.items():
                if argument not in EMBEDDED_ARGUMENTS or isinstance(value, bool | str) or value < 1:
                    known = " and ".join(EMBEDDED_ARGUMENTS)
                    yield f"subscribe.{name}.declare.arguments.{argument}: the embedded broker knows {known}"

    @property
    def embedded(self) -> bool:
        """Whether messages stay in netd's own queues."""
        return self.broker.text is not None and not parse_brokers(self.broker.text)

    def queues(self) -> dict[str, dict[str, Argument]]:
        """The queues of the embedded broker, with their arguments: those that a port names."""
        found: dict[str, dict[str, Argument]] = {}
        for port in self.publish.values():
            if port.routing_key:
                found[port.routing_key] = {}
        for out in self.subscribe.values():
            found.setdefault(out.queue, {}).update(out.declare.arguments if out.declare else {})
        return found

    def declarations(self) -> dict[str, DeclareSettings]:
        """The queues that ports declare."""
        return {out.queue: out.declare for out in self.subscribe.values() if out.declare}

    def brokers(self) -> tuple[BrokerAddress, ...]:
        """The brokers in the order they are tried, read anew at each call; raises OSError or ValueError."""
        return parse_brokers(self.broker.read())

    @classmethod
    def listen_names(cls) -> list[str]:
        """No key of this table itself names addresses."""
        return []

    def listens(self) -> dict[str, tuple[Address, ...]]:
        """The addresses of every port, by key."""
        incoming = {f"publish.{name}.listen": port.listen for name, port in self.publish.items()}
        outgoing = {f"subscribe.{name}.listen": port.listen for name, port in self.subscribe.items()}
        return incoming | outgoing
