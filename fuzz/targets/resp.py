"""What clients of the redis port send, up to the words of their requests."""

from collections.abc import Sequence

from fuzz.target import pieces
from netd.cache.requests import OK, STORED
from netd.cache.resp import RespCodec

LONGEST = 400
WORDS = (
    *(b"*1\r\n", b"*2\r\n", b"*3\r\n", b"$1\r\n", b"$3\r\n", b"*-1\r\n", b"$-1\r\n", b"\r\n", b"\n"),
    *(
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"GET",
        b"SET",
        b"QUIT",
        b"PING",
    ),
    *(b'"', b"'", b"\\", b"\\x41", b'\\"', b"\\'", b" ", b"POST", b"\0ND\1"),
)
LARGEST = 2048


def check(data: bytes) -> None:
    """The same requests and replies however the bytes are cut, by the short ways too."""
    whole = _talk([data], shortly=False)
    assert _talk(pieces(data), shortly=len(data) % 2 == 0) == whole


def _talk(parts: Sequence[bytes], *, shortly: bool) -> tuple[list[object], bytes, bool]:
    codec = RespCodec(LARGEST)
    asked: list[object] = []
    said = b""
    for part in parts:
        if shortly and (keys := codec.gets(part)) is not None:
            asked += keys
            said += codec.found(keys, [b"value"] * len(keys))
            continue
        if shortly and (pairs := codec.sets(part)) is not None:
            asked += pairs
            said += codec.stored([STORED] * len(pairs))
        else:
            codec.feed(part)
        while (batch := codec.next(3)) is not None:
            asked += [getattr(request, "words", request) for request in batch.requests]
            answers = [_answer(request) for request in batch.requests]
            said += codec.render(batch, answers)  # type: ignore[arg-type]  # each of its request's kind
            if batch.closes:
                return asked, said, True
    return asked, said, False


def _answer(request: object) -> object:
    if isinstance(request, bytes):
        return b"value"
    return STORED if isinstance(request, tuple) else OK
