"""Logging in (RFC 4252): by key, by password where that is allowed, and by nothing else.

Requests are decided one at a time, in order, and counted over the whole connection, whatever they ask for and in
whatever order they come. conch decides all that arrive at once in parallel, before it counts the first; its service
can also be started anew, which starts its counting anew.

A signature says what it was made for, so it is checked against what this connection would have asked for. Unknown users
cost what known ones do: a password is hashed for them, and no answer tells them apart.
"""

import hashlib
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from cryptography.exceptions import UnsupportedAlgorithm
from twisted.conch.ssh.keys import BadKeyError, Key
from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from netd import passwords
from netd.ssh.authorized import ALGORITHMS, AuthorizedKey
from netd.ssh.quiet import CONCH
from netd.ssh.users import User
from netd.ssh.wire import Malformed, Reader, string

if TYPE_CHECKING:
    from netd.ssh.server import SshServer
    from netd.ssh.transport import SshConnection

MSG_USERAUTH_REQUEST, MSG_USERAUTH_FAILURE, MSG_USERAUTH_SUCCESS, MSG_USERAUTH_PK_OK = 50, 51, 52, 60
"""Not from conch: its module of these imports the global reactor."""

MOST_PIPELINED = 4
"""Requests that may wait while one is decided; honest clients wait for each answer."""

LONGEST_NAME = 256
"""Bytes of a user's name that are looked at."""

KEYS_KEPT = 256
"""Parsed keys of users, a kilobyte each; parsing takes as long as a signature's check."""

USER_PRESENT, USER_VERIFIED = 0x01, 0x04
"""Flags that a security key signs (OpenSSH's PROTOCOL.u2f)."""

_UNREADABLE = (BadKeyError, UnsupportedAlgorithm, ValueError, IndexError, TypeError, Malformed)

_log = Logger()


