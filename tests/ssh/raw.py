"""A client that says exactly what a test wants said, at any point of the protocol; stock conch beside netd."""

import hashlib
import hmac
import io
import os
import warnings
from typing import Any, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from twisted.conch import avatar, interfaces
from twisted.conch.ssh import factory, keys, session, userauth
from twisted.cred import portal
from twisted.internet.address import IPv4Address
from zope.interface import implementer

from netd.ssh.ciphers import Clear, make_way, pad
from netd.ssh.negotiation import STRICT_CLIENT
from netd.ssh.packets import PacketReader
from netd.ssh.wire import Reader, string, uint32
from tests.fakes import Client, MemoryNetwork

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports spwd, which Python 3.13 no longer has
    from twisted.conch import checkers

VERSION = b"SSH-2.0-raw"
USER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
USER_BLOB = string(b"ssh-ed25519") + string(
    USER.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
)


class _StockMac(Clear):
    """AES-CTR with conch's MAC, which is made before encryption; what a server's says is not checked."""

    tag = 32
    block = 4

    def __init__(self, key: bytes, iv: bytes, mac_key: bytes) -> None:
        self._update = Cipher(algorithms.AES(key[:32]), modes.CTR(iv[:16])).encryptor().update
        self._mac_key = mac_key[:32]

    def seal(self, sequence: int, payload: bytes) -> bytes:
        body = pad(payload, 16, 4)
        packet = uint32(len(body)) + body
        return self._update(packet) + hmac.digest(self._mac_key, uint32(sequence) + packet, "sha256")

    def length(self, sequence: int, first: bytes) -> int:
        return int.from_bytes(self._update(first), "big")

    def open(self, sequence: int, packet: bytes) -> bytes:
        return self._update(packet[4:-32])


