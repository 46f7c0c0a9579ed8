"""What systemd leaves in the environment: its socket, its watchdog, the ports it has opened."""

from collections.abc import Mapping

from twisted.internet.task import Clock
from twisted.python.systemd import ListenFDs

from fuzz.target import nothing_fails
from netd.systemd import announcer, watchdog_interval

LONGEST = 1024
WORDS = (
    *(
        b"NOTIFY_SOCKET=/nonexistent\n",
        b"NOTIFY_SOCKET=@\n",
        b"WATCHDOG_USEC=1000000\n",
        b"WATCHDOG_PID=1\n",
        b"9" * 400,
    ),
    *(b"LISTEN_FDS=1\n", b"LISTEN_PID=1\n", b"LISTEN_FDNAMES=a:b\n", b"=", b"\n", b"-1", "٣".encode()),
)


def check(data: bytes) -> None:
    """A daemon that tells systemd what it can, and starts in any case."""
    environ = _environ(data)
    assert watchdog_interval(environ) >= 0
    with nothing_fails():
        clock = Clock()
        announce = announcer({**environ, "WATCHDOG_USEC": ""}, clock)
        announce("ready", environ.get("STATUS", ""))
        announce("stopping", "")
        clock.advance(1)
    ListenFDs.fromEnvironment(dict(environ))


def _environ(data: bytes) -> Mapping[str, str]:
    pairs = (line.decode("utf-8", "surrogateescape").partition("=") for line in data.replace(b"\0", b"").split(b"\n"))
    return {name: value for name, _, value in pairs}
