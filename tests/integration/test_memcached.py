"""Other people's tests of a memcached, run against the daemon."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pymemcache
import pytest

from tests.netd_process import Netd, running
from tests.servers import RedisServer, find_program

TIMEOUT = 120.0


@pytest.fixture(scope="module", params=["embedded", "redis"])
def netd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netd]:
    """The daemon with a memcached port, on each kind of store."""
    directory = tmp_path_factory.mktemp("netd")
    config = '[log]\nformat = "json"\n[cache.main]\nlisten_memcached = "127.0.0.1:0"\nallow_flush = true\n'
    if request.param == "embedded":
        with running(directory, config) as netd:
            yield netd
    else:
        with RedisServer() as redis, running(directory, config + f'store = "{redis.url}"\n') as netd:
            yield netd


def test_memccapable_finds_nothing_to_complain_about(netd: Netd) -> None:
    command = [find_program("memccapable"), "-h", "127.0.0.1", "-p", str(netd.port("cache.main")), "-a"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.stdout.count("[pass]") == 27, done.stdout
    assert done.returncode == 0


def test_pymemcaches_own_integration_tests_pass(netd: Netd, tmp_path: Path) -> None:
    tests = Path(pymemcache.__file__).parent / "test"
    port = str(netd.port("cache.main"))
    options = [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:twisted",
        "-c",
        "/dev/null",
        "--confcutdir",
        str(tests),
        "--port",
        port,
    ]
    # TLS needs certificates for a port of its own; netd's TLS is tested in test_tls.py
    chosen = ["-k", "not tls and not misc", "-q", str(tests / "test_integration.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *chosen],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
