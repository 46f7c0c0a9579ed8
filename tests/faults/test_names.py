"""Host names of Redis and RabbitMQ that are not known, or that nobody answers about.

netd runs in a mount namespace where /etc/hosts and /etc/resolv.conf are files of the test's.
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import MakeWorld, Tell
from tests.faults.world import World
from tests.netd_process import TWISTD, Netd

NAME_SERVER = "127.0.0.53"
LOCALHOST = "127.0.0.1 localhost\n"
BACKENDS = LOCALHOST + "127.0.0.1 redis.test rabbit.test\n"
OTHERS_WAIT = 10.0

OWN_ETC = "mount --bind $0/hosts /etc/hosts && mount --bind $0/resolv.conf /etc/resolv.conf && exec $@"
UNSHARE = ["unshare", "--mount", "--propagation", "private"]


class Names:
    """What netd's /etc says; changed in place, as a file that is mounted must be."""

    def __init__(self, directory: Path) -> None:
        self._hosts = directory / "hosts"
        self._hosts.write_text(BACKENDS)
        (directory / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\noptions timeout:2 attempts:2\n")
        self.command: list[str | Path] = [*UNSHARE, "sh", "-c", OWN_ETC, directory, TWISTD]

    def known(self, *, known: bool) -> None:
        self._hosts.write_text(BACKENDS if known else LOCALHOST)


@pytest.fixture
def names(tmp_path: Path) -> Names:
    probe = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"a mount namespace takes root and unshare(2): {probe.stderr.strip()}")
    return Names(tmp_path)


@pytest.fixture
def named(make_world: MakeWorld, names: Names, tmp_path: Path) -> World:
    """All services, in a netd that knows its backends by name."""
    start = partial(Netd, command=names.command)
    return make_world(tmp_path, start=start, redis_host="redis.test", rabbit_host="rabbit.test")


@contextmanager
def mute_name_server() -> Iterator[None]:
    """It takes every question and answers none; without it questions are refused at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind((NAME_SERVER, 53))
        yield


def test_names_that_are_not_known_when_netd_starts(named: World, names: Names, tell: Tell) -> None:
    named.kill_netd()
    names.known(known=False)
    named.start_netd(whole=False)
    assert not named.ready()
    publish = named.doors["publish"]  # lines are taken all the same
    with named.everybody("lines") as load, named.lines("lines", publish=publish) as lines:
        assert load.refused.total() > 0
        assert not any(reader.received for reader in lines.readers)
        names.known(known=True)
        took = load.until_answered() + lines.recovered(lines.readers)
        load.settle()
        lines.settle()
    load.check(refused=True)
    lines.check()
    tell("names: of Redis and RabbitMQ unknown when netd starts", f"{load.said()}, {lines.said()}", took)


def test_names_that_get_lost_and_are_found_again(named: World, names: Names, tell: Tell) -> None:
    with named.unharmed("memcached", "redis", "lines") as others, named.everybody("echo", "ssh", "admin") as load:
        names.known(known=False)
        for backend in ("Redis", "RabbitMQ"):
            named.proxies[backend].reset()
        load.until(lambda: load.refused.total() > 0, "told that Redis is away")
        others.recovered()
        time.sleep(2)
        names.known(known=True)
        took = load.until_answered()
        others.recovered()
        load.settle()
    load.check(refused=True)
    tell("names: of Redis and RabbitMQ unknown for a while", load.said(), took)


def test_a_name_server_that_does_not_answer(named: World, names: Names, tell: Tell) -> None:
    with (
        mute_name_server(),
        named.unharmed("memcached", "redis", "lines") as others,
        named.everybody("echo", "ssh", "admin") as load,
    ):
        names.known(known=False)
        for backend in ("Redis", "RabbitMQ"):
            named.proxies[backend].reset()
        load.until(lambda: load.refused.total() > 0, "told that Redis is away")
        time.sleep(5)
        others.recovered()
        names.known(known=True)
        took = load.until_answered()
        load.settle()
    load.check(refused=True)
    assert others.slowest < OTHERS_WAIT, "looking a name up holds nobody else up"
    tell(
        "names: no answer about Redis and RabbitMQ for 5 s", load.said(), took, f"others {others.slowest:.2f} s at most"
    )
