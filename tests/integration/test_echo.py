"""Echo with the clients its users have, under every reactor."""

import concurrent.futures
import os
import socket
import subprocess
import sys

from tests.netd_process import Netd


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def read(client: socket.socket, size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size and (piece := client.recv(65536)):
        pieces += piece
    return bytes(pieces)


def test_nc_that_half_closes_gets_its_answer_every_time(netd: Netd) -> None:
    command = ["nc", "-N", "127.0.0.1", str(netd.port("echo.plain"))]
    answers = [
        subprocess.run(command, input=b"hi", capture_output=True, timeout=60, check=True).stdout for _ in range(100)
    ]
    assert answers == [b"hi"] * 100


def test_upper_answers_in_upper_case(netd: Netd) -> None:
    command = ["nc", "-N", "127.0.0.1", str(netd.port("echo.upper"))]
    text = "a1\N{LATIN SMALL LETTER U WITH DIAERESIS}\xff\n".encode("latin-1")
    answer = subprocess.run(command, input=text, capture_output=True, timeout=60, check=True).stdout
    assert answer == b"A1\xfc\xff\n"


def test_telnet_hears_its_line(netd: Netd) -> None:
    port = str(netd.port("echo.upper"))
    with subprocess.Popen(
        ["telnet", "127.0.0.1", port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as telnet:
        assert telnet.stdin is not None
        assert telnet.stdout is not None
        telnet.stdin.write(b"hello there\r\n")
        telnet.stdin.flush()
        lines = iter(telnet.stdout.readline, b"")
        assert any(line.rstrip() == b"HELLO THERE" for line in lines)
        telnet.kill()


def test_a_megabyte_of_random_bytes_comes_back(netd: Netd) -> None:
    data = os.urandom(1 << 20)
    with connect(netd.port("echo.plain")) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        sent = pool.submit(client.sendall, data)
        assert read(client, len(data)) == data
        sent.result()


def test_two_interleaved_clients_that_send_in_parts_each_hear_their_own(netd: Netd) -> None:
    port = netd.port("echo.plain")
    with connect(port) as one, connect(port) as two:
        for part in range(20):
            one.sendall(b"one%02d" % part)
            two.sendall(b"two%02d" % part)
        assert read(one, 100) == b"".join(b"one%02d" % part for part in range(20))
        assert read(two, 100) == b"".join(b"two%02d" % part for part in range(20))


def test_a_hundred_threads_at_once(netd: Netd) -> None:
    port = netd.port("echo.plain")

    def talk(number: int) -> bool:
        with connect(port) as client:
            for turn in range(20):
                message = b"%d/%d" % (number, turn)
                client.sendall(message)
                if read(client, len(message)) != message:
                    return False
        return True

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        assert all(pool.map(talk, range(100)))


GREENLETS = """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, socket, sys
def talk(number):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60) as client:
        for turn in range(5):
            message = b"%06d" % (number + turn)
            client.sendall(message)
            heard = b""
            while len(heard) < 6:
                heard += client.recv(6 - len(heard))
            assert heard == message
        return True
jobs = [gevent.spawn(talk, number) for number in range(1000)]
gevent.joinall(jobs, timeout=60)
print(sum(job.value is True for job in jobs))
"""


def test_a_thousand_greenlets_at_once(netd: Netd) -> None:
    command = [sys.executable, "-c", GREENLETS, str(netd.port("echo.plain"))]
    done = subprocess.run(command, capture_output=True, timeout=90, check=True)
    assert int(done.stdout) == 1000, done.stderr.decode()


def test_clients_that_never_read_cost_bounded_memory_and_hurt_nobody(netd: Netd) -> None:
    port = netd.port("echo.plain")
    before = netd.rss()
    greedy = [connect(port) for _ in range(20)]
    try:
        for client in greedy:
            client.setblocking(False)
        sent = 0
        block = bytes(1 << 16)
        for _ in range(64):  # 64 times 64 KiB for each of 20: 80 MiB offered
            for client in greedy:
                try:
                    sent += client.send(block)
                except BlockingIOError:
                    continue
        with connect(port) as polite:
            polite.sendall(b"still there?")
            assert read(polite, 12) == b"still there?"
        assert sent > 20 << 16
        assert netd.rss() - before < 20 << 20
    finally:
        for client in greedy:
            client.close()


def test_a_reset_in_mid_stream_leaves_the_daemon_well(netd: Netd) -> None:
    port = netd.port("echo.plain")
    for _ in range(20):
        client = connect(port)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(bytes(100_000))
        client.close()
    with connect(port) as client:
        client.sendall(b"well")
        assert read(client, 4) == b"well"
    assert not [event for event in netd.events if event["level"] in {"error", "critical"}]