class LogIn(SSHService):
    """The ssh-userauth service of one connection."""

    _log = CONCH
    name = b"ssh-userauth"

    def __init__(self, server: "SshServer") -> None:
        self._server = server
        self._limits = server.settings.limits
        self._waiting: deque[bytes] = deque()
        self._deciding: Deferred[None] | None = None
        self._user: bytes | None = None
        self._attempts = 0
        self._queries = 0
        self._requests = 0
        self._offered: bytes | None = None
        """The key that was asked about last, and would not do."""

    @property
    def _connection(self) -> "SshConnection":
        return cast("SshConnection", self.transport)

    def serviceStopped(self) -> None:
        if self._offered is not None and not self._connection.logged_in:
            # Clients ask first, and go without an attempt: their operators want to know why all the same.
            self._server.refused(self._connection, self._user or b"", "publickey", self._offered)
        self._waiting.clear()
        if self._deciding is not None:
            self._deciding.cancel()

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        if messageNum != MSG_USERAUTH_REQUEST:
            raise Malformed(f"message {messageNum} before the log-in")
        if len(self._waiting) >= MOST_PIPELINED:
            raise Malformed("requests to log in faster than they are answered")
        self._waiting.append(packet)
        self._next()

    def _next(self) -> None:
        """Decide the request that has waited longest, unless one is being decided."""
        while self._deciding is None and self._waiting and not self._connection.closing:
            deciding = Deferred.fromCoroutine(self._decide(self._waiting.popleft()))
            if not deciding.called:
                self._deciding = deciding
                deciding.addBoth(self._decided)
            elif isinstance(failure := deciding.result, Failure):
                deciding.addErrback(lambda _: None)
                failure.raiseException()

    def _decided(self, result: object) -> None:
        """A decision that took a while has come: what it raised cannot be raised into `dataReceived` any more."""
        self._deciding = None
        if isinstance(result, Failure):
            if result.check(CancelledError) is None:
                _log.failure("a log-in could not be decided", result, service=self._server.name)
                self._connection.abort()
            return
        if not self._connection.closing:
            try:
                self._next()
            except Malformed as error:
                self._connection.fail(2, str(error))

    async def _decide(self, packet: bytes) -> None:
        reader = Reader(packet)
        user, service, method = reader.string(), reader.string(), reader.string()
        if service != b"ssh-connection" or self._user not in {None, user} or len(user) > LONGEST_NAME:
            raise Malformed("a log-in as somebody else, or to something else")
        self._user = user
        self._requests += 1
        if method == b"publickey":
            await self._by_key(reader)
        elif method == b"password":
            await self._by_password(reader)
        elif method == b"none" and self._requests == 1:
            self._refuse()
        else:
            self._failed(method.decode("ascii", "replace")[:32])

    # --- ways to log in

    async def _by_key(self, reader: Reader) -> None:
        signed = reader.boolean()
        algorithm, blob = reader.string(), reader.string()
        user, key = self._find(algorithm, blob)
        if not signed:
            self._queries += 1
            if self._limits.key_queries and self._queries > self._limits.key_queries:
                self._connection.too_many_attempts()
            elif key is None:
                self._offered = blob
                self._refuse()
            else:
                self._connection.sendPacket(MSG_USERAUTH_PK_OK, string(algorithm) + string(blob))
            return
        signature = reader.string()
        reader.end()
        if user is None or key is None or not self._is_signed(key, algorithm, signature):
            self._failed("publickey", blob)
        else:
            self._succeeded(user, "publickey", key)

    def _find(self, algorithm: bytes, blob: bytes) -> tuple[User | None, AuthorizedKey | None]:
        user = self._server.users.get((self._user or b"").decode("ascii", "replace"))
        key = user.find_key(blob) if user is not None else None
        if key is None or algorithm not in ALGORITHMS[key.kind]:
            return user, None
        return user, key if key.allows(self._connection.host, datetime.now(UTC)) else None

    def _is_signed(self, key: AuthorizedKey, algorithm: bytes, signature: bytes) -> bool:
        """Whether the client has this key, and the person its security key if it is one."""
        message = (
            string(self._connection.sessionID or b"")
            + bytes((MSG_USERAUTH_REQUEST,))
            + string(self._user or b"")
            + string(b"ssh-connection")
            + string(b"publickey")
            + b"\1"
            + string(algorithm)
            + string(key.blob)
        )
        try:
            reader = Reader(signature)
            if reader.string() != algorithm:
                return False
            proof = reader.string()
            if key.kind.startswith(b"sk-"):
                flags, counter = reader.take(1), reader.take(4)
                needed = (USER_PRESENT if key.touch else 0) | (USER_VERIFIED if key.verified else 0)
                if flags[0] & needed != needed:
                    return False
                application = _application(key)
                message = hashlib.sha256(application).digest() + flags + counter + hashlib.sha256(message).digest()
            reader.end()
            return is_proof(key.blob, algorithm, proof, message)
        except _UNREADABLE:
            return False

    async def _by_password(self, reader: Reader) -> None:
        changing = reader.boolean()
        password = reader.string()
        if not self._server.settings.password_auth or changing:
            self._failed("password")
            return
        name = (self._user or b"").decode("ascii", "replace")
        user = self._server.users.get(name)
        text = None
        if user is not None and user.password_hash is not None:
            text = self._server.read_hash(user)
        right = await self._server.run_in_thread(passwords.verify, password, text or self._server.decoy(name))
        user = self._server.users.get(name)  # as a reload may have him meanwhile
        if right and user is not None and text is not None and text == self._server.read_hash(user):
            self._succeeded(user, "password", None)
        else:
            self._failed("password")

    # --- what comes of it

    def _succeeded(self, user: User, method: str, key: AuthorizedKey | None) -> None:
        connection = self._connection
        connection.sendPacket(MSG_USERAUTH_SUCCESS, b"")
        connection.log_in()
        connection.setService(self._server.logged_in(connection, user, method, key))

    def _failed(self, method: str, key: bytes | None = None) -> None:
        """An attempt that counts."""
        connection = self._connection
        self._attempts += 1
        connection.failed = "password"
        self._server.refused(connection, self._user or b"", method, key)
        if self._limits.attempts and self._attempts >= self._limits.attempts:
            connection.too_many_attempts()
        else:
            self._refuse()

    def _refuse(self) -> None:
        methods = b"publickey,password" if self._server.settings.password_auth else b"publickey"
        self._connection.sendPacket(MSG_USERAUTH_FAILURE, string(methods) + b"\0")


def is_proof(blob: bytes, algorithm: bytes, proof: bytes, message: bytes) -> bool:
    """Whether who has the private key of a blob has signed a message."""
    key = _public_key(blob)
    if key.type() == "RSA":  # a number: PuTTY leaves out its leading zeros, which one in 256 has
        proof = proof.rjust((key.size() + 7) // 8, b"\0")
    return bool(key.verify(string(algorithm) + string(proof), message))


@lru_cache(maxsize=KEYS_KEPT)
def _public_key(blob: bytes) -> Key:
    return cast("Key", Key.fromString(blob, type="BLOB"))


def _application(key: AuthorizedKey) -> bytes:
    """What a security key's signatures are for, the last string of its public key."""
    reader = Reader(key.blob)
    application = b""
    while reader.left:
        application = reader.string()
    return application
