"""The bridge with the clients its users have, on the embedded broker; and what it says when the disk fails it.

`strace` follows the daemon's system calls: it shows that no `+OK` leaves before the sync that covers its line has
returned, and it makes calls fail as a broken disk does.
"""

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.test_reload import reload
from tests.netd_process import NETDCTL, TWISTD, Netd, running
from tests.sabotage import sabotaged
from tests.strace import TRACE, early_replies

BRIDGE = """
[daemon]
drain_timeout = "5s"
[bridge.main]
{settings}
[bridge.main.publish.hello]
listen = "127.0.0.1:0"
routing_key = "hello"
[bridge.main.subscribe.hello]
listen = "127.0.0.1:0"
queue = "hello"
"""


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Netd]:
    with running(tmp_path, BRIDGE.format(settings="")) as netd:
        yield netd


def port_in(netd: Netd) -> int:
    return netd.port("bridge.main", 0)


def port_out(netd: Netd) -> int:
    return netd.port("bridge.main", 1)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def read_until(client: socket.socket, end: bytes) -> bytes:
    heard = b""
    while end not in heard and (data := client.recv(65536)):
        heard += data
    return heard


def take(port: int, count: int, seconds: float = 20) -> list[bytes]:
    """So many lines of a subscribe port."""
    with connect(port) as client:
        client.settimeout(seconds)
        heard = bytearray()
        lines = 0
        while lines < count and (data := client.recv(1 << 20)):
            heard += data
            lines += data.count(b"\n")
        return bytes(heard).splitlines()


