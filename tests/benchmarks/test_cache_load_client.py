"""The load client for caches judges every reply."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.test_load_client import changed_echo, programs
from tests.servers import MemcachedServer, RedisServer

__all__ = ["programs"]


def load(programs: Path, mode: str, port: int, *options: str) -> dict[str, Any]:
    command = (
        str(programs / "cacheload"),
        mode,
        f"--port={port}",
        "--seconds=0.1",
        "--warmup=0",
        "--patience=1",
        *options,
    )
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == ("error" in answer)
    return answer


@pytest.mark.parametrize("mode", ["get", "set"])
@pytest.mark.parametrize("outstanding", [1, 16])
def test_right_replies_of_either_protocol_are_counted(
    programs: Path, memcached_server: MemcachedServer, redis_server: RedisServer, mode: str, outstanding: int
) -> None:
    options = ("--connections=3", f"--outstanding={outstanding}", "--size=5000", "--keys=50", "--fill")
    assert load(programs, mode, memcached_server.port, "--protocol=memcached", *options)["requests"] > 0
    assert load(programs, mode, redis_server.port, "--protocol=redis", *options)["requests"] > 0


def test_a_miss_is_wrong(programs: Path, memcached_server: MemcachedServer) -> None:
    assert load(programs, "get", memcached_server.port)["error"] == "a reply is not what it must be: END"


@pytest.mark.parametrize(
    "reply",
    [
        b"STORED\r\nSTORED\r\n",  # surplus
        b"STOREd\r\n",
        b"NOT_STORED\r\n",
        b"SERVER_ERROR away\r\n",
    ],
)
def test_another_reply_is_wrong(programs: Path, reply: bytes) -> None:
    with changed_echo(lambda _data, _seen: reply) as port:
        assert "not what it must be" in load(programs, "set", port)["error"]


def test_silence_is_wrong(programs: Path) -> None:
    with changed_echo(lambda _data, _seen: b"") as port:
        assert load(programs, "set", port)["error"] == "nothing was answered within 0.1 seconds"
