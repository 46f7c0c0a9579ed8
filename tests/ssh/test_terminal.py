"""The line editor, key by key, as an operator's hands expect it."""

import pytest

from netd.ssh.terminal import LONGEST_LINE, Ended, Entered, Interrupted
from netd.ssh.terminal_history import History
from netd.ssh.terminal_keys import KeyDecoder, Pasted, Pressed, Typed
from tests.ssh.terminals import Typist

LEFT, RIGHT, UP, DOWN = "\x1b[D", "\x1b[C", "\x1b[A", "\x1b[B"
HOME, END, DELETE = "\x1b[H", "\x1b[F", "\x1b[3~"
BACKSPACE, TAB, ENTER = "\x7f", "\t", "\r"


def control(letter: str) -> str:
    return chr(ord(letter.upper()) - 0x40)


def with_history(*lines: str) -> Typist:
    history = History()
    for line in lines:
        history.add(line)
    return Typist(history=history)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("abc" + control("a") + "x", "xabc"),
        ("abc" + control("a") + control("e") + "x", "abcx"),
        ("abc" + control("b") + "x", "abxc"),
        ("abc" + HOME + control("f") + "x", "axbc"),
        ("abc" + LEFT * 2 + RIGHT + "x", "abxc"),
        ("abc" + HOME + "x" + END + "y", "xabcy"),
        ("abc\x1bOD\x1bOHx", "xabc"),
        ("abc\x1b[1~x\x1b[4~y", "xabcy"),
        ("abc" + BACKSPACE + control("h"), "a"),
        ("abc" + HOME + DELETE + control("d"), "c"),
        ("abc" + LEFT + control("k"), "ab"),
        ("abc" + LEFT + control("u"), "c"),
        ("one two-three" + control("w"), "one "),
        ("one two-three\x1b\x7f", "one two-"),
        ("one two  " + control("w") + "x", "one x"),
        ("one two three\x1bb\x1bbx", "one xtwo three"),
        ("one two" + HOME + "\x1bfx", "onex two"),
        ("one two" + HOME + "\x1b[1;5C\x1b[1;5Cx", "one twox"),
        ("one two\x1b[1;3Dx", "one xtwo"),
        ("one two" + HOME + "\x1bd", " two"),
        ("one two" + control("w") + control("y") + control("y"), "one twotwo"),
        ("a b" + control("w") + control("w") + control("y"), "a b"),
        ("one two" + HOME + "\x1bd\x1bd" + control("y"), "one two"),
        ("abc" + control("t"), "acb"),
        ("abc" + HOME + RIGHT + control("t"), "bac"),
        ("été" + LEFT + BACKSPACE, "éé"),
        ("e\u0301x" + LEFT * 2 + "a", "ae\u0301x"),
        ("e\u0301" + BACKSPACE, ""),
        ("漢字" + LEFT + "x", "漢x字"),
        ("ab\x1b[99~\x1b[?1;2c\x1b[[A\x1bz", "ab"),
        ("a\x1b]0;a title\x07b", "ab"),
        ("a\x1bP+q544e\x1b\\b", "ab"),
        ("a\x9bb", "ab"),
    ],
)
def test_editing_keys(keys: str, line: str) -> None:
    assert Typist().type(keys).editor.text == line


def test_enter_ends_the_line_and_remembers_it() -> None:
    one = Typist().type("status" + LEFT + ENTER)
    assert one.events == [Entered(("status",))]
    assert one.terminal.rows == ["> status"]
    assert one.terminal.cursor == (1, 0)
    assert one.type(UP).editor.text == "status"


def test_a_blank_line_is_nothing_to_run() -> None:
    assert Typist().type("  \r").events == [Entered(())]


def test_ctrl_c_gives_the_line_up_where_it_stands() -> None:
    one = Typist().type("close 1" + LEFT + control("c"))
    assert one.events == [Interrupted()]
    assert one.terminal.rows == ["> close 1^C"]
    assert one.type(UP).editor.text == ""


def test_ctrl_d_leaves_only_from_an_empty_line() -> None:
    one = Typist().type("a" + control("d"))
    assert one.events == []
    assert one.type(BACKSPACE + control("d")).events == [Ended()]


