"""An ssh connection: conch's server transport with what it leaves open closed.

conch negotiates and derives keys; here stand the packets (see packets.py, ciphers.py), the order in which messages may
come, the limits before the log-in, new keys after a while, and the back pressure of TCP:

- While the client does not read, or keys are being exchanged, nothing of a channel is sent: `sendable` is False, and
  channels pause whatever feeds them. conch would queue it all in memory. Reading pauses too while the client does not
  read, so that a client cannot make netd queue answers.
- Order (RFC 4253, sections 7 and 9; OpenSSH's strict key exchange): before the first keys nothing but the key exchange,
  and no other message than what it asks for next; after the client's KEXINIT only the rest of the exchange.
- What a client sends wrong ends its connection with one line in the log. What goes wrong in netd is logged whole.
"""

import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from twisted.conch.error import ConchError
from twisted.conch.ssh.transport import (
    DISCONNECT_BY_APPLICATION,
    DISCONNECT_KEY_EXCHANGE_FAILED,
    DISCONNECT_MAC_ERROR,
    DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE,
    DISCONNECT_PROTOCOL_ERROR,
    DISCONNECT_SERVICE_NOT_AVAILABLE,
    MSG_DEBUG,
    MSG_DISCONNECT,
    MSG_EXT_INFO,
    MSG_IGNORE,
    MSG_KEXDH_INIT,
    MSG_KEXINIT,
    MSG_NEWKEYS,
    MSG_SERVICE_ACCEPT,
    MSG_SERVICE_REQUEST,
    MSG_UNIMPLEMENTED,
    SSHServerTransport,
)
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from netd.listener import Connection, bytes_taken
from netd.ssh.ciphers import MACS, BadSeal, Ciphers, Sealer, in_the_clear
from netd.ssh.negotiation import (
    CIPHERS,
    EXTENSIONS_SERVER,
    KEY_EXCHANGES,
    STRICT_SERVER,
    NoAgreement,
    agree,
)
from netd.ssh.packets import SEQUENCE_MASK, PacketReader
from netd.ssh.quiet import CONCH
from netd.ssh.wire import Malformed, Reader, string, uint32

if TYPE_CHECKING:
    from netd.ssh.server import SshServer

VERSION = b"SSH-2.0-netd"

SIGNATURES = (
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"rsa-sha2-512",
    b"rsa-sha2-256",
    b"sk-ssh-ed25519@openssh.com",
    b"sk-ecdsa-sha2-nistp256@openssh.com",
)
"""What clients may sign with; told as server-sig-algs, without which they guess SHA-1 for RSA keys (RFC 8308)."""

MOST_QUEUED = 4096
"""Messages that may wait for the end of a key exchange: replies to what the client asked before it."""

AT_ONCE = 0.003
"""Seconds for which messages of a client that has logged in are taken in one turn of the reactor: a read may hold
hundreds of verbs to run."""

PARTING = 2.0
"""Seconds that a client has to leave whose prompt was told that the connection is to be closed."""

_GARBAGE = (
    *(Malformed, struct.error, ValueError, IndexError, TypeError, KeyError, AssertionError),
    *(UnsupportedAlgorithm, ConchError),
)
"""What conch's and cryptography's parsers raise at bytes they do not understand."""

_HARMLESS = frozenset({MSG_DISCONNECT, MSG_IGNORE, MSG_UNIMPLEMENTED, MSG_DEBUG})
_KEY_EXCHANGE = frozenset({MSG_KEXINIT, MSG_NEWKEYS, MSG_KEXDH_INIT})

_log = Logger()


