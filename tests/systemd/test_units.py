"""The unit files at work under the distribution's systemd, as `make install` put them in place."""

import json
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from tests.certificates import write_pair
from tests.pace import slowness
from tests.systemd.box import Box

ROOT = Path(__file__).parents[2]
ECHO = '[echo.plain]\nlisten = "127.0.0.1:8001"\n'
INHERITED = '[echo.plain]\nlisten = "systemd:domain=INET:index=0"\nopen = true\n'
CONFIG = "/etc/netd/netd.toml"
SOCKET = "/run/netd/netd.sock"
DROP_IN = "/etc/systemd/system/netd.service.d/test.conf"
SOCKET_DROP_IN = "/etc/systemd/system/netd.socket.d/test.conf"


class Unit:
    """netd.service in the box, under a configuration of the test's."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.started = 0.0

    def configure(self, text: str) -> None:
        """Write the configuration."""
        self.box.write(CONFIG, text)

    def drop_in(self, text: str) -> None:
        """Change the unit, as `systemctl edit` does."""
        self.box.write(DROP_IN, text)
        self.box.run("systemctl", "daemon-reload")

    def start(self, config: str = ECHO, *, activated: bool = False) -> None:
        """Start it, with netd.socket first if that is asked for."""
        self.configure(config)
        if activated:
            self.box.run("systemctl", "start", "netd.socket")
        output = self.box.run("systemctl", "start", "netd.service", check=False)
        assert not output, output + self.messages

    def ask(self, port: int = 8001, timeout: float = 60.0) -> bytes:
        """One request on a connection of its own."""
        with self.box.connect(port, timeout) as client:
            client.sendall(b"hello")
            return client.recv(5)

    @property
    def pid(self) -> int:
        return int(self.box.show("netd")["MainPID"])

    def waited_for_processor(self) -> float:
        """Seconds in which the daemon would have gone on, but the machine was busy with others: proc(5), schedstat."""
        return int(self.box.path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9

    @property
    def status(self) -> str:
        return self.box.show("netd")["StatusText"]

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to the daemon itself."""
        self.box.run("kill", f"-{number.name.removeprefix('SIG')}", str(self.pid))

    @property
    def messages(self) -> str:
        """What it has logged."""
        return "\n".join(str(entry["MESSAGE"]) for entry in self.box.journal("netd"))


@pytest.fixture
def netd(box: Box) -> Iterator[Unit]:
    """netd stopped, and with the unit file as it was installed."""
    yield Unit(box)
    box.run("systemctl", "disable", "--quiet", "--now", "netd.socket", "netd.service")
    box.run("systemctl", "reset-failed")
    box.path(DROP_IN).unlink(missing_ok=True)
    box.path(SOCKET_DROP_IN).unlink(missing_ok=True)
    box.run("systemctl", "daemon-reload")
    box.run("journalctl", "--rotate", "--vacuum-time=1s")


def test_it_is_started_when_its_ports_are_open_and_says_what_it_serves(netd: Unit) -> None:
    netd.start()
    assert netd.ask() == b"hello"
    assert netd.status == "2 service(s) on 2 port(s)"


def every_door() -> str:
    """The configuration that `make run` starts, with its state where systemd says."""
    return re.sub("^state_dir = .*\n", "", (ROOT / "config" / "dev.toml").read_text(), flags=re.MULTILINE)


def test_with_every_door_it_is_ready_within_a_second_in_less_than_90_mb_and_idles_below_one_percent(netd: Unit) -> None:
    netd.start(every_door())
    unit = netd.box.show("netd")
    took = (int(unit["ActiveEnterTimestampMonotonic"]) - int(unit["ExecMainStartTimestampMonotonic"])) / 1e6
    assert took - netd.waited_for_processor() < 1.0 * slowness()
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", netd.box.path(f"/proc/{netd.pid}/status").read_text())
    assert int(resident) * 1024 < 90_000_000
    schedstat = netd.box.path(f"/proc/{netd.pid}/schedstat")

    def used() -> float:
        return int(schedstat.read_text().split()[0]) / 1e9

    time.sleep(1)  # what it does after it is ready
    before = used()
    time.sleep(3)
    assert (used() - before) / 3 < 0.01 * slowness()


