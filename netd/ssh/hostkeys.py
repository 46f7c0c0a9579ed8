"""The keys by which clients know this host: made on first start, refused when others could have read them."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, Key
from twisted.logger import Logger

from netd.runtime import CannotStart
from netd.ssh.authorized import fingerprint

RSA_BITS = 3072
"""As strong as AES-128 (NIST SP 800-57); 4096 would double the time of a log-in."""

_log = Logger()


class HostKey(Key):
    """A public key that is asked for its bytes at each connection, twice."""

    _bytes = b""

    def blob(self) -> bytes:
        self._bytes = self._bytes or super().blob()
        return self._bytes


def load_host_keys(kinds: Sequence[str], directory: Path, service: str) -> dict[bytes, Key]:
    """The keys of these kinds by their type; those that are missing are made. Raises CannotStart."""
    keys = {}
    for kind in kinds:
        path = directory / f"ssh_host_{kind}_key"
        made = make_key(path, kind, comment="netd")
        try:
            key = Key.fromString(read_private(path))
            blob = key.public().blob()
        except (BadKeyError, EncryptedKeyError, ValueError):
            raise CannotStart(f"{path}: is not a private key without a passphrase") from None
        except OSError as error:
            raise CannotStart(f"{path}: {error.strerror}") from None
        if key.sshType() != {"ed25519": b"ssh-ed25519", "rsa": b"ssh-rsa"}[kind]:
            raise CannotStart(f"{path}: is not of the kind {kind}")
        _log.info(
            "host key {fingerprint} ({kind}){made}",
            fingerprint=fingerprint(blob),
            kind=kind,
            made=", new" if made else "",
            service=service,
        )
        keys[key.sshType()] = key
    return keys


def make_key(path: Path, kind: str, *, comment: str) -> bool:
    """Write a new private key, 0600, and its public half beside it, unless the file is there; whether it was made."""
    if path.exists():
        return False
    private = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, RSA_BITS)
    text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    try:
        _write(path, text, 0o600)
        _write(path.with_name(path.name + ".pub"), public + b" " + comment.encode() + b"\n", 0o644)
    except OSError as error:
        raise CannotStart(f"{path}: cannot be written: {error.strerror}") from None
    return True


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is there whole or not at all, and never readable by others meanwhile."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - the descriptor has the mode
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    new.rename(path)


def read_private(path: Path) -> bytes:
    """A file that is ours and that others cannot read; raises CannotStart if it is not, and OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid():
            raise CannotStart(f"{path}: belongs to user {status.st_uid}, not to this one, {os.geteuid()}: chown it")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CannotStart(f"{path}: others may read or write it: chmod 600")
        return file.read()
