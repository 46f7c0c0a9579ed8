"""netd beside Debian's memcached: both are sent the same bytes, and have the same past."""

import re
import socket
from collections.abc import Sequence
from itertools import pairwise

from netd.cache.service import CacheService
from tests.fakes import MemoryNetwork, configure, result_of, runtime_on
from tests.servers import HOST, MemcachedServer

CONFIG = '[cache.main]\nlisten_memcached = "127.0.0.1:11211"\n'
PATIENCE = 60.0


class Beside:
    """A memcached in a process and a netd in memory. CAS uniques run alike in both, as they see the same streams."""

    def __init__(self, server: MemcachedServer) -> None:
        self._server = server
        self._start()

    def _start(self) -> None:
        self._network = MemoryNetwork()
        config = configure(CONFIG)
        self._service = CacheService(config.services[0], runtime_on(self._network))
        result_of(self._service.start())

    def again(self) -> None:
        """Let both forget everything, how far they have counted too."""
        self._server.restart()
        self._start()

    def netd(self, pieces: Sequence[bytes]) -> bytes:
        """What netd answers to a client that sends these pieces and half-closes."""
        client = self._network.client()
        for piece in pieces:
            if not client.gone:
                client.protocol.dataReceived(piece)
        if not client.gone:
            client.protocol.readConnectionLost()  # type: ignore[attr-defined]  # it is half-closeable
        assert client.gone, "netd did not close"
        return bytes(client.value())

    def memcached(self, pieces: Sequence[bytes]) -> bytes:
        """The same of memcached."""
        with socket.create_connection((HOST, self._server.port), PATIENCE) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer = b""
            try:
                for piece in pieces:
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
                while received := connection.recv(1 << 16):
                    answer += received
            except OSError:
                pass  # it has closed before it had read everything
            return answer

    def unique(self) -> int:
        """The last CAS unique that both have given."""
        probe = [b"set unique 0 0 0\r\n\r\ngets unique\r\ndelete unique\r\n"]
        answers = self.netd(probe), self.memcached(probe)
        assert answers[0] == answers[1]
        return int(answers[0].split()[5])

    def ask(self, stream: bytes, cuts: Sequence[int] = ()) -> tuple[list[bytes], list[bytes]]:
        """The lines that netd and memcached answer to a stream that is sent in pieces.

        A second that passes between two commands shows in answers; so if they differ both are asked once more, afresh.
        """
        ours, theirs = self._ask(stream, cuts)
        if ours != theirs:
            self.again()
            ours, theirs = self._ask(stream, cuts)
        if ours != theirs:
            self.again()
        return ours, theirs

    def _ask(self, stream: bytes, cuts: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
        stream = fill_in(stream, self.unique())
        edges = [0, *sorted({min(cut, len(stream)) for cut in cuts}), len(stream)]
        pieces = [stream[a:b] for a, b in pairwise(edges) if a < b]
        ours, theirs = unpadded(self.netd(pieces)), unpadded(self.memcached(pieces))
        self.netd([b"flush_all\r\n"])
        self.memcached([b"flush_all\r\n"])
        return [alike(each) for each in ours.split(b"\r\n")], [alike(each) for each in theirs.split(b"\r\n")]


_PADDED = re.compile(rb"(VALUE \S+ \d+ |VA )(\d+)( [^\r\n]*)?\r\n(\d+) +\r\n")


def unpadded(answer: bytes) -> bytes:
    """memcached leaves spaces behind a number that has become shorter; netd never does, as Redis could not count on."""

    def strip(match: re.Match[bytes]) -> bytes:
        padding = int(match[2]) - len(match[4])
        flags = re.sub(rb" s(\d+)", lambda size: b" s%d" % (int(size[1]) - padding), match[3] or b"")
        return match[1] + b"%d" % len(match[4]) + flags + b"\r\n" + match[4] + b"\r\n"

    return _PADDED.sub(strip, answer)


def alike(line: bytes) -> bytes:
    """A line without what must differ: an item's memory; a TTL below 0, which memcached says in 32 bits."""
    line = re.sub(rb" t(4294\d{6})\b", b" t0", line) if line.startswith(b"HD ") else line
    return re.sub(rb"cls=\d+ size=\d+", b"cls= size=", line) if line.startswith(b"ME ") else line


def fill_in(stream: bytes, unique: int) -> bytes:
    """A stream whose CAS uniques, written as {0}, {1}, …, count from the last one that was given."""
    for offset in range(20):
        stream = stream.replace(b"{%d}" % offset, b"%d" % (unique + offset))
    return stream
