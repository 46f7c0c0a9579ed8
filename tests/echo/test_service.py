"""Echo as a client sees it, and what it does to the server when the client misbehaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IHalfCloseableProtocol

from netd.echo.service import EchoService
from tests.fakes import Client, MemoryNetwork, configure, result_of, runtime_on


def echo(settings: str = "") -> Client:
    network = MemoryNetwork()
    config = configure(f'[echo.plain]\nlisten = "127.0.0.1:8001"\n{settings}')
    service = EchoService(config.services[0], runtime_on(network))
    result_of(service.start())
    return network.client()


@given(st.lists(st.binary(min_size=1)))
def test_what_arrives_goes_back_byte_for_byte(pieces: list[bytes]) -> None:
    client = echo()
    assert b"".join(client.send(piece) for piece in pieces) == b"".join(pieces)


@given(st.lists(st.binary(min_size=1)))
def test_upper_changes_ascii_letters_and_nothing_else(pieces: list[bytes]) -> None:
    client = echo('transform = "upper"')
    expected = bytes(byte - 32 if 97 <= byte <= 122 else byte for byte in b"".join(pieces))
    assert b"".join(client.send(piece) for piece in pieces) == expected


def test_a_full_write_buffer_pauses_reading() -> None:
    client = echo()
    assert client.producer is client
    assert client.streaming is True


@pytest.mark.parametrize("transform", ["none", "upper"])
def test_a_client_that_has_sent_all_is_answered_before_the_close(transform: str) -> None:
    client = echo(f'transform = "{transform}"')
    assert IHalfCloseableProtocol.providedBy(client.protocol)
    client.reads = False
    client.send(b"hi")
    client.protocol.readConnectionLost()
    assert client.disconnecting
    assert not client.disconnected
    assert client.value().lower() == b"hi"
