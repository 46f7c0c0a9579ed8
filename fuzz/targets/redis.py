"""What Redis answers: on the link that all share, on the one that listens, and on connections of clients' own."""

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from fuzz.target import nothing_fails, pieces
from netd.cache.redis import Link, ListeningLink
from netd.cache.redis_raw import NotRedis, RawReplies
from netd.stats import Histogram

LONGEST = 400
WORDS = (
    *(b"+OK\r\n", b"-ERR no\r\n", b":1\r\n", b"$-1\r\n", b"$1\r\na\r\n", b"*-1\r\n", b"*2\r\n", b"*3\r\n", b"\r\n"),
    *(
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"(12345\r\n",
        b"!3\r\nERR\r\n",
        b"=5\r\ntxt:a\r\n",
        b"%1\r\n",
        b"~1\r\n",
        b">2\r\n",
    ),
    *(
        b"|1\r\n",
        b"$7\r\nmessage\r\n",
        b"$4\r\npong\r\n",
        b"\0ND\1\0\0\0\0\1",
        b"$10\r\n",
        b"*4294967295\r\n",
        b"-MOVED 1 a:1\r\n",
    ),
)


def check(data: bytes) -> None:
    """Whole replies, the same however the bytes are cut, or the end of the connection."""
    assert _raw(pieces(data)) == _raw([data])
    with nothing_fails():
        assert _link(pieces(data)) == _link([data])
        assert _listen(pieces(data)) == _listen([data])


def _raw(parts: Sequence[bytes]) -> tuple[list[bytes], bool]:
    replies, found = RawReplies(), []
    try:
        for part in parts:
            for reply in replies.feed(part):
                found.append(reply)  # noqa: PERF402 - those before an error count
    except NotRedis:
        return found, False
    return found, True


class _Upstream:
    """As much of one as a link sees."""

    timeout = 1.0
    greetings = ()

    def __init__(self) -> None:
        self.reactor = Clock()
        self.seconds = Histogram("")
        self.notes: list[object] = []

    def gone(self, link: Link) -> None:
        self.notes.append(link.lost)

    def ready(self, link: Link) -> None:
        self.notes.append(("ready", link.lost))

    def heard(self, message: object) -> None:
        self.notes.append(message)

    def alive(self, since: float) -> None:
        self.notes.append(since)


def _link(parts: Sequence[bytes]) -> list[object]:
    upstream = _Upstream()
    link = _connected(Link(None), upstream)
    for count in (1, 2, 3):
        link.submit(b"", count, lambda replies: upstream.notes.append(repr(replies)))
    return _told(link, upstream, parts)


def _listen(parts: Sequence[bytes]) -> list[object]:
    upstream = _Upstream()
    link = _connected(ListeningLink(None), upstream)
    return _told(link, upstream, parts)


def _connected(link: Any, upstream: _Upstream) -> Any:
    link.factory = upstream
    link.makeConnection(cast("Any", StringTransport()))
    return link


def _told(link: Any, upstream: _Upstream, parts: Sequence[bytes]) -> list[object]:
    for part in parts:
        if link.lost:
            break
        link.dataReceived(part)
    notes = list(upstream.notes)
    link.cut("the end")
    link.connectionLost(Failure(ConnectionDone()))
    return notes
