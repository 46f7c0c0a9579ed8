"""Requests to the admin service: by TCP, and by the unix socket that netdctl uses."""

from functools import cache
from typing import Any

from fuzz.target import nothing_fails, pieces
from tests.admin.door import Door

LONGEST = 700
WORDS = (
    *(
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"/readyz",
        b"/status",
        b"/metrics",
    ),
    *(b"/events", b"/run", b"/complete", b"?", b"%00", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n", b"\r\n\r\n", b"\n"),
    *(
        b"Host: [::1]:1\r\n",
        b"Host: ",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
    ),
    *(
        b"Expect: 100-continue\r\n",
        b"Accept: application/openmetrics-text; version=1.0.0\r\n",
        b"Accept-Encoding: gzip\r\n",
    ),
    *(
        b"If-None-Match: ",
        b"Range: bytes=0-1\r\n",
        b"ffffffff\r\n",
        b"0\r\n\r\n",
        b'{"words": ["help"]}',
        b'"width": 80',
    ),
    *(b'"colour": true', b"\\ud800", b"status", b"config", b"log", b"sessions", b"close", b"--json", b"version"),
)
LONGEST_WAIT = 100.0


@cache
def _door() -> Door:
    """One service for all inputs: what one of them leaves behind is to hurt no other."""
    return Door()


def check(data: bytes) -> None:
    """Answers or the end of the connection, from whichever side it is asked, and the service goes on."""
    door = _door()
    with nothing_fails():
        _ask(door.client(), data)
        if b"POST" in data:  # all that is different there
            _ask(door.trusted(), data)
        door.network.advance(LONGEST_WAIT)
    answer = door.client().send(b"GET /livez HTTP/1.0\r\n\r\n")
    assert b" 200 " in answer[:13]


def _ask(client: Any, data: bytes) -> None:
    for part in pieces(data):
        if client.gone or client.disconnecting:
            break
        answer = client.send(part)
        assert len(answer) < 1 << 20
    if not client.gone:
        client.leave()
