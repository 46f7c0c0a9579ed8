"""netdctl against the real daemon: the same verbs, their exit statuses, and words that help when none answers."""

import grp
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netd.admin.client import NoDaemon, find_socket
from tests.netd_process import NETDCTL, Netd, running
from tests.terminal import on_a_terminal
from tests.waiting import eventually

CONFIG = """
[admin]
listen = "127.0.0.1:0"
[echo.plain]
listen = "127.0.0.1:0"
[echo.upper]
listen = "127.0.0.1:0"
transform = "upper"
"""


class Ctl:
    """netdctl, with the socket of a daemon."""

    def __init__(self, netd: Netd) -> None:
        self.netd = netd
        self.socket = netd.config.parent / "state" / "netd.sock"

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return ctl("--socket", str(self.socket), *words)


def ctl(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NETDCTL, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        timeout=90,
    )


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctl]:
    with running(tmp_path_factory.mktemp("netd"), CONFIG) as netd:
        yield Ctl(netd)


# --- verbs


def test_status_is_told_as_in_the_console(asked: Ctl) -> None:
    done = asked("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"netd \S+ on \S+, pid \d+\nup ", done.stdout)
    assert f"pid {asked.netd.process.pid}\n" in done.stdout
    assert "echo.upper  up" in done.stdout


def test_json_is_one_object(asked: Ctl) -> None:
    document = json.loads(asked("services", "--json").stdout)
    assert (document["version"], document["verb"]) == (1, "services")
    assert [each["name"] for each in document["services"]] == ["echo.plain", "echo.upper", "admin"]


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["nosuch"], 127, "nosuch: unknown verb"),
        (["stats", "nosuch"], 2, "stats: no service nosuch"),
        (["close", "999", "--yes"], 1, "close: no connection 999: nothing was closed"),
        (["log"], 2, "log: which one? log level, log tail"),
    ],
)
def test_exit_statuses_are_those_of_the_console(asked: Ctl, words: list[str], status: int, complaint: str) -> None:
    done = asked(*words)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith(complaint)


def test_what_cannot_be_undone_wants_a_yes(asked: Ctl) -> None:
    with socket.create_connection(("127.0.0.1", asked.netd.port("echo.plain"))) as client:
        client.sendall(b"x")
        client.recv(1)
        (number,) = [
            each["id"] for each in json.loads(asked("connections", "echo.plain", "--json").stdout)["connections"]
        ]
        refused = asked("close", str(number))
        assert (refused.returncode, refused.stderr) == (1, "close: this cannot be undone: say --yes\n")
        assert asked("close", str(number), "--yes").stdout == f"closed {number}\n"
        assert client.recv(1) == b""


def test_a_verb_of_two_words_and_its_options(asked: Ctl) -> None:
    assert asked("log", "level", "debug").stdout == "debug, was info\n"
    assert asked("log", "level", "info").stdout == "info, was debug\n"


def test_who_changes_something_stands_in_the_log(asked: Ctl) -> None:
    asked("drain", "echo.upper")
    asked("resume", "echo.upper")
    told = [event for event in asked.netd.events if event["message"].endswith("ran drain echo.upper: exit status 0")]
    assert told[-1]["user"] == (f"uid {os.getuid()}" if os.getuid() else "root")


def test_help_of_a_verb(asked: Ctl) -> None:
    assert asked("stats", "--help").stdout == asked("help", "stats").stdout
    assert "--over" in asked("help", "stats").stdout


