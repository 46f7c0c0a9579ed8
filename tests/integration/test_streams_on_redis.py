"""With a Redis behind, netd answers the streams of the differential test as memcached does, but for CAS uniques."""

import re
import socket
from collections.abc import Iterator

import pytest

from tests.cache.beside import PATIENCE, alike, unpadded
from tests.cache.test_differential import STREAMS, stream_of
from tests.netd_process import Netd, running
from tests.servers import HOST, MemcachedServer, RedisServer

OTHER = {
    "cas": "its uniques are those of a memcached",
    "meta get, stale": "its uniques are those of a memcached",
    "meta set": "its uniques are those of a memcached",
    "meta delete": "its uniques are those of a memcached",
    "meta debug": "Redis does not know who has fetched what, and when",
}
"""Streams that mean nothing here, and why."""


@pytest.fixture(scope="module")
def netd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    config = '[log]\nformat = "json"\n[cache.main]\nlisten_memcached = "127.0.0.1:0"\nallow_flush = true\n'
    with (
        RedisServer() as redis,
        running(tmp_path_factory.mktemp("netd"), config + f'store = "{redis.url}"\n') as netd,
    ):
        yield netd


@pytest.fixture(scope="module")
def memcached() -> Iterator[MemcachedServer]:
    with MemcachedServer() as server:
        yield server


def answers(port: int, stream: bytes) -> list[bytes]:
    """The lines that a server answers to a stream, without CAS uniques and without what was not asked of Redis."""
    assert _talk(port, b"flush_all\r\n") == b"OK\r\n"
    return [_without_uniques(alike(line)) for line in unpadded(_talk(port, stream)).split(b"\r\n")]


def _talk(port: int, stream: bytes) -> bytes:
    with socket.create_connection((HOST, port), PATIENCE) as connection:
        connection.sendall(stream)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while received := connection.recv(1 << 16):
            answer += received
        return answer


def _without_uniques(line: bytes) -> bytes:
    line = re.sub(rb"^(VALUE \S+ \d+ \d+) \d+$", rb"\1", line)
    return re.sub(rb" ([chl])\d+", rb" \1", line) if line[:3] in {b"HD ", b"VA ", b"NS "} else line


@pytest.mark.parametrize("name", [name for name in STREAMS if name not in OTHER and name != "a very long line"])
def test_a_stream_is_answered_as_memcached_does(netd: Netd, memcached: MemcachedServer, name: str) -> None:
    stream, port = stream_of(name), netd.port("cache.main")
    if answers(port, stream) != answers(memcached.port, stream):  # a second that passed meanwhile shows in answers
        assert answers(port, stream) == answers(memcached.port, stream)
