"""The real daemon with an ssh service, and what real clients need to reach it."""

import asyncio
import os
import subprocess
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from netd.passwords import hash_password
from tests.netd_process import Netd, running

PASSWORD = "correct horse"
KINDS = ("ed25519", "rsa", "ecdsa")

NAP = 4000 + os.getpid()
"""Seconds that commands sleep, by which a test finds them among all processes of the machine."""

COMMANDS = r"""
[ssh.console.commands]
df = ["df", "-h"]
true = ["true"]
cat = ["cat"]
env = ["env"]
both = ["sh", "-c", "echo out; echo err >&2; exit 3"]
killed = ["sh", "-c", "kill -TERM $$"]
realtime = ["sh", "-c", "kill -40 $$"]
group = ["sh", "-c", "sleep NAP.1 & sleep NAP.1"]
stubborn = ["sh", "-c", "trap '' TERM; sleep NAP.2 & while :; do sleep 0.1; done"]
leader = ["sh", "-c", "ps -o pid=,pgid=,sid= $$"]
umask = ["sh", "-c", "umask"]
here = ["readlink", "/proc/self/cwd"]
open = ["ls", "/proc/self/fd"]
missing = ["no-such-program"]
sleep = { argv = ["sleep", "{seconds}"], args = { seconds = "[0-9.]+" }, timeout = 0 }
late = { argv = ["sleep", "NAP.3"], timeout = "300ms" }
much = { argv = ["head", "-c", "100000", "/dev/zero"], output_limit = "1KiB" }
zeros = { argv = ["head", "-c", "{size}", "/dev/zero"], args = { size = "[0-9]+[MG]?" }, output_limit = 0, timeout = 0 }
admins = { argv = ["true"], role = "admin" }
""".replace("NAP", str(NAP))


class Sshd:
    """A running daemon, and files that clients use."""

    def __init__(self, netd: Netd, directory: Path, port: int = 0) -> None:
        self.netd = netd
        self.directory = directory
        self.port = port or netd.port("ssh.console")

    def key(self, kind: str) -> Path:
        """A private key that logs in."""
        return self.directory / f"id_{kind}"

    @cached_property
    def known_hosts(self) -> Path:
        """A file that knows the host."""
        public = (self.directory / "state/ssh.console/ssh_host_ed25519_key.pub").read_text()
        path = self.directory / f"known_hosts.{self.port}"
        path.write_text(f"[127.0.0.1]:{self.port} {public}")
        return path

    @property
    def openssh(self) -> list[str]:
        """The beginning of an `ssh` command line."""
        options = [
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.known_hosts}",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
        ]
        flags = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "none", "-p", str(self.port), "-i", str(self.key("ed25519")), *flags]

    def ssh(self, *line: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[bytes]:
        """Run OpenSSH's client as the operator."""
        command = [*self.openssh, *options, "ops@127.0.0.1", *line]
        more.setdefault("stdin", None if "input" in more else subprocess.DEVNULL)
        return subprocess.run(command, capture_output=True, check=False, timeout=60, **more)

    def audit(self) -> str:
        """The audit log so far."""
        return (self.directory / "state/ssh.console.audit.jsonl").read_text()

    def asyncssh(self, **options: Any) -> Any:
        """An asyncssh connection to be made, as the operator."""
        given = {"username": "ops", "client_keys": [str(self.key("ed25519"))], "known_hosts": None, "config": None}
        return asyncssh.connect("127.0.0.1", self.port, **(given | options))


T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """What a client of asyncio's comes to."""
    return asyncio.run(work)


def write_keys(directory: Path) -> None:
    """A key of each kind that logs in, unless it is there, and the file that lets it."""
    for kind in KINDS:
        path = directory / f"id_{kind}"
        if not path.exists():
            bits = ["-b", "2048"] if kind == "rsa" else []
            subprocess.run(["ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-f", path], check=True)
    (directory / "keys").write_text("".join((directory / f"id_{kind}.pub").read_text() for kind in KINDS))


@contextmanager
def serving(directory: Path, settings: str = "", commands: str = COMMANDS, more: str = "") -> Iterator[Sshd]:
    """A daemon with user ops (by key or password) and viewer (by key)."""
    write_keys(directory)
    (directory / "forced.keys").write_text(f'restrict,command="whoami" {(directory / "keys").read_text()}')
    (directory / "hash").write_text(hash_password(PASSWORD))
    config = f"""
[daemon]
state_dir = "state"
[ssh.console]
listen = "127.0.0.1:0"
password_auth = true
penalty_exempt = ["127.0.0.0/8"]
{settings}
[ssh.console.users]
ops = {{ role = "operator", authorized_keys_file = "keys", password_hash_file = "hash" }}
forced = {{ authorized_keys_file = "forced.keys" }}
{commands}
{more}
"""
    with running(directory, config) as netd:
        yield Sshd(netd, directory)
