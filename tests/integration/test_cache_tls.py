"""Cache ports with TLS, and a Redis behind TLS, with the clients that people have."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError

from tests.certificates import write_pairs
from tests.netd_process import Netd, running
from tests.servers import RedisServer, exchange, find_program, reserve_port

HOST = "localhost"
"""The name in the certificates."""

CONFIG = """
[cache.main]
listen_memcached = "127.0.0.1:0"
listen_redis = "127.0.0.1:0"
tls = { certificate = "server.pem", private_key = "server.key", client_ca = "authority.pem" }
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def netd(directory: Path) -> Iterator[Netd]:
    with running(directory, CONFIG) as netd:
        yield netd


def memcached_client(netd: Netd, directory: Path, show: str) -> Client:
    context = ssl.create_default_context(cafile=str(directory / "authority.pem"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_cert_chain(directory / f"{show}.pem", directory / f"{show}.key")
    return Client((HOST, netd.port("cache.main")), tls_context=context, timeout=60)


def redis_client(netd: Netd, directory: Path, show: str) -> "redis.Redis":
    return redis.Redis(
        HOST,
        netd.port("cache.main", 1),
        ssl=True,
        ssl_ca_certs=str(directory / "authority.pem"),
        ssl_certfile=str(directory / f"{show}.pem"),
        ssl_keyfile=str(directory / f"{show}.key"),
        socket_timeout=60,
    )


def test_memcached_and_redis_clients_share_a_cache_through_tls(netd: Netd, directory: Path) -> None:
    memcached = memcached_client(netd, directory, "client")
    client = redis_client(netd, directory, "client")
    value = bytes(range(256)) * 3000  # many records
    assert memcached.set("a", value, noreply=False)
    assert client.get("a") == value
    assert client.set("b", value)
    assert memcached.get("b") == value
    pipeline = client.pipeline(transaction=False)
    for _ in range(500):
        pipeline.get("b")
    assert pipeline.execute() == [value] * 500
    memcached.close()
    client.close()


@pytest.mark.parametrize("port", [0, 1])
def test_a_client_with_a_strangers_certificate_is_not_served(netd: Netd, directory: Path, port: int) -> None:
    if port == 0:
        with pytest.raises((OSError, MemcacheError)):
            memcached_client(netd, directory, "stranger").get("a")
    else:
        with pytest.raises(redis.ConnectionError):
            redis_client(netd, directory, "stranger").get("a")


def test_redis_cli_speaks_through_tls(netd: Netd, directory: Path) -> None:
    files = ("--cacert", "authority.pem", "--cert", "client.pem", "--key", "client.key")
    command = [find_program("redis-cli"), "-h", HOST, "-p", str(netd.port("cache.main", 1)), "--tls", *files]
    done = subprocess.run(
        command, input="SET c 1\nINCR c\n", capture_output=True, text=True, timeout=60, check=True, cwd=directory
    )
    assert done.stdout == "OK\n2\n"


@pytest.mark.parametrize(("host", "works"), [(HOST, True), ("127.0.0.1", False)])
def test_a_redis_behind_tls_must_have_the_name_it_is_called_by(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, works: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{directory}/authority.pem")
    with reserve_port() as reserved:
        port = reserved.getsockname()[1]
        keys = ["--tls-cert-file", f"{directory}/server.pem", "--tls-key-file", f"{directory}/server.key"]
        more = ["--tls-port", str(port), *keys, "--tls-ca-cert-file", f"{directory}/authority.pem"]
        config = f'[cache.main]\nlisten_memcached = "127.0.0.1:0"\nstore = "rediss://{host}:{port}/2"\n'
        with RedisServer(*more, "--tls-auth-clients", "no") as server, running(tmp_path, config) as netd:
            if works:
                netd.wait_for(f"connected to Redis at {host}:{port}/2")
            else:
                netd.wait_for("Redis is away, for requests: ")
            said = exchange(netd.port("cache.main"), b"set a 0 0 1\r\n1\r\n")
            kept = exchange(server.port, b"SELECT 2\r\nGET a\r\n", b"1\r\n" if works else b"$-1\r\n")
    assert (said == b"STORED\r\n") is works, said
    assert kept.endswith(b"$1\r\n1\r\n" if works else b"$-1\r\n")
    if not works:
        assert said.startswith(b"SERVER_ERROR "), said
