"""The interactive console as an operator has it: OpenSSH's client in a real terminal, tmux's."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netd_process import Netd, running
from tests.waiting import eventually

TIMEOUT = 60.0

CONFIG = """
[daemon]
fastio = false
state_dir = "state"
[echo.plain]
listen = "127.0.0.1:0"
[ssh.console]
listen = "127.0.0.1:0"
[ssh.console.users.ops]
role = "admin"
authorized_keys_file = "key.pub"
[ssh.console.commands]
df = ["df", "-h"]
slow = ["sleep", "600"]
"""

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("tmux", "ssh", "ssh-keygen"))), reason="needs tmux and openssh-client (apt install)"
)


class Tmux:
    """A tmux server of its own, with one window in which a command runs."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "tmux"
        self._run("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sleep 600")
        self._run("set-option", "-g", "remain-on-exit", "on")

    def _run(self, *words: str) -> str:
        environ = {**os.environ, "LC_ALL": "C.UTF-8"}
        command = ["tmux", "-u", "-S", str(self._socket), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout

    def start(self, command: str, height: int = 24) -> None:
        self.resize(80, height)
        self._run("respawn-pane", "-k", command)

    def type(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def paste(self, text: str) -> None:
        self._run("set-buffer", text)
        self._run("paste-buffer", "-p")

    def resize(self, width: int, height: int = 24) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    @property
    def rows(self) -> list[str]:
        rows = [row.rstrip() for row in self._run("capture-pane", "-p").split("\n")]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def see(self, *last: str) -> None:
        """Wait until the last rows are these."""
        assert eventually(lambda: self.rows[-len(last) :] == list(last)), "\n".join(self.rows)

    def see_somewhere(self, text: str) -> None:
        """Wait until some row holds this."""
        assert eventually(lambda: any(text in row for row in self.rows)), "\n".join(self.rows)

    def kill(self) -> None:
        self._run("kill-server")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("console")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path / "key")], check=True)
    return path


@pytest.fixture(scope="module")
def netd(directory: Path) -> Iterator[Netd]:
    with running(directory, CONFIG) as netd:
        yield netd


@pytest.fixture(scope="module")
def terminal(directory: Path) -> Iterator[Tmux]:
    tmux = Tmux(directory)
    try:
        yield tmux
    finally:
        tmux.kill()


def ssh(netd: Netd, *words: str, options: str = "") -> str:
    """The command line of an operator."""
    directory = netd.config.parent
    return (
        f"ssh -F none {options} -p {netd.port('ssh.console')} -i {directory / 'key'} -o IdentitiesOnly=yes "
        f"-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR ops@127.0.0.1 {' '.join(words)}"
    )


@pytest.fixture
def prompt(netd: Netd, terminal: Tmux) -> str:
    """A console that waits; its prompt."""
    name = f"ops@{socket.gethostname().split('.')[0]}"
    terminal.start(ssh(netd))
    terminal.see(f"{name}#")
    return name


def test_an_operator_looks_around(terminal: Tmux, prompt: str) -> None:
    assert terminal.rows[0].startswith("netd ")
    terminal.type("log lev", "Tab", "deb", "Tab", "Enter")
    terminal.see(f"{prompt}# log level debug", "debug, was info", f"{prompt}#")
    terminal.type("Up", "C-w", "info", "Enter")
    terminal.see(f"{prompt}# log level info", "info, was debug", f"{prompt}#")
    terminal.type("C-r", "deb")
    terminal.see("(reverse-i-search)`deb': log level debug")
    terminal.type("C-c")
    terminal.see(
        "(reverse-i-search)`deb': log level debug^C".replace("(reverse-i-search)`deb':", f"{prompt}#"), f"{prompt} 130#"
    )
    terminal.type("closs", "Enter")
    terminal.see("closs: unknown verb; did you mean close?", f"{prompt} 127#")


def test_wide_characters_and_a_resize(terminal: Tmux, prompt: str) -> None:
    terminal.type("漢字 é e\u0301", "C-a", "M-f", "X")
    terminal.see(f"{prompt}# 漢字X é e\u0301")
    terminal.type("C-u", "C-k", "x" * 70)
    terminal.resize(40)
    terminal.type("y")
    terminal.see_somewhere("xy")
    terminal.resize(100)
    terminal.type("z")
    terminal.see_somewhere(f"{prompt}# {'x' * 70}yz")
    terminal.type("C-c")


def test_a_verb_is_stopped_and_type_ahead_is_kept(terminal: Tmux, prompt: str) -> None:
    terminal.type("stats --over 15s", "Enter")
    terminal.see(f"{prompt}# stats --over 15s")
    terminal.type("C-c")
    terminal.see("^C", f"{prompt} 130#")
    terminal.type("stats plain --over 1s", "Enter", "log level", "Enter", "who")
    terminal.see(f"{prompt}# log level", "info", f"{prompt}# who")
    terminal.type("C-c")


