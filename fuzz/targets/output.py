"""What strangers sent, shown to an operator: on a terminal, in a log."""

import json
import re

from netd.console.table import Cell, Column, Line, Table, render
from netd.console.text import printable
from netd.log import render_json, render_text

LONGEST = 300
WORDS = (
    *(
        b"\x1b[2J",
        b"\x1b]0;title\x07",
        b"\x9b",
        b"\r\n",
        b"\0",
        b"\x7f",
        b"\xe2\x80\xae",
        b"\xed\xa0\x80",
        b"\xef\xbf\xbf",
    ),
    *(
        "漢".encode(),
        "e\u0301".encode(),
        "😀".encode(),
        b" ",
        b"\t",
        b"{",
        b"}",
        b"{0.__class__}",
        b"{x!r}",
        b"%s",
        b"|",
    ),
)
_SGR = re.compile(r"\x1b\[[0-9;]+m")
_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def check(data: bytes) -> None:
    """Nothing but netd's own colours moves a cursor, and nothing forges a line."""
    for text in {data.decode("utf-8", "surrogateescape"), data.decode("latin-1")}:
        assert printable(text).isprintable()
        _log(text)
        for width, colour in ((0, False), (7, True), (80, True)):
            _tables(text, width, colour=colour)


def _log(text: str) -> None:
    event = {"log_format": "{who} said {what}", "who": text, "what": text, "log_time": 0.0, "log_namespace": text}
    line = render_text(event, "warn")
    assert line.isprintable(), ascii(line)
    as_json = render_json(event, "warn")
    assert as_json.isascii()
    assert as_json.isprintable()
    assert json.loads(as_json)["who"] == text


def _tables(text: str, width: int, *, colour: bool) -> None:
    table = Table([Column("A"), Column("B", right=True, spare=1), Column("C")])
    table.add(Cell(text, "bad"), text, text)
    table.add(text[:3], Cell("1", "dim"), "word " * 20)
    line = Line([Cell("a: ", "bold"), Cell(text)])
    shown = render([text, Line([Cell(text, "warn")], fit="wrap"), line, table], width, colour=colour)
    if colour:
        shown = _SGR.sub("", shown)
    assert not _UNPRINTABLE.search(shown), ascii(shown)
    assert render([line], width, colour=False).count("\n") == 1
