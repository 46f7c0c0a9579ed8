"""For any keys and any width: how bytes are cut never matters, garbage raises nothing, the screen shows the line."""

import unicodedata

from hypothesis import example, given, settings
from hypothesis import strategies as st
from wcwidth import wcwidth

from netd.ssh.terminal_history import History
from netd.ssh.terminal_screen import Place, cells_of, lay_out
from tests.ssh.terminals import Typist

KEYS = [
    *(bytes([code]) for code in range(0x20) if code not in {0x0A, 0x0D, 0x03, 0x04}),
    b"\x7f",
    *(b"\x1b" + key for key in (b"b", b"f", b"d", b"\x7f", b"<", b">")),
    *(b"\x1b[" + key for key in (b"A", b"B", b"C", b"D", b"H", b"F", b"3~", b"1;5C", b"1;5D", b"99~", b"?1;2c")),
    b"\x1bOA",
    b"\x1bOD",
    b"\x1b[200~pasted\r\nlines\x1b[201~",
]
SHOWN = st.characters(codec="utf-8").filter(
    lambda c: c.isprintable() and (wcwidth(c) > 0 or unicodedata.combining(c) != 0)
)
TEXT = st.text(st.one_of(st.sampled_from("ab -é漢字\u0301😀"), SHOWN), min_size=1, max_size=8).map(str.encode)
STROKES = st.lists(st.one_of(st.sampled_from(KEYS), TEXT), max_size=30)
ENDS = st.sampled_from([b"\r", b"\x03", b"\x04"])


def history() -> History:
    kept = History()
    for line in ("status", "connections echo.plain --sort traffic", "漢字漢字漢字漢字漢字"):
        kept.add(line)
    return kept


def complete(text: str) -> list[str]:
    return [
        word for word in ("status", "stats", "services", "close") if word.startswith(text.rsplit(" ", maxsplit=1)[-1])
    ]


def typist(width: int, height: int = 60) -> Typist:
    return Typist(width, history(), complete, height)


def state(one: Typist) -> object:
    return one.editor.text, one.events, one.terminal.rows, one.terminal.cursor


def assert_shown(one: Typist, width: int) -> None:
    """The last rows of the terminal are the prompt and the line, wrapped, and the cursor stands where it should."""
    left = [*one.editor._prompt, *cells_of(one.editor._buffer.before)]
    if one.editor._search is not None:
        left = [*cells_of(one.editor._search.prompt), *cells_of(one.editor._buffer.before)]
    cells = [*left, *cells_of(one.editor._buffer.after)]
    places = lay_out(cells, width)
    expected: list[str] = [""] * (places[-1].row + 1)
    for cell, place in zip(cells, places, strict=False):
        shown = cell.text[0] if cell.columns > 1 else cell.text  # pyte loses what combines with a wide character
        expected[place.row] += unicodedata.normalize("NFC", shown)
    cursor = places[len(left)]
    top = one.terminal.cursor[0] - cursor.row
    rows = [unicodedata.normalize("NFC", row) for row in one.terminal.screen.display[top:]]
    assert [row.rstrip() for row in rows[: len(expected)]] == [row.rstrip() for row in expected]
    assert not any(row.strip() for row in rows[len(expected) :])
    assert Place(one.terminal.cursor[0] - top, one.terminal.cursor[1]) == cursor


@settings(max_examples=200, deadline=None)
@given(STROKES, st.integers(2, 30))
@example([b"x" * 28], 30)
@example([b"abcde", b"\x02", "漢".encode()], 7)
@example([b"x" * 27, "漢".encode(), b"\x1b[D\x7f"], 30)
@example(["漢".encode() * 14, b"\x01", b"a", b"\x04"], 30)
def test_the_screen_shows_the_line_and_the_cursor(strokes: list[bytes], width: int) -> None:
    one = typist(width)
    for stroke in strokes:
        one.type(stroke)
        if one.terminal.cursor[0] < 55:
            assert_shown(one, width)


@settings(max_examples=100, deadline=None)
@given(STROKES, st.integers(2, 30), st.integers(1, 8))
@example([b"abcd", "漢".encode()], 7, 1)
@example([b"abcde", b"f"], 7, 1)
@example([b"abcde", b"\x7f\x7f"], 7, 1)
def test_a_line_at_the_bottom_of_the_screen_scrolls(strokes: list[bytes], width: int, below: int) -> None:
    one = typist(width, 40)
    one.terminal.write("\r\n" * (40 - below) + "\r")
    one.begin()
    for stroke in strokes:
        one.type(stroke)
        if len(cells_of(one.editor.text)) * 2 < width * 20:
            assert_shown(one, width)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(KEYS), TEXT, ENDS), max_size=20), st.lists(st.integers(1, 5), max_size=100))
def test_how_the_bytes_are_cut_never_matters(strokes: list[bytes], sizes: list[int]) -> None:
    data = b"".join(strokes)
    whole, cut = typist(24), typist(24)
    whole.type(data)
    at = 0
    for size in sizes:
        cut.type(data[at : at + size])
        at += size
    cut.type(data[at:])
    assert (whole.editor.text, whole.events) == (cut.editor.text, cut.events)
    assert state(whole) == state(cut)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 300))
@example(b"\x1b[200~" + b"\xff" * 20, 10)
@example(b"\x1b]0;title\x07\x1bP+q\x1b\\", 10)
def test_garbage_raises_nothing(data: bytes, width: int) -> None:
    Typist(width or 80).type(data)
    Typist(width or 80, dumb=True).type(data)


@settings(max_examples=100, deadline=None)
@given(STROKES, st.lists(st.integers(12, 60), min_size=1, max_size=3))
def test_after_a_resize_the_line_is_shown_whole(strokes: list[bytes], widths: list[int]) -> None:
    one = typist(30)
    for stroke in strokes:
        one.type(stroke)
    for width in widths:
        one.terminal.screen.resize(60, width)
        one.editor.resize(width)
        one.terminal.write(one.editor.draw())
        if one.terminal.cursor[0] < 55:
            assert_shown(one, width)