@implementer(IPushProducer)
class SshConnection(SSHServerTransport, Connection):
    """One client. `user` is who it is, once it has logged in."""

    _log = CONCH
    ourVersionString = VERSION
    supportedCompressions = [b"none"]  # noqa: RUF012 - conch has a list

    currentEncryptions: Ciphers
    nextEncryptions: Ciphers

    def __init__(self, server: "SshServer") -> None:
        super().__init__()
        self.factory = server  # type: ignore[assignment]  # all that conch asks of it: keys, and getService
        self.server = server
        self.supportedPublicKeys = list(server.signatures)
        self.logged_in = False
        self.failed = ""
        """Why it did not log in, a key of gate.COSTS."""
        self.on_sendable: Callable[[], object] = lambda: None
        self._writable = True
        self._strict = False
        self._have_keys = False
        self._exchanged = False
        self._packets = 0
        self._used = 0
        self._keyed_at = 0.0
        self._exchange_moved: float | None = None
        """When the key exchange under way last came a step further; None while there is none."""
        self._progress = (0, 0)
        self._parting_since: float | None = None
        self._waits = False
        """For its turn to read."""

    # --- coming and going

    def connectionMade(self) -> None:
        self.server.gate.entered(self.host)
        self._keyed_at = self._exchange_moved = self.server.clock.seconds()
        self.currentEncryptions = in_the_clear()
        self._reader = PacketReader(self.currentEncryptions.opener)
        self._sealer: Sealer = self.currentEncryptions.sealer
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]  # a stream transport is an IConsumer
        self._write(VERSION + b"\r\n")
        self.sendKexInit()

    def connectionLost(self, reason: Failure | None = connectionDone) -> None:
        self.closing = True
        if not self.logged_in:
            self.server.gate.left(self.host)
            self.server.gate.punish(self.host, self.failed or "left")
        SSHServerTransport.connectionLost(self, reason)
        self.on_sendable = lambda: None
        Connection.connectionLost(self, reason or connectionDone)

    def log_in(self) -> None:
        """The client has shown who it is: the limits of strangers no longer hold."""
        self.logged_in = True
        self.server.gate.left(self.host)

    def close(self) -> None:
        """Idle, `close`, or netd stops: who is at a prompt is told, and has a moment to leave; else it ends now."""
        text = "netd is stopping" if self.server.draining else "closed by netd: idle, or an operator's wish"
        sessions = self.server.logged.get(self.id)
        if sessions is not None and sessions.dismiss(text):
            self._parting_since = self.server.clock.seconds()
        else:
            self.sendDisconnect(DISCONNECT_BY_APPLICATION, text.encode())

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Say why, then close; what else the client sends is not heard."""
        if self.closing:
            return
        self.sendPacket(MSG_DISCONNECT, uint32(reason) + string(desc) + string(b""))
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # a stream transport is an IConsumer
        Connection.close(self)

    def fail(self, reason: int, text: str) -> None:
        """The client has broken a rule: one line in the log, and the end."""
        if not self.failed:
            self.failed = "protocol"
        self.server.complain(self, text)
        self.sendDisconnect(reason, text.encode())

    def tick(self, now: float) -> None:
        """Once a second: give up on the client, ask for new keys, or ask whether it is there, if it is time."""
        settings = self.server.settings
        if self.closing:
            return
        if self._parting_since is not None and now - self._parting_since >= PARTING:
            self.close()
            return
        if not self.logged_in and settings.limits.grace and now - self.since >= settings.limits.grace:
            self.failed = self.failed or "grace"
            self.server.complain(self, "no log-in in time")
            self.abort()
        elif self._exchange_moved is not None:
            self._await_exchange(now, self._exchange_moved)
        elif self.logged_in and settings.rekey_after and now - self._keyed_at >= settings.rekey_after:
            self.sendKexInit()
        if self.logged_in and self.service is not None and not self.closing:
            self.service.tick(now)  # type: ignore[attr-defined]  # after the log-in it is a Sessions

    def _await_exchange(self, now: float, moved: float) -> None:
        """Give up on a key exchange that has come to a halt. On a slow link all that was sent before it goes first."""
        grace = self.server.settings.limits.grace
        progress = (self.bytes_in, bytes_taken(self.transport))
        if progress != self._progress:
            self._progress, self._exchange_moved = progress, now
        elif self.logged_in and grace and now - moved >= grace:
            self.fail(DISCONNECT_KEY_EXCHANGE_FAILED, "no end of the key exchange in time")

    # --- TCP's back pressure

    def pauseProducing(self) -> None:
        """The client does not read: send nothing more of what can wait, and take nothing new."""
        self._writable = False
        self.transport.pauseProducing()  # type: ignore[attr-defined]  # a stream transport is a producer

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._writable = True
        if not self._waits:
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # a stream transport is a producer
        self._tell_channels()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost says the rest."""

    @property
    def sendable(self) -> bool:
        """Whether a channel's data can leave: the client reads, and no key exchange is under way."""
        return self._writable and self._keyExchangeState == self._KEY_EXCHANGE_NONE

    def _tell_channels(self) -> None:
        if self.sendable and not self.closing:
            self.on_sendable()

    # --- out

    def _write(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self.transport.write(data)

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        if self._keyExchangeState != self._KEY_EXCHANGE_NONE and not self._allowedKeyExchangeMessageType(messageType):
            if len(self._blockedByKeyExchange) >= MOST_QUEUED:
                raise Malformed("too many requests during a key exchange")
            self._blockedByKeyExchange.append((messageType, payload))
            return
        self._send(messageType, payload)
        if messageType == MSG_NEWKEYS:
            self._sealer = self.nextEncryptions.sealer
            if self._strict:
                self.outgoingPacketSequence = 0

    def _send(self, number: int, payload: bytes) -> None:
        packet = self._sealer.seal(self.outgoingPacketSequence, bytes((number,)) + payload)
        self.outgoingPacketSequence = (self.outgoingPacketSequence + 1) & SEQUENCE_MASK
        self._write(packet)
        self._count(len(packet))

    def _count(self, size: int) -> None:
        """So many bytes more under these keys."""
        self._used += size
        limit = self.server.settings.rekey_bytes
        if limit and self._used >= limit and self.logged_in and self._keyExchangeState == self._KEY_EXCHANGE_NONE:
            self.sendKexInit()

    def send_unnoticed(self, number: int, payload: bytes) -> None:
        """Send what is no sign of life of the session: a question whether the client is there."""
        before = self.bytes_out
        self.sendPacket(number, payload)
        self.seen += self.bytes_out - before

    def receive_unnoticed(self) -> None:
        """The message at hand is the answer to one."""
        self.seen += self._reader.taken

    # --- in

    def dataReceived(self, data: bytes) -> None:
        if self.closing:
            return
        self.bytes_in += len(data)
        self._reader.feed(data)
        if self._waits:
            return
        if self.logged_in:
            self._read()
        else:
            self._waits = True
            self.server.turns.take(self._read)

    def _read(self) -> None:
        """Take what has come, as far as it is all there."""
        self._waits = False
        if self.closing:
            return
        until = self.server.clock.seconds() + AT_ONCE
        try:
            if not self.gotVersion:
                self._read_version()
            while self.gotVersion and not self.closing and (payload := self._reader.next()) is not None:
                self.incomingPacketSequence = (self._reader.sequence - 1) & SEQUENCE_MASK
                self.dispatchMessage(payload[0], payload[1:])
                self._count(self._reader.taken)
                if self.logged_in and self.server.clock.seconds() >= until:
                    self._read_later()
                    break
            self._limit_strangers()
        except BadSeal:
            self.fail(DISCONNECT_MAC_ERROR, "a packet that was not sealed with our keys")
        except NoAgreement as error:
            self.fail(DISCONNECT_KEY_EXCHANGE_FAILED, str(error))
        except Malformed as error:
            self.fail(DISCONNECT_PROTOCOL_ERROR, str(error))
        except Exception:  # noqa: BLE001 - a mistake of ours must cost this connection, and no other
            _log.failure("connection {id} made netd fail", id=self.id, service=self.server.name)
            self.abort()

    def _read_later(self) -> None:
        """Go on in the next turn; more is not read until then."""
        if not self.closing:
            self._waits = True
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # a stream transport is a producer
            self.server.clock.callLater(0, self._read_on)

    def _read_on(self) -> None:
        if self._writable and not self.closing:
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # a stream transport is a producer
        self._read()

    def _read_version(self) -> None:
        version = self._reader.version()
        if version is not None:
            self.otherVersionString = version
            self.gotVersion = True

    def _limit_strangers(self) -> None:
        limits = self.server.settings.limits
        if self.logged_in or self.closing:
            return
        if limits.bytes and self.bytes_in > limits.bytes:
            raise Malformed("too many bytes before the log-in")

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        self._packets += 1
        limits = self.server.settings.limits
        if not self.logged_in and limits.packets and self._packets > limits.packets:
            raise Malformed("too many packets before the log-in")
        if self.ignoreNextPacket and 30 <= messageNum < 50:  # noqa: PLR2004 - RFC 4251: of the key exchange method
            self.ignoreNextPacket = False
            return
        self._check_order(messageNum)
        if messageNum >= 50 and self.service is not None:  # noqa: PLR2004 - RFC 4251, section 7: 50 and up are the services'
            self.service.packetReceived(messageNum, payload)
            return
        try:
            receive = self._RECEIVERS.get(messageNum)
            if receive is None:
                self.sendUnimplemented()
            else:
                receive(self, payload)
        except _GARBAGE as error:
            raise Malformed(f"a malformed message {messageNum}") from error

    def _check_order(self, number: int) -> None:
        """Raise Malformed for a message that has no business here now."""
        exchanging = self._keyExchangeState == self._KEY_EXCHANGE_PROGRESSING
        if not self._have_keys:
            first = self._keyExchangeState == self._KEY_EXCHANGE_REQUESTED
            expected = {MSG_KEXINIT} if first else {MSG_NEWKEYS if self._exchanged else MSG_KEXDH_INIT}
            if number in expected or (number in _HARMLESS and not first and not self._strict):
                return
            if number == MSG_DISCONNECT:
                return
            raise Malformed(f"message {number} during the first key exchange")
        if exchanging:
            if number not in _HARMLESS and number != (MSG_NEWKEYS if self._exchanged else MSG_KEXDH_INIT):
                raise Malformed(f"message {number} during a key exchange")
        elif number in _KEY_EXCHANGE and number != MSG_KEXINIT:
            raise Malformed(f"message {number} without a key exchange")

    # --- key exchange

    def sendKexInit(self) -> None:
        names = (*KEY_EXCHANGES, EXTENSIONS_SERVER, *([] if self._have_keys else [STRICT_SERVER]))
        lists = (
            names,
            self.supportedPublicKeys,
            CIPHERS,
            CIPHERS,
            tuple(MACS),
            tuple(MACS),
            (b"none",),
            (b"none",),
            (),
            (),
        )
        body = os.urandom(16) + b"".join(string(b",".join(each)) for each in lists) + bytes(5)
        self.ourKexInitPayload = bytes((MSG_KEXINIT,)) + body
        self._exchanged = False
        self._used = 0
        self._exchange_moved = self.server.clock.seconds()
        self.sendPacket(MSG_KEXINIT, body)
        self._keyExchangeState = self._KEY_EXCHANGE_REQUESTED
        self._blockedByKeyExchange = []

    def ssh_KEXINIT(self, packet: bytes) -> None:
        agreement = agree(packet, self.supportedPublicKeys)
        self.otherKexInitPayload = bytes((MSG_KEXINIT,)) + packet
        self.kexAlg = agreement.key_exchange
        self.keyAlg = agreement.host_key
        self.nextEncryptions = Ciphers(agreement.cipher_out, agreement.cipher_in, agreement.mac_out, agreement.mac_in)
        self.outgoingCompressionType = self.incomingCompressionType = b"none"
        self.ignoreNextPacket = agreement.wrong_guess
        self._peerSupportsExtensions = agreement.extensions
        if not self._have_keys:
            self._strict = agreement.strict
        if self._keyExchangeState == self._KEY_EXCHANGE_NONE:
            self.sendKexInit()
        self._keyExchangeState = self._KEY_EXCHANGE_PROGRESSING

    def ssh_KEX_DH_GEX_REQUEST_OLD(self, packet: bytes) -> None:
        """The client's half of the key, whatever the exchange is called: conch's name for message 30."""
        super().ssh_KEX_DH_GEX_REQUEST_OLD(packet)
        self._exchanged = True

    def ssh_NEWKEYS(self, packet: bytes) -> None:
        if packet:
            raise Malformed("NEWKEYS takes no data")
        self._have_keys = True
        self._exchange_moved = None
        self._keyed_at = self.server.clock.seconds()
        self._used = 0
        self._reader.opener = self.nextEncryptions.opener
        if self._strict:
            self._reader.sequence = 0
        self._newKeys()
        self._tell_channels()

    def sendExtInfo(self, extensions: object) -> None:  # noqa: ARG002 - see below
        """Instead of conch's, which names the kinds of the host's own keys, and sends it a round trip later.

        libssh decides how to sign before that.
        """
        if self._peerSupportsExtensions:
            self._send(MSG_EXT_INFO, uint32(1) + string(b"server-sig-algs") + string(b",".join(SIGNATURES)))

    # --- other messages of the transport

    def ssh_SERVICE_REQUEST(self, packet: bytes) -> None:
        reader = Reader(packet)
        name = reader.string()
        reader.end()
        if self.service is not None:
            raise Malformed("a second service request")
        if name != b"ssh-userauth":
            self.fail(DISCONNECT_SERVICE_NOT_AVAILABLE, f"no service {name[:40]!r} before the log-in")
            return
        self.sendPacket(MSG_SERVICE_ACCEPT, string(name))
        self.setService(self.server.log_in_service())

    def ssh_DISCONNECT(self, packet: bytes) -> None:  # noqa: ARG002 - its reasons are for people
        self.closing = True
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # a stream transport is an IConsumer
        Connection.close(self)

    def ssh_EXT_INFO(self, packet: bytes) -> None:
        """What the client can do beyond the protocol; netd has no use for any of it."""

    def ssh_DEBUG(self, packet: bytes) -> None:
        """Words for nobody."""

    def ssh_UNIMPLEMENTED(self, packet: bytes) -> None:
        """The client does not know one of netd's messages; each of them can do without an answer."""

    def too_many_attempts(self) -> None:
        """Guessing is over."""
        self.failed = "password"
        self.sendDisconnect(DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE, b"too many attempts")

    # conch would find more: handlers of key exchanges that netd does not offer.
    _RECEIVERS: ClassVar[dict[int, Callable[["SshConnection", bytes], None]]] = {
        MSG_DISCONNECT: ssh_DISCONNECT,
        MSG_IGNORE: SSHServerTransport.ssh_IGNORE,
        MSG_UNIMPLEMENTED: ssh_UNIMPLEMENTED,
        MSG_DEBUG: ssh_DEBUG,
        MSG_SERVICE_REQUEST: ssh_SERVICE_REQUEST,
        MSG_EXT_INFO: ssh_EXT_INFO,
        MSG_KEXINIT: ssh_KEXINIT,
        MSG_NEWKEYS: ssh_NEWKEYS,
        MSG_KEXDH_INIT: ssh_KEX_DH_GEX_REQUEST_OLD,
    }
