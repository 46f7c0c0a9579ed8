"""Where secrets must not turn up: whatever the daemon says to anybody, in every way it has of saying something."""

import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from netd.passwords import hash_password
from tests.netd_process import NETDCTL, Netd, running
from tests.servers import reserve_port

SECRET = re.compile("s3cr3t|argon2id")
CONFIG = """
[log]
level = "debug"
[admin]
listen = "127.0.0.1:0"
[cache.main]
listen_redis = "127.0.0.1:0"
store = "redis://netd:s3cr3t-of-the-store@127.0.0.1:{closed}/0"
users.app.password_hash = "{hashed}"
[bridge.main]
broker = ["amqp://netd:s3cr3t-of-the-broker@127.0.0.1:{closed}/v", "amqp://netd:s3cr3t-too@127.0.0.1:{closed}"]
[bridge.main.publish.hello]
listen = "127.0.0.1:0"
routing_key = "hello"
[ssh.console]
listen = "127.0.0.1:0"
password_auth = true
users.ops.password_hash = "{hashed}"
"""


@pytest.fixture(scope="module")
def netd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    """A daemon with a password wherever it takes one, whose backends are away, and with a client that tries one."""
    directory = tmp_path_factory.mktemp("netd")
    with reserve_port() as nobody:
        config = CONFIG.format(closed=nobody.getsockname()[1], hashed=hash_password("x"))
        with running(directory, config) as netd:
            assert ask(netd, "cache.main", b"AUTH app s3cr3t-of-a-client\r\n").startswith(b"-WRONGPASS")
            assert ask(netd, "bridge.main", b"s3cr3t-of-a-message\n") == b"+OK 1\n"
            netd.wait_until(lambda: {"cache.main", "bridge.main"} <= complaining(netd), "complaints about both")
            yield netd


def ask(netd: Netd, service: str, line: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", netd.port(service)), timeout=60) as client:
        client.sendall(line)
        return client.recv(100)


def complaining(netd: Netd) -> set[str]:
    """The services of which the log has a warning."""
    return {str(event.get("service")) for event in netd.events if event["level"] in {"warn", "error"}}


def ctl(netd: Netd, *words: str) -> str:
    done = subprocess.run(
        [NETDCTL, "--socket", netd.config.parent / "state" / "netd.sock", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_the_log_has_none(netd: Netd) -> None:
    said = "\n".join(map(str, netd.events)) + netd.stderr
    assert "127.0.0.1" in said
    assert not SECRET.search(said)


@pytest.mark.parametrize(
    "words",
    [
        *("config show", "config show --json", "config diff", "status --json", "services", "log tail -n 200"),
        *("bridge status", "cache status", "stats --json", "bridge dead list --json", "sessions"),
    ],
)
def test_no_verb_shows_one(netd: Netd, words: str) -> None:
    said = ctl(netd, *words.split())
    assert said
    assert not SECRET.search(said)


def test_a_change_of_passwords_shows_that_and_nothing_else(netd: Netd) -> None:
    text = netd.config.read_text()
    try:
        netd.config.write_text(text.replace("s3cr3t", "other-s3cr3t"))
        said = ctl(netd, "config", "diff")
    finally:
        netd.config.write_text(text)
    assert "cache.main.store" in said
    assert "bridge.main.broker" in said
    assert not SECRET.search(said)


@pytest.mark.parametrize("path", ["/status", "/metrics", "/readyz"])
def test_no_page_shows_one(netd: Netd, path: str) -> None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{netd.port('admin', 1)}{path}", timeout=60) as answer:
            said = answer.read().decode()
    except urllib.error.HTTPError as error:
        said = error.read().decode()
    assert said
    assert not SECRET.search(said)


def test_check_shows_none(netd: Netd) -> None:
    said = ctl(netd, "check", str(netd.config), "--show")
    assert "(hidden)" in said
    assert not SECRET.search(said)


def test_the_arguments_and_environment_of_the_process_have_none(netd: Netd) -> None:
    process = Path(f"/proc/{netd.process.pid}")
    assert not SECRET.search((process / "cmdline").read_text() + (process / "environ").read_text())
