"""netdctl's side of the daemon's socket: where it is, and how a verb is run there. No Twisted: a shell waits."""

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from io import BufferedReader
from pathlib import Path
from typing import Any

CONNECT_TIMEOUT = 5.0
"""Seconds for a daemon that listens to take the connection."""

ANSWER_TIMEOUT = 30.0
"""Seconds for a daemon to begin its answer, as it does once it is asked; the rest takes as long as it takes."""

USUAL_PLACES = ("/run/netd/netd.sock", "state/netd.sock")
"""Under systemd; and of a daemon that was started by hand, as by `make run`, in its directory."""

LONGEST_LINE = 64 << 20
"""Bytes of one line of an answer; of its head the daemon writes a few dozen, of a verb's document what there is."""
MOST_HEADERS = 100
HIGHEST_STATUS = 255
"""With which a process can exit."""
STRANGER = "what listens there is no netd"


class NoDaemon(Exception):
    """No daemon answers; the text says where it was looked for, and what to do."""


class Refused(Exception):
    """The daemon did not understand; the text is what it says."""


def find_socket(given: str | None) -> Path:
    """The socket of the daemon: as given, else $NETD_SOCKET, else the first of the usual places that is there."""
    if chosen := given or os.environ.get("NETD_SOCKET"):
        return Path(chosen)
    places = [Path(each) for each in USUAL_PLACES]
    if runtime := os.environ.get("RUNTIME_DIRECTORY"):
        places.insert(0, Path(runtime.split(":")[0], "netd.sock"))
    for place in places:
        # In somebody else's directory, what answers there is somebody else's too.
        if os.access(place, os.F_OK) and (place.is_absolute() or place.stat().st_uid == os.geteuid()):
            return place
    raise NoDaemon(
        f"no daemon found: no socket at {' or '.join(map(str, places))}; "
        "start netd, or name its socket by --socket or $NETD_SOCKET"
    )


def run(
    path: Path,
    words: Sequence[str],
    write: Callable[[str], object],
    error: Callable[[str], object],
    *,
    width: int = 0,
    colour: bool = False,
) -> int:
    """Run a verb, handing on what it writes as it comes; returns its exit status. Raises NoDaemon and Refused."""
    with _post(path, "/run", {"words": list(words), "width": width, "colour": colour}, timeout=None) as answer:
        while line := _read(path, answer.readline):
            for key, value in _document(path, line).items():
                match key, value:
                    case "out", str():
                        write(value)
                    case "err", str():
                        error(value)
                    case "exit", int() if 0 <= value <= HIGHEST_STATUS:
                        return value
    raise NoDaemon(f"{path}: the daemon ended before it had answered")


def complete(path: Path, words: Sequence[str]) -> list[str]:
    """What the last of the words may become. Raises NoDaemon and Refused."""
    with _post(path, "/complete", {"words": list(words)}, timeout=CONNECT_TIMEOUT) as answer:
        found = _document(path, _read(path, answer.read)).get("words")
    return [word for word in found if isinstance(word, str)] if isinstance(found, list) else []


def _post(path: Path, resource: str, document: Mapping[str, Any], timeout: float | None) -> BufferedReader:
    """The body of the answer to a POST; HTTP/1.0, so that it comes as it is and ends with the connection."""
    body = json.dumps(document).encode()
    head = f"POST {resource} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with closing(socket.socket(socket.AF_UNIX)) as connected:
        connected.settimeout(CONNECT_TIMEOUT)
        try:
            connected.connect(os.fsencode(path))
            connected.settimeout(timeout or ANSWER_TIMEOUT)
            connected.sendall(head.encode() + body)
            answer = connected.makefile("rb")
            status = _status(answer)
            connected.settimeout(timeout)
        except OSError as error:
            raise NoDaemon(f"{path}: {_explain(error)}") from None
    if status == b"200":
        return answer
    with answer:
        if not status.isdigit():
            raise NoDaemon(f"{path}: {STRANGER}")
        raise Refused(_read(path, answer.read).decode("utf-8", "replace").strip())


def _status(answer: BufferedReader) -> bytes:
    """The status of an answer, its headers read and passed over; b"" when this is no HTTP."""
    words = answer.readline(LONGEST_LINE).split()
    for _ in range(MOST_HEADERS):
        if not answer.readline(LONGEST_LINE).strip():
            return words[1] if len(words) > 1 else b""
    return b""


def _read(path: Path, read: Callable[[int], bytes]) -> bytes:
    """What is read next, at most LONGEST_LINE of it."""
    try:
        return read(LONGEST_LINE)
    except OSError as error:
        raise NoDaemon(f"{path}: {_explain(error)}") from None


def _document(path: Path, line: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise NoDaemon(f"{path}: {STRANGER}")
    return document


def _explain(error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "no daemon is there: no such socket"
        case ConnectionRefusedError():
            return "no daemon listens there any more: start netd"
        case PermissionError():
            return "you may not use this socket: become root, or a member of admin.socket_group"
        case TimeoutError():
            return "the daemon does not answer"
    return error.strerror or str(error)