def test_every_door_of_the_development_configuration_works_in_the_sandbox(netd: Unit) -> None:
    netd.start(every_door())

    def say(port: int, request: bytes, answer: bytes) -> None:
        with netd.box.connect(port) as client:
            client.sendall(request)
            heard = b""
            while len(heard) < len(answer) and (received := client.recv(4096)):
                heard += received
            assert heard.startswith(answer)

    say(8001, b"hello", b"hello")
    say(11211, b"set a 0 0 1\r\nx\r\nget a\r\n", b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
    say(6380, b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"$1\r\nx\r\n")
    say(5680, b"a line\n", b"+OK 1\n")
    say(5681, b"", b"a line\n")
    say(2222, b"", b"SSH-2.0-netd\r\n")
    say(9180, b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n", b"HTTP/1.0 200 OK\r\n")
    assert json.loads(netd.box.run("/usr/local/bin/netdctl", "status", "--json"))
    ssh = ["ssh", "-F", "/var/lib/netd/ssh.console/dev.conf", "netd"]
    assert "Filesystem" in netd.box.run(*ssh, "df")
    assert not [entry for entry in netd.box.journal("netd") if entry["PRIORITY"] < "4"]


def test_it_stops_as_asked(netd: Unit) -> None:
    netd.start()
    netd.box.run("systemctl", "stop", "netd")
    unit = netd.box.show("netd")
    assert (unit["ActiveState"], unit["Result"], unit["ExecMainStatus"]) == ("inactive", "success", "0")


def test_a_drain_has_the_time_the_configuration_gives_whatever_the_unit_says(netd: Unit) -> None:
    netd.drop_in("[Service]\nTimeoutStopSec=2s\nWatchdogSec=2s\n")
    netd.start('[daemon]\ndrain_timeout = "6s"\n' + ECHO)
    with netd.box.connect(8001) as client:
        netd.box.run("systemctl", "stop", "--no-block", "netd")
        with suppress(ConnectionError):
            while True:  # the client never comes to an end
                client.sendall(b"more")
                if client.recv(4) != b"more":
                    break
                time.sleep(0.01)  # the machine has other things to do
    netd.box.wait_until(lambda: netd.box.show("netd")["ActiveState"] == "inactive", "stopped")
    assert netd.box.show("netd")["Result"] == "success"
    assert "cutting 1 connection(s) that did not finish" in netd.messages


def test_a_reload_is_waited_for_and_tells_what_it_did(netd: Unit) -> None:
    netd.start()
    with netd.box.connect(8001) as client:
        netd.configure(ECHO + '[echo.upper]\nlisten = "127.0.0.1:10000"\ntransform = "upper"\n')
        netd.box.run("systemctl", "reload", "netd")
        assert netd.ask(10000) == b"HELLO"
        client.sendall(b"still here")
        assert client.recv(10) == b"still here"
    assert netd.status == "3 service(s) on 3 port(s); reloaded: added echo.upper; untouched echo.plain"
    assert netd.box.show("netd")["ActiveState"] == "active"


def test_a_reload_that_is_refused_fails_says_why_and_changes_nothing(netd: Unit) -> None:
    netd.start()
    pid = netd.pid
    netd.configure(ECHO + '[echo.upper]\nlisten = "127.0.0.1:8001"\n')
    assert "failed" in netd.box.run("systemctl", "reload", "netd", check=False)
    assert "not reloaded: /etc/netd/netd.toml: echo.upper.listen: 127.0.0.1:8001 overlaps" in netd.messages
    assert "not reloaded: /etc/netd/netd.toml: echo.upper.listen: " in netd.status
    assert (netd.ask(), netd.pid, netd.box.show("netd")["ActiveState"]) == (b"hello", pid, "active")


def test_restarts_under_load_refuse_no_connection_and_lose_no_request(netd: Unit) -> None:
    netd.start(INHERITED, activated=True)
    enough = Event()

    def keep_asking() -> int:
        asked = 0
        while not enough.is_set():
            assert netd.ask() == b"hello"
            asked += 1
        return asked

    with ThreadPoolExecutor(4) as threads:
        clients = [threads.submit(keep_asking) for _ in range(4)]
        try:
            for _ in range(3):
                netd.box.run("systemctl", "restart", "netd.service")
        finally:
            enough.set()
    assert all(client.result() > 3 for client in clients)


@pytest.mark.parametrize("units", [["netd"], ["netd.socket"], ["netd.socket", "netd"]], ids=" ".join)
def test_a_netd_that_runs_gets_its_ports_from_systemd_by_a_restart(netd: Unit, units: list[str]) -> None:
    netd.start('[echo.plain]\nlisten = "127.0.0.1:9001"\n')
    netd.configure(INHERITED)
    netd.box.run("systemctl", "enable", "--quiet", "netd.socket", "netd.service")
    netd.box.run("systemctl", "restart", *units)
    assert netd.ask() == b"hello"


def test_ports_that_were_added_are_there_after_a_restart_of_the_socket(netd: Unit) -> None:
    netd.start(INHERITED, activated=True)
    netd.box.write(SOCKET_DROP_IN, "[Socket]\nListenStream=127.0.0.1:9001\n")
    netd.box.run("systemctl", "daemon-reload")
    netd.configure(INHERITED.replace("index=0", "index=1"))
    netd.box.run("systemctl", "restart", "netd.socket")
    assert netd.ask(9001) == b"hello"
    assert netd.box.show("netd")["NRestarts"] == "0"


def test_stopping_the_socket_stops_netd_for_good(netd: Unit) -> None:
    netd.start(INHERITED, activated=True)
    netd.box.run("systemctl", "stop", "netd.socket")
    assert netd.box.show("netd")["ActiveState"] == "inactive"
    with pytest.raises(ConnectionRefusedError):
        netd.ask()


def test_killed_twenty_times_the_next_request_is_answered_within_two_and_a_half_seconds(netd: Unit) -> None:
    netd.start(INHERITED, activated=True)
    assert netd.ask() == b"hello"
    took = []
    for _ in range(20):
        netd.kill(signal.SIGKILL)
        started = time.monotonic()
        assert netd.ask() == b"hello"
        took.append(time.monotonic() - started - netd.waited_for_processor())
    assert max(took) < 2.5 * slowness(), took
    assert netd.box.show("netd")["NRestarts"] == "20"


def test_a_reactor_that_hangs_is_killed_and_the_journal_says_where_it_hung(netd: Unit, tmp_path: Path) -> None:
    write_pair(tmp_path, "server", None)
    for name in ("server.pem", "server.key"):
        netd.box.write(f"/etc/netd/{name}", (tmp_path / name).read_text())
    netd.drop_in("[Service]\nWatchdogSec=2s\n")
    netd.start(ECHO + 'tls = { certificate = "server.pem", private_key = "server.key" }\n')
    pid = netd.pid
    certificate = netd.box.path("/etc/netd/server.pem")
    certificate.rename(certificate.with_name("kept.pem"))
    netd.box.run("mkfifo", "/etc/netd/server.pem")  # reading it waits for ever
    netd.kill(signal.SIGHUP)
    netd.box.wait_until(lambda: "reloading" in netd.status, "reloading")
    certificate.with_name("kept.pem").rename(certificate)
    netd.box.wait_until(lambda: netd.pid not in {0, pid}, "started anew")
    netd.box.wait_until(lambda: netd.box.show("netd")["ActiveState"] == "active", "active again")
    assert "Watchdog timeout" in netd.box.run("journalctl", "--quiet", "UNIT=netd.service")
    assert "in digest_files" in netd.messages
    assert "Fatal Python error: Aborted" in netd.messages


def test_a_wrong_configuration_is_told_and_not_tried_again(netd: Unit) -> None:
    netd.configure("[echo.plain]\nlisten = 1\n")
    netd.box.run("systemctl", "start", "netd", check=False)
    unit = netd.box.show("netd")
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "78", "0")
    assert "/etc/netd/netd.toml: echo.plain.listen: expected an address" in netd.messages


def test_under_traffic_a_wrong_configuration_is_not_tried_for_ever(netd: Unit) -> None:
    netd.box.write(SOCKET_DROP_IN, "[Socket]\nTriggerLimitBurst=3\n")
    netd.box.run("systemctl", "daemon-reload")
    netd.configure("[echo.plain]\nlisten = 1\n")
    netd.box.run("systemctl", "start", "netd.socket")
    with netd.box.connect(8001):
        netd.box.wait_until(lambda: netd.box.show("netd.socket")["ActiveState"] == "failed", "given up")
    assert netd.box.show("netd.socket")["Result"] == "trigger-limit-hit"


def test_a_port_in_use_is_tried_again_until_it_is_free(netd: Unit) -> None:
    with netd.box.network():
        taken = socket.create_server(("127.0.0.1", 8001))
    netd.configure(ECHO)
    netd.box.run("systemctl", "start", "--no-block", "netd")
    netd.box.wait_until(lambda: int(netd.box.show("netd")["NRestarts"]) >= 1, "tried again")
    assert "cannot start: echo.plain.listen: 127.0.0.1:8001: Address already in use" in netd.messages
    taken.close()
    netd.box.wait_until(lambda: netd.box.show("netd")["ActiveState"] == "active", "started")


def test_secrets_are_for_the_daemon_alone(netd: Unit, tmp_path: Path) -> None:
    write_pair(tmp_path, "server", None)
    netd.box.write("/etc/netd/server.pem", (tmp_path / "server.pem").read_text())
    netd.box.write("/etc/netd/secrets/tls.key", (tmp_path / "server.key").read_text())
    netd.box.path("/etc/netd/secrets/tls.key").chmod(0o600)
    netd.start(
        '[echo.plain]\nlisten = "127.0.0.1:8001"\n'
        'tls = { certificate = "server.pem", private_key_file = "$CREDENTIALS_DIRECTORY/secret_tls.key" }\n'
    )
    context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    with context.wrap_socket(netd.box.connect(8001), server_hostname="localhost") as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
    user = netd.box.run("ps", "--no-headers", "-o", "user", "-p", str(netd.pid)).strip()
    assert user == "netd"
    netd.box.path("/etc/netd/secrets/tls.key").unlink()


def test_a_group_that_is_netds_own_may_use_its_socket(netd: Unit) -> None:
    netd.box.run("groupadd", "--force", "--users", "nobody", "netd-admin")
    netd.drop_in("[Service]\nGroup=netd-admin\n")
    netd.start('[admin]\nsocket_group = "netd-admin"\n' + ECHO)
    as_member = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--init-groups"]
    assert "2, all up" in netd.box.run(*as_member, "/usr/local/bin/netdctl", "--socket", SOCKET, "status")
    assert netd.box.run("stat", "--format=%a %U:%G", SOCKET).strip() == "660 netd:netd-admin"


def test_a_group_to_which_the_sandbox_keeps_netd_from_giving_its_socket_is_told_with_what_to_do(netd: Unit) -> None:
    netd.box.run("groupadd", "--force", "netd-admin")
    netd.drop_in("[Service]\nSupplementaryGroups=netd-admin\nRestart=no\n")
    netd.configure('[admin]\nsocket_group = "netd-admin"\n' + ECHO)
    netd.box.run("systemctl", "start", "netd", check=False)
    assert "under systemd say Group=netd-admin in the unit" in netd.messages


def test_state_is_kept_where_nobody_else_can_look(netd: Unit) -> None:
    netd.start()
    state = netd.box.run("stat", "--format=%a %U", "/var/lib/private/netd").split()
    assert state == ["700", "netd"]


def test_journal_entries_have_their_priority_and_name(netd: Unit) -> None:
    netd.start(ECHO + "[ssh.console]\nlisten = '127.0.0.1:2222'\n")
    entries = [entry for entry in netd.box.journal("netd") if entry["_COMM"] == "twistd"]
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"netd"}
    priorities = {json.loads(entry["MESSAGE"])["level"]: entry["PRIORITY"] for entry in entries}
    assert priorities == {"info": "6", "warn": "4"}


def test_an_instance_has_a_configuration_directories_and_a_user_of_its_own(netd: Unit) -> None:
    netd.start()
    netd.box.write("/etc/netd/edge.toml", '[echo.plain]\nlisten = "127.0.0.1:9001"\n')
    assert "Assertion failed" in netd.box.run("systemctl", "start", "netd@edge", check=False)
    netd.box.run("mkdir", "/etc/netd/edge.secrets")
    netd.box.run("systemctl", "start", "netd@edge")
    assert netd.ask(9001) == b"hello"
    owners = netd.box.run("stat", "--format=%a %U", SOCKET, "/run/netd-edge/netd.sock").splitlines()
    assert owners == ["600 netd", "600 netd-edge"]
    netd.box.write("/etc/netd/edge.toml", '[echo.plain]\nlisten = "127.0.0.1:9002"\n')
    netd.box.run("systemctl", "reload", "netd@edge")
    assert netd.ask(9002) == b"hello"
    netd.box.run("systemctl", "stop", "netd@edge")
    assert netd.ask() == b"hello"
