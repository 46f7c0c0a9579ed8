"""The process as its operator meets it: exit statuses, words on standard error, signals, limits."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.netd_process import NETDCTL, TWISTD, Netd, running
from tests.waiting import eventually

PLAIN = '[echo.plain]\nlisten = "127.0.0.1:0"\n'


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def ended(directory: Path, config: str, **options: str) -> Netd:
    netd = Netd(directory, config, **options)  # type: ignore[arg-type]
    netd.wait()
    return netd


# --- what is wrong is said in a line, without a traceback


def test_a_wrong_configuration_exits_78_with_a_line_a_mistake(directory: Path) -> None:
    netd = ended(directory, '[echo.plain]\nlisten = "x"\n[ecko.b]\n')
    assert netd.process.returncode == 78
    first, second = netd.stderr.splitlines()
    assert first.startswith(f"{netd.config}: echo.plain.listen: expected an address")
    assert second == f"{netd.config}: ecko: unknown kind of service; did you mean echo?"


def test_netdctl_check_says_the_same(directory: Path) -> None:
    config = directory / "netd.toml"
    config.write_text('[echo.plain]\nlisten = ["127.0.0.1:8001", "nosuch:1"]\nopen = true\n')
    done = subprocess.run([NETDCTL, "check", config], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"{config}: echo.plain.listen: nosuch:1: Unknown endpoint type")
    netd = ended(directory, config.read_text())
    assert (netd.process.returncode, netd.stderr) == (78, done.stderr)
    config.write_text(PLAIN)
    done = subprocess.run([NETDCTL, "check", config], capture_output=True, text=True, check=True)
    assert done.stdout == f"{config}: good: echo.plain\n"


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ('[cache.main]\nlisten_redis = "127.0.0.1:0"\nstore_file = "none"', "cache.main.store: {}/none: No such file"),
        (
            f'{PLAIN}tls = {{certificate = "none", private_key_file = "junk"}}',
            "echo.plain.tls.certificate: {}/none: No such",
        ),
        (
            f'{PLAIN}tls = {{certificate = "junk", private_key_file = "junk"}}',
            "echo.plain.tls.certificate: {}/junk: holds no",
        ),
        (
            '[ssh.a]\nlisten = "127.0.0.1:0"\nusers.me.password_hash_file = "none"\npassword_auth = true',
            "ssh.a.users.me.password_hash: {}/none: No such file",
        ),
    ],
)
def test_netdctl_check_looks_at_the_files_that_are_named(directory: Path, tables: str, said: str) -> None:
    (directory / "junk").write_text("junk")
    config = directory / "netd.toml"
    config.write_text(tables)
    done = subprocess.run([NETDCTL, "check", config], capture_output=True, text=True, check=False)
    assert done.stderr.startswith(f"{config}: {said.format(directory)}")
    assert (done.returncode, done.stdout) == (78, "")


def test_what_netdctl_check_cannot_see_is_no_mistake(directory: Path) -> None:
    config = directory / "netd.toml"
    config.write_text(
        '[cache.main]\nlisten_redis = "127.0.0.1:0"\nstore_file = "$CREDENTIALS_DIRECTORY/secret_redis"\n'
    )
    done = subprocess.run([NETDCTL, "check", config], capture_output=True, text=True, check=True)
    assert done.stderr == (
        f"warning: {config}: cache.main.store: $CREDENTIALS_DIRECTORY/secret_redis: "
        "is there for the daemon under systemd only\n"
    )
    assert done.stdout == f"{config}: good: cache.main\n"


def test_netdctl_check_looks_at_a_certificate_whose_key_it_cannot_see(directory: Path) -> None:
    (directory / "junk").write_text("junk")
    config = directory / "netd.toml"
    config.write_text(
        f'{PLAIN}tls = {{certificate = "junk", private_key_file = "$CREDENTIALS_DIRECTORY/secret_key.pem"}}\n'
    )
    done = subprocess.run([NETDCTL, "check", config], capture_output=True, text=True, check=False)
    assert done.stderr == f"{config}: echo.plain.tls.certificate: {directory}/junk: holds no certificate in PEM form\n"
    assert done.returncode == 78


def test_a_file_with_a_name_that_no_file_has_is_a_mistake(directory: Path) -> None:
    config = directory / "netd.toml"
    config.write_text(
        '[cache.main]\nlisten_redis = "127.0.0.1:0"\nstore_file = "a\\u0000b"\n'
        f'{PLAIN}tls = {{certificate = "a\\u0000b", private_key_file = "a\\u0000b"}}'
    )
    done = subprocess.run([NETDCTL, "check", config], capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        "cache.main.store",
        "echo.plain.tls.certificate",
        "echo.plain.tls.private_key",
    ]


def test_a_configuration_that_may_not_be_read_exits_78(directory: Path) -> None:
    done = subprocess.run([NETDCTL, "check", directory], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (78, f"{directory}: cannot be read: Is a directory\n")


def test_a_port_in_use_exits_75_and_says_how_to_find_who_has_it(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        netd = ended(directory, f'[echo.a]\nlisten = "127.0.0.1:0"\n[echo.b]\nlisten = "127.0.0.1:{port}"\n')
    assert netd.process.returncode == 75
    assert netd.stderr == (
        f"netd: echo.b.listen: 127.0.0.1:{port}: Address already in use; find out by whom: ss -ltnp 'sport = :{port}'\n"
    )


def test_a_state_directory_that_cannot_be_written_exits_75(directory: Path) -> None:
    netd = ended(directory, PLAIN + '[daemon]\nstate_dir = "/proc/none"\n')
    assert netd.process.returncode == 75
    assert netd.stderr == "netd: daemon.state_dir: /proc/none: not writable: No such file or directory\n"


def test_a_state_directory_that_others_may_write_to_exits_75(directory: Path) -> None:
    state = directory / "shared"
    state.mkdir()
    state.chmod(0o770)
    netd = ended(directory, PLAIN + '[daemon]\nstate_dir = "shared"\n')
    assert netd.process.returncode == 75
    assert netd.stderr == f"netd: daemon.state_dir: {state}: others may write to it: chmod 700\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_somebody_else_exits_75(directory: Path) -> None:
    state = directory / "theirs"
    state.mkdir()
    os.chown(state, 1234, 1234)
    netd = ended(directory, PLAIN + '[daemon]\nstate_dir = "theirs"\n')
    assert netd.process.returncode == 75
    assert netd.stderr == f"netd: daemon.state_dir: {state}: belongs to user 1234, not to this one: chown it\n"


def test_what_netd_keeps_is_for_its_own_user_alone(directory: Path) -> None:
    """Also where the state directory was made by hand, and under a lax umask."""
    state = directory / "state"
    state.mkdir(mode=0o755)
    services = (
        '[bridge.main.publish.hello]\nlisten = "127.0.0.1:0"\nrouting_key = "hello"\n'
        '[ssh.console]\nlisten = "127.0.0.1:0"\nusers.dev = { throwaway_key = true }\n'
    )
    before = os.umask(0)
    try:
        with running(directory, PLAIN + services) as netd:
            kept = [path for path in state.rglob("*") if path.is_file() and path.suffix != ".pub"]
            assert {"netd.sock", "ssh_host_ed25519_key", "dev.key"} <= {path.name for path in state.rglob("*")}
            assert {path.name for path in kept if path.stat().st_mode & 0o077} == set()
            assert (state / "netd.sock").stat().st_mode & 0o777 == 0o600
            limits = Path(f"/proc/{netd.process.pid}/limits").read_text()
            assert re.search(r"Max core file size +0 ", limits)
    finally:
        os.umask(before)


def test_a_signal_to_reload_while_it_starts_does_not_end_it(directory: Path) -> None:
    """To systemd that was an end as was asked for, after which it does not start anew."""
    path = directory / "netd.toml"
    os.mkfifo(path)
    with subprocess.Popen([TWISTD, "-n", "netd", "-c", path], cwd=directory, stderr=subprocess.DEVNULL) as process:
        with path.open("w") as config:  # it has got as far as to read this
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGUSR1)
            config.write("wrong")
        assert process.wait(60) == 78


def test_a_log_file_is_for_its_own_user_alone(directory: Path) -> None:
    log = directory / "netd.log"
    before = os.umask(0o022)
    try:
        netd = Netd(directory, PLAIN + '[daemon]\nstate_dir = "netd.toml"\n', command=(TWISTD, f"--logfile={log}"))
        assert netd.wait() == 75
    finally:
        os.umask(before)
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_certificate_that_cannot_be_read_exits_75(directory: Path) -> None:
    netd = ended(directory, PLAIN + 'tls = { certificate = "none.pem", private_key = "none.key" }\n')
    assert netd.process.returncode == 75
    assert netd.stderr == f"netd: echo.plain.tls.certificate: {directory}/none.pem: No such file or directory\n"


def test_help_tells_what_one_needs_to_start(directory: Path) -> None:
    done = subprocess.run([TWISTD, "-n", "netd", "--help"], capture_output=True, text=True, check=True, cwd=directory)
    assert "--config" in done.stdout
    assert "netdctl check" in done.stdout


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_status_0(directory: Path, number: int) -> None:
    with running(directory, PLAIN) as netd:
        assert netd.stop(number) == 0
        assert netd.messages[-1] == "stopped"
        assert netd.stderr == ""


def test_two_signals_at_once_stop_it_as_one_does(directory: Path) -> None:
    with running(directory, PLAIN) as netd:
        netd.process.send_signal(signal.SIGSTOP)
        netd.process.send_signal(signal.SIGINT)
        netd.process.send_signal(signal.SIGTERM)
        netd.process.send_signal(signal.SIGCONT)
        assert netd.wait() == 0
        assert [event for event in netd.events if "traceback" in event or event["level"] == "critical"] == []
        assert netd.messages[-1] == "stopped"


def test_usr1_does_no_harm(directory: Path) -> None:
    with running(directory, PLAIN) as netd:
        netd.process.send_signal(signal.SIGUSR1)
        with connect(netd.port("echo.plain")) as client:
            client.sendall(b"alive")
            assert client.recv(5) == b"alive"
        assert netd.stop() == 0


def test_drain_answers_what_is_in_flight_and_takes_nothing_new(directory: Path) -> None:
    with running(directory, PLAIN) as netd:
        port = netd.port("echo.plain")
        with connect(port) as client:
            client.sendall(b"before")
            assert client.recv(6) == b"before"
            netd.process.send_signal(signal.SIGTERM)
            netd.wait_for("draining 1 connection")
            client.sendall(b"during")
            assert client.recv(6) == b"during"
            with pytest.raises(ConnectionRefusedError):
                connect(port)
            assert client.recv(1) == b""
        assert netd.wait() == 0


def test_the_drain_timeout_cuts_a_client_that_goes_on_for_ever(directory: Path) -> None:
    with running(directory, PLAIN + '[daemon]\ndrain_timeout = "500ms"\n') as netd:
        with connect(netd.port("echo.plain")) as client:
            client.sendall(b"here")
            assert client.recv(4) == b"here"
            client.setblocking(False)
            netd.process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            while netd.process.poll() is None:
                try:
                    client.send(b"more")
                    client.recv(1000)
                except BlockingIOError:
                    continue
                except OSError:
                    break
            assert netd.wait() == 0
            assert 0.4 < time.monotonic() - started < 9  # the default is 10
        assert "cutting 1 connection(s) that did not finish" in netd.messages


def test_a_second_signal_cuts_at_once(directory: Path) -> None:
    with running(directory, PLAIN) as netd, connect(netd.port("echo.plain")) as client:
        client.sendall(b"here")
        assert client.recv(4) == b"here"  # netd has it among its connections
        client.setblocking(False)
        block = bytes(1 << 16)
        for _ in range(200):  # a client that does not read: its answer can never be finished
            try:
                client.send(block)
            except BlockingIOError:
                break
        netd.process.send_signal(signal.SIGTERM)
        netd.wait_for("draining 1 connection")
        started = time.monotonic()
        assert netd.stop(signal.SIGTERM) == 0
        assert time.monotonic() - started < 9  # a drain would take 10


# --- limits


def test_connections_over_the_limit_are_closed_and_logged_once_a_second(directory: Path) -> None:
    with running(directory, PLAIN + "max_connections = 1\n") as netd:
        port = netd.port("echo.plain")
        with connect(port) as first:
            first.sendall(b"in")
            assert first.recv(2) == b"in"
            began = time.monotonic()
            for _ in range(50):
                with connect(port) as refused:
                    assert refused.recv(1) == b""
            netd.wait_until(lambda: sum(refusals(netd)) == 50, "50 refusals")
            assert len(refusals(netd)) <= 2 + time.monotonic() - began
        assert refusals(netd)[0] == 1


def refusals(netd: Netd) -> list[int]:
    """How many connections each line of the log says were refused."""
    found = [
        re.match(r"refused (\d+) connection\(s\) by max_connections, last from 127", each) for each in netd.messages
    ]
    return [int(match[1]) for match in found if match]


def test_running_out_of_descriptors_neither_spins_nor_floods_and_passes(directory: Path) -> None:
    with running(directory, PLAIN) as netd:
        resource.prlimit(netd.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        port = netd.port("echo.plain")
        with ExitStack() as clients:
            for _ in range(100):
                clients.enter_context(connect(port))
            netd.wait_for("out of file descriptors")
            before = netd.cpu()
            time.sleep(1.5)
            assert netd.cpu() - before < 0.3
            assert sum("descriptors" in message for message in netd.messages) <= 5
            assert len(netd.messages) < 20

        def served() -> bool:
            with connect(port) as client, suppress(ConnectionError):
                client.sendall(b"again")
                return client.recv(5) == b"again"
            return False

        assert eventually(served)
        assert netd.stop() == 0


def test_a_soft_descriptor_limit_is_raised(directory: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with running(directory, PLAIN) as netd:
            assert resource.prlimit(netd.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- addresses and logs


def test_a_collection_of_garbage_does_not_go_through_what_stays(directory: Path) -> None:
    program = (
        "import atexit, gc, sys; atexit.register(lambda: print(gc.get_freeze_count(), file=sys.__stderr__)); "
        "from twisted.scripts.twistd import run; run()"
    )
    with running(directory, PLAIN, command=(sys.executable, "-c", program)) as netd:
        netd.stop()
        assert int(netd.stderr) > 10_000


def test_every_form_of_address(directory: Path) -> None:
    config = """
    [echo.plain]
    listen = ["127.0.0.1:0", "[::1]:0", ":0", "unix:plain.sock", "tcp:0:interface=127.0.0.1"]
    open = true
    """
    with running(directory, config) as netd:
        bound = [event for event in netd.events if "address" in event and event["service"] == "echo.plain"]
        addresses = [event["address"] for event in bound]
        assert re.fullmatch(r"127\.0\.0\.1:\d+", addresses[0])
        assert re.fullmatch(r"\[::1\]:\d+", addresses[1])
        for host, address in (("127.0.0.1", addresses[0]), ("::1", addresses[1]), ("127.0.0.1", addresses[2])):
            with socket.create_connection((host, int(address.rsplit(":", 1)[1])), timeout=60) as client:
                client.sendall(b"hi")
                assert client.recv(2) == b"hi"
        path = directory / "plain.sock"
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"hi")
            assert client.recv(2) == b"hi"
        assert netd.stop() == 0
        assert not path.exists()


def test_a_unix_socket_left_by_a_crash_is_taken_over_and_one_in_use_is_not(directory: Path) -> None:
    config = '[echo.plain]\nlisten = "unix:plain.sock"\n'
    with running(directory, config) as netd:
        second = directory / "second"
        second.mkdir()
        other = ended(second, config.replace("plain.sock", f"{directory}/plain.sock"))
        assert other.process.returncode == 75
        assert "plain.sock: Address already in use" in other.stderr
        netd.process.kill()
        netd.process.wait()
    with running(directory, config) as netd:
        assert netd.stop() == 0


def test_connections_are_logged_at_debug_only(directory: Path) -> None:
    for level, shown in (("info", False), ("debug", True)):
        with running(directory, PLAIN + f'[log]\nlevel = "{level}"\n') as netd:
            with connect(netd.port("echo.plain")) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
            assert netd.stop() == 0
            assert any("connection 1 from 127.0.0.1" in message for message in netd.messages) is shown


def test_the_environment_of_the_daemon_chooses_the_state_directory(directory: Path) -> None:
    state = directory / "var"
    with running(directory, PLAIN, environ={"STATE_DIRECTORY": os.fspath(state)}):
        assert state.is_dir()