def test_ctrl_l_redraws_the_prompt_line_and_nothing_else() -> None:
    one = Typist()
    one.terminal.write("\x1b[H\x1b[2Jabove\r\n")
    one.begin()
    one.type("abc" + LEFT)
    one.terminal.write("garbage")
    one.type(control("l"))
    assert one.terminal.rows[0] == "above"
    assert one.terminal.rows[1].startswith("> abc")


def test_a_character_at_the_end_costs_no_more_than_itself() -> None:
    one = Typist().type("stat")
    one.terminal.received = ""
    assert one.type("u").terminal.received == "u"


def test_nothing_ever_clears_the_screen() -> None:
    one = with_history("status").type(f"{UP}{control('r')}sta{TAB}{TAB}{control('l')}{'x' * 100}{control('u')}")
    assert "\x1b[2J" not in one.terminal.received
    assert "\x1b[H" not in one.terminal.received


def test_history_goes_up_and_down_and_keeps_what_was_being_typed() -> None:
    one = with_history("first", "second")
    one.type("dra" + UP)
    assert one.editor.text == "second"
    assert one.type(UP + UP).editor.text == "first"
    assert one.terminal.bells == 1
    assert one.type(control("n") + DOWN).editor.text == "dra"
    assert one.type("\x1b<").editor.text == "first"
    assert one.type("\x1b>").editor.text == "dra"


def test_history_keeps_neither_blanks_nor_repeats_and_forgets_the_oldest() -> None:
    history = History(limit=3)
    for line in ["a", "b", "b", "  ", "c", "d"]:
        history.add(line)
    assert history.lines() == ["b", "c", "d"]


def test_two_sessions_of_a_user_share_their_history() -> None:
    history = History()
    one, two = Typist(history=history), Typist(history=history)
    one.type("status\r")
    two.type("\r")
    assert two.type(UP).editor.text == "status"


def test_ctrl_r_searches_backwards() -> None:
    one = with_history("stats echo", "status", "close 1").type(control("r") + "sta")
    assert one.terminal.rows[-1] == "(reverse-i-search)`sta': status"
    assert one.type(control("r")).terminal.rows[-1] == "(reverse-i-search)`sta': stats echo"
    assert one.type(control("s")).editor.text == "status"
    assert one.type(control("e") + "!").editor.text == "status!"
    assert one.terminal.rows[-1] == "> status!"


def test_ctrl_r_says_when_nothing_is_found_and_ctrl_g_gives_it_up() -> None:
    one = with_history("status").type("draft" + control("r") + "stx")
    assert one.terminal.rows[-1] == "(failed reverse-i-search)`stx': status"
    assert one.terminal.bells == 1
    assert one.type(BACKSPACE).terminal.rows[-1] == "(reverse-i-search)`st': status"
    assert one.type(control("g")).editor.text == "draft"


def test_enter_in_a_search_runs_what_was_found() -> None:
    assert with_history("status").type(control("r") + "tat\r").events == [Entered(("status",))]


def test_a_paste_of_several_lines_waits_for_enter() -> None:
    one = Typist(60).type("\x1b[200~status\r\nclose 1\x03\n\x1b[201~")
    assert one.events == []
    assert one.terminal.rows == ["> status^Jclose 1^J"]
    assert one.type(ENTER).events == [Entered(("status", "close 1"))]


def test_a_paste_cannot_press_keys() -> None:
    one = Typist(60).type("\x1b[200~a\x03b\x04\x1b[Ac\x7f\t\x1b[201~d")
    assert one.editor.text == "ab[Ac d"
    assert one.events == []


def test_tab_completes_the_only_candidate_and_a_space() -> None:
    assert Typist(complete=lambda _: ["status"]).type("sta" + TAB).editor.text == "status "


def test_tab_completes_as_far_as_candidates_agree_then_lists_them_below() -> None:
    one = Typist(complete=lambda _: ["stats", "status"]).type("s" + TAB)
    assert one.editor.text == "stat"
    one.type(TAB)
    assert (one.terminal.bells, one.terminal.rows) == (1, ["> stat"])
    one.type(TAB)
    assert one.terminal.rows == ["> stat", "stats   status", "> stat"]
    assert one.terminal.cursor == (2, 6)


def test_tab_in_the_middle_of_a_line_keeps_the_rest() -> None:
    one = Typist(complete=lambda text: ["echo.plain"] if text.endswith("e") else [])
    assert one.type("stats e --json" + LEFT * 7 + TAB).editor.text == "stats echo.plain --json"


