"""What is seen: a line per event without a terminal, one screen on it, and LOST only when it is known."""

import io
import re

from tests.demo.ledger import Ledger
from tests.demo.screen import CLEAR, EVENTS, SHOW, Screen

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ledger() -> Ledger:
    """A line is lost, one is there."""
    ledger = Ledger()
    ledger.send([(1, 1), (1, 2)])
    ledger.answer([(1, 1), (1, 2)])
    ledger.find((1, 1), "id")
    return ledger


def row(text: str, name: str) -> str:
    """The last value of this name."""
    found: list[str] = re.findall(rf"^  {re.escape(name)} +(\S+)", text, re.MULTILINE)
    return found[-1]


def test_without_a_terminal_there_is_a_line_per_event_as_it_happens_and_the_table_in_the_end() -> None:
    out = io.StringIO()
    screen = Screen("a title", ledger().counts, out)
    screen.open()
    screen.draw()
    screen.say("netd", "killed")
    assert re.fullmatch(r"a title\n0:0\d  netd +killed\n", out.getvalue())
    screen.close()
    assert (row(out.getvalue(), "LOST"), row(out.getvalue(), "on its way")) == ("?", "1")
    assert "\x1b" not in out.getvalue()


def test_what_is_nowhere_when_all_is_at_rest_is_lost_and_later_arrivals_change_nothing() -> None:
    out, book = io.StringIO(), ledger()
    screen = Screen("a title", book.counts, out)
    screen.settle(book.counts())
    book.find((1, 2), "late")
    screen.close()
    assert (row(out.getvalue(), "LOST"), row(out.getvalue(), "on its way")) == ("1", "0")


def test_on_a_terminal_all_fits_on_one_screen() -> None:
    out, book = Terminal(), ledger()
    book.bury((1, 3), "404 NOT_FOUND - " + "long " * 40)
    screen = Screen("a title", book.counts, out)
    screen.open()
    assert CLEAR in out.getvalue()
    for number in range(3 * EVENTS):
        screen.say("netd", f"event {number} " + "long " * 40)
    drawn = ANSI.sub("", out.getvalue()[out.getvalue().rindex("\x1b[H") :])
    assert len(drawn.splitlines()) <= 24
    assert max(map(len, drawn.splitlines())) < 80
    assert f"event {3 * EVENTS - 1} " in drawn
    screen.close()
    assert out.getvalue().endswith(SHOW)
    assert all(f"event {number} " in out.getvalue() for number in range(3 * EVENTS))
