"""How packets are sealed and opened (RFC 4253, section 6): one pair of classes for each way.

Four ways: in the clear before the first keys; AES-GCM (RFC 5647, with OpenSSH's names); AES-CTR with encrypt-then-MAC;
ChaCha20-Poly1305 (OpenSSH's PROTOCOL.chacha20poly1305), which is dropbear's only way that is not MAC-then-encrypt. In
all of them the length of a packet is known from its first four bytes, so that reading needs no state but the buffer.

conch's own ciphers know neither AEAD nor encrypt-then-MAC; `Ciphers` takes their place in conch's key exchange.
"""

import hmac
import os
from typing import Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.poly1305 import Poly1305
from twisted.conch.ssh.transport import SSHCiphers

from netd.ssh.wire import Malformed

LARGEST_PACKET = 1 << 16
"""Bytes of a packet. RFC 4253 asks for 35,000 at least; channels take 32 KiB of data in one (see channel.py)."""
LEAST_PADDING = 4

GCM_KEYS = {b"aes256-gcm@openssh.com": 32, b"aes128-gcm@openssh.com": 16}
CTR_KEYS = {b"aes256-ctr": 32, b"aes192-ctr": 24, b"aes128-ctr": 16}
CHACHA = b"chacha20-poly1305@openssh.com"
AEAD = frozenset({*GCM_KEYS, CHACHA})
"""They need no MAC."""
MACS = {b"hmac-sha2-512-etm@openssh.com": ("sha512", 64), b"hmac-sha2-256-etm@openssh.com": ("sha256", 32)}


class BadSeal(Exception):
    """A packet that was not sealed with the keys agreed on."""


class Sealer(Protocol):
    """Makes packets of payloads."""

    def seal(self, sequence: int, payload: bytes) -> bytes:
        """The packet as it goes on the wire."""


class Opener(Protocol):
    """Makes payloads of packets."""

    tag: int
    """Bytes behind a packet that its length does not count."""
    block: int

    def length(self, sequence: int, first: bytes) -> int:
        """What the first four bytes of a packet say of its length."""

    def open(self, sequence: int, packet: bytes) -> bytes:
        """Padding length, payload and padding of a whole packet; raises BadSeal."""


def pad(payload: bytes, block: int, counted: int) -> bytes:
    """Padding length, payload and padding, a multiple of the block together with `counted` bytes before them."""
    size = block - (len(payload) + 1 + counted) % block
    if size < LEAST_PADDING:
        size += block
    return b"%c%b%b" % (size, payload, os.urandom(size))


def unpad(body: bytes) -> bytes:
    """The payload; raises Malformed."""
    size = body[0]
    if size < LEAST_PADDING or size + 2 > len(body):
        raise Malformed("a packet is all padding")
    return body[1 : len(body) - size]


class Clear:
    """Before the first keys: no secrets, no seal."""

    tag = 0
    block = 8

    def seal(self, _sequence: int, payload: bytes) -> bytes:
        """A length and what it counts."""
        body = pad(payload, self.block, 4)
        return len(body).to_bytes(4, "big") + body

    def length(self, _sequence: int, first: bytes) -> int:
        """As it stands there."""
        return int.from_bytes(first, "big")

    def open(self, _sequence: int, packet: bytes) -> bytes:
        """All but the length."""
        return packet[4:]


class Gcm(Clear):
    """AES-GCM; the length is in the clear and authenticated."""

    tag = 16
    block = 16

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._aead = AESGCM(key)
        self._fixed = iv[:4]
        self._count = int.from_bytes(iv[4:12], "big")

    def _nonce(self) -> bytes:
        nonce = self._fixed + self._count.to_bytes(8, "big")
        self._count = (self._count + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce

    def seal(self, _sequence: int, payload: bytes) -> bytes:
        body = pad(payload, 16, 0)
        head = len(body).to_bytes(4, "big")
        return head + self._aead.encrypt(self._nonce(), body, head)

    def open(self, _sequence: int, packet: bytes) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(), packet[4:], packet[:4])
        except InvalidTag:
            raise BadSeal from None


