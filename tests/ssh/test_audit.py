"""The audit: lines that are there, whole, and not too many."""

import json
from pathlib import Path

from twisted.internet.task import Clock

from netd.ssh.audit import OLD_FILES, Audit
from netd.ssh.commands import LONGEST_LINE


def test_each_event_is_a_json_line(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(path, 0, Clock(), "ssh.c")
    audit.write("login", user="ops\n", status=3, key=None, line="x" * 9999)
    audit.stop()
    (line,) = path.read_text().splitlines()
    event = json.loads(line)
    assert event["event"] == "login"
    assert (event["user"], event["status"], event["key"], len(event["line"])) == ("ops\n", 3, None, LONGEST_LINE)
    assert event["time"].endswith("+00:00")
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_rotated_by_size_and_old_files_go(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(path, 300, Clock(), "ssh.c")
    for number in range(100):
        audit.write("verb", number=number)
    audit.stop()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + OLD_FILES
    assert all(file.stat().st_size <= 300 for file in files)
    lines = [line for file in [*files[:0:-1], files[0]] for line in file.read_text().splitlines()]
    numbers = [json.loads(line)["number"] for line in lines]
    assert numbers == list(range(numbers[0], 100))


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "none" / "audit", 0, Clock(), "ssh.c")
    audit.write("login")
    (tmp_path / "none").mkdir()
    audit.write("login")
    audit.stop()
    assert (tmp_path / "none" / "audit").read_text().count("\n") == 1


def test_none_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    Audit(None, 0, Clock(), "ssh.c").write("login")
    assert not list(tmp_path.iterdir())
