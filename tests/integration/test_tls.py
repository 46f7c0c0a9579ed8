"""TLS ports with real sockets: certificates, client certificates, versions, and clients that stall."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.certificates import write_pairs
from tests.netd_process import Netd, running


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def netd(directory: Path) -> Iterator[Netd]:
    """Echo with TLS, and echo with TLS that asks for a client certificate."""
    config = """

    [echo.tls]
    listen = "127.0.0.1:0"
    idle_timeout = "2s"
    tls = { certificate = "server.pem", private_key_file = "server.key" }
    [echo.mutual]
    listen = "127.0.0.1:0"
    tls = { certificate = "server.pem", private_key = "server.key", client_ca = "authority.pem" }
    [cache.large]
    listen_memcached = "127.0.0.1:0"
    max_item_size = "16MiB"
    tls = { certificate = "server.pem", private_key = "server.key" }
    """
    with running(directory, config) as netd:
        yield netd


def connect(
    netd: Netd,
    directory: Path,
    service: str,
    *,
    index: int = 0,
    show: str = "",
    version: ssl.TLSVersion | None = None,
    ciphers: str = "",
) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(directory / "authority.pem"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if show:
        context.load_cert_chain(directory / f"{show}.pem", directory / f"{show}.key")
    if version is not None:
        context.minimum_version = version
        context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)
    plain = socket.create_connection(("127.0.0.1", netd.port(service, index)), timeout=60)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_megabyte_comes_back_through_tls(netd: Netd, directory: Path, version: ssl.TLSVersion) -> None:
    with connect(netd, directory, "echo.tls", version=version) as client:
        for block in range(64):
            data = bytes([block]) * 16384
            client.sendall(data)
            heard = b""
            while len(heard) < len(data):
                heard += client.recv(len(data) - len(heard))
            assert heard == data


def test_tls_below_1_2_is_refused(netd: Netd, directory: Path) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(ssl.SSLError):
        connect(netd, directory, "echo.tls", version=ssl.TLSVersion.TLSv1_1)


@pytest.mark.parametrize("ciphers", ["ECDHE+AESGCM", "ECDHE+CHACHA20"])
def test_sealed_ciphers_with_keys_made_anew_are_served(netd: Netd, directory: Path, ciphers: str) -> None:
    with connect(netd, directory, "echo.tls", version=ssl.TLSVersion.TLSv1_2, ciphers=ciphers) as client:
        assert client.version() == "TLSv1.2"


@pytest.mark.parametrize("ciphers", ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA"])
def test_other_ciphers_are_refused(netd: Netd, directory: Path, ciphers: str) -> None:
    with pytest.raises(ssl.SSLError):
        connect(netd, directory, "echo.tls", version=ssl.TLSVersion.TLSv1_2, ciphers=ciphers)


def test_a_client_cannot_renegotiate(netd: Netd) -> None:
    """Each time would cost the server a key exchange, and the client next to nothing."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    with socket.create_connection(("127.0.0.1", netd.port("echo.tls"))) as plain:
        client = SSL.Connection(context, plain)
        client.set_connect_state()
        client.do_handshake()
        assert client.renegotiate()
        with pytest.raises(SSL.Error, match="no renegotiation"):
            client.do_handshake()


def test_nothing_is_compressed(netd: Netd, directory: Path) -> None:
    with connect(netd, directory, "echo.tls", version=ssl.TLSVersion.TLSv1_2) as client:
        assert client.compression() is None


def test_a_client_certificate_of_the_right_authority_is_let_in(netd: Netd, directory: Path) -> None:
    with connect(netd, directory, "echo.mutual", show="client") as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"


@pytest.mark.parametrize("show", ["", "stranger"])
def test_no_certificate_or_a_strangers_is_not_let_in(netd: Netd, directory: Path, show: str) -> None:
    try:
        with connect(netd, directory, "echo.mutual", show=show) as client:  # TLS 1.3 tells the client only later
            client.sendall(b"hello")
            heard = client.recv(5)
    except (ssl.SSLError, ConnectionError):
        heard = b""
    assert heard == b""


def test_an_idle_tls_connection_is_closed(netd: Netd, directory: Path) -> None:
    with connect(netd, directory, "echo.tls") as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        started = time.monotonic()
        assert client.recv(1) == b""
        assert time.monotonic() - started < 30