class RawClient:
    """`say` sends a packet; `heard` has what came back, message numbers and payloads."""

    def __init__(self, wire: Client, *, strict: bool = True, stock: bool = False, ciphers: bytes = b"") -> None:
        self.wire = wire
        self.strict = strict
        self.stock = stock
        self.ciphers = ciphers or (b"aes256-ctr" if stock else b"aes128-gcm@openssh.com")
        self.macs = b"hmac-sha2-256" if stock else b"hmac-sha2-256-etm@openssh.com"
        self.heard: list[tuple[int, bytes]] = []
        self.sequence = 0
        self.sealer: Any = Clear()
        self.session_id = b""
        self._new_opener: Any = None
        self._version = b""
        self._reader = PacketReader(Clear())
        self.take()

    # --- bytes and packets

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.take()
        if not self.wire.gone:
            self.wire.protocol.dataReceived(data)
            self.take()

    def packet(self, number: int, payload: bytes = b"") -> bytes:
        """A packet, sealed with the present keys."""
        packet: bytes = self.sealer.seal(self.sequence, bytes((number,)) + payload)
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        return packet

    def say(self, number: int, payload: bytes = b"") -> list[tuple[int, bytes]]:
        """Send a packet; returns what came back."""
        before = len(self.heard)
        self.raw(self.packet(number, payload))
        return self.heard[before:]

    def take(self) -> list[tuple[int, bytes]]:
        """What has been written by no doing of this client."""
        before = len(self.heard)
        data = self.wire.value()
        self.wire.clear()
        self._absorb(data)
        return self.heard[before:]

    @property
    def numbers(self) -> list[int]:
        """The numbers of all messages heard."""
        return [number for number, _ in self.heard]

    @property
    def gone(self) -> bool:
        """Whether the server has closed the connection."""
        return self.wire.gone

    @property
    def farewell(self) -> bytes:
        """Why, as it said in DISCONNECT; b"" when it said nothing."""
        for number, payload in self.heard:
            if number == 1:
                return Reader(payload[4:]).string()
        return b""

    def _absorb(self, data: bytes) -> None:
        if not self._version:
            self._version, _, data = data.partition(b"\r\n")
        self._reader.feed(data)
        while (payload := self._reader.next()) is not None:
            self.heard.append((payload[0], payload[1:]))
            if payload[0] == 21:
                self._reader.opener = self._new_opener
                if self.strict:
                    self._reader.sequence = 0

    # --- the key exchange

    def hello(self) -> "RawClient":
        """The version line."""
        self.raw(VERSION + b"\r\n")
        return self

    def kexinit(self, *, compression: bytes = b"none") -> bytes:
        """An offer, without its number."""
        exchange = b"curve25519-sha256,ext-info-c" + (b"," + STRICT_CLIENT if self.strict else b"")
        lists = (exchange, b"ssh-ed25519", *[self.ciphers] * 2, *[self.macs] * 2, *[compression] * 2, b"", b"")
        return os.urandom(16) + b"".join(map(string, lists)) + bytes(5)

    def handshake(self) -> "RawClient":
        """All of it, up to the first keys; then an ssh-userauth that is accepted."""
        self.hello()
        self.exchange()
        self.say(5, string(b"ssh-userauth"))
        return self

    def exchange(self) -> None:
        """Agree on keys, the first or new ones."""
        ours = self.kexinit()
        theirs = next((payload for number, payload in reversed(self.heard) if number == 20), b"")
        if self.session_id:
            theirs = next(payload for number, payload in self.say(20, ours) if number == 20)
        else:
            self.say(20, ours)
        self.finish(ours, theirs)

    def finish(self, ours: bytes, theirs: bytes) -> None:
        """The rest of it, after both KEXINITs."""
        before = len(self.heard)
        self.raw_half(ours, theirs)
        if 21 not in [number for number, _ in self.heard[before:]]:
            return
        reply = next(payload for number, payload in self.heard[before:] if number == 31)
        self.set_keys(reply)
        self.raw(self.packet(21))
        self.sealer = self._new_sealer
        if self.strict:
            self.sequence = 0

    def raw_half(self, ours: bytes, theirs: bytes | None = None) -> None:
        """The client's half of the key. The answer is read with its own keys, made from its first message."""
        secret = x25519.X25519PrivateKey.generate()
        public = secret.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        theirs = theirs or next(payload for number, payload in reversed(self.heard) if number == 20)
        self._derive = (secret, ours, theirs, public)
        self._new_opener = _Later(self)
        self.raw(self.packet(30, string(public)))

    def set_keys(self, reply: bytes) -> None:
        """Derive the keys from the server's half (RFC 4253, section 7.2)."""
        secret, ours, theirs, public = self._derive
        reader = Reader(reply)
        host_key, server_public = reader.string(), reader.string()
        shared = secret.exchange(x25519.X25519PublicKey.from_public_bytes(server_public)).lstrip(b"\0")
        k = string(b"\0" * (shared[0] >> 7) + shared)
        parts = (VERSION, self._version, b"\x14" + ours, b"\x14" + theirs, host_key, public, server_public)
        h = hashlib.sha256(b"".join(map(string, parts)) + k).digest()
        self.session_id = self.session_id or h

        def key(letter: bytes) -> bytes:
            first = hashlib.sha256(k + h + letter + self.session_id).digest()
            return first + hashlib.sha256(k + h + first).digest()

        if self.stock:
            self._new_sealer: Any = _StockMac(key(b"C"), key(b"A"), key(b"E"))
            self.opener: Any = _StockMac(key(b"D"), key(b"B"), key(b"F"))
            return
        mac = b"hmac-sha2-256-etm@openssh.com"
        self._new_sealer = make_way(self.ciphers, mac, key(b"A"), key(b"C"), key(b"E"), sealing=True)
        self.opener = make_way(self.ciphers, mac, key(b"B"), key(b"D"), key(b"F"), sealing=False)

    # --- logging in

    def key_request(self, user: bytes = b"ops", *, signed: bool = True, blob: bytes = USER_BLOB) -> bytes:
        """A request to log in by USER's key."""
        head = string(user) + string(b"ssh-connection") + string(b"publickey")
        body = head + bytes((signed,)) + string(b"ssh-ed25519") + string(blob)
        if not signed:
            return body
        signature = USER.sign(string(self.session_id) + b"\x32" + body)
        return body + string(string(b"ssh-ed25519") + string(signature))

    def wrong_request(self) -> bytes:
        """The same with a signature in which one bit is wrong."""
        right = self.key_request()
        return right[:-1] + bytes((right[-1] ^ 1,))

    def log_in(self, user: bytes = b"ops") -> "RawClient":
        """By USER's key."""
        assert 52 in [number for number, _ in self.say(50, self.key_request(user))], self.heard
        return self

    def open(self, *, window: int = 1 << 20, largest: int = 32768) -> int:
        """Open a session; returns the server's number of it."""
        opened = self.say(90, string(b"session") + uint32(0) + uint32(window) + uint32(largest))
        (confirmation,) = [payload for number, payload in opened if number == 91]
        return int.from_bytes(confirmation[4:8], "big")

    def request(self, channel: int, name: bytes, data: bytes = b"") -> list[tuple[int, bytes]]:
        """A request of a session that wants an answer."""
        return self.say(98, uint32(channel) + string(name) + b"\1" + data)


