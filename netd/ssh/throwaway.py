"""Keys for a first try: made in the state directory, with the one `ssh` line that uses them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twisted.conch.ssh.keys import Key
from twisted.logger import Logger

from netd.ssh.config import SshSettings
from netd.ssh.hostkeys import make_key

_log = Logger()


@dataclass(frozen=True, slots=True)
class ThrowawayKeys:
    """Private keys of users, by name, and the file that tells `ssh` all it needs to use one."""

    directory: Path
    service: str
    private_keys: Mapping[str, Path]

    @property
    def public_keys(self) -> dict[str, Path]:
        """The files to let in, each in the form of authorized_keys."""
        return {name: path.with_name(path.name + ".pub") for name, path in self.private_keys.items()}

    def announce(self, bound: Sequence[str], host_keys: Mapping[bytes, Key]) -> None:
        """Say which `ssh` line works, having written the files that it takes."""
        address = next((each for each in bound if ":" in each and not each.startswith("unix")), None)
        if address is None or not self.private_keys:
            return
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        known = self.directory / "known_hosts"
        lines = [f"[{host}]:{port} {key.toString('openssh').decode()}\n" for key in host_keys.values()]
        for name, path in self.private_keys.items():
            config = self.directory / f"{name}.conf"
            line = shlex.join(["ssh", "-F", str(config), "netd"])
            text = (
                f"# {line}\nHost netd\n    HostName {host}\n    Port {port}\n    User {name}\n"
                f'    IdentityFile "{path}"\n    IdentitiesOnly yes\n'
                f'    UserKnownHostsFile "{known}"\n    StrictHostKeyChecking yes\n'
            )
            try:
                known.write_text("".join(lines))
                config.write_text(text)
            except OSError as error:
                _log.warn("{path}: {why}: not written", path=str(config), why=error.strerror, service=self.service)
                continue
            _log.info("to try it: {line}", line=line, user=name, service=self.service)


def make_throwaway_keys(settings: SshSettings, directory: Path, service: str) -> ThrowawayKeys:
    """A key for each user who is to have one; those that were made before stay."""
    keys = {name: directory / f"{name}.key" for name, user in settings.users.items() if user.throwaway_key}
    for name, path in keys.items():
        make_key(path, "ed25519", comment=f"{name}, throw-away")
    return ThrowawayKeys(directory, service, keys)
