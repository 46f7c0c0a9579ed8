"""Reloads of the real daemon, with clients that go on talking."""

import random
import signal
import ssl
import threading
from pathlib import Path

from netd.passwords import hash_password
from tests.cache.redis_client import RedisClient
from tests.certificates import write_pair
from tests.integration.test_daemon import connect
from tests.netd_process import Netd, running

STEADY = '[echo.steady]\nlisten = "127.0.0.1:0"\n'


def reload(netd: Netd, config: str) -> str:
    """Ask by SIGHUP, and return the line that answers."""
    before = len(answers(netd))
    netd.config.write_text(config)
    netd.process.send_signal(signal.SIGHUP)
    netd.wait_until(lambda: len(answers(netd)) > before, "answer to SIGHUP")
    return answers(netd)[-1]


def answers(netd: Netd) -> list[str]:
    """The last line of each reload so far."""
    return [text for text in netd.messages if text.startswith(("reloaded: ", "not reloaded: "))]


class Talkers:
    """Clients that send and check echoes until they are told to stop: one that stays, one that comes and goes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._enough = threading.Event()
        self.answered = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._talk, args=(stays,)) for stays in (True, False)]
        for thread in self._threads:
            thread.start()

    def _talk(self, stays: bool) -> None:
        client = connect(self._port)
        number = 0
        try:
            while not self._enough.is_set():
                number += 1
                message = b"%d\n" % number
                if not stays:
                    client.close()
                    client = connect(self._port)
                client.sendall(message)
                got = client.recv(100)
                if got != message:
                    self.failures.append(f"{got!r} for {message!r}")
                    return
                self.answered += 1
        except OSError as error:
            self.failures.append(repr(error))
        finally:
            client.close()

    def stop(self) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(20)


def test_random_reloads_under_load_fail_no_request_of_an_unchanged_service(tmp_path: Path) -> None:
    chance = random.Random(7)
    with running(tmp_path, STEADY) as netd:
        talkers = Talkers(netd.port("echo.steady"))
        seen = set()
        for _ in range(200):
            others = "".join(
                f'[echo.other{number}]\nlisten = "127.0.0.1:0"\n{chance.choice(settings)}\n'
                for number, settings in enumerate(
                    [["", "max_connections = 5"], ["transform = 'upper'"], ["nonsense = 1"]]
                )
                if chance.random() < 0.4
            )
            seen.add(reload(netd, STEADY + others).split(":")[0])
        talkers.stop()
        assert talkers.failures == []
        assert talkers.answered > 200
        assert seen == {"reloaded", "not reloaded"}
        assert netd.stop() == 0


def test_a_new_service_is_reachable_when_the_reload_is_said_to_be_done(tmp_path: Path) -> None:
    with running(tmp_path, STEADY) as netd:
        assert (
            reload(netd, STEADY + '[echo.new]\nlisten = "127.0.0.1:0"\n')
            == "reloaded: added echo.new; untouched echo.steady"
        )
        with connect(netd.port("echo.new")) as client:
            client.sendall(b"new")
            assert client.recv(3) == b"new"


def secure(port: int, authority: Path) -> ssl.SSLSocket:
    """A client that trusts one authority alone."""
    return ssl.create_default_context(cafile=str(authority)).wrap_socket(connect(port), server_hostname="localhost")


def test_a_renewed_certificate_is_shown_to_new_clients_while_old_ones_go_on(tmp_path: Path) -> None:
    authorities = {name: write_pair(tmp_path, name, None) for name in ("old", "new")}
    write_pair(tmp_path, "server", authorities["old"])
    config = STEADY + 'tls = { certificate = "server.pem", private_key = "server.key" }\n'
    with running(tmp_path, config) as netd:
        port = netd.port("echo.steady")
        first = secure(port, tmp_path / "old.pem")
        (tmp_path / "server.pem").write_text("not a certificate")
        assert "echo.steady.tls.certificate: " in reload(netd, config)
        secure(port, tmp_path / "old.pem").close()
        write_pair(tmp_path, "server", authorities["new"])
        assert reload(netd, config) == "reloaded: changed echo.steady"
        secure(port, tmp_path / "new.pem").close()
        first.sendall(b"still here")
        assert first.recv(10) == b"still here"
        first.close()


def test_a_cache_keeps_its_values_when_users_and_limits_change(tmp_path: Path) -> None:
    cache = '[cache.main]\nlisten_redis = "127.0.0.1:0"\n'
    with running(tmp_path, cache) as netd:
        old = RedisClient(netd.port("cache.main"))
        assert old.ask("SET a 1") == b"OK"
        users = f"users.app.password_hash = '{hash_password('secret')}'\nmax_connections = 50\n"
        assert reload(netd, cache + users) == "reloaded: changed cache.main"
        new = RedisClient(netd.port("cache.main"))
        assert "NOAUTH" in str(new.ask("GET a"))
        assert new.ask("AUTH app secret") == b"OK"
        assert (new.ask("GET a"), old.ask("GET a")) == (b"1", b"1")
