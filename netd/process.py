"""The process around the daemon: signals, exit status, descriptors, what it leaves for others to read.

Stock twistd leaves 143 after SIGTERM and dies of SIGHUP and SIGUSR1; `reactor.stop()` always leaves 0, and SystemExit
inside the reactor is swallowed.
"""

import atexit
import os
import resource
import signal
import sys
from collections.abc import Callable

from netd.runtime import CannotStart, Reactor


def outlive_hangups() -> None:
    """SIGHUP and SIGUSR1 do not end a daemon that starts, as systemd would not start it anew."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def handle_signals(
    reactor: Reactor, request_stop: Callable[[str], object], request_reload: Callable[[str], object]
) -> None:
    """SIGTERM and SIGINT stop, SIGHUP reloads, SIGUSR1 does no harm. Called once the reactor runs, whose own go."""

    def pass_on(request: Callable[[str], object]) -> Callable[[int, object], None]:
        return lambda number, _frame: reactor.callFromThread(request, signal.Signals(number).name)

    signal.signal(signal.SIGTERM, pass_on(request_stop))
    signal.signal(signal.SIGINT, pass_on(request_stop))
    signal.signal(signal.SIGHUP, pass_on(request_reload))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def leave(reactor: Reactor, reason: CannotStart | None) -> None:
    """Stop the reactor; the process then exits 0, or with a reason, which goes to standard error, 75."""
    if reason is not None:
        print(f"netd: {reason}", file=sys.__stderr__, flush=True)
        atexit.register(_exit, os.EX_TEMPFAIL)
    reactor.stop()


def _exit(status: int) -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(status)


def raise_descriptor_limit(highest: int | None = None) -> None:
    """Raise the soft limit of open files to the hard one, or set it to `highest`: shells give 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if highest is None else min(hard, highest), hard))


def keep_to_itself() -> None:
    """What netd writes is for its own user alone, and no image of its memory, with its secrets, is written at all."""
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
