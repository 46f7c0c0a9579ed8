"""netd behind a real HAProxy that sends PROXY headers. Clients have addresses of their own: 127.0.0.2 and on."""

import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import write_pairs
from tests.netd_process import NETDCTL, Netd, running
from tests.servers import HaproxyServer, reserve_ports

CONFIG = """
[log]
level = "debug"
[echo.plain]
listen = "haproxy:unix:plain.sock"
allow = ["127.0.0.0/28"]
max_connections_per_host = 2
[echo.mutual]
listen = "haproxy:tcp:{mutual}:interface=127.0.0.1"
open = true
tls = {{ certificate = "server.pem", private_key = "server.key", client_ca = "authority.pem" }}
[echo.elsewhere]
listen = "haproxy:tcp:{elsewhere}:interface=127.0.0.1"
open = true
balancers = ["192.0.2.1"]
"""
VERSIONS = ["send-proxy", "send-proxy-v2"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("haproxy"))


@pytest.fixture(scope="module")
def targets(directory: Path) -> Iterator[dict[str, str]]:
    """Where each service listens, as HAProxy writes it."""
    with reserve_ports(("mutual", "elsewhere")) as ports:
        found = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        yield {"plain": f"unix@{directory}/plain.sock", **found}


@pytest.fixture(scope="module")
def netd(directory: Path, targets: dict[str, str]) -> Iterator[Netd]:
    ports = {name: target.rpartition(":")[2] for name, target in targets.items()}
    with running(directory, CONFIG.format(**ports)) as netd:
        yield netd


@pytest.fixture(scope="module", params=VERSIONS)
def via(request: pytest.FixtureRequest, netd: Netd, targets: dict[str, str]) -> Iterator[HaproxyServer]:
    """HAProxy before echo.plain."""
    with HaproxyServer(targets["plain"], request.param) as haproxy:
        yield haproxy


def connect(port: int, host: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(host, 0))


def say(client: socket.socket) -> bytes:
    try:
        client.sendall(b"hello")
        return client.recv(5)
    except ConnectionError:
        return b""


def connections(netd: Netd, directory: Path) -> list[str]:
    """The peers of the clients that are connected now, as netdctl shows them."""
    shown = subprocess.run(
        [NETDCTL, "--socket", directory / "state" / "netd.sock", "connections", "--json"],
        check=True,
        capture_output=True,
    )
    return [each["peer"] for each in json.loads(shown.stdout)["connections"] if each["service"].startswith("echo.")]


def test_the_table_and_the_log_have_the_client_s_address(netd: Netd, directory: Path, via: HaproxyServer) -> None:
    with connect(via.port, "127.0.0.2") as client:
        assert say(client) == b"hello"
        host, port = client.getsockname()
        assert connections(netd, directory) == [f"{host}:{port}"]
    netd.wait_for("from 127.0.0.2")


def test_allow_is_about_the_client(netd: Netd, via: HaproxyServer) -> None:
    with connect(via.port, "127.0.0.3") as client:
        assert say(client) == b"hello"
    with connect(via.port, "127.0.0.99") as client:
        assert say(client) == b""
    netd.wait_for("refused 1 connection(s) by allow, last from 127.0.0.99")


def test_limits_are_a_client_s_own(netd: Netd, via: HaproxyServer) -> None:
    clients = [connect(via.port, host) for host in ("127.0.0.4", "127.0.0.4", "127.0.0.4", "127.0.0.5")]
    answers = [say(client) for client in clients]  # HAProxy's threads may swap who comes first
    assert (sorted(answers[:3]), answers[3]) == ([b"", b"hello", b"hello"], b"hello")
    for client in clients:
        client.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_tls_with_client_certificates_passes_through(
    netd: Netd, targets: dict[str, str], directory: Path, version: str
) -> None:
    context = ssl.create_default_context(cafile=str(directory / "authority.pem"))
    context.load_cert_chain(directory / "client.pem", directory / "client.key")
    with (
        HaproxyServer(targets["mutual"], version) as via,
        context.wrap_socket(connect(via.port, "127.0.0.6"), server_hostname="localhost") as client,
    ):
        assert say(client) == b"hello"
        host, port = client.getsockname()
        assert connections(netd, directory) == [f"{host}:{port}"]


def test_a_balancer_that_the_configuration_does_not_name_is_not_believed(netd: Netd, targets: dict[str, str]) -> None:
    with HaproxyServer(targets["elsewhere"], "send-proxy-v2") as via, connect(via.port, "127.0.0.7") as client:
        assert say(client) == b""
    netd.wait_for("by balancers, last from 127.0.0.1")


def test_a_balancer_that_sends_no_header_is_told_apart(netd: Netd, targets: dict[str, str]) -> None:
    with HaproxyServer(targets["mutual"], "") as via, connect(via.port, "127.0.0.8") as client:
        assert say(client) == b""
    netd.wait_for("by proxy_header, last from 127.0.0.1")


def test_health_checks_of_the_balancer_see_the_port_open(netd: Netd, targets: dict[str, str]) -> None:
    options = "send-proxy-v2 check inter 50ms rise 1 fall 1"
    with HaproxyServer(targets["plain"], options) as via:
        before = checks(netd)
        netd.wait_until(lambda: checks(netd) >= before + 3, "three checks")
        with connect(via.port, "127.0.0.9") as client:
            assert say(client) == b"hello"


def checks(netd: Netd) -> int:
    """Connections of a balancer's own so far, which have no client's address."""
    return sum(re.fullmatch(r"connection \d+ from ", message) is not None for message in netd.messages)
