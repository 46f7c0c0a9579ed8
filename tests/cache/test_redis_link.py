"""A link to what answers, and is no Redis."""

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from netd.cache.redis import Link
from netd.cache.requests import Problem
from netd.stats import Histogram


class Upstream:
    """As much of one as a link sees."""

    timeout = 1.0
    greetings = ()

    def __init__(self) -> None:
        self.reactor = Clock()
        self.seconds = Histogram("")
        self.lost: list[str] = []

    def ready(self, _: Link) -> None:
        """It may be used."""

    def gone(self, link: Link) -> None:
        self.lost.append(link.lost)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"%1\r\n*1\r\n:1\r\n:2\r\n"])
def test_what_no_redis_sends_ends_the_link_and_answers_what_was_asked(answer: bytes) -> None:
    upstream: Any = Upstream()
    link: Any = Link(None)
    link.factory = upstream
    link.makeConnection(StringTransport())
    replies: list[object] = []
    link.submit(b"", 1, replies.extend)
    link.dataReceived(answer)
    link.connectionLost(Failure(ConnectionDone()))
    assert upstream.lost == ["what stands at the address is no Redis"]
    assert replies == [Problem(b"what stands at the address is no Redis")]
