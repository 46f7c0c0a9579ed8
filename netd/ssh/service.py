"""An [ssh.NAME] table at work."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, cast

from twisted.conch.ssh.keys import Key
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from netd.config import ServiceConfig
from netd.console.sessions import Penalty, Session
from netd.listener import Listener, Port, Refusal
from netd.runtime import CannotStart, Runtime
from netd.service import Service
from netd.ssh.config import SshSettings
from netd.ssh.hostkeys import load_host_keys
from netd.ssh.server import SshServer
from netd.ssh.throwaway import ThrowawayKeys, make_throwaway_keys
from netd.ssh.transport import SshConnection
from netd.ssh.users import User, make_users
from netd.stats import Chart, Figure, Histogram, counter, gauge

TICK = 1.0
"""Seconds between two looks at every connection: who has taken too long, who is gone, whose keys are old."""

POLL = 0.05
"""Seconds between two looks at whether what runs has ended."""

_log = Logger()


class SshListener(Listener):
    """Refuses also whom the gate refuses."""

    server: SshServer

    def refusal(self, host: str) -> Refusal | None:
        return super().refusal(host) or self.server.gate.refusal(host)


class SshService(Service):
    """The operator's console and the allowed commands."""

    kind = "ssh"
    for_operators = True

    def __init__(self, config: ServiceConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        self._settings = cast("SshSettings", config.settings)
        self._server = SshServer(config, self._settings, runtime)
        listener = SshListener(config.key, self._ports(self._settings), self._settings, runtime)
        listener.server = self._server
        self.listeners = [listener]
        self._throwaway: ThrowawayKeys | None = None
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = runtime.reactor

    async def prepare(self) -> None:
        if not self._settings.users:  # which the daemon has said, with the other warnings of the configuration
            self.listeners = []
        else:
            self._throwaway, host_keys, users = self._make_keys(self._settings)
            self._server.open(host_keys, users)
        await super().prepare()

    def serve(self) -> None:
        super().serve()
        if self._throwaway is not None:
            self._throwaway.announce(self.listeners[0].bound, self._server.publicKeys)
        self._ticking.start(TICK, now=False).addErrback(
            lambda failure: _log.failure("the look at every connection stopped", failure, service=self.key)
        )

    async def adapt(self, config: ServiceConfig) -> Callable[[], None] | None:
        settings = cast("SshSettings", config.settings)
        if not (settings.users and self._settings.users):
            return None  # one of the two does not listen
        throwaway, host_keys, users = self._make_keys(settings)
        serve = await self.listeners[0].prepare(self._ports(settings), settings)

        def commit() -> None:
            self._settings = settings
            self._server.follow(settings, host_keys, users)
            serve()
            throwaway.announce(self.listeners[0].bound, host_keys)

        return commit

    def _ports(self, settings: SshSettings) -> list[Port]:
        return [Port(f"{self.key}.listen", settings.listen, self._server.build)]

    def _make_keys(self, settings: SshSettings) -> tuple[ThrowawayKeys, dict[bytes, Key], dict[str, User]]:
        """Throw-away keys, host keys and users as settings have them; raises CannotStart."""
        directory = self._make_directory()
        throwaway = make_throwaway_keys(settings, directory, self.key)
        host_keys = load_host_keys(settings.host_keys, directory, self.key)
        return throwaway, host_keys, make_users(settings.users, throwaway.public_keys, self.key)

    def _make_directory(self) -> Path:
        """Keys of hosts and users of this service."""
        path = self.runtime.state_dir / self.key
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CannotStart(f"{path}: cannot be made: {error.strerror}") from None
        return path

    def _tick(self) -> None:
        now = self.runtime.reactor.seconds()
        for connection in self._connections():
            try:
                connection.tick(now)
            except Exception:  # noqa: BLE001 - whatever is wrong with one connection, the others go on
                _log.failure("connection {id} made netd fail", id=connection.id, service=self.key)
                connection.abort()

    def _connections(self) -> list[SshConnection]:
        return [cast("SshConnection", each) for listener in self.listeners for each in listener.connections.values()]

    async def drain(self) -> None:
        """Let what runs come to its end and its client take it; operators at a prompt are told, and leave."""
        self._server.draining = True
        for listener in self.listeners:
            await listener.stop_listening()
        for sessions in list(self._server.logged.values()):
            sessions.dismiss("netd is stopping")
        while connections := self._connections():
            for connection in connections:
                logged = self._server.logged.get(connection.id)
                if not connection.closing and (logged is None or not logged.busy):
                    connection.close()
            await deferLater(self.runtime.reactor, POLL)

    async def resume(self) -> None:
        self._server.draining = False
        await super().resume()

    async def stop(self) -> None:
        """End every connection and every command."""
        await super().stop()
        while self._server.running:
            await deferLater(self.runtime.reactor, POLL)
        if self._ticking.running:
            self._ticking.stop()
        self._server.close()

    # --- for the console

    figures: ClassVar[dict[str, Figure]] = {
        "logged_in": gauge("Connections that are logged in"),
        "commands_running": gauge("Allowed commands that run"),
        "logins": counter("Log-ins"),
        "login_failures": counter("Attempts to log in that failed"),
        "verbs": counter("Verbs run"),
        "commands": counter("Allowed commands run"),
        "refusals": counter("Lines refused: unknown, not allowed, or beyond the user's role"),
        "penalised_addresses": gauge("Addresses that are made to wait for their failures to log in"),
    }

    charts = (
        Chart("Log-ins", {"good": "logins", "failed": "login_failures"}),
        Chart("What they run", {"verbs": "verbs", "commands": "commands"}),
    )

    def stats(self) -> dict[str, int | float]:
        counts = self._server.counts
        return {
            "logged_in": len(self._server.logged),
            "commands_running": len(self._server.running),
            "logins": counts["login"],
            "login_failures": counts["failure"],
            "verbs": counts["verb"],
            "commands": counts["command"],
            "refusals": counts["refusal"],
            "penalised_addresses": len(self._server.gate.penalties),
        }

    def histograms(self) -> dict[str, Histogram]:
        return {"command": self._server.command_seconds}

    def sessions(self) -> list[Session]:
        """Who is logged in, or about to."""
        return self._server.sessions(self._connections())

    def penalties(self) -> list[Penalty]:
        """Which addresses have to wait."""
        return self._server.penalties()
