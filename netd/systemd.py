"""systemd is told when netd is ready, reloads and stops, in what state it is, and that the reactor lives.

A notification is a datagram of NAME=value lines to the unix socket that $NOTIFY_SOCKET names: sd_notify(3). The
heartbeat comes from a timer of the reactor, at half of the time after which systemd takes the daemon for hung: a
reactor that is stuck sends none, and the daemon is killed and started anew (WatchdogSec= in the unit).
"""

import os
import re
import socket
import time
import weakref
from collections import deque
from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from netd.daemon import Announce, Phase

USEC = 1_000_000
"""Microseconds in a second: the unit of every duration of sd_notify(3)."""

LONGEST_STATUS = 200
"""Characters; `systemctl status` shows one line."""

WAITING = 16
"""Notifications kept while systemd's queue is full. A reload makes two; older ones matter no more."""

RETRY = 0.1
"""Seconds until a full queue is tried again."""

_USEC = re.compile("[0-9]{1,20}")
"""A number of 64 bits, or somebody else's."""

_LINES: Mapping[Phase, str] = {
    "ready": "READY=1",
    "reloading": "RELOADING=1\nMONOTONIC_USEC={now}",
    "stopping": "STOPPING=1",
}

_log = Logger()


def announcer(environ: Mapping[str, str], clock: IReactorTime) -> Announce:
    """What tells systemd about the daemon; it does nothing where systemd did not ask."""
    name = environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return lambda _phase, _status: None
    return NotifySocket(name, watchdog_interval(environ), clock).announce


def watchdog_interval(environ: Mapping[str, str]) -> float:
    """Seconds after which systemd wants to have heard a heartbeat; 0 when it wants none of this process."""
    usec = environ.get("WATCHDOG_USEC", "")
    ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(usec) / USEC if _USEC.fullmatch(usec) and ours else 0.0


class NotifySocket:
    """The socket of systemd's, $NOTIFY_SOCKET, is `name`; a leading @ is an abstract one's."""

    def __init__(self, name: str, watchdog: float, clock: IReactorTime) -> None:
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._clock = clock
        # One for ever: where descriptors have run out there is none for each heartbeat, and systemd kills who has none.
        self._sending = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sending.setblocking(False)
        weakref.finalize(self, self._sending.close)
        self._phase: Phase | None = None
        self._waiting: deque[str] = deque(maxlen=WAITING)
        if watchdog:
            self._interval = watchdog / 2
            beating = LoopingCall(self._beat)
            beating.clock = clock
            beating.start(self._interval).addErrback(lambda failure: _log.failure("the heartbeat stopped", failure))

    def announce(self, phase: Phase, status: str) -> None:
        """The daemon has come to a phase. Nothing follows "stopping" but its own status."""
        if self._phase == "stopping" != phase:
            return
        self._phase = phase
        line = _LINES[phase].format(now=time.monotonic_ns() // 1000)
        shown = " ".join(status.split())[:LONGEST_STATUS]
        self._waiting.append(f"{line}\nSTATUS={shown}")
        self._flush()

    def _beat(self) -> None:
        beat = "WATCHDOG=1"
        if self._phase == "stopping":  # netd's own drain_timeout says how long that may take, not TimeoutStopSec=
            beat += f"\nEXTEND_TIMEOUT_USEC={int(2 * self._interval * USEC)}"
        if not self._waiting:
            self._send(beat)

    def _flush(self) -> None:
        while self._waiting:
            if not self._send(self._waiting[0]):
                self._clock.callLater(RETRY, self._flush)
                return
            self._waiting.popleft()

    def _send(self, text: str) -> bool:
        """Whether it is dealt with; not, when systemd's queue is full."""
        try:
            self._sending.sendto(text.encode(), self._address)
        except BlockingIOError:
            return False
        except OSError as error:
            _log.warn("systemd cannot be told: {reason}", reason=error.strerror, text=text)
        return True
