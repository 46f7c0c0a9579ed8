"""The first try: a key that is made, and the one line that uses it."""

import shlex
import subprocess
from pathlib import Path

from tests.netd_process import running

CONFIG = """
[daemon]
state_dir = "state"
[ssh.console]
listen = "127.0.0.1:0"
users.dev = { role = "admin", throwaway_key = true }
"""


def test_the_line_that_is_logged_works(tmp_path: Path) -> None:
    directory = tmp_path / "with a space"
    directory.mkdir()
    with running(directory, CONFIG) as netd:
        (line,) = [message for message in netd.messages if message.startswith("to try it: ")]
        command = shlex.split(line.removeprefix("to try it: "))
        done = subprocess.run(
            [*command, "whoami"], capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
        )
        assert done.stdout.startswith("dev (admin) from 127.0.0.1"), done.stderr
        assert (directory / "state/ssh.console/dev.key").stat().st_mode & 0o777 == 0o600
