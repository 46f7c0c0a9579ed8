"""What ssh can do elsewhere and never here, asked for by the real client."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ssh.daemon import Sshd
from tests.waiting import eventually


def test_no_files_are_copied(sshd: Sshd, tmp_path: Path) -> None:
    words = [*sshd.openssh[1:]]
    words[words.index("-p")] = "-P"
    (tmp_path / "commands").write_text("ls\n")
    done = subprocess.run(
        ["sftp", *words, "-b", str(tmp_path / "commands"), "ops@127.0.0.1"],
        capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode != 0


@pytest.mark.parametrize(
    "options",
    [("-R", "0:127.0.0.1:1"), ("-w", "0:0"), ("-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:1")],
)
def test_nothing_is_forwarded_to_the_client(sshd: Sshd, options: tuple[str, ...]) -> None:
    done = sshd.ssh("version", options=("-o", "ExitOnForwardFailure=yes", *options))
    assert done.returncode != 0


def test_nothing_is_forwarded_for_the_client(sshd: Sshd) -> None:
    done = sshd.ssh(options=("-W", f"127.0.0.1:{sshd.port}"), input=b"")
    assert done.returncode != 0
    assert b"SSH-2.0" not in done.stdout


@pytest.mark.parametrize("how", ["-L", "-D"])
def test_no_port_of_the_clients_leads_anywhere(sshd: Sshd, tmp_path: Path, free_port: int, how: str) -> None:
    local = tmp_path / "local"
    where = f"{local}:127.0.0.1:{sshd.port}" if how == "-L" else str(free_port)
    client = subprocess.Popen([*sshd.openssh, "-N", how, where, "ops@127.0.0.1"], stdin=subprocess.DEVNULL)
    try:
        with connected(local if how == "-L" else ("127.0.0.1", int(where))) as tunnel:
            if how == "-D":
                tunnel.sendall(b"\x05\x01\x00")
                assert tunnel.recv(2) == b"\x05\x00"
                tunnel.sendall(b"\x05\x01\x00\x01\x7f\0\0\1" + sshd.port.to_bytes(2, "big"))
            assert b"SSH-2.0" not in read_all(tunnel)
    finally:
        client.kill()
        client.wait()


def connected(where: Path | tuple[str, int]) -> socket.socket:
    """A connection to what a client has not opened yet."""
    tunnel = socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET)
    tunnel.settimeout(60)
    address = str(where) if isinstance(where, Path) else where
    assert eventually(lambda: tunnel.connect_ex(address) == 0)
    return tunnel


def read_all(tunnel: socket.socket) -> bytes:
    received = b""
    try:
        while data := tunnel.recv(1024):
            received += data
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("options", [("-A",), ("-X",), ("-Y",)])
def test_agent_and_x11_are_ignored(sshd: Sshd, options: tuple[str, ...]) -> None:
    assert sshd.ssh("env", options=options).stdout.startswith(b"PATH=")


def test_debians_ssh_audit_finds_nothing_weak(sshd: Sshd) -> None:
    """Version 2.5 of Debian 12 warns of what is younger than itself."""
    elsewhere = [each for each in os.get_exec_path() if Path(each) != Path(sys.executable).parent]
    program = shutil.which("ssh-audit", path=os.pathsep.join(elsewhere))
    assert program is not None, "apt install ssh-audit"
    done = subprocess.run(
        [program, "-n", "-p", str(sshd.port), "127.0.0.1"], capture_output=True, text=True, check=False, timeout=60
    )
    assert "SSH-2.0-netd" in done.stdout
    assert "[fail]" not in done.stdout
    warned = {line.split()[1] for line in done.stdout.splitlines() if "[warn]" in line}
    assert warned <= {"mlkem768x25519-sha256", "kex-strict-s-v00@openssh.com"}


def test_ssh_audit_finds_nothing_weak(sshd: Sshd) -> None:
    program = shutil.which("ssh-audit", path=str(Path(sys.executable).parent))
    assert program is not None
    done = subprocess.run(
        [program, "--json", "--skip-rate-test", "-p", str(sshd.port), "127.0.0.1"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    report = json.loads(done.stdout)
    notes = {
        (kind, each["algorithm"], level, note)
        for kind in ("kex", "key", "enc", "mac")
        for each in report[kind]
        for level in ("fail", "warn")
        for note in each.get("notes", {}).get(level, [])
    }
    assert report["kex"][0]["algorithm"] == "mlkem768x25519-sha256"
    assert {note for *_, note in notes} == {"does not provide protection against post-quantum attacks"}
    assert {name for _, name, *_ in notes} == {"curve25519-sha256", "curve25519-sha256@libssh.org"}
    assert report["compression"] == ["none"]