def test_a_paste_waits_for_enter(terminal: Tmux, prompt: str) -> None:
    terminal.paste("log level\nwhoami\n")
    terminal.see(f"{prompt}# log level^Jwhoami^J")
    terminal.type("Enter")
    terminal.see_somewhere("ops (admin) from 127.0.0.1:")


def test_watch_and_a_question(netd: Netd, terminal: Tmux, prompt: str) -> None:
    terminal.type("watch connections plain -n 1", "Enter")
    terminal.see("nobody is connected")
    with socket.create_connection(("127.0.0.1", netd.port("echo.plain"))) as client:
        terminal.see_somewhere("echo.plain  127.0.0.1:")
        (row,) = [row for row in terminal.rows if "echo.plain  127" in row]
        terminal.type("q")
        terminal.see_somewhere(f"{prompt}#")
        terminal.type(f"close {row.split()[0]}", "Enter")
        terminal.see_somewhere("[y/N]")
        terminal.type("y", "Enter")
        terminal.see(f"closed {row.split()[0]}", f"{prompt}#")
        client.settimeout(TIMEOUT)
        assert client.recv(1) == b""


def test_a_long_answer_stops_at_the_end_of_a_low_terminal(netd: Netd, terminal: Tmux, prompt: str) -> None:
    # Begun low: ssh may send what is typed after a resize before the resize.
    terminal.start(ssh(netd), height=12)
    terminal.see(f"{prompt}#")
    terminal.type("help connections", "Enter")
    terminal.see_somewhere("q: quit")
    terminal.type("q")
    terminal.see_somewhere(f"{prompt}#")


def test_the_hosts_commands_run_at_the_prompt(terminal: Tmux, prompt: str) -> None:
    terminal.type("df", "Enter")
    terminal.see_somewhere("Filesystem")
    terminal.see_somewhere(f"{prompt}#")
    terminal.type("slow", "Enter", "who")
    terminal.see(f"{prompt}# slow")
    terminal.type("C-c")
    terminal.see("^C", f"{prompt} 130# who")


def test_an_operator_is_told_that_netd_stops_and_his_ssh_ends_like_any_other(
    terminal: Tmux, tmp_path: Path, directory: Path
) -> None:
    for name in ("key", "key.pub"):
        shutil.copy(directory / name, tmp_path / name)
    with running(tmp_path, CONFIG) as netd:
        terminal.start(f"{ssh(netd)}; echo left with $?")
        terminal.see_somewhere("#")
        assert netd.stop() == 0
        terminal.see_somewhere("netd is stopping")
        terminal.see_somewhere("left with 0")


def test_ctrl_d_leaves_with_0(terminal: Tmux, netd: Netd) -> None:
    terminal.start(f"{ssh(netd)}; echo left with $?")
    terminal.see_somewhere("#")
    terminal.type("C-d")
    terminal.see_somewhere("left with 0")


def test_one_verb_with_a_terminal_asks_and_hands_on_its_status(terminal: Tmux, netd: Netd) -> None:
    with socket.create_connection(("127.0.0.1", netd.port("echo.plain"))):
        command = (
            f"{ssh(netd, 'connections plain --json')} | tr -dc '0-9,:a-z_\" ' | sed 's/.*\"id\": \\([0-9]*\\).*/\\1/'"
        )
        number = subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout.strip()
        terminal.start(f"{ssh(netd, f'close {number}', options='-t')}; echo left with $?")
        terminal.see_somewhere("[y/N]")
        terminal.type("n", "Enter")
        terminal.see_somewhere("left with 1")


def test_exec_has_no_colours_exit_statuses_and_errors_on_stderr(netd: Netd) -> None:
    for words, status, error in [
        ("status", 0, ""),
        ("close 1", 1, "close: "),
        ("status --frob", 2, "status: no such option"),
        ("statsu", 127, "statsu: unknown verb"),
    ]:
        done = subprocess.run(ssh(netd, words).split(), check=False, capture_output=True, text=True, timeout=TIMEOUT)
        assert (done.returncode, "\x1b" in done.stdout) == (status, False), words
        assert done.stderr.startswith(error), words
        assert bool(done.stdout) is (status == 0), words


def test_no_color_is_honoured(terminal: Tmux, netd: Netd) -> None:
    terminal.start(ssh(netd, options="-o SetEnv=NO_COLOR=1"))
    terminal.see_somewhere("#")
    assert "\x1b[1m" not in terminal._run("capture-pane", "-p", "-e")
