"""What an operator's terminal sends to the line editor of the console."""

from fuzz.target import pieces
from netd.ssh.terminal import LONGEST_LINE, Event, LineEditor
from netd.ssh.terminal_history import History
from netd.ssh.terminal_keys import KeyDecoder
from netd.ssh.terminal_screen import cells_of

LONGEST = 300
WORDS = (
    *(b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[H", b"\x1b[F", b"\x1b[3~", b"\x1b[1;5C", b"\x1bOA", b"\x1b"),
    *(
        b"\x1b[200~",
        b"\x1b[201~",
        b"\x1b]0;t\x07",
        b"\x1bP",
        b"\x1b\\",
        b"\x1bb",
        b"\x1bf",
        b"\x1bd",
        b"\x1b\x7f",
        b"\t",
        b"\r",
    ),
    *(
        b"\x01",
        b"\x02",
        b"\x03",
        b"\x04",
        b"\x05",
        b"\x0b",
        b"\x0c",
        b"\x12",
        b"\x13",
        b"\x14",
        b"\x15",
        b"\x17",
        b"\x19",
    ),
    *("漢".encode(), "e\u0301".encode(), "\u202e".encode(), "😀".encode(), b"\xc3", b"\xff", b"status", b"stat"),
)
WIDTH = 20
MOST_WRITTEN = 1 << 24
_PROMPT = cells_of("> ", "1")


def check(data: bytes) -> None:
    """The same lines however the bytes are cut, on terminals that can do much or little; the line stays short."""
    dumb = len(data) % 2 == 1
    assert _type(pieces(data), dumb=dumb) == _type([data], dumb=dumb)


def _type(parts: list[bytes], *, dumb: bool) -> tuple[str, list[Event]]:
    history = History()
    history.add("status")
    history.add("connections echo.plain --sort traffic")
    editor = LineEditor(WIDTH, history, _complete, dumb=dumb)
    decoder = KeyDecoder()
    events: list[Event] = []
    editor.begin(_PROMPT)
    written = 0
    for part in parts:
        for key in decoder.feed(part):
            if not editor.active:
                editor.begin(_PROMPT)
            event = editor.press(key)
            if event is not None:
                events.append(event)
        text = editor.draw()
        written += len(text.encode())
        assert len(editor.text) <= LONGEST_LINE
    assert written < MOST_WRITTEN
    return editor.text, events


def _complete(text: str) -> list[str]:
    words = ("status", "stats", "services", "close")
    return [word for word in words if word.startswith(text.rsplit(" ", maxsplit=1)[-1])]