def test_a_client_that_talks_plain_text_is_let_go_without_a_traceback(netd: Netd) -> None:
    with socket.create_connection(("127.0.0.1", netd.port("echo.tls")), timeout=60) as client:
        client.sendall(b"hello in plain text\n")
        assert client.recv(100)[:1] in {b"", b"\x15"}
    assert not [event for event in netd.events if event["level"] in {"error", "critical"}]


def test_the_wrong_key_for_a_certificate_is_told(tmp_path: Path, directory: Path) -> None:
    config = f"""

    [echo.tls]
    listen = "127.0.0.1:0"
    tls = {{ certificate = "{directory}/server.pem", private_key = "{directory}/client.key" }}
    """
    netd = Netd(tmp_path, config)
    assert netd.wait() == 75
    assert netd.stderr == f"netd: echo.tls.tls.private_key: is not the key of {directory}/server.pem\n"


@pytest.mark.parametrize("text", ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_certificate_that_is_none_is_told(tmp_path: Path, directory: Path, text: str) -> None:
    (tmp_path / "bad.pem").write_text(text)
    config = f"""

    [echo.tls]
    listen = "127.0.0.1:0"
    tls = {{ certificate = "bad.pem", private_key = "{directory}/server.key" }}
    """
    netd = Netd(tmp_path, config)
    assert netd.wait() == 75
    assert netd.stderr == f"netd: echo.tls.tls.certificate: {tmp_path}/bad.pem: holds no certificate in PEM form\n"


def test_a_client_that_offers_protocols_is_served(netd: Netd, directory: Path) -> None:
    context = ssl.create_default_context(cafile=str(directory / "authority.pem"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", netd.port("echo.tls")), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        assert client.selected_alpn_protocol() is None
        client.sendall(b"hi")
        assert client.recv(2) == b"hi"


def test_the_page_is_served_over_tls(directory: Path) -> None:
    config = """
    [admin]
    listen = "127.0.0.1:0"
    tls = { certificate = "server.pem", private_key = "server.key" }
    [echo.plain]
    listen = "127.0.0.1:0"
    """
    state = directory / "admin"
    state.mkdir()
    for each in ("server.pem", "server.key", "authority.pem"):
        (state / each).write_bytes((directory / each).read_bytes())
    with running(state, config) as netd, connect(netd, directory, "admin", index=1) as client:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        told = b""
        while told.count(b"event: status") < 3:
            told += client.recv(65536)
        assert told.startswith(b"HTTP/1.1 200 OK\r\n")


# --- clients that say by TLS that they have said all, and still hear


def talk(netd: Netd, service: str, *, said: bytes, slow: bool = False) -> bytes:
    """What is heard to the end of the connection by who says this and then, in the same packet, close_notify."""
    with socket.create_connection(("127.0.0.1", netd.port(service)), timeout=60) as client:
        tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        tls.set_connect_state()
        while True:
            try:
                tls.do_handshake()
                break
            except SSL.WantReadError:
                client.sendall(tls.bio_read(1 << 20))
                tls.bio_write(client.recv(1 << 16))
        tls.send(said)
        tls.shutdown()
        client.sendall(tls.bio_read(1 << 25))
        if slow:
            time.sleep(0.5)
        heard = bytearray()
        while data := client.recv(1 << 16):
            tls.bio_write(data)
            with suppress(SSL.WantReadError, SSL.ZeroReturnError):
                while True:
                    heard += tls.recv(1 << 16)
        return bytes(heard)


def test_what_was_asked_before_the_end_is_answered(netd: Netd) -> None:
    """As `socat - OPENSSL:…` asks, at the end of its input."""
    assert talk(netd, "echo.tls", said=b"hello") == b"hello"


def test_a_connection_ends_though_its_client_did_not_read_when_it_said_that_it_was_done(
    netd: Netd, directory: Path
) -> None:
    """What could not be sent at once kept it open for ever."""
    value = b"x" * (8 << 20)
    with connect(netd, directory, "cache.large") as client:
        client.sendall(b"set k 0 0 %d\r\n%b\r\n" % (len(value), value))
        assert client.recv(100) == b"STORED\r\n"
    heard = talk(netd, "cache.large", said=b"get k\r\n", slow=True)
    assert heard == b"VALUE k 0 %d\r\n%b\r\nEND\r\n" % (len(value), value)
