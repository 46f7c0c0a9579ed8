"""Redis's own programs before netd."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netd_process import Netd, running
from tests.servers import RedisServer, find_program

CONFIG = """
[cache.embedded]
listen_redis = "127.0.0.1:0"
[cache.redis]
listen_redis = "127.0.0.1:0"
store = "{url}"
"""


@pytest.fixture(scope="module")
def netd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    directory: Path = tmp_path_factory.mktemp("netd")
    with RedisServer() as redis, running(directory, CONFIG.format(url=redis.url)) as netd:
        yield netd


@pytest.fixture(params=["embedded", "redis"])
def port(netd: Netd, request: pytest.FixtureRequest) -> str:
    return str(netd.port(f"cache.{request.param}"))


def run(program: str, *arguments: str, said: str = "") -> str:
    done = subprocess.run(
        [find_program(program), *arguments], input=said, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_redis_cli_by_arguments_and_by_lines(port: str) -> None:
    assert run("redis-cli", "-p", port, "SET", "a", "1") == "OK\n"
    assert run("redis-cli", "-p", port, "-3", "GET", "a") == "1\n"
    assert run("redis-cli", "-p", port, said='SET b "two words"\nGET b\nTYPE b\nTTL b\nFOO\n').splitlines()[:4] == [
        "OK",
        "two words",
        "string",
        "-1",
    ]
    assert run("redis-cli", "-p", port, "--no-raw", "SET", "a", "OK") == "OK\n"
    assert run("redis-cli", "-p", port, "--no-raw", "GET", "a") == '"OK"\n'


def test_redis_cli_scans_and_pipes(port: str) -> None:
    requests = "".join(f"*3\r\n$3\r\nSET\r\n$5\r\ns{number:04}\r\n$1\r\nx\r\n" for number in range(2000))
    assert "errors: 0, replies: 2000" in run("redis-cli", "-p", port, "--pipe", said=requests)
    assert len(run("redis-cli", "-p", port, "--scan", "--pattern", "s*").split()) == 2000


@pytest.mark.parametrize("depth", ["1", "16"])
def test_redis_benchmark_runs_without_errors(port: str, depth: str) -> None:
    said = run(
        "redis-benchmark", "-p", port, "-n", "2000", "-c", "10", "-P", depth, "-t", "ping,set,get,incr,mset", "-q"
    )
    assert said.count("requests per second") == 6
    assert "error" not in said.lower()
