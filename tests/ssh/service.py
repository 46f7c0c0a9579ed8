"""The ssh service in memory, with one user whose key tests have."""

import base64
from pathlib import Path
from typing import Any

from netd.config import Config
from netd.ssh.channel import SessionChannel
from netd.ssh.service import SshService
from tests.fakes import MemoryNetwork, configure, result_of, runtime_on
from tests.ssh.raw import USER_BLOB, RawClient

AUTHORIZED = f"ssh-ed25519 {base64.b64encode(USER_BLOB).decode()} test"


class Served:
    """A service that is up, its state in a directory, and clients of it."""

    def __init__(
        self, directory: Path, settings: str = "", *, authorized: str = AUTHORIZED, role: str = "admin"
    ) -> None:
        self.network = MemoryNetwork()
        self.keys = directory / "ops.keys"
        self.keys.write_text(authorized + "\n")
        self.user = f'[ssh.console.users.ops]\nrole = "{role}"\nauthorized_keys_file = "{self.keys}"\n'
        config = self._configure(settings, self.user)
        runtime = runtime_on(self.network)
        runtime.state_dir = directory
        self.service = SshService(config.services[0], runtime)
        runtime.services = (self.service,)
        result_of(self.service.start())

    def _configure(self, settings: str, users: str) -> Config:
        return configure(f'[ssh.console]\nlisten = "127.0.0.1:2222"\n{settings}\n{users}')

    def adapt(self, settings: str, users: str = "") -> bool:
        """A reload with other settings; whether they could be put in force in place."""
        commit = result_of(self.service.adapt(self._configure(settings, users or self.user).services[0]))
        if commit is not None:
            commit()
        return commit is not None

    def connect(self, host: str = "127.0.0.1", **options: Any) -> RawClient:
        """A client that has said nothing yet."""
        return RawClient(self.network.client(host), **options)

    def log_in(self, **options: Any) -> RawClient:
        """A client that has logged in."""
        return self.connect(**options).handshake().log_in()

    def channel(self, client: RawClient) -> SessionChannel:
        """The server's side of a client's latest session."""
        protocol: Any = client.wire.protocol
        channel: SessionChannel = list(protocol.service.channels.values())[-1]
        return channel
