"""Packets: what is sealed is opened, however the bytes are cut; what is not raises."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.ssh.ciphers import CHACHA, CTR_KEYS, GCM_KEYS, MACS, BadSeal, Clear, make_way
from netd.ssh.negotiation import NoAgreement, agree
from netd.ssh.packets import PacketReader
from netd.ssh.wire import Malformed

WAYS = [(b"none", b"none"), *((cipher, b"none") for cipher in (*GCM_KEYS, CHACHA))]
WAYS += [(cipher, mac) for cipher in CTR_KEYS for mac in MACS]
KEY = bytes(range(64))


@given(st.sampled_from(WAYS), st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.data())
def test_how_the_bytes_are_cut_never_matters(
    way: tuple[bytes, bytes], payloads: list[bytes], data: st.DataObject
) -> None:
    cipher, mac = way
    sealer = make_way(cipher, mac, KEY, KEY, KEY, sealing=True)
    stream = b"".join(sealer.seal(number, payload) for number, payload in enumerate(payloads))
    reader = PacketReader(make_way(cipher, mac, KEY, KEY, KEY, sealing=False))
    found = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:cut])
        stream = stream[cut:]
        while (payload := reader.next()) is not None:
            found.append(payload)
    assert found == payloads


@given(st.sampled_from(WAYS[1:]), st.integers(0, 10_000), st.integers(1, 255))
def test_a_packet_that_was_changed_is_refused(way: tuple[bytes, bytes], place: int, change: int) -> None:
    cipher, mac = way
    packet = bytearray(make_way(cipher, mac, KEY, KEY, KEY, sealing=True).seal(7, b"x" * 60))
    packet[place % len(packet)] ^= change
    reader = PacketReader(make_way(cipher, mac, KEY, KEY, KEY, sealing=False))
    reader.sequence = 7
    reader.feed(bytes(packet) + bytes(70_000))
    with pytest.raises((BadSeal, Malformed)):
        reader.next()


@given(st.binary(min_size=8))
def test_garbage_before_keys_is_malformed_or_waits(garbage: bytes) -> None:
    reader = PacketReader(Clear())
    reader.feed(garbage)
    try:
        while reader.next() is not None:
            pass
    except Malformed:
        pass


@given(st.binary())
def test_a_garbled_offer_is_malformed_or_no_good(garbage: bytes) -> None:
    with pytest.raises((Malformed, NoAgreement)):
        agree(os.urandom(16) + garbage, [b"ssh-ed25519"])


@pytest.mark.parametrize("line", [b"SSH-2.0-x\r\n", b"SSH-2.0-x\n", b"SSH-1.99-x y z\r\n"])
def test_version_lines_of_clients(line: bytes) -> None:
    for cut in range(len(line)):
        reader = PacketReader(Clear())
        reader.feed(line[:cut])
        assert reader.version() is None
        reader.feed(line[cut:])
        assert reader.version() == line.rstrip()


WRONG = [b"SSH-1.5-x\n", b"HTTP", b"SSH-2.0-\0\n", b"SSH-2.0-\xff\n", b"SSH-2.0-" + b"x" * 250]


@pytest.mark.parametrize("line", WRONG)
def test_what_is_no_version_line(line: bytes) -> None:
    reader = PacketReader(Clear())
    reader.feed(line)
    with pytest.raises(Malformed):
        reader.version()
