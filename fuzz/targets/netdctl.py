"""What comes back to netdctl from whatever listens at its socket."""

import socket
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue

from netd.admin.client import NoDaemon, Refused, complete, run

LONGEST = 1024
WORDS = (
    *(
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"HTTP/1.1 ",
        b"200",
        b"\r\n",
        b"Content-Type: x\r\n",
    ),
    *(
        b'{"out": "text\\n"}\n',
        b'{"err": "text\\n"}\n',
        b'{"exit": 0}\n',
        b'{"words": ["a"]}',
        b"null",
        b"[",
        b"{",
        b"1e999",
    ),
)
HIGHEST_STATUS = 255
"""Of a process."""
ANSWERS: "SimpleQueue[bytes]" = SimpleQueue()


@cache
def _server() -> Path:
    """A socket where each who connects is told the next input."""
    path = Path(tempfile.mkdtemp(prefix="fuzz-"), "netd.sock")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    threading.Thread(target=_serve, args=(listening,), daemon=True).start()
    return path


def _serve(listening: socket.socket) -> None:
    while True:
        client, _ = listening.accept()
        with client:
            client.sendall(ANSWERS.get())
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass


def check(data: bytes) -> None:
    """An exit status and text, or one of the errors that are for people."""
    path = _server()
    told: list[str] = []
    ANSWERS.put(data)
    with suppress(NoDaemon, Refused):
        assert 0 <= run(path, ["status"], told.append, told.append) <= HIGHEST_STATUS
    assert all(isinstance(each, str) for each in told)
    ANSWERS.put(data)
    with suppress(NoDaemon, Refused):
        assert all(isinstance(word, str) for word in complete(path, ["st"]))
