"""How answers look: tables that fit, colours that mean something, units that people read."""

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import strip_sequences, wcswidth

from netd.console.output import wants_colour
from netd.console.table import LONGEST_TEXT, Cell, Column, Line, Part, Table, render
from netd.console.text import plural, printable, show_bytes, show_count, show_duration
from tests.pace import slowness


def table() -> Table:
    made = Table([Column("NAME"), Column("SPARE", spare=1), Column("SIZE", right=True)])
    made.add(Cell("echo.plain", "name"), "something", "5")
    made.add("漢字", "x", "1234")
    return made


def test_columns_are_aligned_wide_characters_too() -> None:
    assert render([table()], 0, colour=False).splitlines() == [
        "NAME        SPARE      SIZE",
        "echo.plain  something     5",
        "漢字        x          1234",
    ]


def test_a_narrow_terminal_loses_the_spare_column_first_then_cuts() -> None:
    assert render([table()], 20, colour=False).splitlines()[1] == "echo.plain     5"
    assert render([table()], 12, colour=False).splitlines()[1] == "echo.…     5"


def test_a_long_last_column_of_text_is_broken_at_spaces() -> None:
    made = Table([Column(""), Column("")], heads=False)
    made.add("-y", "do not ask whether this is meant")
    assert render([made], 16, colour=False).splitlines() == ["-y  do not ask", "    whether this", "    is meant"]


def test_colours_only_where_they_are_welcome() -> None:
    assert "\x1b" not in render([table()], 0, colour=False)
    assert "\x1b[36mecho.plain\x1b[0m" in render([table()], 0, colour=True)


@pytest.mark.parametrize(
    ("term", "environ", "colour"),
    [
        ("xterm-256color", {}, True),
        ("xterm", {"NO_COLOR": "1"}, False),
        ("xterm", {"NO_COLOR": ""}, True),
        ("dumb", {}, False),
        ("", {}, False),
    ],
)
def test_no_color_and_dumb_terminals_are_honoured(term: str, environ: dict[str, str], colour: bool) -> None:
    assert wants_colour(term, environ) is colour


def test_lines_wrap_are_cut_or_stay_whole() -> None:
    parts: list[Part] = [
        "a paragraph of some words that is longer than the line",
        Line([Cell("cut here and "), Cell("not further", "bold")]),
        Line([Cell("whole " * 5)], fit="whole"),
    ]
    assert render(parts, 20, colour=False).splitlines() == [
        "a paragraph of some",
        "words that is longer",
        "than the line",
        "cut here and not fu…",
        "whole whole whole whole whole",
    ]


@pytest.mark.parametrize("character", ["x", "é", "\x1b", "漢"])
def test_a_key_of_a_million_characters_does_not_hold_the_daemon_up(character: str) -> None:
    made = Table([Column("SEEN", right=True), Column("KEY")])
    made.add("1", character * 1_000_000)
    before = process_time()
    shown = render([made, character * 1_000_000, Line([Cell(character * 1_000_000)])], 80, colour=False)
    assert process_time() - before < 1.5 * slowness()
    assert shown.count("…") == 3
    assert len(shown) < 12 * LONGEST_TEXT


@given(st.text("ab \u0301漢é", max_size=300), st.integers(20, 60))
def test_a_long_word_is_broken_and_nothing_of_it_is_lost(text: str, width: int) -> None:
    lines = render([text], width, colour=False).splitlines()
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(wcswidth(line) <= width for line in lines)


@given(
    st.lists(st.lists(st.text(max_size=12), min_size=3, max_size=3), max_size=5),
    st.integers(16, 60),
    st.booleans(),
)
def test_no_table_is_wider_than_the_terminal_or_writes_raw_text(
    rows: list[list[str]], width: int, colour: bool
) -> None:
    made = Table([Column("A", spare=2), Column("B"), Column("C", right=True, spare=1)])
    for row in rows:
        made.add(*(Cell(each, "bad") for each in row))
    for line in render([made], width, colour=colour).splitlines():
        plain = strip_sequences(line)
        assert plain.isprintable()
        assert wcswidth(plain) <= width


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10239, "10 KiB"), (1048575, "1.0 MiB"), (5 << 30, "5.0 GiB")],
)
def test_bytes(count: int, shown: str) -> None:
    assert show_bytes(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.01, "0.1 s"),
        (0.44, "0.4 s"),
        (0.99, "1 s"),
        (59.9, "59 s"),
        (60, "1 m 0 s"),
        (3599, "59 m 59 s"),
        (3600, "1 h 0 m"),
        (86399, "23 h 59 m"),
        (90000, "1 d 1 h"),
        (86400 * 400, "400 d 0 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


def test_counts_and_plurals() -> None:
    assert (show_count(1234567), show_count(0.5)) == ("1,234,567", "0.50")
    assert (plural(1, "warning"), plural(1200, "warning")) == ("1 warning", "1,200 warnings")


def test_client_bytes_cannot_move_the_cursor_or_turn_the_text_around() -> None:
    assert printable("a\x1b[2J\r\n\u202eb\x9b") == "a\\x1b[2J\\r\\n\\u202eb\\x9b"
    assert printable("\ud800") == "\\ud800"