class _Later:
    """Stands for an opener whose keys are in the packet just before: makes it when the first length is asked for."""

    def __init__(self, client: RawClient) -> None:
        self._client = client

    def _real(self) -> Any:
        if not hasattr(self, "_opener"):
            client = self._client
            client.set_keys(next(payload for number, payload in reversed(client.heard) if number == 31))
            self._opener = client.opener
        return self._opener

    @property
    def tag(self) -> int:
        return int(self._real().tag)

    @property
    def block(self) -> int:
        return int(self._real().block)

    def length(self, sequence: int, first: bytes) -> int:
        return int(self._real().length(sequence, first))

    def open(self, sequence: int, packet: bytes) -> bytes:
        return cast("bytes", self._real().open(sequence, packet))


# --- the same against stock conch


class _Avatar(avatar.ConchUser):
    def __init__(self) -> None:
        super().__init__()
        self.channelLookup[b"session"] = session.SSHSession


@implementer(portal.IRealm)
class _Realm:
    def requestAvatar(self, avatarId: object, mind: object, *asked: object) -> Any:
        return interfaces.IConchUser, _Avatar(), lambda: None


def keys_that_conch_reads(file: bytes) -> list[keys.Key]:
    """Of an authorized_keys file."""
    return list(checkers.readAuthorizedKeyFile(io.BytesIO(file)))


def stock_client(network: MemoryNetwork, *more: Any, user_key: bytes = USER_BLOB) -> RawClient:
    """A client of a server as conch's documentation has it: the proof that a test of netd's can fail.

    `more` are other credentials checkers of its.
    """
    host = keys.Key(ed25519.Ed25519PrivateKey.generate())

    class Auth(userauth.SSHUserAuthServer):
        clock = network

    class Factory(factory.SSHFactory):
        services = {**factory.SSHFactory.services, b"ssh-userauth": Auth}  # noqa: RUF012
        publicKeys = {b"ssh-ed25519": host.public()}  # noqa: RUF012
        privateKeys = {b"ssh-ed25519": host}  # noqa: RUF012

    built: Any = Factory()
    database = checkers.InMemorySSHKeyDB({b"ops": [keys.Key.fromString(user_key, type="BLOB")]})
    built.portal = portal.Portal(_Realm(), [checkers.SSHPublicKeyChecker(database), *more])
    built.startFactory()
    address = IPv4Address("TCP", "127.0.0.1", 40000)
    return RawClient(Client(built.buildProtocol(address), address), strict=False, stock=True)