def test_many_candidates_are_counted() -> None:
    one = Typist(60, complete=lambda _: [f"{n:04}" for n in range(150)]).type(TAB * 3)
    assert "and 50 more" in one.terminal.rows


def test_tab_without_candidates_rings() -> None:
    assert Typist().type(TAB).terminal.bells == 1


def test_a_line_has_a_longest_length() -> None:
    one = Typist(80, height=100).type("x" * (LONGEST_LINE + 10))
    assert len(one.editor.text) == LONGEST_LINE
    assert one.terminal.bells == 1


def test_what_does_not_print_is_shown_escaped() -> None:
    assert Typist().type("a\u202eb").terminal.rows == ["> a\\u202eb"]


def test_a_line_that_fills_rows_wraps_and_shrinks_again() -> None:
    one = Typist(10).type("x" * 20)
    assert one.terminal.rows == ["> " + "x" * 8, "x" * 10, "xx"]
    assert one.type(BACKSPACE * 13).terminal.rows == ["> " + "x" * 7]


def test_a_wide_character_goes_whole_to_the_next_row() -> None:
    one = Typist(7).type("abcd漢")
    assert one.terminal.rows == ["> abcd", "漢"]
    assert one.terminal.cursor == (1, 2)


def test_a_message_comes_above_the_line_being_edited() -> None:
    one = Typist().type("stat" + LEFT)
    one.editor.interject("netd stops\r\n")
    one.type("")
    assert one.terminal.rows == ["netd stops", "> stat"]
    assert one.terminal.cursor == (1, 5)


def test_a_dumb_terminal_gets_no_escape_sequence() -> None:
    one = Typist(dumb=True).type("stxus" + LEFT * 2 + BACKSPACE + "at" + control("e") + "!" + BACKSPACE)
    assert one.editor.text == "status"
    assert "\x1b" not in one.terminal.received
    assert one.terminal.rows == ["> status"]
    assert one.type(ENTER).events == [Entered(("status",))]


def test_bytes_become_keys_however_they_are_cut() -> None:
    data = "é\x1b[1;5D\x1bb\x1b[200~x\x1b[201~".encode()
    decoder = KeyDecoder()
    keys = [key for byte in data for key in decoder.feed(bytes([byte]))]
    assert keys == [Typed("é"), Pressed("C-Left"), Pressed("M-b"), Pasted("x")]


def test_ctrl_c_gets_through_an_unfinished_escape_sequence() -> None:
    for begun in ("\x1b[12", "\x1bO", "\x1b]0;title", "\x1b"):
        assert list(KeyDecoder().feed(begun.encode() + b"\x03"))[-1] == Pressed("C-c")


def test_an_endless_escape_sequence_is_dropped() -> None:
    assert list(KeyDecoder().feed(b"\x1b[" + b"1" * 100_000 + b"Aa")) == [Typed("a")]


def test_bytes_that_are_not_utf_8_show_as_replacement_characters() -> None:
    assert list(KeyDecoder().feed(b"\xe9\x1b[A")) == [Typed("\ufffd"), Pressed("Up")]


@pytest.mark.parametrize("width", [12, 40])
def test_a_resize_keeps_what_stands_above_the_line(width: int) -> None:
    one = Typist(20)
    one.terminal.write("\rkept\r\n")
    one.begin()
    one.type("x" * 30)
    if width > 20:  # as a terminal that wraps its text anew leaves it: "> " and thirty x on one row
        one.terminal.write("\x1b[A\r> " + "x" * 18)
        one.terminal.screen.resize(24, width)
        one.terminal.write("x" * 12)
    else:
        one.terminal.screen.resize(24, width)
    one.editor.resize(width)
    one.type("")
    assert one.terminal.rows[0] == "kept"
    assert one.terminal.rows[-1].endswith("x")


def test_a_resize_of_a_full_row_begins_in_the_first_column() -> None:
    one = Typist(10).type("x" * 8)
    one.terminal.screen.resize(24, 20)
    one.terminal.write("\x1b[A\x1b[10C")
    one.editor.resize(20)
    assert one.type("").terminal.rows[0] == "> xxxxxxxx"


def test_a_combining_character_does_not_hide_in_a_control_character() -> None:
    assert Typist().type("\x1b[200~a\n\u0301b\x1b[201~").terminal.rows == ["> a^J\N{DOTTED CIRCLE}\u0301b"]
