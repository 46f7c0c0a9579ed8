"""Ways to a broker that fail, and what is said about them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.protocols.portforward import ProxyFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from netd.bridge.broker import Broker, Outcome
from netd.runtime import CannotStart
from tests.bridge.broker_contract import Receiving, Sending, eventually, on_the_reactor, reactor, route
from tests.bridge.rabbit import RabbitArena, rabbit_broker
from tests.certificates import Issued, issue, pem
from tests.servers import HOST, RabbitServer, VirtualHost, reserve_port

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
"""Twisted gives pyOpenSSL what pyOpenSSL does not like any more."""


@asynccontextmanager
async def running(broker: Broker) -> AsyncIterator[Broker]:
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def complaint(url: str, **more: object) -> str:
    """Why a broker at this address is away."""
    async with running(rabbit_broker(url, **more)) as broker:
        await eventually(lambda: broker.state.reason not in {"", "not connected yet"})
        assert broker.state.state == "away"
        assert "secret" not in broker.state.name + broker.state.reason
        return broker.state.reason


class Mute(Protocol):
    """Accepts and says nothing, or one thing."""

    says = b""

    def connectionMade(self) -> None:
        self.transport.write(self.says)  # type: ignore[union-attr]


@contextmanager
def listening(factory: object) -> Iterator[int]:
    """A port of this machine."""
    port: IListeningPort = reactor.listenTCP(0, factory, interface=HOST)  # type: ignore[attr-defined]  # it does TCP
    try:
        yield port.getHost().port  # type: ignore[attr-defined]  # of TCP
    finally:
        port.stopListening()


def saying(words: bytes) -> Factory:
    factory = Factory.forProtocol(type("Says", (Mute,), {"says": words}))
    factory.noisy = False
    return factory


# --- what the broker says no to


@on_the_reactor
async def test_a_wrong_password_is_told_in_the_brokers_words(rabbit_vhost: VirtualHost) -> None:
    reason = await complaint(replace(rabbit_vhost, password="secret").url)
    assert reason.startswith("403 ACCESS_REFUSED - Login was refused")


@on_the_reactor
async def test_a_virtual_host_that_is_not_there_is_told(rabbit_vhost: VirtualHost) -> None:
    reason = await complaint(replace(rabbit_vhost, name="nope").url)
    assert reason.startswith("530 NOT_ALLOWED - vhost nope not found")


@on_the_reactor
async def test_a_virtual_host_of_somebody_else_is_told(rabbit_vhost: VirtualHost) -> None:
    reason = await complaint(replace(rabbit_vhost, name="/").url)
    assert reason.startswith("530 NOT_ALLOWED - access to vhost '/' refused for user")


# --- what is no broker


@on_the_reactor
async def test_nobody_listening_is_told() -> None:
    with reserve_port() as reserved:
        assert await complaint(f"amqp://{HOST}:{reserved.getsockname()[1]}/") == "connection refused"


@on_the_reactor
async def test_a_host_name_that_nobody_knows_is_told() -> None:
    assert await complaint("amqp://nowhere.invalid/") == "the host name cannot be resolved"


@on_the_reactor
async def test_another_protocol_is_told() -> None:
    with listening(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        assert (await complaint(f"amqp://{HOST}:{port}/")).startswith("the broker sent what is not AMQP: a frame of")


@on_the_reactor
async def test_another_version_of_amqp_is_told() -> None:
    with listening(saying(b"AMQP\0\1\0\0")) as port:
        assert "AMQP" in await complaint(f"amqp://{HOST}:{port}/")


@on_the_reactor
async def test_a_broker_file_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"bridge\.main\.broker_file: .*No such file"):
        await rabbit_broker(broker_file=str(tmp_path / "gone")).start()


# --- several brokers, and brokers that go


@on_the_reactor
async def test_brokers_are_tried_in_turn(rabbit_server: RabbitServer, rabbit_vhost: VirtualHost) -> None:
    arena = RabbitArena(rabbit_server, rabbit_vhost)
    with reserve_port() as reserved, listening(saying(b"no broker")) as port:
        urls = [f"amqp://{HOST}:{reserved.getsockname()[1]}/", f"amqp://{HOST}:{port}/", rabbit_vhost.url]
        async with running(rabbit_broker(*urls)) as broker:
            sending = Sending(broker, route())
            await sending.ready()
            assert await sending.outcome(sending.send(b"a")) == [Outcome.CONFIRMED]
            where = f":{rabbit_server.port}/{rabbit_vhost.name}"  # of both links: each tries the brokers for itself
            await eventually(lambda: broker.state.state == "up" and broker.state.name.endswith(where))
    assert [each.body for each in await arena.stored("work")] == [b"a"]


@on_the_reactor
async def test_a_broker_that_is_frozen_is_noticed_and_the_next_one_is_used(
    rabbit_server: RabbitServer, rabbit_vhost: VirtualHost
) -> None:
    """With unsent data in the kernel, which a polite close would wait for."""
    RabbitArena(rabbit_server, rabbit_vhost)
    async with running(rabbit_broker(rabbit_vhost.url, heartbeat=1)) as broker:
        sending = Sending(broker, route())
        await sending.ready()
        rabbit_server.pause()
        before = reactor.seconds()
        numbers = sending.send(*[bytes(100_000)] * 200)
        await sending.outcome(numbers)
        took = reactor.seconds() - before
        rabbit_server.resume()
        assert set(sending.outcomes[1]) == {Outcome.LOST}
        assert sending.reasons[1] == "no sign of life from the broker for 2 s"
        assert 0.9 <= took < 5, f"{took:.1f} s, where the last of the heartbeats came up to a second before"
        await sending.ready()


# --- TLS: a proxy stands before RabbitMQ


@pytest.fixture(scope="module")
def authority() -> Issued:
    return issue("authority", None)


@pytest.fixture
def files(tmp_path: Path, authority: Issued) -> Path:
    """An authority's certificate, and one that it signed for netd with its key."""
    tmp_path.joinpath("ca.pem").write_bytes(pem(authority)[0])
    certificate, key = pem(issue("netd", authority))
    tmp_path.joinpath("netd.pem").write_bytes(certificate)
    tmp_path.joinpath("netd.key").write_bytes(key)
    return tmp_path


