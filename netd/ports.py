"""The ports the daemon has open. A port outlives the listener that serves it: a reload hands a live one on.

An open port that nobody serves takes nothing: who connects meanwhile waits in the kernel's backlog. So everything a
configuration needs is opened first, and served only when all of it is.
"""

import os
import resource
import socket
import sys
from collections.abc import Sequence
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IReactorTime, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from netd.balancer import BalancedPort
from netd.config import Config
from netd.fastio.transport import FastPort
from netd.gate import Gate
from netd.runtime import CannotStart
from netd.settings import BALANCED, Address

BACKLOG = 4096
"""Connections the kernel may hold before they are accepted; net.core.somaxconn, 4096 on current kernels, caps it."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 60, 15, 4
"""Seconds of silence, seconds between probes, probes: a peer that vanished is noticed after two minutes (tcp(7))."""

FIRST_FREE_PORT = 1024
"""The first TCP port that a program without privileges may bind."""

KEPT_DESCRIPTORS = 32
"""File descriptors that a crowd does not get: netdctl, the spool and the links to Redis and RabbitMQ need some then."""

UNIX_MODE = "660"
"""Of a unix socket that names none: a port that only files' permissions protect is not for everybody."""

_log = Logger()


class OpenPort:
    """One address that is listened on."""

    def __init__(
        self, key: str, address: Address, listening: IListeningPort, factory: "_DirectPort | BalancedPort"
    ) -> None:
        self.key = key
        self.address = address
        self.owner: object = None
        """Who serves it; None when it may be closed."""
        self._listening = listening
        self._factory = factory
        if "systemd:" in address.endpoint:  # Twisted has listened anew, with a backlog of its own
            cast("Any", listening).socket.listen(BACKLOG)
        self._pause(paused=True)

    @property
    def shown(self) -> str:
        """The address for a person; the number that the kernel chose for port 0."""
        return show_peer(self._listening.getHost()) if not self.address.endpoint else self.address.text

    def serve(self, owner: object, gate: Gate, *, keepalive: bool, segment: int = 0, last: bool = False) -> None:
        """Let `gate` decide about each client from now on; the `last` descriptors are for ports that say so."""
        self.owner = owner
        self._factory.gate = gate
        if isinstance(self._listening, FastPort):
            self._listening.keep_from = sys.maxsize if last else _first_kept()
            self._listening.no_descriptor = self._no_descriptor
        self._set_options(keepalive=keepalive, segment=segment)
        self._pause(paused=False)

    def hold(self) -> None:
        """Nobody serves it any more: clients wait."""
        self.owner = None
        self._factory.gate = None
        self._pause(paused=True)

    def _no_descriptor(self, address: IAddress) -> None:
        if self._factory.gate is not None:
            self._factory.gate.no_descriptor(address)

    def _pause(self, *, paused: bool) -> None:
        change = getattr(self._listening, "stopReading" if paused else "startReading", None)
        if change is not None:  # every port of a real reactor has it
            change()

    def _set_options(self, *, keepalive: bool, segment: int) -> None:
        """Set on the listening socket what accepted ones inherit from it on Linux (tcp(7))."""
        listening = getattr(self._listening, "socket", None)
        if listening is None or listening.family not in {socket.AF_INET, socket.AF_INET6}:
            return
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(keepalive))
        if keepalive:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)

    def close(self) -> "Deferred[object]":
        """Close it, and admit those who were under way to it; connections go on."""
        self.owner = None
        closed: Deferred[object] = maybeDeferred(self._listening.stopListening)
        return closed.addCallback(lambda _: self._factory.settle())


