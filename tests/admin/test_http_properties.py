"""Whatever comes, however it is cut, HTTP answers or closes, and nothing fails."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from zope.interface import implementer

from tests.admin.door import Door, post

REQUESTS = b"".join(
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /nosuch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ]
)
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                *(
                    b"GET ",
                    b"POST ",
                    b"/run",
                    b"/events",
                    b"/status?",
                    b" HTTP/1.1\r\n",
                    b"\r\n",
                    b"Host: localhost\r\n",
                ),
                *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n"),
                *(b"ffffffff\r\n", b'{"words": ["status"]}', b"0\r\n\r\n"),
                b"Accept: application/openmetrics-text; version=\xff\r\n",
            ]
        ),
    ),
    max_size=12,
)


def without_date(answers: bytes) -> list[bytes]:
    return [line for line in answers.split(b"\r\n") if not line.startswith(b"Date:")]


@given(cuts=st.lists(st.integers(1, len(REQUESTS) - 1), max_size=8, unique=True))
@settings(max_examples=50, deadline=None)
def test_how_the_bytes_are_cut_never_matters(cuts: list[int]) -> None:
    whole = Door().client().send(REQUESTS)
    client = Door().client()
    edges = [0, *sorted(cuts), len(REQUESTS)]
    answers = b"".join(client.send(REQUESTS[start:end]) for start, end in pairwise(edges))
    assert without_date(answers) == without_date(whole)
    assert whole.count(b"HTTP/1.1 ") == 3


@given(pieces=PIECES, trusted=st.booleans())
@settings(max_examples=150, deadline=None)
def test_garbage_makes_nothing_fail(pieces: list[bytes], trusted: bool) -> None:
    door = Door()
    failures: list[object] = []

    @implementer(ILogObserver)
    def watch(event: dict[str, object]) -> None:
        if event["log_level"] in {LogLevel.error, LogLevel.critical}:
            failures.append(event)

    globalLogPublisher.addObserver(watch)
    try:
        client = door.trusted() if trusted else door.client()
        for piece in pieces:
            if not client.gone and not client.disconnecting:
                client.send(piece)
        door.network.pump([1.0] * 3)
        if not client.gone:
            client.leave()
    finally:
        globalLogPublisher.removeObserver(watch)
    assert failures == []
    assert b" 200 " in door.trusted().send(post("/complete", {"words": ["st"]}))