@contextmanager
def tls_proxy(port: int, issued: Issued, client_authority: Issued | None = None) -> Iterator[int]:
    """A TLS port before RabbitMQ's plain one."""
    own = PrivateCertificate.loadPEM(b"".join(pem(issued)))
    trusted = [Certificate.loadPEM(pem(client_authority)[0])] if client_authority else []
    plain = ProxyFactory(HOST, port)
    plain.noisy = False
    with listening(TLSMemoryBIOFactory(own.options(*trusted), False, plain)) as listens:
        yield listens


def tls_url(vhost: VirtualHost, port: int) -> str:
    return replace(vhost, port=port).url.replace("amqp://", "amqps://").replace(HOST, "localhost")


@on_the_reactor
async def test_messages_go_both_ways_over_tls(
    rabbit_server: RabbitServer, rabbit_vhost: VirtualHost, files: Path, authority: Issued
) -> None:
    RabbitArena(rabbit_server, rabbit_vhost)
    with tls_proxy(rabbit_server.port, issue("localhost", authority)) as port:
        tls = {"ca": str(files / "ca.pem")}
        async with running(rabbit_broker(tls_url(rabbit_vhost, port), broker_tls=tls)) as broker:
            sending, receiving = Sending(broker, route()), Receiving(broker, "work")
            await sending.ready()
            bodies = [b"%d" % number * 1000 for number in range(500)]
            assert set(await sending.outcome(sending.send(*bodies))) == {Outcome.CONFIRMED}
            await receiving.received(100)
            receiving.acknowledge(receiving.deliveries[99], all_up_to=True)
            assert (await receiving.received(200))[:200] == bodies[:200]


@on_the_reactor
async def test_a_client_certificate_is_shown(
    rabbit_server: RabbitServer, rabbit_vhost: VirtualHost, files: Path, authority: Issued
) -> None:
    RabbitArena(rabbit_server, rabbit_vhost)
    with tls_proxy(rabbit_server.port, issue("localhost", authority), authority) as port:
        url = tls_url(rabbit_vhost, port)
        tls = {"ca": str(files / "ca.pem")}
        assert "certificate" in await complaint(url, broker_tls=tls)
        tls |= {"certificate": str(files / "netd.pem"), "private_key": str(files / "netd.key")}
        async with running(rabbit_broker(url, broker_tls=tls)) as broker:
            sending = Sending(broker, route())
            await sending.ready()
            assert await sending.outcome(sending.send(b"a")) == [Outcome.CONFIRMED]


@on_the_reactor
async def test_a_certificate_for_another_host_is_told(
    rabbit_server: RabbitServer, rabbit_vhost: VirtualHost, files: Path, authority: Issued
) -> None:
    with tls_proxy(rabbit_server.port, issue("elsewhere", authority)) as port:
        reason = await complaint(tls_url(rabbit_vhost, port), broker_tls={"ca": str(files / "ca.pem")})
        assert reason == "TLS: the broker's certificate is not for the host name localhost"


@on_the_reactor
async def test_a_certificate_of_a_stranger_is_told(
    rabbit_server: RabbitServer, rabbit_vhost: VirtualHost, files: Path
) -> None:
    with tls_proxy(rabbit_server.port, issue("localhost", issue("stranger", None))) as port:
        url = tls_url(rabbit_vhost, port)
        expected = "TLS: certificate verify failed (broker_tls.ca)"
        assert await complaint(url, broker_tls={"ca": str(files / "ca.pem")}) == expected
        assert await complaint(url) == expected, "the system's authorities do not know it either"


@on_the_reactor
async def test_an_expired_certificate_is_told(
    rabbit_server: RabbitServer, rabbit_vhost: VirtualHost, files: Path, authority: Issued
) -> None:
    with tls_proxy(rabbit_server.port, issue("localhost", authority, days=-1)) as port:
        reason = await complaint(tls_url(rabbit_vhost, port), broker_tls={"ca": str(files / "ca.pem")})
        assert reason.startswith("TLS: certificate verify failed")


@on_the_reactor
async def test_a_plain_port_is_told_where_tls_is_asked(rabbit_vhost: VirtualHost) -> None:
    assert (await complaint(tls_url(rabbit_vhost, rabbit_vhost.port))).startswith("TLS: ")


@on_the_reactor
async def test_an_authority_that_cannot_be_read_is_told_before_anything_starts(tmp_path: Path) -> None:
    broker = rabbit_broker("amqps://localhost/", broker_tls={"ca": str(tmp_path / "gone.pem")})
    with pytest.raises(CannotStart, match=r"bridge\.main\.broker_tls\.ca: .*No such file"):
        await broker.start()
