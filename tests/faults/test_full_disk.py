"""A disk that is full. Not in every run of the tests: every other time or so the bridge does not go on by itself."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_bridge import BRIDGE, connect, port_in, port_out, take
from tests.netd_process import running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "netd-test", directory], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system takes root and mount(2): {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


def test_a_full_disk_stops_reading_loses_nothing_and_recovers_by_itself(tmp_path: Path, small_disk: Path) -> None:
    config = f'[daemon]\nstate_dir = "{small_disk}"\n' + BRIDGE.format(settings="spool_limit = 0").split("\n", 3)[3]
    with running(tmp_path, config) as netd, connect(port_in(netd)) as client:
        (small_disk / "ballast").write_bytes(bytes(2 << 20))
        count = 40_000
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
        while b"+OK %d\n" % count not in heard:
            heard += client.recv(1 << 16)
        sending.join()
        listening.join()
        assert heard.count(b"*WAIT") == heard.count(b"*GO")
        assert found == set(range(count))
