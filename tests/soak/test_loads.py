"""The soak's clients notice when an answer is wrong or does not come, and say nothing when all is well."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cache.redis_client import redis_client
from tests.netd_process import Netd, running
from tests.soak.loads import KEYS, Cached, Echoes, Load
from tests.waiting import eventually

SECONDS = 60.0
CONFIG = '[cache.main]\nlisten_memcached = "127.0.0.1:0"\nlisten_redis = "127.0.0.1:0"\n'


@contextmanager
def at_work(load: Load, enough: threading.Event) -> Iterator[None]:
    load.start()
    try:
        yield
    finally:
        enough.set()
        load.join(SECONDS)
        assert not load.is_alive()


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """A server for one client: what it says for what it has read; its port. It closes when it has nothing to say."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                while (data := connection.recv(65536)) and (said := answer(data)):
                    connection.sendall(said)

        serving = threading.Thread(target=serve)
        serving.start()
        yield listening.getsockname()[1]
        serving.join(SECONDS)


def test_an_echo_that_is_right_is_counted() -> None:
    enough = threading.Event()
    with answering(bytes) as port:
        load = Echoes(1, enough, port, upper=False)
        with at_work(load, enough):
            assert eventually(lambda: load.done["echoes"] > 5)
    assert load.failure == ""


@pytest.mark.parametrize(
    ("answer", "failure"),
    [(lambda data: bytes(len(data)), "another echo"), (lambda data: b"", "closed after 0 of")],
    ids=["another", "none"],
)
def test_an_echo_that_is_wrong_or_missing_is_noticed(answer: Callable[[bytes], bytes], failure: str) -> None:
    enough = threading.Event()
    with answering(answer) as port:
        load = Echoes(1, enough, port, upper=False)
        with at_work(load, enough):
            assert eventually(lambda: bool(load.failure))
    assert failure in load.failure


@pytest.fixture
def netd(tmp_path: Path) -> Iterator[Netd]:
    with running(tmp_path, CONFIG) as netd:
        yield netd


def test_a_cache_that_is_right_is_asked_on_and_a_value_that_nobody_wrote_there_is_noticed(netd: Netd) -> None:
    enough = threading.Event()
    memcached, redis = netd.port("cache.main", 0), netd.port("cache.main", 1)
    load = Cached(1, enough, memcached, redis, "c")
    with at_work(load, enough):
        assert eventually(lambda: load.done["cache writes"] > 50 and load.done["cache reads"] > 100)
        assert load.failure == ""
        with redis_client(redis) as liar:
            for number in range(KEYS):
                liar.ask("SET", f"c.0.{number}", "something else")
            assert eventually(lambda: bool(load.failure))
    assert "holds b'something else'" in load.failure
