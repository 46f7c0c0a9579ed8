"""ssh: netd beside asyncssh, the other server in Python, and sshd, which is C."""

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import charts, stats
from benchmarks.runner import BUILD, Pace, Peer, Trial, holding, load, resident_bytes, serving
from benchmarks.stats import Figures
from benchmarks.suite import Column, Result, Scenario, Suite, Target

USER = getpass.getuser()
"""sshd lets in only whom the system knows."""
KEYS = BUILD / "ssh"
USER_KEY, HOST_KEY = KEYS / "user", KEYS / "host"
SEPARATION = Path("/run/sshd")
"""sshd wants it, empty, when it runs as root."""

BULK_BYTES = 256 << 20
IDLE = 1000
FILES = IDLE + 100
HOLD_SECONDS = 60

LOGINS, SPAWN, BULK, MEMORY = "logins", "spawn", "bulk", "memory"
ONE_CASE = {LOGINS: "4 at a time", SPAWN: "one after the other", BULK: "AES-128-GCM", MEMORY: f"{IDLE} open"}
NETD, ASYNCSSH, SSHD = "netd", "asyncssh", "sshd"

NETD_CONFIG = f"""
[daemon]
state_dir = "state"
[ssh.console]
listen = "127.0.0.1:{{port}}"
penalty_exempt = ["127.0.0.0/8"]
users.{USER} = {{ authorized_keys_file = "{USER_KEY}.pub" }}
limits = {{ startups = 128, startups_per_host = 128 }}
[ssh.console.commands]
true = ["true"]
head = {{ argv = ["head", "-c", "{BULK_BYTES}", "/dev/zero"], output_limit = 0 }}
"""

# HOME is where no .bashrc is, which a shell that sshd starts would read.
SSHD_CONFIG = f"""
ListenAddress 127.0.0.1
Port {{port}}
HostKey {HOST_KEY}
AuthorizedKeysFile {USER_KEY}.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
UseDNS no
LogLevel ERROR
MaxStartups 1000
SetEnv HOME={KEYS}
"""


def make_keys() -> None:
    """Keys of the user and of all hosts, once."""
    KEYS.mkdir(parents=True, exist_ok=True)
    for key in (USER_KEY, HOST_KEY):
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    if os.geteuid() == 0:
        SEPARATION.mkdir(mode=0o755, exist_ok=True)


def _options(command: str) -> tuple[str, ...]:
    return (f"--user={USER}", f"--key={USER_KEY}", f"--command={command}")


def exchange(mode: str, command: str, *, unit_bytes: float | None = None) -> Callable[[Peer, Pace], Figures]:
    """Measures CPU and rate: per command, or per `unit_bytes` bytes."""

    def measure(peer: Peer, pace: Pace) -> Figures:
        make_keys()
        with serving(peer) as server:
            got = load("sshload", mode, *_options(command), server=server, seconds=pace.seconds)
        units = got["bytes"] / unit_bytes if unit_bytes else got["messages"]
        figures = {
            "cpu_us": got["cpu_seconds"] * 1e6 / units,
            "rate": units / got["seconds"],
            "busy": got["cpu_seconds"] / got["seconds"],
        }
        return figures | {name: got[name] for name in ("p50_us", "p99_us") if name in got}

    return measure


def memory(command: str, count: int = IDLE) -> Callable[[Peer, Pace], Figures]:
    """Measures how much a server grows by connections that have logged in and run a command."""

    def measure(peer: Peer, _pace: Pace) -> Figures:
        make_keys()
        with serving(peer) as server:
            load("sshload", "commands", *_options(command), server=server, seconds=0.1)
            before = resident_bytes(server.pid)
            options = (*_options(command), f"--connections={count}")
            with holding("sshload", "hold", *options, server=server, seconds=HOLD_SECONDS):
                return {"bytes": (resident_bytes(server.pid) - before) / count}

    return measure


class Peers:
    """The servers; asyncssh's runs on `python`, which has it."""

    def __init__(self, python: str) -> None:
        twistd = str(Path(sys.executable).with_name("twistd"))
        self.netd = Peer(
            NETD, (twistd, "-n", "--pidfile=", "netd", "--config", "{config}"), NETD_CONFIG, probe=b"", ready=b"SSH-"
        )
        self.asyncssh = Peer(
            ASYNCSSH,
            (python, "-m", "benchmarks.peers.asyncssh_server", "{port}", str(HOST_KEY), f"{USER_KEY}.pub"),
            needs=("asyncssh",),
            probe=b"",
            ready=b"SSH-",
        )
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        self.sshd = Peer(
            SSHD, (program, "-D", "-e", "-f", "{config}"), SSHD_CONFIG, ("OpenSSH",), probe=b"", ready=b"SSH-"
        )


