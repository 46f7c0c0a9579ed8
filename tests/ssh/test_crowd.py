"""Many at once: the crypto and the hashes of logins do not hold up the other services."""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

from netd.ssh.ciphers import Clear
from netd.ssh.negotiation import STRICT_CLIENT
from netd.ssh.wire import string
from tests.netd_process import running
from tests.pace import slowness
from tests.ssh.daemon import PASSWORD, run, serving

CROWD = 100
HANDSHAKES = 250
"""More than one turn of the reactor can do in 25 ms."""
LIMITS = "limits = { startups = 256, startups_per_host = 256 }"
ECHO = '[echo.plain]\nlisten = "127.0.0.1:0"\n'


def test_a_hundred_log_in_at_once_by_key_and_by_password(tmp_path: Path) -> None:
    with serving(tmp_path, LIMITS) as sshd:

        async def log_in(number: int) -> str:
            proof = {} if number % 2 else {"client_keys": None, "password": PASSWORD}
            async with sshd.asyncssh(login_timeout=60, **proof) as connection:
                return str((await connection.run("whoami", check=True)).stdout)

        async def work() -> list[str]:
            return await asyncio.gather(*map(log_in, range(CROWD)))

        answers = run(work())
    assert len(answers) == CROWD
    assert all(answer.startswith("ops (operator) from") for answer in answers)


def key_exchange() -> bytes:
    """All that a client says up to its half of the key."""
    lists = [b"curve25519-sha256," + STRICT_CLIENT, b"ssh-ed25519"]
    lists += [b"aes128-gcm@openssh.com"] * 2 + [b""] * 2 + [b"none"] * 2 + [b""] * 2
    offer = b"\x14" + os.urandom(16) + b"".join(map(string, lists)) + bytes(5)
    half = b"\x1e" + string(os.urandom(32))
    return b"SSH-2.0-crowd\r\n" + Clear().seal(0, offer) + Clear().seal(1, half)


def test_an_echo_does_not_wait_for_the_key_exchanges_that_came_before_it(tmp_path: Path) -> None:
    """What counts is how long the reactor works meanwhile: the time that passes says more about the machine."""
    with serving(tmp_path, LIMITS, more=ECHO) as sshd, contextlib.ExitStack() as stack:

        def connect(port: int) -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))

        def worked() -> float:
            """Seconds of the reactor's thread (proc(5), schedstat)."""
            return int(Path(f"/proc/{process.pid}/task/{process.pid}/schedstat").read_text().split()[0]) / 1e9

        process = sshd.netd.process
        echo = connect(sshd.netd.port("echo.plain"))
        crowd = [connect(sshd.port) for _ in range(HANDSHAKES)]
        for client in crowd:
            assert client.recv(4) == b"SSH-"
        process.send_signal(signal.SIGSTOP)
        for client in crowd:
            client.sendall(key_exchange())
        echo.sendall(b"x")
        before = worked()
        process.send_signal(signal.SIGCONT)
        assert echo.recv(1) == b"x"
        assert worked() - before < 0.025 * slowness()
        for client in crowd:
            answer = b""
            while answer.count(b"ssh-ed25519") < 3:  # in the offer, and twice beside the server's half of the key
                answer += client.recv(4096)


def test_without_users_the_other_services_run(tmp_path: Path) -> None:
    config = '[ssh.console]\nlisten = "127.0.0.1:0"\n[echo.plain]\nlisten = "127.0.0.1:0"\n'
    with running(tmp_path, config) as netd:
        assert netd.port("echo.plain")
        assert not [event for event in netd.events if event.get("service") == "ssh.console" and "address" in event]
        assert any("netdctl ssh print-user" in message for message in netd.messages)
