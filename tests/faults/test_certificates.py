"""Certificates run out: who is connected stays so, newcomers refuse or are refused, and a renewed one is enough."""

import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.certificates import Issued, issue, pem
from tests.faults.callers import EchoCaller, LineCaller, LineReader, MemcachedCaller
from tests.faults.conftest import Tell
from tests.faults.load import Load
from tests.faults.values import Values
from tests.netd_process import running
from tests.servers import HOST, GuardedProcess, RedisServer, VirtualHost, find_program, reserve_port

SHORT = 15.0
"""Seconds that a certificate is good for, of which it knows whole ones only: some to start in, some to run out of."""
DAY = 86400.0


class TlsEchoCaller(EchoCaller):
    """An echo client that looks at the certificate, and may have one."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        self._context = context

    def work(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        try:
            secured = self._context.wrap_socket(connection, server_hostname="localhost")
        except (ssl.SSLError, ConnectionError) as error:
            self.refused[str(getattr(error, "verify_message", error))] += 1
            return
        with secured:
            super().work(secured)


class Files:
    """A directory with an authority, and certificates that it signs for so many seconds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._authority = issue("authority", None)
        self.authority = directory / "authority.pem"
        self.authority.write_bytes(pem(self._authority)[0])

    def renew(self, name: str, seconds: float) -> tuple[Path, Path]:
        """A certificate for localhost and its key, in files of this name."""
        issued: Issued = issue("localhost", self._authority, days=seconds / DAY)
        paths = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        for path, content in zip(paths, pem(issued), strict=True):
            path.write_bytes(content)
        return paths

    def context(self, name: str = "") -> ssl.SSLContext:
        """For a client that trusts the authority, with the certificate of this name."""
        context = ssl.create_default_context(cafile=self.authority)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if name:
            context.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_certificate_of_a_port_runs_out_and_is_renewed(files: Files, tmp_path: Path, tell: Tell) -> None:
    files.renew("server", SHORT)
    config = '[echo.tls]\nlisten = "127.0.0.1:0"\ntls = { certificate = "server.pem", private_key = "server.key" }\n'
    with running(tmp_path, config) as netd:
        port = netd.port("echo.tls")
        with Load([TlsEchoCaller(port, files.context()) for _ in range(3)]) as connected:
            newcomer = TlsEchoCaller(port, files.context())
            load = Load([newcomer])
            time.sleep(SHORT + 1)
            newcomer.start()
            load.until(lambda: newcomer.refused["certificate has expired"] > 3, "told that it has expired")
            connected.recovered()
            files.renew("server", DAY)
            netd.process.send_signal(signal.SIGHUP)
            took = load.recovered()
            connected.recovered()
            load.leave()
            connected.settle()
        load.check(refused=True)
        connected.check()
    tell(
        "a port's certificate: expired, then renewed by a reload", f"{connected.said()}; newcomer: {load.said()}", took
    )


def test_the_certificate_of_a_client_runs_out(files: Files, tmp_path: Path, tell: Tell) -> None:
    files.renew("server", DAY)
    files.renew("client", SHORT)
    files.renew("good", DAY)
    config = '[echo.tls]\nlisten = "127.0.0.1:0"\n[echo.tls.tls]\nclient_ca = "authority.pem"\n'
    config += 'certificate = "server.pem"\nprivate_key = "server.key"\n'
    with running(tmp_path, config) as netd:
        port = netd.port("echo.tls")
        with Load([TlsEchoCaller(port, files.context(name)) for name in ("client", "good")]) as connected:
            time.sleep(SHORT + 1)
            expired = TlsEchoCaller(port, files.context("client"))
            with Load([TlsEchoCaller(port, files.context("good"))]) as good:
                expired.start()
                good.until(lambda: expired.broken + expired.refused.total() > 3, "an expired client is refused")
                took = good.recovered()
                connected.recovered()
                good.settle()
            expired.leave()
            connected.settle()
        good.check()
        connected.check()
        assert expired.checked == 0
    refused = expired.broken + expired.refused.total()
    tell("a client's certificate: expired", f"{connected.said()}; refused {refused} times since", took)


# --- those of backends

BACKENDS = """
[cache.main]
listen_memcached = "127.0.0.1:0"
store = "rediss://localhost:{redis}/0"
timeout = "5s"
[bridge.main]
broker = "{broker}"
broker_tls.ca = "authority.pem"
[bridge.main.publish.lines]
listen = "127.0.0.1:0"
routing_key = "lines"
[bridge.main.subscribe.lines]
listen = "127.0.0.1:0"
queue = "lines"
declare = {{ type = "quorum" }}
ack = "client"
framing = "json"
"""


def answers(port: int) -> bool:
    with socket.create_connection((HOST, port), 5):
        return True


@contextmanager
def tls_before(ports: dict[int, int], certificate: tuple[Path, Path]) -> Iterator[None]:
    """Ports for TLS that lead to plain ones, until everything that goes through them breaks."""
    with ExitStack() as stack:
        for listens, port in ports.items():
            options = f"bind={HOST},reuseaddr,fork,verify=0,cert={certificate[0]},key={certificate[1]}"
            command = [find_program("socat"), f"OPENSSL-LISTEN:{listens},{options}", f"TCP:{HOST}:{port}"]
            process = GuardedProcess(command, {}, certificate[0].parent)
            stack.callback(process.stop, signal.SIGKILL)
            process.wait_for(partial(answers, listens))
        yield


def test_the_certificates_of_redis_and_rabbitmq_run_out(
    files: Files, redis_server: RedisServer, rabbit_vhost: VirtualHost, tell: Tell
) -> None:
    with reserve_port() as first, reserve_port() as second, ExitStack() as tls:
        redis, rabbit = first.getsockname()[1], second.getsockname()[1]
        ports = {redis: redis_server.port, rabbit: rabbit_vhost.port}
        url = replace(rabbit_vhost, port=rabbit).url.replace("amqp://", "amqps://").replace(HOST, "localhost")
        tls.enter_context(tls_before(ports, files.renew("short", SHORT)))
        issued = time.monotonic()
        environ = {"SSL_CERT_FILE": str(files.authority)}
        with running(files.directory, BACKENDS.format(redis=redis, broker=url), environ=environ) as netd:
            publisher = LineCaller(netd.port("bridge.main"), "line")
            reader = LineReader(netd.port("bridge.main", 1), "lines", [publisher])
            callers = [MemcachedCaller(netd.port("cache.main"), Values(), "x", seed) for seed in range(2)]
            netd.wait_for("connected to amqps://")
            with Load(callers, [publisher], [reader]) as load:
                time.sleep(max(0.0, issued + SHORT + 1 - time.monotonic()))
                load.until_answered()
                assert not load.refused, "links that are there stay there"
                tls.close()
                tls.enter_context(tls_before(ports, (files.directory / "short.pem", files.directory / "short.key")))
                load.until(lambda: any("certificate verify failed" in each for each in load.refused), "told why")
                netd.wait_until(lambda: "certificate verify failed (broker_tls.ca)" in str(netd.events), "the broker's")
                tls.close()
                tls.enter_context(tls_before(ports, files.renew("good", DAY)))
                took = load.until_answered()
                load.settle()
    load.check(refused=True)
    tell("certificates of Redis and RabbitMQ: expired, then renewed", load.said(), took)