def test_ctrl_c_ends_a_verb_that_takes_its_time(asked: Ctl) -> None:
    begun = subprocess.Popen(
        ["env", "--default-signal=INT", NETDCTL, "--socket", asked.socket, "stats", "--over", "20s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert eventually(lambda: json.loads(asked("connections", "admin", "--json").stdout)["total"] >= 2)
    begun.send_signal(signal.SIGINT)
    _, errors = begun.communicate(timeout=60)
    assert begun.returncode == 1
    assert b"Traceback" not in errors


def test_watch_shows_a_verb_again_and_again_until_it_is_stopped(asked: Ctl) -> None:
    begun = subprocess.Popen(
        ["env", "--default-signal=INT", NETDCTL, "--socket", asked.socket, "watch", "-n", "0.1", "stats", "echo.plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert begun.stdout is not None
    heads = 0
    while heads < 3:
        heads += begun.stdout.readline() == "echo.plain\n"
    begun.send_signal(signal.SIGINT)
    _, errors = begun.communicate(timeout=60)
    assert "Traceback" not in errors


def test_watch_ends_with_the_status_of_a_verb_that_fails(asked: Ctl) -> None:
    done = asked("watch", "stats", "nosuch")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("stats: no service nosuch")


# --- the configuration


def test_config_show_and_diff(tmp_path: Path) -> None:
    secret = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"
    users = f"[ssh.console]\nlisten = '127.0.0.1:0'\nusers.ops = {{ role = 'admin', password_hash = '{secret}' }}\n"
    with running(tmp_path, CONFIG + users) as netd:
        asked = Ctl(netd)
        shown = asked("config", "show").stdout
        assert 'transform = "upper"\n' in shown
        assert "max_connections = 10000                  # default\n" in shown
        assert 'users.ops.password_hash = "(hidden)"\n' in shown
        assert "argon2id" not in shown
        assert asked("config", "diff").stdout == "no difference\n"
        netd.config.write_text(netd.config.read_text().replace('transform = "upper"', "max_connections = 7"))
        assert asked("config", "diff").stdout == (
            'echo.upper.max_connections\n  - 10000\n  + 7\necho.upper.transform\n  - "upper"\n  + "none"\n'
        )
        assert asked("reload").returncode == 0
        assert asked("config", "diff").stdout == "no difference\n"
        netd.config.write_text("[echo.plain]\n")
        done = asked("config", "diff")
        assert done.returncode == 1
        assert "echo.plain.listen: is required" in done.stderr


def test_check_shows_what_would_be_in_force(tmp_path: Path) -> None:
    file = tmp_path / "netd.toml"
    file.write_text(CONFIG)
    shown = ctl("check", "--show", str(file))
    again = tmp_path / "again.toml"
    again.write_text(shown.stdout)
    assert (
        ctl("check", "--show", str(again)).stdout.replace("# default", "").split()
        == shown.stdout.replace("# default", "").split()
    )


# --- the port of the page


def test_a_reload_changes_what_the_page_is_known_by(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as netd:
        asked, port = Ctl(netd), netd.port("admin", 1)
        assert b" 421 " in http(port, "netd.example.org")
        netd.config.write_text(netd.config.read_text().replace("[admin]", '[admin]\nhosts = ["netd.example.org"]'))
        assert asked("reload").stdout.startswith("changed: admin\n")
        assert b" 200 " in http(port, "netd.example.org")
        netd.config.write_text(netd.config.read_text().replace("[admin]", '[admin]\nsocket = "elsewhere.sock"'))
        refused = asked("reload")
        assert refused.returncode == 1
        assert "admin.socket: needs a restart" in refused.stderr


def http(port: int, host: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(4096), b""))


def test_operators_see_the_end_come(tmp_path: Path) -> None:
    with running(tmp_path, "[daemon]\ndrain_delay = '30s'\n" + CONFIG) as netd:
        asked = Ctl(netd)
        netd.process.terminate()
        netd.wait_for("draining")
        assert "echo.plain: takes no new clients" in asked("status").stdout or "drained" in asked("status").stdout
        netd.process.terminate()
        assert netd.wait() == 0


# --- the socket


def test_the_socket_is_for_its_owner_alone(asked: Ctl) -> None:
    assert asked.socket.stat().st_mode & 0o777 == 0o600


def test_a_group_may_be_let_in(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    with running(tmp_path, CONFIG.replace("[admin]", f'[admin]\nsocket_group = "{group}"')) as netd:
        state = Ctl(netd).socket.stat()
        assert (state.st_mode & 0o777, state.st_gid) == (0o660, os.getgid())


def test_a_group_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    netd = Netd(tmp_path, CONFIG.replace("[admin]", '[admin]\nsocket_group = "nosuch"'))
    assert netd.wait() == 75
    assert netd.stderr == "netd: admin.socket_group: no group nosuch\n"


def test_what_a_killed_daemon_left_is_no_hindrance(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as netd:
        netd.process.kill()
        netd.process.wait()
        assert Ctl(netd).socket.exists()
        assert "no daemon listens there any more" in Ctl(netd)("status").stderr
    with running(tmp_path, CONFIG) as netd:
        assert Ctl(netd)("version").returncode == 0
        assert netd.stop() == 0
        assert not Ctl(netd).socket.exists()


def test_two_daemons_do_not_share_a_socket(asked: Ctl) -> None:
    second = Netd(asked.netd.config.parent, CONFIG)
    assert second.wait() == 75
    assert second.stderr == (
        f"netd: admin.socket: {asked.socket}: another daemon answers there; give each its own state_dir or socket\n"
    )
    assert asked("version").returncode == 0


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "netd.sock").write_text("mine")
    netd = Netd(tmp_path, CONFIG.replace("[admin]", '[admin]\nsocket = "netd.sock"'))
    assert netd.wait() == 75
    assert netd.stderr == f"netd: admin.socket: {tmp_path}/netd.sock: is there already, and is no socket\n"
    assert (tmp_path / "netd.sock").read_text() == "mine"


def test_a_state_directory_too_deep_for_a_socket_is_warned_about(tmp_path: Path) -> None:
    deep = "d" * 100
    with running(tmp_path, f"[daemon]\nstate_dir = '{deep}'\n" + CONFIG) as netd:
        assert any("admin.socket: the state directory's path is too long" in each for each in netd.messages)


# --- no daemon


def test_no_daemon_exits_69_and_says_where_it_looked(tmp_path: Path) -> None:
    done = subprocess.run([NETDCTL, "status"], capture_output=True, text=True, check=False, cwd=tmp_path, env={})
    assert done.returncode == 69
    assert done.stderr == (
        "netdctl: no daemon found: no socket at /run/netd/netd.sock or state/netd.sock; "
        "start netd, or name its socket by --socket or $NETD_SOCKET\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket away")
def test_a_socket_in_the_working_directory_is_only_used_by_its_owner(tmp_path: Path) -> None:
    """Who works in a directory of somebody else must not be answered by a daemon of theirs."""
    (tmp_path / "state").mkdir()
    found = tmp_path / "state" / "netd.sock"
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(found))
        os.chown(found, 1234, 1234)
        done = subprocess.run([NETDCTL, "status"], capture_output=True, text=True, check=False, cwd=tmp_path, env={})
        assert "no daemon found" in done.stderr
        os.chown(found, 0, 0)
        done = subprocess.run([NETDCTL, "status"], capture_output=True, text=True, check=False, cwd=tmp_path, env={})
        assert "no daemon listens there any more" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_state_directory_of_somebody_else_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the directory of a daemon that another user runs."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "netd.sock").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NETD_SOCKET", raising=False)
    pid = os.fork()
    if not pid:
        os.setuid(65534)
        try:
            find_socket(None)
        except NoDaemon:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_environment_may_name_the_socket(asked: Ctl, tmp_path: Path) -> None:
    assert ctl("version", NETD_SOCKET=str(asked.socket)).returncode == 0
    done = ctl("version", NETD_SOCKET=str(tmp_path / "none.sock"))
    assert (done.returncode, done.stderr) == (
        69,
        f"netdctl: {tmp_path}/none.sock: no daemon is there: no such socket\n",
    )


def test_the_daemon_of_the_directory_is_found(asked: Ctl) -> None:
    done = subprocess.run([NETDCTL, "version"], capture_output=True, check=False, cwd=asked.netd.config.parent, env={})
    assert done.returncode == 0


def test_what_listens_but_is_no_netd_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        begun = subprocess.Popen(
            [NETDCTL, "--socket", tmp_path / "other.sock", "status"], stderr=subprocess.PIPE, text=True
        )
        connected, _ = other.accept()
        with connected:
            connected.recv(4096)
            connected.sendall(b"220 smtp.example.org\r\n\r\n250 fine\r\n")
        _, errors = begun.communicate(timeout=60)
    assert begun.returncode == 69
    assert "what listens there is no netd" in errors


def test_help_needs_no_daemon(tmp_path: Path) -> None:
    done = ctl("help", "close", NETD_SOCKET=str(tmp_path / "none"))
    assert done.returncode == 0
    assert done.stdout.startswith("close: close connections\nusage: close ID...")
    assert "config diff" in ctl("--help").stdout


# --- completion


def test_bash_completes_verbs_services_and_options(asked: Ctl) -> None:
    script = (
        f'export PATH="{NETDCTL.parent}:$PATH" NETD_SOCKET="{asked.socket}"; source <(netdctl completion bash);'
        'try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _netdctl_completion netdctl;'
        'echo "${COMPREPLY[@]}"; };'
        "try netdctl resu; try netdctl stats echo.; try netdctl log le; try netdctl stats --o"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["resume", "echo.plain echo.upper", "level", "--over"]


def test_fish_completes(asked: Ctl) -> None:
    script = "netdctl completion fish | source; complete -C 'netdctl stats echo.'"
    path = f"{NETDCTL.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path, "NETD_SOCKET": str(asked.socket)},
    )
    assert done.stdout.split() == ["echo.plain", "echo.upper"]


def test_zsh_completes(asked: Ctl, tmp_path: Path) -> None:
    path = f"{NETDCTL.parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "NETD_SOCKET": str(asked.socket), "TERM": "dumb", "HOME": str(tmp_path)}
    with on_a_terminal(["zsh", "-f", "-i"], environ) as (_, terminal):
        begin = "PS1='> '; autoload -Uz compinit; compinit -u; source <(netdctl completion zsh); print rea''dy\n"
        os.write(terminal, begin.encode())
        read_until(terminal, b"ready")
        os.write(terminal, b"netdctl stats echo.u\t")
        read_until(terminal, b"echo.upper")


def read_until(terminal: int, wanted: bytes) -> None:
    seen = b""
    deadline = time.monotonic() + 60
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"no {wanted!r} in {seen!r}"
        seen += os.read(terminal, 4096)
