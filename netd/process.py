"""The process around the daemon: signals, exit status, descriptors.

Stock twistd leaves 143 after SIGTERM and dies of SIGHUP and SIGUSR1; `reactor.stop()` always leaves 0, and SystemExit
inside the reactor is swallowed.
"""

import atexit
import os
import resource
import signal
import sys
from collections.abc import Callable

from twisted.logger import Logger

from netd.runtime import CannotStart, Reactor

_log = Logger()


def handle_signals(reactor: Reactor, request_stop: Callable[[str], object]) -> None:
    """SIGTERM and SIGINT ask to stop; SIGHUP and SIGUSR1 do no harm. Called once the reactor runs, whose own go."""

    def stop(number: int, _frame: object) -> None:
        reactor.callFromThread(request_stop, signal.Signals(number).name)

    def decline(number: int, _frame: object) -> None:
        reactor.callFromThread(
            _log.warn,
            "{signal}: the running configuration stays; check a new one with `netdctl check FILE`, then restart",
            signal=signal.Signals(number).name,
        )

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, decline)
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
