"""What all connections of one [ssh.NAME] share: users, keys, commands, limits, the console, the audit."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import DISCONNECT_BY_APPLICATION
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from netd.config import ServiceConfig
from netd.console.command import Caller
from netd.console.console import Console
from netd.console.help import host_name
from netd.console.sessions import Penalty, Session
from netd.console.text import printable
from netd.passwords import check_hash, decoy
from netd.runtime import Reactor, Runtime
from netd.ssh.allowed import make_command
from netd.ssh.audit import Audit
from netd.ssh.auth import LogIn
from netd.ssh.authorized import AuthorizedKey, fingerprint
from netd.ssh.config import SshSettings, audit_path
from netd.ssh.gate import Gate
from netd.ssh.hostkeys import HostKey
from netd.ssh.process import RunningCommand
from netd.ssh.sessions import Sessions
from netd.ssh.terminal_history import History
from netd.ssh.transport import SshConnection
from netd.ssh.users import User
from netd.stats import Histogram
from netd.turns import Turns

HASHES_AT_ONCE = 2
"""Each takes a core for tens of milliseconds and 19 MiB."""

R = TypeVar("R")

_log = Logger()


class SshServer:
    """To conch it is the factory of its connections: `publicKeys`, `privateKeys`."""

    def __init__(self, config: ServiceConfig, settings: SshSettings, runtime: Runtime) -> None:
        self.name = config.key
        self.settings = settings
        self.reactor: Reactor = runtime.reactor
        self.clock = runtime.reactor
        self._state_dir = runtime.state_dir
        self.turns = Turns(self.clock)
        """Of those who log in."""
        self.typing = Turns(self.clock)
        """Of those at a terminal."""
        self.gate = Gate(settings.limits, settings.penalty_exempt or (), self.clock)
        self.commands = {name: make_command(name, each) for name, each in settings.commands.items()}
        self.console = Console(runtime, finished=self._verb_finished, host_commands=self.commands)
        self.host = host_name()
        self.users: dict[str, User] = {}
        self.publicKeys: dict[bytes, Key] = {}
        self.privateKeys: dict[bytes, Key] = {}
        self.signatures: list[bytes] = []
        self.draining = False
        self.logged: dict[int, Sessions] = {}
        """Who is logged in, by the connection's id."""
        self.running: set[RunningCommand] = set()
        self.counts = Counter[str]()
        """How often each event of the audit came to be."""
        self.command_seconds = Histogram("Allowed commands take")
        self._audit = self._make_audit(settings)
        self._threads = ThreadPool(0, HASHES_AT_ONCE, name="ssh-hashes")
        self._histories: dict[str, History] = {}

    def _make_audit(self, settings: SshSettings) -> Audit:
        return Audit(audit_path(settings, self.name, self._state_dir), settings.audit_size, self.clock, self.name)

    def open(self, host_keys: dict[bytes, Key], users: dict[str, User]) -> None:
        """What can only be had once the daemon starts."""
        self._know(host_keys, users)
        self._threads.start()

    def follow(self, settings: SshSettings, host_keys: dict[bytes, Key], users: dict[str, User]) -> None:
        """Go over to other settings; who may no longer be here as he is has to leave."""
        if (settings.audit_log, settings.audit_size) != (self.settings.audit_log, self.settings.audit_size):
            self._audit.stop()
            self._audit = self._make_audit(settings)
        self.settings = settings
        self.gate.follow(settings.limits, settings.penalty_exempt or ())
        self.commands.clear()
        self.commands.update({name: make_command(name, each) for name, each in settings.commands.items()})
        self._know(host_keys, users)
        for sessions in list(self.logged.values()):
            user = users.get(sessions.user.name)
            if user is None or user.role != sessions.user.role:
                text = "the configuration no longer has you like this; log in again"
                sessions.dismiss(text)
                sessions.connection.sendDisconnect(DISCONNECT_BY_APPLICATION, text.encode())

    def _know(self, host_keys: dict[bytes, Key], users: dict[str, User]) -> None:
        self.privateKeys = host_keys
        self.publicKeys = {
            kind: HostKey.fromString(key.public().blob(), type="BLOB") for kind, key in host_keys.items()
        }
        self.signatures = [
            algorithm
            for key in host_keys.values()
            for algorithm in key.supportedSignatureAlgorithms()
            if algorithm != b"ssh-rsa"  # SHA-1
        ]
        self.users = users

    def close(self) -> None:
        """Let go of threads and files."""
        if self._threads.started:
            self._threads.stop()
        self._audit.stop()

    def build(self) -> SshConnection:
        """A connection that has just come."""
        return SshConnection(self)

    # --- logging in

    def log_in_service(self) -> LogIn:
        """What a connection begins with."""
        return LogIn(self)

    def run_in_thread(self, function: Callable[..., R], *arguments: object) -> Deferred[R]:
        """Its result, some other time: two such at once, the others wait for their turn."""
        return deferToThreadPool(self.reactor, self._threads, function, *arguments)

    def read_hash(self, user: User) -> str | None:
        """The hash of a user's password, from its file if it is in one; None, and a line logged, if it is unusable."""
        if user.password_hash is None:
            return None
        try:
            return check_hash(user.password_hash.read())
        except (OSError, ValueError) as error:
            _log.warn("users.{user}.password_hash: {why}", user=user.name, why=str(error), service=self.name)
            return None

    def decoy(self, name: str) -> str:
        """What an unknown user's password is checked against: it costs what a known one's does."""
        hashes = [user.password_hash for user in self.users.values() if user.password_hash is not None]
        return decoy(name, hashes)

    def logged_in(self, connection: SshConnection, user: User, method: str, key: AuthorizedKey | None) -> Sessions:
        """What a client may use who has shown to be this user."""
        caller = Caller(user.name, user.role, connection.peer, "ssh", connection.id)
        sessions = Sessions(self, user, caller, key)
        self.logged[connection.id] = sessions
        self.record("login", sessions, method=method)
        _log.info(
            "{user} logged in from {peer} by {method}",
            user=user.name,
            peer=caller.peer,
            method=method,
            connection=connection.id,
            key=key.fingerprint if key is not None else None,
            service=self.name,
        )
        return sessions

    def logged_out(self, sessions: Sessions) -> None:
        """The connection is gone."""
        connection = sessions.connection
        if self.logged.pop(connection.id, None) is not None:
            self.record("logout", sessions, bytes=connection.bytes_out)

    def refused(self, connection: SshConnection, user: bytes, method: str, key: bytes | None) -> None:
        """An attempt to log in failed, with this key if it was by one."""
        self.counts["failure"] += 1
        about = {
            "user": printable(user.decode("utf-8", "replace")),
            "peer": connection.peer,
            "method": method,
            "key": fingerprint(key) if key is not None else None,
            "connection": connection.id,
        }
        self._audit.write("refusal", **about)
        words = "{user} refused from {peer} by {method}" + (" {key}" if key is not None else "")
        _log.info(words, **about, service=self.name)

    def complain(self, connection: SshConnection, text: str) -> None:
        """A client has done what clients do not do."""
        _log.info("{peer}: {text}", peer=connection.peer, text=text, connection=connection.id, service=self.name)

    # --- what they do

    def record(self, event: str, sessions: Sessions, **values: object) -> None:
        """A line of the audit about somebody who is logged in."""
        self.counts[event] += 1
        caller = sessions.caller
        self._audit.write(
            event,
            user=caller.user,
            role=caller.role.label,
            peer=caller.peer,
            connection=caller.connection,
            key=sessions.key.fingerprint if sessions.key is not None else None,
            **values,
        )

    def _verb_finished(self, caller: Caller, verb: str, words: Sequence[str], status: int) -> None:
        sessions = self.logged.get(caller.connection)
        if sessions is not None:
            self.record("verb", sessions, verb=verb, arguments=" ".join(words), status=status)

    def history_of(self, user: str) -> History:
        """The lines a user has entered, while the daemon runs."""
        return self._histories.setdefault(user, History())

    # --- for the console

    def sessions(self, connections: Sequence[SshConnection]) -> list[Session]:
        """Who is there."""
        return [self._session(connection) for connection in connections]

    def _session(self, connection: SshConnection) -> Session:
        sessions = self.logged.get(connection.id)
        if sessions is None:
            return Session(connection.id, "", "", connection.peer, connection.since, "logging in")
        doing = ", ".join(channel.doing for channel in sessions.open if channel.doing) or "nothing"
        caller = sessions.caller
        return Session(connection.id, caller.user, caller.role.label, caller.peer, connection.since, doing)

    def penalties(self) -> list[Penalty]:
        """Which addresses have to wait."""
        self.gate.forget()
        return [
            Penalty(address, each.failures, each.until)
            for address, each in self.gate.penalties.items()
            if each.enforced
        ]
