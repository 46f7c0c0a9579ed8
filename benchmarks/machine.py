"""What a result depends on beside netd: the machine and the versions. No host names and no paths."""

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.runner import BUILD

PACKAGES = ("netd", "Twisted", "txredisapi", "hiredis", "pika", "uvloop", "gevent", "asyncssh", "cryptography")

# Where programs are, with those that only root has in his PATH.
SYSTEM = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

_ASK_VERSIONS = """
import importlib.metadata, json, platform, sys
found = {platform.python_implementation(): platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def describe() -> dict[str, str]:
    """The machine, in words."""
    cores = len(os.sched_getaffinity(0))
    return {
        "CPU": _first_match(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo")) or platform.machine(),
        "cores": str(cores),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def versions(python: str) -> dict[str, str]:
    """The versions of what takes part, as the interpreter `python` sees them; what is not installed is left out."""
    answer = subprocess.run([python, "-c", _ASK_VERSIONS, *PACKAGES], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(answer.stdout)
    socat = _first_match(r"^socat version (\S+)", _output("socat", "-V"))
    compiler = _first_match(r"^(.+)$", _output("cc", "--version"))
    openssh = _first_match(r"^OpenSSH_(\w[\w.]*)", _output("ssh", "-V")) if shutil.which("sshd", path=SYSTEM) else None
    programs = {
        "socat": socat,
        "memcached": _first_match(r"^memcached (\S+)", _output("memcached", "--version")),
        "redis": _first_match(r"v=(\S+)", _output("redis-server", "--version")),
        "nutcracker": _first_match(r"nutcracker-(\S+)", _output("nutcracker", "--version")),
        "librabbitmq": _first_match(r"^(\S+)$", _output(str(BUILD / "rabbitload"), "--version")),
        "OpenSSH": openssh,
        "C compiler": compiler,
    }
    return found | {name: text for name, text in programs.items() if text}


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text() if file.exists() else ""


def _output(*argv: str) -> str:
    """What it says, on either output."""
    if not shutil.which(argv[0]):
        return ""
    return subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def _first_match(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip() if found else None