class Ports:
    """Every port of the daemon."""

    def __init__(self, reactor: object) -> None:
        self._reactor = reactor
        self._open: list[OpenPort] = []

    async def open(self, service: str, key: str, address: Address) -> OpenPort:
        """The port of an address that the configuration's `key` names: the one that is open already, or a new one.

        Raises CannotStart, which begins with the key.
        """
        for each in self._open:
            if each.address == address and (address.port or address.endpoint or each.key == key):
                return each
            if each.address.overlaps(address):
                raise CannotStart(f"{key}: {address} overlaps {each.address}, open as {each.key}: needs a restart")
        behind = address.endpoint.startswith(BALANCED)
        factory = BalancedPort(cast("IReactorTime", self._reactor)) if behind else _DirectPort()
        opened = OpenPort(key, address, await self._listen(key, address, factory), factory)
        self._open.append(opened)
        _log.info("listening on {address}", address=opened.shown, service=service)
        return opened

    async def _listen(self, key: str, address: Address, factory: Factory) -> IListeningPort:
        try:
            try:
                return await endpoint_for(address, self._reactor).listen(factory)
            except CannotListenError as error:
                if address.text[0] != ":" or error.socketError.errno not in {EAFNOSUPPORT, EADDRNOTAVAIL}:
                    raise
                ipv4 = TCP4ServerEndpoint(self._reactor, address.port, BACKLOG, "0.0.0.0")  # noqa: S104 - asked for as ":port"
                return cast("IListeningPort", await ipv4.listen(factory))
        except CannotListenError as error:
            raise CannotStart(f"{key}: {address}: {_bind_problem(address, error.socketError)}") from None
        except Exception as error:  # noqa: BLE001 - an endpoint plug-in may raise anything; the port is not open
            raise CannotStart(f"{key}: {address}: {error or type(error).__name__}") from None

    async def close(self, ports: Sequence[OpenPort]) -> None:
        """Close ports; their connections go on."""
        self._open = [each for each in self._open if each not in ports]
        for closing in [each.close() for each in ports]:
            await closing

    async def close_unserved(self) -> None:
        """Close the ports that nobody serves: given up, or opened in vain."""
        await self.close([each for each in self._open if each.owner is None])


class _DirectPort(Factory):
    """Stands at a port to which clients connect by themselves, whoever serves it."""

    noisy = False
    gate: Gate | None = None

    def buildProtocol(self, address: IAddress) -> IProtocol | None:  # type: ignore[override]  # Factory's says Protocol
        return self.gate.admit(address) if self.gate is not None else None

    def settle(self) -> None:
        """Nobody is under way."""
        self.gate = None


def endpoint_for(address: Address, reactor: object) -> IStreamServerEndpoint:
    """The Twisted endpoint of an address; raises ValueError for an endpoint string that Twisted does not understand."""
    if not address.endpoint:
        tcp = TCP6ServerEndpoint if ":" in address.host else TCP4ServerEndpoint
        return cast("IStreamServerEndpoint", tcp(reactor, address.port, BACKLOG, address.host))
    text = address.endpoint.removeprefix(BALANCED)
    if text.startswith("unix:") and ":mode=" not in text:
        text += f":mode={UNIX_MODE}"
    try:
        endpoint = serverFromString(reactor, text)
    except LookupError:
        raise ValueError(
            "systemd has passed no such socket to this daemon; netd.socket must list it, and be active when netd starts"
        ) from None
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        if endpoint.addressFamily not in {socket.AF_INET, socket.AF_INET6}:
            raise ValueError("of systemd's sockets domain=INET and domain=INET6 are served; for others say unix:/path")
        # It closes the descriptor it is given: with a copy, one that systemd passed can be listened on again.
        endpoint.fileno = os.dup(endpoint.fileno)
    return cast("IStreamServerEndpoint", endpoint)


def check_endpoints(config: Config) -> list[str]:
    """Mistakes in endpoint strings, a line each, as far as they show without opening anything."""
    mistakes = []
    for key, address in config.addresses():
        if not address.endpoint or address.endpoint.startswith("systemd:"):
            continue  # systemd's descriptors are there when it starts the daemon, and only then
        try:
            endpoint_for(address, object())
        except (ValueError, TypeError) as error:
            mistakes.append(f"{config.path}: {key}: {address}: {error}")
    return mistakes


def show_peer(address: object) -> str:
    """An address of Twisted's for a person: "192.0.2.1:4711", "[2001:db8::1]:4711" or "unix"."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        host = str(address.host)
        mapped = host.removeprefix("::ffff:")
        return f"[{host}]:{address.port}" if mapped == host else f"{mapped}:{address.port}"
    return "unix"


def _first_kept() -> int:
    """The number of the first descriptor that is kept back."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - min(KEPT_DESCRIPTORS, limit // 4)


def _bind_problem(address: Address, error: OSError | str) -> str:
    if isinstance(error, str):  # a unix socket's lock file names a process that lives
        return "Address already in use; a running process holds its .lock file"
    reason = os.strerror(error.errno) if error.errno else str(error)
    match error.errno:
        case code if code == EADDRINUSE:
            find = f"ss -ltnp 'sport = :{address.port}'" if address.port else "ss -lxp"
            return f"{reason}; find out by whom: {find}"
        case code if code == EACCES and 0 < address.port < FIRST_FREE_PORT:
            return f"{reason}; ports below {FIRST_FREE_PORT} need root, CAP_NET_BIND_SERVICE or socket activation"
    return reason
