"""A session channel: one command, verb or console, and how fast it may talk.

Out: what has been written waits here until the client's window and TCP both take it. While anything waits the program
is paused, so no more waits than a pipe's read of each stream or one verb's answer. The end comes in order: all data,
EOF, the exit status, CLOSE. conch sends EOF at once, before data that still waits, which is then lost, and appends to
a string, which is quadratic.

In: the client's window opens again when the program has taken what came, not before; conch opens it whatever happens.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.connection import EXTENDED_DATA_STDERR

from netd.ssh.programs import Program, choose
from netd.ssh.quiet import CONCH
from netd.ssh.wire import Malformed, Reader, string, uint32

if TYPE_CHECKING:
    from netd.ssh.sessions import Sessions

WINDOW = 128 << 10
"""Bytes of input that may be on their way: conch's and dropbear's order of size; input is small."""
LARGEST_DATA = 32 << 10
"""Bytes of data in a packet, either way (RFC 4253, section 6.1)."""
LEAST_PACKET = 256
"""Of a client's maximum: with 0, conch sends empty packets for ever; no client has less than 1 KiB."""
LARGEST_WINDOW = 0xFFFFFFFF

MOST_WAITING = 16 << 20
"""Bytes that may wait for a client that does not read, of a verb that cannot be paused; it is ended with them."""

ENVIRONMENT_VALUES = 32
LONGEST_VALUE = 256
"""Environment that a client may set: how many, how long."""
SIZE_LIMIT = 10_000
"""Columns or rows; what is beyond is a client's mistake."""