def scenarios(peers: Peers) -> tuple[Scenario, ...]:
    netd, asyncssh, sshd = peers.netd, peers.asyncssh, peers.sshd
    columns = (Column("CPU µs each", "cpu_us"), Column("a second", "rate"), Column("median µs", "p50_us"))
    head = exchange("bulk", "head", unit_bytes=1e6)
    long_head = exchange("bulk", f"head -c {BULK_BYTES} /dev/zero", unit_bytes=1e6)
    built_in, true = exchange("logins", "version"), exchange("commands", "true")

    def trials(name: str, *pairs: tuple[Peer, Callable[[Peer, Pace], Figures]]) -> tuple[Trial, ...]:
        return tuple(Trial(ONE_CASE[name], peer, measure) for peer, measure in pairs)

    return (
        Scenario(
            LOGINS,
            "Log in and run a verb",
            "A new connection each time: curve25519, an ed25519 key, one command that the server answers by itself. "
            "sshd has no such command and runs `true`.",
            trials(LOGINS, (netd, built_in), (asyncssh, built_in), (sshd, exchange("logins", "true"))),
            NETD,
            "cpu_us",
            "CPU",
            columns,
        ),
        Scenario(
            SPAWN,
            "Run `true`",
            "One command after the other on one connection; each is a process. sshd runs it by the user's shell.",
            trials(SPAWN, (netd, true), (asyncssh, true), (sshd, true)),
            NETD,
            "p50_us",
            "time",
            columns,
        ),
        Scenario(
            BULK,
            f"Output in bulk: {BULK_BYTES >> 20} MiB by AES-128-GCM",
            "The output of `head -c` from /dev/zero to OpenSSH's client, with the CPU time of `head`.",
            trials(BULK, (netd, head), (asyncssh, long_head), (sshd, long_head)),
            NETD,
            "cpu_us",
            "CPU",
            (Column("CPU µs per MB", "cpu_us"), Column("MB a second", "rate")),
            rounds=3,
        ),
        Scenario(
            MEMORY,
            "Memory of an idle session",
            f"How much more of the server is resident with {IDLE} connections that have logged in and run a command "
            "than before, for each. sshd has a process for each, of which only the first is counted: it is left out.",
            trials(MEMORY, (netd, memory("version")), (asyncssh, memory("version"))),
            NETD,
            "bytes",
            "memory",
            (Column("bytes each", "bytes"),),
            rounds=2,
            files=FILES,
        ),
    )


def _gain(scenario: str, peer: str, figure: str = "cpu_us") -> Callable[[Result], float | None]:
    """How many times as much as the peer netd does for one second."""
    case = ONE_CASE[scenario]
    return lambda result: stats.ratio(result.rounds(scenario, case, peer), result.rounds(scenario, case, NETD), figure)


TARGETS = (
    Target("log in and run a verb: netd / asyncssh", 1.5, _gain(LOGINS, ASYNCSSH)),
    Target("output in bulk: netd / sshd", 0.85, _gain(BULK, SSHD)),
    Target("run `true`, median time: asyncssh / netd", 1.0, _gain(SPAWN, ASYNCSSH, "p50_us")),
    Target(
        "memory of an idle session",
        24 * 1024,
        lambda result: result.middle(MEMORY, ONE_CASE[MEMORY], NETD, "bytes"),
        " bytes",
        at_least=False,
    ),
)


def draw(result: Result) -> dict[str, str]:
    """The chart: work per CPU second."""
    panels = [
        (title, unit, result.per_cpu_second(name, ONE_CASE[name]))
        for name, title, unit in (
            (LOGINS, "Log in and run a verb", "log-ins per CPU second"),
            (SPAWN, "Run `true`", "commands per CPU second"),
            (BULK, "Output in bulk, AES-128-GCM", "MB per CPU second"),
        )
        if name in result.records
    ]
    return {"benchmarks-ssh.svg": charts.bars(panels, highlight=(NETD,))}


def suite(python: str) -> Suite:
    """The suite; `python` is the interpreter of asyncssh's server."""
    return Suite(
        "ssh",
        "ssh",
        "netd with one `[ssh.console]` service, asyncssh's server as its documentation has it, and OpenSSH's sshd, all "
        "with an ed25519 host key. The clients are asyncssh's, and OpenSSH's in bulk.",
        scenarios(Peers(python)),
        TARGETS,
        draw,
    )
