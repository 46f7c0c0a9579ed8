"""What a netd that somebody took over could do to the machine: a program in its sandbox tries, and is refused."""

import json
import re
from pathlib import Path

import pytest

from tests.systemd.box import Box

ROOT = Path(__file__).parents[2]
PROBE = Path("/etc/systemd/system/probe.service")

REFUSED = {
    "change its configuration": ("open('/etc/netd/netd.toml', 'a')", "Permission denied"),
    "change its program": ("open('/opt/netd/bin/twistd', 'a')", "Permission denied"),
    "write elsewhere, where everybody may": ("open('/srv/everybody', 'a')", "Read-only file system"),
    "look into root's home": ("os.listdir('/root')", "Permission denied"),
    "read passwords": ("open('/etc/shadow')", "Permission denied"),
    "read secrets where they are kept": ("open('/etc/netd/secrets/x')", "Permission denied"),
    "read memory": ("open('/dev/mem')", "No such file"),
    "see other processes": ("open('/proc/1/environ')", "No such file"),
    "set the kernel": ("open('/proc/sys/vm/swappiness', 'w')", "No such file|Read-only|Permission denied"),
    "become root": ("os.setuid(0)", "not permitted"),
    "leave a setuid program": ("open('/tmp/x', 'w'); os.chmod('/tmp/x', 0o4755)", "not permitted"),
    "sniff packets": ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "not supported"),
    "forge packets": ("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "not permitted"),
    "talk to the kernel by netlink": ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "not supported"),
    "make namespaces": ("subprocess.run(['unshare', '--user', 'true'], check=True)", "non-zero exit status"),
    "mount": ("subprocess.run(['mount', '-t', 'tmpfs', 'x', '/tmp'], check=True)", "non-zero exit status"),
    "take the processor": ("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "not permitted"),
    "trace processes": ("call('ptrace', 0, 0, 0, 0)", "not permitted"),
    "change what a process runs as": ("call('personality', 0x0008)", "not permitted"),
}
ALLOWED = {
    "write its state": "open(os.environ['STATE_DIRECTORY'] + '/x', 'w')",
    "make sockets to be found by": "open(os.environ['RUNTIME_DIRECTORY'] + '/x', 'w')",
    "write temporary files": "open('/tmp/y', 'w')",
    "read its configuration": "open('/etc/netd/netd.toml')",
    "serve and connect": "port = socket.create_server(('', 8001)); socket.create_connection(('127.0.0.1', 8001))",
    "serve IPv6": "socket.create_server(('::1', 8001), family=socket.AF_INET6)",
    "run what the ssh door allows": "subprocess.run(['df', '-h'], check=True, stdout=subprocess.DEVNULL)",
    "have its soft limit at the hard one": "raise_descriptor_limit()",
}
PROGRAM = """
import ctypes, json, os, socket, subprocess, sys
from netd.process import raise_descriptor_limit

def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

outcomes = {}
for statement in json.loads(sys.argv[1]):
    try:
        exec(statement)
        outcomes[statement] = "done"
    except Exception as error:
        outcomes[statement] = str(error)
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def outcomes(box: Box) -> dict[str, str]:
    """What became of each statement in the sandbox of netd.service."""
    statements = [statement for statement, _ in REFUSED.values()] + list(ALLOWED.values())
    box.write("/etc/netd/probe.py", PROGRAM)
    box.write("/etc/netd/statements.json", json.dumps(statements))
    box.write("/srv/everybody", "")
    box.path("/srv/everybody").chmod(0o666)
    unit = (ROOT / "config" / "netd.service").read_text()
    unit = re.sub(r"^(Restart|RestartSec|WatchdogSec|ExecReload)=.*\n", "", unit, flags=re.MULTILINE)
    unit = unit.replace("Type=notify", "Type=oneshot")
    start = "/bin/sh -c '/opt/netd/bin/python /etc/netd/probe.py \"$$(cat /etc/netd/statements.json)\"'"
    box.write(str(PROBE), re.sub("^ExecStart=.*", lambda _: f"ExecStart={start}", unit, flags=re.MULTILINE))
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", PROBE.name)
    said = [str(entry["MESSAGE"]) for entry in box.journal(PROBE.name) if entry["_TRANSPORT"] == "stdout"]
    found: dict[str, str] = json.loads(said[-1])
    return found


@pytest.mark.parametrize("unit", ["netd.service", "netd@edge.service"])
def test_the_exposure_is_at_most_1_2(box: Box, unit: str) -> None:
    report = box.run("systemd-analyze", "security", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert found is not None, report
    assert float(found[1]) <= 1.2, report


@pytest.mark.parametrize("what", REFUSED)
def test_it_may_not(outcomes: dict[str, str], what: str) -> None:
    statement, refusal = REFUSED[what]
    assert re.search(refusal, outcomes[statement]), outcomes[statement]


@pytest.mark.parametrize("what", ALLOWED)
def test_it_may(outcomes: dict[str, str], what: str) -> None:
    assert outcomes[ALLOWED[what]] == "done"