class SessionChannel(SSHChannel):
    """A session that the client has opened."""

    _log = CONCH
    name = b"session"

    def __init__(self, sessions: "Sessions", window: int, largest: int) -> None:
        super().__init__(WINDOW, LARGEST_DATA, window, min(largest, LARGEST_DATA), conn=sessions)
        self.sessions = sessions
        self.program: Program | None = None
        self.environ: dict[str, str] = {}
        self.term: str | None = None
        """Of the client's terminal; None without one."""
        self.width = self.height = 0
        self.bytes_written = 0
        """By its program, on both streams."""
        self._waiting: deque[tuple[bool, memoryview]] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._flushing = False
        self._last: list[tuple[bytes, bytes]] | None = None
        self._unread = 0
        self._input_ended = False
        self._dismissed = False

    @property
    def busy(self) -> bool:
        """Whether something is to be waited for: what runs, or that the client takes the end of what ran."""
        return self.program is not None and (self.program.busy or self._last is not None)

    @property
    def doing(self) -> str:
        """For `sessions`."""
        return self.program.doing if self.program is not None else ""

    # --- out

    def write(self, data: bytes) -> None:
        """Standard output."""
        self._queue(False, data)

    def write_error(self, data: bytes) -> None:
        """Standard error."""
        self._queue(True, data)

    def end(self, status: int) -> None:
        """Nothing more comes: send what waits, then the exit status, then close."""
        self._end(b"exit-status", uint32(status))

    def end_by_signal(self, name: str, *, core: bool) -> None:
        """The same for a program that a signal has ended."""
        self._end(b"exit-signal", string(name.encode()) + bytes((core,)) + string(b"") + string(b""))

    def _end(self, request: bytes, data: bytes) -> None:
        if self._last is None and not self.localClosed:
            self._last = [(request, data)]
            self.flush()

    def _queue(self, error: bool, data: bytes) -> None:
        if not data or self.localClosed or self._last is not None:
            return
        self._waiting.append((error, memoryview(data)))
        self._waiting_bytes += len(data)
        self.bytes_written += len(data)
        if self._waiting_bytes > MOST_WAITING:
            self._give_up()
        else:
            self.flush()

    def _give_up(self) -> None:
        """The client does not take what it has asked for: it gets none of it, and a status that says so."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self.hang_up()
        self.end(1)

    def flush(self) -> None:
        """Send what may be sent; then let the program go on, or pause it."""
        if self._flushing or self.localClosed:
            return
        self._flushing = True
        try:
            while self._waiting and self.remoteWindowLeft and self.sessions.connection.sendable:
                self._send_one()
            if not self._waiting and self._last is not None and self.sessions.connection.sendable:
                self._send_last(self._last)
                return
        finally:
            self._flushing = False
        paused = bool(self._waiting) or not self.sessions.connection.sendable
        if paused != self._paused and self.program is not None:
            self._paused = paused
            (self.program.pause if paused else self.program.resume)()

    def _send_one(self) -> None:
        error, data = self._waiting.popleft()
        size = min(len(data), self.remoteWindowLeft, self.remoteMaxPacket)
        if size < len(data):
            self._waiting.appendleft((error, data[size:]))
            data = data[:size]
        self._waiting_bytes -= size
        self.remoteWindowLeft -= size
        if error:
            self.sessions.sendExtendedData(self, EXTENDED_DATA_STDERR, data)
        else:
            self.sessions.sendData(self, data)

    def _send_last(self, requests: list[tuple[bytes, bytes]]) -> None:
        self.sessions.sendEOF(self)
        for name, data in requests:
            self.sessions.sendRequest(self, name, data)
        self.sessions.sendClose(self)

    def addWindowBytes(self, data: int) -> None:
        """The client takes so many bytes more."""
        if self.remoteWindowLeft + data > LARGEST_WINDOW:
            raise Malformed("a window of more than 4 GiB")
        self.remoteWindowLeft += data
        self.flush()

    # --- in

    def receive(self, data: bytes) -> None:
        """Input from the client; what nobody has asked for is thrown away."""
        if self.localClosed:
            return
        self._take(len(data))
        if self.program is None or self._input_ended:
            self.consumed(len(data))
        elif done := self.program.receive(data):
            self.consumed(done)

    def discard(self, size: int) -> None:
        """Extended input, of which no kind exists."""
        if not self.localClosed:
            self._take(size)
            self.consumed(size)

    def _take(self, size: int) -> None:
        if size > self.localWindowLeft or size > self.localMaxPacket:
            raise Malformed("more data than the window or the maximum packet size allow")
        self.localWindowLeft -= size

    def consumed(self, size: int) -> None:
        """The program has taken so much input: the window opens again once it is half closed."""
        self._unread += size
        if self._unread >= WINDOW // 2 or (self._unread and not self.localWindowLeft):
            size, self._unread = self._unread, 0
            self.sessions.adjustWindow(self, size)

    def eofReceived(self) -> None:
        if self.program is not None and not self._input_ended:
            self._input_ended = True
            self.program.end_of_input()
        self._input_ended = True

    # --- requests

    def request(self, name: bytes, reader: Reader) -> Callable[[], object] | None:
        """What to do once the client has been told that its request succeeded; None when it did not."""
        answer = self._REQUESTS.get(name)
        return answer(self, reader) if answer is not None else None

    def _pty(self, reader: Reader) -> Callable[[], object] | None:
        term = reader.string().decode("ascii", "replace")
        self._resize(reader)
        key = self.sessions.key
        if self.program is not None or (key is not None and not key.pty) or not term.isprintable():
            return None
        self.term = term[:LONGEST_VALUE]
        return _nothing

    def _window_change(self, reader: Reader) -> Callable[[], object] | None:
        self._resize(reader)
        if self.program is not None and self.term is not None:
            self.program.resize(self.width, self.height)
        return _nothing

    def _resize(self, reader: Reader) -> None:
        self.width = min(reader.uint32(), SIZE_LIMIT)
        self.height = min(reader.uint32(), SIZE_LIMIT)

    def _env(self, reader: Reader) -> Callable[[], object] | None:
        name, value = reader.string().decode("ascii", "replace"), reader.string().decode("utf-8", "replace")
        allowed = name in {"LANG", "TERM", "NO_COLOR"} or (name.startswith("LC_") and name.isidentifier())
        fits = len(value) <= LONGEST_VALUE and len(name) <= LONGEST_VALUE and len(self.environ) < ENVIRONMENT_VALUES
        if not (allowed and fits and value.isprintable()) or self.program is not None:
            return None
        self.environ[name] = value
        return _nothing

    def _exec(self, reader: Reader) -> Callable[[], object] | None:
        return self._start(reader.string())

    def _shell(self, _reader: Reader) -> Callable[[], object] | None:
        return self._start(None)

    def _start(self, line: bytes | None) -> Callable[[], object] | None:
        if self.program is not None or self.sessions.server.draining:
            return None
        self.program = program = choose(self, line)
        return lambda: self._begin(program)

    def _begin(self, program: Program) -> None:
        program.begin()
        if self._input_ended and not self.localClosed:
            program.end_of_input()

    def _signal(self, reader: Reader) -> Callable[[], object] | None:
        name = reader.string().decode("ascii", "replace")
        return _nothing if self.program is not None and self.program.signal(name) else None

    _REQUESTS: ClassVar[dict[bytes, Callable[["SessionChannel", Reader], Callable[[], object] | None]]] = {
        b"pty-req": _pty,
        b"window-change": _window_change,
        b"env": _env,
        b"exec": _exec,
        b"shell": _shell,
        b"signal": _signal,
    }

    # --- the end

    def dismiss(self, text: str) -> bool:
        """As `Program.dismiss`, and once: False when there is no program or it has been told."""
        if self.program is None or self._dismissed:
            return False
        self._dismissed = True
        return self.program.dismiss(text)

    def hang_up(self) -> None:
        """End what runs."""
        if self.program is not None:
            self.program.hang_up()

    def closed(self) -> None:
        self._waiting.clear()
        self.hang_up()


def _nothing() -> None:
    """What an accepted request needs no more than."""
