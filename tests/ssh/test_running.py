"""Commands at work, by real clients: what they are given, what comes back, and how they end."""

import asyncio
import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.ssh.daemon import NAP, Sshd, run
from tests.waiting import eventually


def processes(words: str) -> list[str]:
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if words in line and "ps -eo" not in line]


def test_output_errors_and_status_come_apart(sshd: Sshd) -> None:
    done = sshd.ssh("both")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_a_signal_that_ended_a_command_is_told(sshd: Sshd) -> None:
    async def work() -> Any:
        async with sshd.asyncssh() as connection:
            return await connection.run("killed")

    assert run(work()).exit_signal[0] == "TERM"


def test_a_signal_without_a_name_is_told_as_by_a_shell(sshd: Sshd) -> None:
    assert sshd.ssh("realtime").returncode == 128 + 40


def test_input_is_passed_whole_and_its_end_too(sshd: Sshd) -> None:
    data = os.urandom(3_000_000)
    assert sshd.ssh("cat", input=data).stdout == data


def test_a_command_gets_next_to_no_environment(sshd: Sshd) -> None:
    environ = os.environ | {"LC_ALL": "C.UTF-8", "LD_PRELOAD": "/x", "NO_COLOR": "1", "SECRET": "x"}
    done = sshd.ssh("env", options=("-o", "SendEnv=*"), env=environ)
    names = {line.split("=")[0] for line in done.stdout.decode().splitlines()}
    assert {"PATH", "LC_ALL", "NO_COLOR"} <= names
    assert not {
        name for name in names if name not in {"PATH", "LANG", "TERM", "NO_COLOR", "LC_ALL"} and name[:3] != "LC_"
    }


def test_a_command_leads_a_session_of_its_own_and_has_no_files_of_the_daemons(sshd: Sshd) -> None:
    pid, group, session = sshd.ssh("leader").stdout.split()
    assert pid == group == session
    assert sshd.ssh("open").stdout.split() == [b"0", b"1", b"2", b"3"]


def test_what_a_command_writes_is_for_netds_user_alone(sshd: Sshd) -> None:
    assert sshd.ssh("umask").stdout == b"0077\n"


def test_what_cannot_be_run_is_said(sshd: Sshd) -> None:
    done = sshd.ssh("missing")
    assert (done.returncode, done.stderr) == (127, b"netd: no-such-program: not found on this host\n")


@pytest.mark.parametrize("line", ["df;id", "$(id)", "df -h /", "df\nid", "id", "`id`", "df | cat", "sh", "/bin/sh"])
def test_other_lines_are_127(sshd: Sshd, line: str) -> None:
    done = sshd.ssh(line)
    assert (done.returncode, done.stdout) == (127, b"")
    assert done.stderr.count(b"\n") == 1


def test_a_command_of_a_higher_role_is_126(sshd: Sshd) -> None:
    done = sshd.ssh("admins")
    assert (done.returncode, done.stderr) == (126, b"netd: admins: needs the role admin\n")


def test_a_forced_command_is_all_that_its_key_runs(sshd: Sshd) -> None:
    for line in (["df"], ["status"], []):
        command = [*sshd.openssh, "forced@127.0.0.1", *line]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
        assert done.stdout.startswith(b"forced (viewer) from"), done.stderr


def test_there_is_no_shell(sshd: Sshd) -> None:
    done = sshd.ssh(input=b"id\n")
    assert done.returncode == 2
    assert b"no terminal" in done.stderr


def test_time_is_up_is_said_and_shown_by_the_status(sshd: Sshd) -> None:
    done = sshd.ssh("late")
    assert (done.returncode, done.stderr) == (124, b"netd: sleep: timed out after 0.3 s\n")
    assert eventually(lambda: not processes(f"sleep {NAP}.3")), "it still runs"


def test_too_much_output_is_said_and_shown_by_the_status(sshd: Sshd) -> None:
    done = sshd.ssh("much")
    assert (done.returncode, len(done.stdout)) == (125, 1024)
    assert done.stderr == b"netd: head: ended at its output limit of 1.0 KiB\n"


@pytest.mark.parametrize("line", ["group", "stubborn"])
def test_all_of_a_command_ends_when_its_client_is_gone(sshd: Sshd, line: str) -> None:
    number = {"group": f"{NAP}.1", "stubborn": f"{NAP}.2"}[line]
    client = subprocess.Popen([*sshd.openssh, "ops@127.0.0.1", line], stdin=subprocess.DEVNULL)
    assert eventually(lambda: processes(f"sleep {number}")), "it never began"
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert eventually(lambda: not processes(f"sleep {number}")), "it still runs"


def test_the_client_may_send_a_signal(sshd: Sshd) -> None:
    async def work() -> Any:
        async with sshd.asyncssh() as connection:
            process = await connection.create_process("sleep 100")
            process.send_signal("INT")
            return await process.wait()

    assert run(work()).exit_signal[0] == "INT"


