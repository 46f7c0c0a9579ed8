"""netdctl's side of the socket, when what answers there is no netd, or is ended."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from netd.admin.client import LONGEST_LINE, NoDaemon, Refused, complete, run

OK = b"HTTP/1.1 200 OK\r\n\r\n"


@contextmanager
def answering(directory: Path, answer: bytes) -> Iterator[Path]:
    """A socket where the next who asks gets this answer."""
    path = directory / "netd.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(60)

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            thread.join()


def status_of(path: Path) -> tuple[int, list[str]]:
    told: list[str] = []
    return run(path, ["status"], told.append, told.append), told


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example.org ESMTP\r\n",
        b"",
        OK + b"hello\n",
        OK + b"[" * 100_000,
        OK + b'["exit"]\n',
        OK + b"null\n",
        OK + b"\xff\n",
        OK + b"1" * 5000 + b"\n",
        b"HTTP/1.1 " + b"9" * 5000 + b"x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000,
    ],
    ids=lambda answer: repr(answer[:40]),
)
def test_what_is_no_netd_is_told_so(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path, answer) as path, pytest.raises(NoDaemon, match="no netd"):
        status_of(path)


@pytest.mark.parametrize("end", [b'{"exit": "0"}\n', b'{"exit": 256}\n', b'{"exit": -1}\n', b'{"out": 7}\n', b""])
def test_an_answer_without_an_end_is_told_so(tmp_path: Path, end: bytes) -> None:
    with answering(tmp_path, OK + b'{"out": "hello"}\n' + end) as path, pytest.raises(NoDaemon, match="ended before"):
        status_of(path)


def test_a_daemon_that_is_killed_while_it_answers_is_told_so(tmp_path: Path) -> None:
    """Closing a socket that has unread bytes resets the connection."""
    path = tmp_path / "netd.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            client, _ = listening.accept()
            client.sendall(OK)
            client.close()

        thread = Thread(target=serve)
        thread.start()
        with pytest.raises(NoDaemon):
            run(path, ["x" * 100_000], print, print)
        thread.join()


def test_a_daemon_that_hangs_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is stopped, which the kernel still connects to: netdctl waited for ever."""
    monkeypatch.setattr("netd.admin.client.ANSWER_TIMEOUT", 0.1)
    path = tmp_path / "netd.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(NoDaemon, match="the daemon does not answer"):
            status_of(path)


def test_an_answer_is_handed_on_and_ends_with_the_exit_status(tmp_path: Path) -> None:
    with answering(tmp_path, OK + b'{"out": "hello\\n"}\n{"err": "no"}\n{"later": 1, "exit": 3}\n') as path:
        assert status_of(path) == (3, ["hello\n", "no"])


def test_a_long_answer_is_no_mistake(tmp_path: Path) -> None:
    text = "x" * (5 << 20)
    assert len(text) < LONGEST_LINE
    with answering(tmp_path, OK + b'{"out": "%b"}\n{"exit": 0}\n' % text.encode()) as path:
        assert status_of(path) == (0, [text])


def test_a_refusal_is_told_in_the_daemons_words(tmp_path: Path) -> None:
    refusal = b"HTTP/1.1 400 Bad Request\r\n\r\nwords is a list\n"
    with answering(tmp_path, refusal) as path, pytest.raises(Refused, match=r"^words is a list$"):
        status_of(path)


@pytest.mark.parametrize("document", [b"{}", b'{"words": null}', b'{"words": {"a": 1}}', b'{"words": [1, null]}'])
def test_words_that_are_none_complete_nothing(tmp_path: Path, document: bytes) -> None:
    with answering(tmp_path, OK + document) as path:
        assert complete(path, ["st"]) == []


def test_completion_by_what_is_no_netd_is_told_so(tmp_path: Path) -> None:
    with answering(tmp_path, OK + b"hello") as path, pytest.raises(NoDaemon, match="no netd"):
        complete(path, ["st"])
