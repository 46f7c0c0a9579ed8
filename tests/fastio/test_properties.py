"""Whatever a program writes, from wherever and in what portions, arrives once and in order before the close."""

import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from netd.fastio.reactor import FastReactor
from tests.fastio.talk import Talker, stage

SIZES = st.one_of(st.integers(0, 5), st.integers(65_530, 65_540), st.integers(0, 200_000), st.just(3_000_000))
WRITES = st.tuples(st.sampled_from(["write", "sequence", "pull"]), SIZES)
TURNS = st.lists(st.lists(WRITES, max_size=6), min_size=1, max_size=4)
"""What is written in each turn: the first from dataReceived, the others from timers."""


@implementer(IPullProducer)
class Once:
    """Has one block to write."""

    def __init__(self, transport: Any, block: bytes) -> None:
        self.transport = transport
        self.block = block
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.transport.write(self.block)
        self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        raise AssertionError("it was unregistered")


@settings(max_examples=40, deadline=None)
@given(TURNS, st.sampled_from(["close", "half", "late"]), st.booleans())
def test_any_mixture_of_writes_arrives_in_order(turns: list[list[tuple[str, int]]], ending: str, slow: bool) -> None:
    expected = bytearray()

    def write(talker: Talker, left: list[list[tuple[str, int]]]) -> None:
        for how, size in left[0]:
            block = bytes([len(expected) % 251]) * size
            expected.extend(block)
            match how:
                case "write":
                    talker.transport.write(block)
                case "sequence":
                    talker.transport.writeSequence([block[: size // 2], block[size // 2 :]])
                case _:
                    Once(talker.transport, block)
        if left[1:]:
            on.reactor.callLater(0, write, talker, left[1:])
        elif ending == "close":
            talker.transport.loseConnection()
        elif ending == "half":
            talker.transport.loseWriteConnection()
        else:
            on.reactor.callLater(0.001, talker.transport.loseConnection)

    with stage(FastReactor) as on:
        server = Talker(data=lambda talker: write(talker, turns))
        client = Talker(made=lambda talker: talker.transport.write(b"go"))
        if slow:
            on.reactor.callLater(0, _pause, client)
            on.reactor.callLater(0.02, _resume, client)
        on.talk(server, client)
    assert client.heard == expected
    assert on.errors == []
    assert server.events == ["made", "data", "ConnectionDone", "lost"]
    assert client.events[-2:] == ["ConnectionDone", "lost"]


def _pause(talker: Talker) -> None:
    if talker.transport is not None and talker.transport.connected:
        talker.transport.pauseProducing()


def _resume(talker: Talker) -> None:
    if talker.transport is not None and talker.transport.connected:
        talker.transport.resumeProducing()


PIECES = st.lists(st.binary(min_size=1, max_size=300_000), max_size=5)


@settings(max_examples=30, deadline=None)
@given(PIECES, st.sampled_from(["end", "reset", "both"]))
def test_however_a_client_leaves_the_server_is_told_once(pieces: list[bytes], ending: str) -> None:
    with stage(FastReactor) as on:
        server = Talker(data=lambda talker: talker.transport.write(bytes(talker.heard[-70_000:])))
        client = socket.create_connection(("127.0.0.1", on.listen(server)))
        client.setblocking(False)

        def send() -> None:
            for piece in pieces:
                try:
                    client.send(piece)
                except BlockingIOError:
                    break
            if ending in {"reset", "both"}:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if ending in {"end", "both"}:
                client.shutdown(socket.SHUT_WR)
            if ending == "end":
                on.reactor.callLater(0.005, client.close)
            else:
                client.close()

        on.reactor.callLater(0.001, send)
        on.run(server)
        client.close()
    told = [event for event in server.events if event not in {"made", "data"}]
    assert len(told) == 2, told
    assert told[0] in {"ConnectionDone", "ConnectionLost"}
    assert on.errors == []