def test_several_run_at_once_on_one_connection(sshd: Sshd) -> None:
    async def work() -> list[Any]:
        async with sshd.asyncssh() as connection:
            slow = await connection.create_process("sleep 30")
            done = [await connection.run(line) for line in ("df", "status", "both")]
            slow.kill()
            return done

    assert [each.exit_status for each in run(work())] == [0, 0, 3]


def test_ctrl_c_at_a_terminal_ends_a_command(sshd: Sshd) -> None:
    async def work() -> Any:
        async with sshd.asyncssh() as connection:
            process = await connection.create_process("sleep 100", term_type="xterm")
            process.stdin.write("\x03")
            return await process.wait()

    assert run(work()).exit_signal[0] == "INT"


# --- flow


@pytest.mark.parametrize("options", [("-o", "RekeyLimit=1M"), ("-c", "chacha20-poly1305@openssh.com"), ()])
def test_much_output_arrives_whole(sshd: Sshd, options: tuple[str, ...]) -> None:
    done = sshd.ssh("zeros -c 50M /dev/zero", options=options)
    assert (done.returncode, len(done.stdout)) == (0, 50 << 20)


def test_much_output_arrives_whole_by_a_small_window_and_costs_no_memory(sshd: Sshd) -> None:
    sshd.ssh("zeros -c 10M /dev/zero")
    before = sshd.netd.rss()

    async def work() -> int:
        async with sshd.asyncssh(encryption_algs=["aes128-gcm@openssh.com"]) as connection:
            process = await connection.create_process("zeros -c 20M /dev/zero", encoding=None, window=65536)
            size = 0
            while data := await process.stdout.read(1 << 20):
                size += len(data)
            return size

    assert run(work()) == 20 << 20
    assert sshd.netd.rss() - before < 10 << 20


def test_a_client_that_does_not_read_costs_nothing_and_nobody_waits_for_it(sshd: Sshd) -> None:
    alone = run(status_time(sshd))
    client = subprocess.Popen(
        [*sshd.openssh, "ops@127.0.0.1", "zeros -c 1G /dev/zero"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        assert client.stdout is not None
        client.stdout.read(1)
        assert eventually(lambda: standstill(sshd)), "it goes on reading for a client that does not"
        before = sshd.netd.rss()
        assert min(run(status_time(sshd)) for _ in range(3)) < 2 * alone
        assert sshd.netd.rss() - before < 5 << 20
    finally:
        client.kill()
        client.wait()
        client.stdout.close() if client.stdout else None


async def status_time(sshd: Sshd) -> float:
    """Seconds that netd works for forty times `status`: on a busy machine, what passes says more about the machine."""
    clock = (~sshd.netd.process.pid << 3) | 2  # clock_getcpuclockid(3)
    async with sshd.asyncssh() as connection:
        began = time.clock_gettime(clock)
        for _ in range(40):
            await connection.run("status", check=True)
        return time.clock_gettime(clock) - began


def standstill(sshd: Sshd) -> bool:
    before = sshd.netd.cpu()
    time.sleep(0.3)
    return sshd.netd.cpu() - before < 0.02


def test_a_command_that_does_not_read_its_input_stops_its_client(sshd: Sshd) -> None:
    async def work() -> int:
        async with sshd.asyncssh() as connection:
            process = await connection.create_process("sleep 100", encoding=None)
            process.stdin.write(bytes(4 << 20))
            before = -1
            while (left := process.stdin.channel.get_write_buffer_size()) != before:
                before = left
                await asyncio.sleep(0.2)
            process.kill()
            return int(left)

    assert run(work()) > 3 << 20


def test_what_was_done_is_in_the_audit(sshd: Sshd) -> None:
    sshd.ssh("both")
    sshd.ssh("version --json")
    sshd.ssh("df;id")
    assert eventually(lambda: json.loads(sshd.audit().splitlines()[-1])["event"] == "logout"), "no end in the audit"
    events = [json.loads(line) for line in sshd.audit().splitlines()]
    end = [event for event in events if event["event"] == "end" and event["line"] == "both"][-1]
    assert (end["user"], end["role"], end["status"], end["bytes"]) == ("ops", "operator", 3, 8)
    assert end["key"].startswith("SHA256:")
    assert end["peer"].startswith("127.0.0.1:")
    kinds = {event["event"] for event in events}
    assert {"login", "command", "verb", "end", "logout"} <= kinds
    assert ("version", "--json") in {(event.get("verb"), event.get("arguments")) for event in events}
    assert "correct horse" not in sshd.audit()


def test_nothing_of_all_this_made_netd_fail(sshd: Sshd) -> None:
    assert not [event for event in sshd.netd.events if "traceback" in event or event["level"] in {"error", "critical"}]
