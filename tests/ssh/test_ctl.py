"""netdctl, without a daemon: what a password's hash is, and how a user is added."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from netd import passwords
from tests.netd_process import NETDCTL
from tests.ssh.service import AUTHORIZED
from tests.terminal import on_a_terminal


def netdctl(*words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([NETDCTL, *words], input=text, capture_output=True, text=True, check=False, timeout=60)


def test_a_password_from_standard_input_becomes_a_hash_and_nothing_else_is_printed() -> None:
    done = netdctl("hash-password", text="correct horse\n")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert passwords.verify(b"correct horse", line)


def test_no_password_is_a_mistake() -> None:
    done = netdctl("hash-password")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a password has 1 to 1024 bytes" in done.stderr


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown() -> None:
    shown = b""
    with on_a_terminal([NETDCTL, "hash-password"]) as (asking, terminal):
        for prompt in (b"Password: ", b"Again: ", b"\r\n$argon2id$"):
            while prompt not in shown:
                shown += os.read(terminal, 1024)
            if prompt.endswith(b": "):
                os.write(terminal, b"battery staple\n")
        with contextlib.suppress(OSError):  # EIO: the child is gone
            while more := os.read(terminal, 1024):
                shown += more
        assert asking.wait(60) == 0
    assert b"battery" not in shown
    assert passwords.verify(b"battery staple", shown.split()[-1].decode())


def test_how_to_add_a_user_is_printed_and_works(tmp_path: Path) -> None:
    (tmp_path / "id.pub").write_text(AUTHORIZED + "\n")
    done = netdctl("ssh", "print-user", "anna", "--key", tmp_path / "id.pub", "--role", "viewer", "--service", "door")
    assert done.returncode == 0
    table, keys = done.stdout.split("# In the file anna.keys")
    (tmp_path / "anna.keys").write_text(keys.partition("\n\n")[2])
    (tmp_path / "netd.toml").write_text(f'[ssh.door]\nlisten = "127.0.0.1:0"\n{table}')
    checked = netdctl("check", tmp_path / "netd.toml")
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-x"], "No such option"),
        (["a b"], '"a b": a user is'),
        (["anna", "--key", "/nowhere"], "/nowhere: cannot be read: No such file or directory"),
        (["anna", "--role", "root"], "'root' is not one of"),
        ([], "Missing argument 'NAME'"),
    ],
)
def test_what_will_not_do_is_said_with_status_2(words: list[str], complaint: str) -> None:
    done = netdctl("ssh", "print-user", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_check_warns_that_nobody_may_log_in(tmp_path: Path) -> None:
    (tmp_path / "netd.toml").write_text('[ssh.door]\nlisten = "127.0.0.1:0"\n')
    done = netdctl("check", tmp_path / "netd.toml")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: ")
    assert "ssh.door.users: nobody may log in" in done.stderr