def test_a_line_by_nc_is_answered_and_read_by_nc(bridge: Netd) -> None:
    for _ in range(20):
        sent = subprocess.run(
            ["nc", "-N", "127.0.0.1", str(port_in(bridge))], input=b"hi\n", capture_output=True, check=True, timeout=20
        )
        assert sent.stdout == b"+OK 1\n"
    with subprocess.Popen(
        ["nc", "127.0.0.1", str(port_out(bridge))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as nc:
        assert nc.stdout is not None
        assert [nc.stdout.readline() for _ in range(20)] == [b"hi\n"] * 20
        nc.kill()


def test_tail_into_nc_that_is_killed_loses_no_line_that_was_answered(bridge: Netd, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("".join(f"{number}\n" for number in range(1000)))
    with subprocess.Popen(
        f"exec tail -n +1 -F {path} | nc 127.0.0.1 {port_in(bridge)}", shell=True, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout is not None
        while shell.stdout.readline() != b"+OK 1000\n":
            continue
        shell.kill()
        subprocess.run(["pkill", "-f", f"tail -n [+]1 -F {path}"], check=False)
    assert take(port_out(bridge), 1000) == [b"%d" % number for number in range(1000)]


def test_many_lines_go_through_in_order_and_memory_stays_flat(bridge: Netd) -> None:
    count = 300_000
    lines = b"".join(b"%09d" % number + b"x" * 90 + b"\n" for number in range(count))
    before = bridge.rss()
    with connect(port_in(bridge)) as client:
        threading.Thread(target=client.sendall, args=(lines,)).start()
        read_until(client, b"+OK %d\n" % count)
    assert bridge.rss() - before < 100 << 20
    found = take(port_out(bridge), count)
    assert [int(line[:9]) for line in found] == list(range(count))


def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    answered = 0
    for number in range(3):
        with running(tmp_path, BRIDGE.format(settings="")) as netd, connect(port_in(netd)) as client:
            client.sendall(b"".join(b"%d:%d\n" % (number, line) for line in range(20_000)))
            heard = client.recv(100)
            os.kill(netd.process.pid, signal.SIGKILL)
            with suppress(OSError):
                while data := client.recv(65536):
                    heard += data
            acknowledged = int(re.findall(rb"\+OK (\d+)\n", heard)[-1])
            answered += acknowledged
    with running(tmp_path, BRIDGE.format(settings="")) as netd:
        found = set()
        with connect(port_out(netd)) as client:
            client.settimeout(2)
            heard = b""
            with suppress(TimeoutError):
                while data := client.recv(1 << 20):
                    heard += data
            found = set(heard.split(b"\n")[:-1])
    assert answered > 0
    assert len(found) >= answered
    last = {line.partition(b":")[0] for line in found}
    assert last == {b"0", b"1", b"2"}


# --- the order of system calls


@contextmanager
def traced(directory: Path, *options: str, command: Sequence[str | Path] = (TWISTD,)) -> Iterator[Netd]:
    """The daemon with strace on it, whose trace is in `directory`/trace."""
    with running(directory, BRIDGE.format(settings=""), command=command) as netd:
        strace = ["strace", "-f", "-y", "-o", str(directory / "trace"), *options, "-p", str(netd.process.pid)]
        with subprocess.Popen(strace, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            if "attached" not in said:
                pytest.skip(f"strace may not attach: {said.strip()}")
            try:
                yield netd
            finally:
                tracer.terminate()
                tracer.communicate()


def run_busily(netd: Netd, lines: int = 150) -> None:
    """Four clients at once, each line sent when the one before was answered, or three at a time."""

    def talk(client_number: int) -> None:
        with connect(port_in(netd)) as client:
            for number in range(1, lines, 3):
                client.sendall(b"".join(b"<%d.%d>\n" % (client_number, number + at) for at in range(3)))
                read_until(client, b"+OK %d\n" % (number + 2))

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_no_ok_leaves_before_the_sync_that_covers_its_line_has_returned(tmp_path: Path) -> None:
    with traced(tmp_path, *TRACE) as netd:
        run_busily(netd)
    replies, early = early_replies((tmp_path / "trace").read_text(errors="replace"))
    assert replies >= 100
    assert early == []


def test_a_build_without_the_sync_is_found_out_by_that_test(tmp_path: Path) -> None:
    with traced(tmp_path, *TRACE, command=sabotaged("nosync")) as netd:
        run_busily(netd, lines=30)
    replies, early = early_replies((tmp_path / "trace").read_text(errors="replace"))
    assert replies
    assert len(early) == replies


def test_a_build_that_answers_what_it_has_read_is_found_out_too(tmp_path: Path) -> None:
    with traced(tmp_path, *TRACE, command=sabotaged("earlyok")) as netd:
        run_busily(netd, lines=30)
    _, early = early_replies((tmp_path / "trace").read_text(errors="replace"))
    assert early  # a slow machine may sync between what it reads and what it answers


# --- a disk that fails


@pytest.mark.parametrize(("call", "error"), [("fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "EROFS")])
def test_a_disk_that_fails_is_no_ok_until_the_line_is_surely_there(tmp_path: Path, call: str, error: str) -> None:
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=20..22"]
    with traced(tmp_path, *inject) as netd, connect(port_in(netd)) as client:
        heard = b""
        for number in range(1, 41):
            client.sendall(b"%d\n" % number)
            heard += read_until(client, b"+OK %d\n" % number)
        while b"*WAIT" in heard and heard.count(b"*GO") != heard.count(b"*WAIT"):
            heard += client.recv(100)
        assert heard.count(b"*WAIT the spool cannot be written: disk I/O error") == 1
        assert take(port_out(netd), 40) == [b"%d" % number for number in range(1, 41)]
    assert f"{error} " in (tmp_path / "trace").read_text()


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of so many MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={request.param}m,mode=700"]
    mounted = subprocess.run(["mount", *options, "netd-test", directory], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system takes root and mount(2): {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


@pytest.mark.parametrize("small_disk", [16], indirect=True)
def test_a_full_disk_stops_reading_loses_nothing_and_recovers_by_itself(tmp_path: Path, small_disk: Path) -> None:
    config = f'[daemon]\nstate_dir = "{small_disk}"\n' + BRIDGE.format(settings="spool_limit = 0").split("\n", 3)[3]
    with running(tmp_path, config) as netd, connect(port_in(netd)) as client:
        (small_disk / "ballast").write_bytes(bytes(2 << 20))
        count = 20_000
        data = b"".join(b"%07d" % number + b"y" * 1000 + b"\n" for number in range(count))
        sending = threading.Thread(target=client.sendall, args=(data,))
        sending.start()
        heard = b""
        while b"*WAIT" not in heard:
            heard += client.recv(1 << 16)
        assert b"*WAIT the spool cannot be written: database or disk is full" in heard
        assert "disk" in str(netd.messages)
        found: set[int] = set()
        listening = threading.Thread(target=lambda: found.update(int(each[:7]) for each in take(port_out(netd), count)))
        listening.start()
        while b"+OK %d\n" % count not in heard or heard.count(b"*WAIT") > heard.count(b"*GO"):
            heard += client.recv(1 << 16)
        sending.join()
        listening.join()
        assert heard.count(b"*WAIT") == heard.count(b"*GO")
        assert found == set(range(count))


def test_two_daemons_do_not_share_a_spool(tmp_path: Path, bridge: Netd) -> None:
    second = Netd(tmp_path, BRIDGE.format(settings=""))
    assert second.wait() == os.EX_TEMPFAIL
    assert "in use by another process" in second.stderr
    assert bridge.process.poll() is None


def test_netdctl_send_exits_0_only_when_every_line_is_durable(bridge: Netd) -> None:
    command: list[str | Path] = [NETDCTL, "send", f"127.0.0.1:{port_in(bridge)}"]
    data = b"".join(b"%d\n" % number for number in range(50_000)) + b"no LF"
    good = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    assert (good.returncode, good.stderr) == (0, b"")
    assert take(port_out(bridge), 50_001)[-1] == b"no LF"
    bad = subprocess.run(command, input=b"a\n" + b"x" * 100_000 + b"\n", capture_output=True, timeout=60, check=False)
    assert bad.returncode == 1
    assert bad.stderr == b"line 2 TOOLONG longer than 65536 bytes\n1 of 2 lines were refused\n"
    nobody = subprocess.run(
        [NETDCTL, "send", "127.0.0.1:1"], input=b"a\n", capture_output=True, timeout=60, check=False
    )
    assert nobody.returncode == os.EX_UNAVAILABLE


def test_a_reader_that_left_holds_nothing_up(tmp_path: Path) -> None:
    with running(tmp_path, BRIDGE.format(settings="")) as netd:
        publish, subscribe = netd.port("bridge.main", 0), netd.port("bridge.main", 1)
        socket.create_connection(("127.0.0.1", subscribe), timeout=20).close()
        with socket.create_connection(("127.0.0.1", publish), timeout=20) as client:
            client.sendall(b"1\n2\n3\n")
            assert client.recv(100).endswith(b"+OK 3\n")
        with socket.create_connection(("127.0.0.1", subscribe), timeout=10) as reader:  # a third of ack_timeout
            got = b""
            while got.count(b"\n") < 3:
                got += reader.recv(100)
        assert sorted(got.split()) == [b"1", b"2", b"3"]


def test_a_port_in_use_is_all_that_is_said_of_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        netd = Netd(tmp_path, f'[echo.plain]\nlisten = "127.0.0.1:{port}"\n' + BRIDGE.format(settings=""))
        assert netd.wait() == 75
    assert not [event for event in netd.events if "traceback" in event]


def test_a_bridge_that_was_drained_publishes_again_once_it_is_resumed(tmp_path: Path) -> None:
    with running(tmp_path, BRIDGE.format(settings="")) as netd:
        for verb in ("drain", "resume"):
            asked: list[str | Path] = [NETDCTL, "--socket", tmp_path / "state" / "netd.sock", verb, "bridge.main"]
            subprocess.run(asked, check=True, capture_output=True, timeout=20)
        publish, subscribe = netd.port("bridge.main", 2), netd.port("bridge.main", 3)
        with connect(publish) as client:
            client.sendall(b"back\n")
            assert read_until(client, b"+OK 1\n") == b"+OK 1\n"
        assert take(subscribe, 1) == [b"back"]


def test_a_reload_adds_changes_and_removes_ports_while_lines_go_on(tmp_path: Path) -> None:
    before = BRIDGE.format(settings="")
    with running(tmp_path, before) as netd, connect(port_in(netd)) as early, connect(port_out(netd)) as reader:
        early.sendall(b"before\n")
        assert read_until(early, b"+OK 1\n") == b"+OK 1\n"
        assert reader.recv(100) == b"before\n"
        after = before.replace('routing_key = "hello"', 'routing_key = "other"')
        after = after.partition("[bridge.main.subscribe.hello]")[0]
        after += '[bridge.main.publish.more]\nlisten = "127.0.0.1:0"\nrouting_key = "more"\nreply = "confirmed"\n'
        for queue in ("other", "more"):
            after += f'[bridge.main.subscribe.{queue}]\nlisten = "127.0.0.1:0"\nqueue = "{queue}"\n'
        assert reload(netd, after) == "reloaded: changed bridge.main"
        assert reader.recv(100) == b"", "its port is gone"
        more, out_other, out_more = (netd.port("bridge.main", index) for index in (2, 3, 4))
        for port, line in ((port_in(netd), b"to other\n"), (more, b"to more\n")):
            with connect(port) as client:
                client.sendall(line)
                assert read_until(client, b"\n") == b"+OK 1\n"
        early.sendall(b"as it began\n")
        assert read_until(early, b"+OK 2\n") == b"+OK 2\n"
        assert take(out_other, 1) == [b"to other"]
        assert take(out_more, 1) == [b"to more"]
        assert reload(netd, before) == "reloaded: changed bridge.main"
        assert take(netd.port("bridge.main", 5), 1) == [b"as it began"]
        refused = reload(netd, netd.config.read_text().replace("[bridge.main]", '[bridge.main]\nheartbeat = "5s"'))
        assert refused.startswith("not reloaded: ")
        assert refused.endswith("bridge.main: heartbeat: needs a restart")
