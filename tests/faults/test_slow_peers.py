"""Clients that send a byte now and then, and clients that do not read: they cost little, and nobody else notices."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cache.redis_client import pack
from tests.faults.conftest import Tell
from tests.faults.crowd import QUESTIONS, Member
from tests.faults.world import World
from tests.servers import HOST, exchange
from tests.ssh.daemon import Sshd

MANY = 20
"""Slow clients at each door."""
GAP = 0.1
"""Seconds between two bytes."""
STUCK = 2.0
"""Seconds for which nothing more can be sent to netd."""
OFFERED = 20 << 20
"""Bytes that one of them is to be answered, at most: twenty of them ask for six times what netd may grow by."""
BOUND = 64 << 20
"""Bytes that netd may grow by for all of them."""
OTHERS_WAIT = 10.0
VALUE = b"v" * 100_000


def test_clients_that_send_a_byte_now_and_then(world: World, tell: Tell) -> None:
    with world.everybody() as others, ExitStack() as crowd:
        members = [Member(door, world.doors[door], number) for door in QUESTIONS for number in range(MANY)]
        for member in members:
            crowd.callback(member.socket.close)
        requests = [member.prepare(1) for member in members]
        for place in range(max(map(len, requests))):
            for member, request in zip(members, requests, strict=True):
                member.socket.sendall(request[place : place + 1])
            time.sleep(GAP)
        for member in members:
            while not member.hear():
                pass
        took = others.recovered()
        others.settle()
    others.check()
    assert others.slowest < OTHERS_WAIT
    said = f"{len(members)} clients, all answered right; others: {others.said()}, {others.slowest:.2f} s at most"
    tell(f"slow writers: a byte every {GAP} s", said, took)


# --- clients that do not read


def echoed(sent: int) -> bytes:
    return (b"0123456789abcdefghi" * (sent // 19 + 1))[:sent]


def got(reply: bytes, request: bytes) -> Callable[[int], bytes]:
    return lambda sent: reply * (sent // len(request))


GET, REDIS_GET = b"get slow\r\n", pack("GET", "slow")
QUIET: dict[str, tuple[bytes, Callable[[int], bytes]]] = {
    "echo": (b"0123456789abcdefghi", echoed),
    "memcached": (GET, got(b"VALUE slow 0 %d\r\n%s\r\nEND\r\n" % (len(VALUE), VALUE), GET)),
    "redis": (REDIS_GET, got(b"$%d\r\n%s\r\n" % (len(VALUE), VALUE), REDIS_GET)),
}
"""What is asked again and again, and what so many bytes of it must be answered."""


def offer(port: int, request: bytes, most: int) -> tuple[socket.socket, int]:
    """Ask until no more is taken, or so many bytes were; a connection, and how many."""
    client = socket.create_connection((HOST, port), 20)
    client.settimeout(STUCK)
    stream = request * (1 + (1 << 16) // len(request))
    sent = 0
    try:
        while sent < most:
            at = sent % len(request)
            sent += client.send(stream[at : at + most - sent])
    except TimeoutError:
        pass
    client.settimeout(60)
    return client, sent


def listen(client: socket.socket, wanted: bytes) -> None:
    """Read at last; what comes is what had to."""
    at = 0
    while at < len(wanted):
        data = client.recv(1 << 20)
        assert data, f"closed after {at} of {len(wanted)} bytes"
        assert data == wanted[at : at + len(data)], f"other bytes from {at} on"
        at += len(data)


@pytest.mark.parametrize("door", QUIET)
def test_clients_that_do_not_read(world: World, tell: Tell, door: str) -> None:
    request, answer = QUIET[door]
    exchange(world.doors["memcached"], b"set slow 0 0 %d\r\n%s\r\n" % (len(VALUE), VALUE))
    with world.everybody() as others, ThreadPoolExecutor(MANY) as threads, ExitStack() as crowd:
        before = world.netd.rss()
        most = OFFERED * len(request) // len(answer(len(request)))
        offered = list(threads.map(lambda _: offer(world.doors[door], request, most), range(MANY)))
        for client, _ in offered:
            crowd.callback(client.close)
        others.recovered()
        grown = world.netd.rss() - before
        wanted = [answer(sent) for _, sent in offered[:2]]  # the others' replies are left unread for ever
        list(threads.map(listen, [client for client, _ in offered[:2]], wanted))
        crowd.close()
        took = others.recovered()
        others.settle()
    others.check()
    assert grown < BOUND
    assert others.slowest < OTHERS_WAIT
    size = sum(len(answer(sent)) for _, sent in offered) / 1e6
    said = f"{MANY} clients have {size:.0f} MB to come, netd grew by {grown / 1e6:.0f} MB"
    said += f", two read at last: {sum(map(len, wanted)) / 1e6:.1f} MB right; others {others.slowest:.2f} s at most"
    tell(f"clients of {door} that do not read", said, took)


def test_a_publisher_that_does_not_read_is_not_held_up(world: World, tell: Tell) -> None:
    lines = 20_000
    with world.unharmed(), world.lines("lines") as load:
        with socket.create_connection((HOST, world.doors["publish"]), 60) as client:
            client.sendall(b"".join(b"mute %d\n" % number for number in range(1, lines + 1)))
            took = load.until(lambda: ("mute", lines) in load.came(), "its last line has come")
            client.shutdown(socket.SHUT_WR)
            heard = b""
            while data := client.recv(1 << 16):
                heard += data
        assert heard.endswith(b"+OK %d\n" % lines)
        assert {("mute", number) for number in range(1, lines + 1)} <= load.came()
        load.settle()
    load.check()
    tell("a publisher that does not read", f"{lines:,} lines +OK, all have come; {load.said()}", took, "all in")


def test_a_subscriber_that_does_not_read_gives_back_what_it_had(world: World, tell: Tell) -> None:
    with world.unharmed(), world.lines("lines") as load:
        with socket.create_connection((HOST, world.doors["subscribe"]), 60) as client:
            client.recv(1)  # it has got something
            load.recovered()
        load.recovered()
        began = time.monotonic()
        load.settle()
        took = time.monotonic() - began
    load.check()
    tell("a subscriber that does not read, and leaves", load.said(), took, "what it had is in")


def test_an_ssh_client_that_does_not_read_gets_everything_at_last(world: World, tell: Tell, tmp_path: Path) -> None:
    lines, path = 3_000_000, tmp_path / "output"
    sshd = Sshd(world.netd, world.directory, world.doors["ssh"])
    with world.unharmed() as others, path.open("wb") as output:
        before = world.netd.rss()
        command = [*sshd.openssh, "ops@127.0.0.1", f"count {lines} 3"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output) as client:
            others.until(lambda: path.stat().st_size > 0, "output")
            os.kill(client.pid, signal.SIGSTOP)
            time.sleep(3)
            grown = world.netd.rss() - before
            others.recovered()
            os.kill(client.pid, signal.SIGCONT)
            began = time.monotonic()
            assert client.wait(120) == 3
            took = time.monotonic() - began
    assert path.read_bytes() == b"".join(b"%d\n" % number for number in range(1, lines + 1))
    assert grown < BOUND
    said = f"{path.stat().st_size / 1e6:.0f} MB right, netd grew by {grown / 1e6:.0f} MB"
    tell("an ssh client: frozen for 3 s in the middle of its output", said, took, "all in")
