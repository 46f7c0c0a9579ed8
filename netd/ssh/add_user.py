"""What to put where so that somebody may log in: the answer of `netdctl ssh print-user`.

Nothing here imports Twisted.
"""

from pathlib import Path

from netd.ssh.authorized import LONGEST_FILE, BadLine, parse_line
from netd.ssh.config import check_user_name


class CannotDescribe(Exception):
    """The name or the key will not do; the text is one line."""


def describe_user(name: str, key: Path | None, service: str = "console", role: str = "operator") -> str:
    """Lines for the configuration and for the file of keys that it names; raises CannotDescribe.

    `key` is a public key, or a private one with its public half beside it; without one the user gets a password.
    """
    try:
        check_user_name(name)
    except ValueError as error:
        raise CannotDescribe(str(error)) from None
    table = f'[ssh.{service}.users.{name}]\nrole = "{role}"    # viewer | operator | admin\n'
    if key is None:
        return (
            f"# In the configuration, with password_auth = true under [ssh.{service}]:\n\n"
            f'{table}password_hash = "…"    # made by: netdctl hash-password\n'
        )
    line, fingerprint = _public_line(key)
    return (
        f"# In the configuration:\n\n"
        f'{table}authorized_keys_file = "{name}.keys"\n\n'
        f"# In the file {name}.keys beside it, which only its owner may write; {fingerprint}:\n\n{line}\n"
    )


def _public_line(key: Path) -> tuple[str, str]:
    path = key
    try:
        if b"PRIVATE KEY" in _head(path):
            path = key.with_name(key.name + ".pub")
        text = _head(path).decode("utf-8", "replace").strip()
    except OSError as error:
        raise CannotDescribe(f"{path}: cannot be read: {error.strerror}") from None
    try:
        parsed = parse_line(text.splitlines()[0] if text else "")
    except BadLine as error:
        raise CannotDescribe(f"{path}: {error}") from None
    return text.splitlines()[0], parsed.fingerprint


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LONGEST_FILE)