class CtrEtm(Clear):
    """AES-CTR, then a MAC over the sequence number and what was encrypted; the length is in the clear."""

    block = 16

    def __init__(self, key: bytes, iv: bytes, mac_key: bytes, mac: str, *, sealing: bool) -> None:
        cipher = Cipher(algorithms.AES(key), modes.CTR(iv[:16]))
        self._update = (cipher.encryptor() if sealing else cipher.decryptor()).update
        self._mac_key = mac_key
        self._mac = mac
        self.tag = len(mac_key)

    def seal(self, sequence: int, payload: bytes) -> bytes:
        body = pad(payload, 16, 0)
        packet = len(body).to_bytes(4, "big") + self._update(body)
        return packet + hmac.digest(self._mac_key, sequence.to_bytes(4, "big") + packet, self._mac)

    def open(self, sequence: int, packet: bytes) -> bytes:
        packet, tag = packet[: -self.tag], packet[-self.tag :]
        right = hmac.digest(self._mac_key, sequence.to_bytes(4, "big") + packet, self._mac)
        if not hmac.compare_digest(right, tag):
            raise BadSeal
        return self._update(packet[4:])


class ChaCha(Clear):
    """ChaCha20-Poly1305; the length is encrypted with a key of its own."""

    tag = 16
    block = 8

    def __init__(self, key: bytes) -> None:
        self._main, self._head = key[:32], key[32:64]

    @staticmethod
    def _stream(key: bytes, sequence: int, data: bytes, block: int = 0) -> bytes:
        nonce = block.to_bytes(8, "little") + sequence.to_bytes(8, "big")
        return Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(data)

    def _main_stream(self, sequence: int, data: bytes) -> tuple[bytes, bytes]:
        """Poly1305's key, which is the stream's first 32 bytes, and the data through the stream from its block 1 on."""
        stream = self._stream(self._main, sequence, bytes(64) + data)
        return stream[:32], stream[64:]

    def seal(self, sequence: int, payload: bytes) -> bytes:
        body = pad(payload, 8, 0)
        tag_key, sealed = self._main_stream(sequence, body)
        packet = self._stream(self._head, sequence, len(body).to_bytes(4, "big")) + sealed
        return packet + Poly1305.generate_tag(tag_key, packet)

    def length(self, sequence: int, first: bytes) -> int:
        return int.from_bytes(self._stream(self._head, sequence, first), "big")

    def open(self, sequence: int, packet: bytes) -> bytes:
        packet, tag = packet[:-16], packet[-16:]
        tag_key, body = self._main_stream(sequence, packet[4:])
        try:
            Poly1305.verify_tag(tag_key, packet, tag)
        except InvalidSignature:
            raise BadSeal from None
        return body


class Ciphers(SSHCiphers):
    """The ways agreed on for both directions; conch calls `setKeys` when their keys are known."""

    sealer: Gcm | CtrEtm | ChaCha | Clear
    opener: Gcm | CtrEtm | ChaCha | Clear

    def setKeys(  # noqa: PLR0917 - conch's
        self, outIV: bytes, outKey: bytes, inIV: bytes, inKey: bytes, outInteg: bytes, inInteg: bytes
    ) -> None:
        self.sealer = make_way(self.outCipType, self.outMACType, outIV, outKey, outInteg, sealing=True)
        self.opener = make_way(self.inCipType, self.inMACType, inIV, inKey, inInteg, sealing=False)


def make_way(
    cipher: bytes, mac: bytes, iv: bytes, key: bytes, mac_key: bytes, *, sealing: bool
) -> Gcm | CtrEtm | ChaCha | Clear:
    """One direction of what was agreed on, with its keys."""
    if cipher in GCM_KEYS:
        return Gcm(key[: GCM_KEYS[cipher]], iv)
    if cipher in CTR_KEYS:
        digest, size = MACS[mac]
        return CtrEtm(key[: CTR_KEYS[cipher]], iv, mac_key[:size], digest, sealing=sealing)
    return ChaCha(key) if cipher == CHACHA else Clear()


def in_the_clear() -> Ciphers:
    """What a connection begins with."""
    ciphers = Ciphers(b"none", b"none", b"none", b"none")
    ciphers.setKeys(b"", b"", b"", b"", b"", b"")
    return ciphers
