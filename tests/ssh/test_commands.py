"""Which lines run which command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.ssh.commands import LONGEST_LINE, match_words, parse_words, split_line

PING = parse_words(["ping", "-c", "{n}", "{host}"], {"n": "[1-5]", "host": "[a-z0-9][a-z0-9.-]*"})
DF = parse_words(["df", "-h"], {})


def run(line: bytes) -> list[str] | None:
    words = split_line(line)
    if not words:
        return None
    return {"df": lambda: match_words("df", DF, words), "ping": lambda: match_words("ping", PING, words)}.get(
        words[0], lambda: None
    )()


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        (b"df", ["df", "-h"]),
        (b"df -h", ["df", "-h"]),
        (b"  df   -h ", ["df", "-h"]),
        (b"ping -c 3 db1.example", ["ping", "-c", "3", "db1.example"]),
    ],
)
def test_the_words_that_are_allowed_run(line: bytes, argv: list[str]) -> None:
    assert run(line) == argv


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"df;id",
            b"df; id",
            b"df -h /",
            b"df --help",
            b"df -h\nid",
            b"df -h\0",
            b"df\t-h",
            b"$(df)",
            b"`df`",
            b"'df'",
        ),
        *(
            b"ping",
            b"ping -c 6 a",
            b"ping -c 3",
            b"ping -c 3 a b",
            b"ping -c 3 -f",
            b"ping -c 3 $(id)",
            b"ping -c 33 a",
        ),
        *(b"", b" ", b"\xff", b"df \xe2\x80\xae", b"DF", b"'df'", b"ping -c 33 a", b"df " * LONGEST_LINE),
    ],
)
def test_nothing_else_does(line: bytes) -> None:
    assert run(line) is None


@given(st.binary(max_size=60))
def test_whatever_is_sent_nothing_but_allowed_words_ever_run(tail: bytes) -> None:
    for head in (b"df", b"df ", b"ping -c 3 ", b"ping "):
        argv = run(head + tail)
        if argv is not None:
            assert argv == ["df", "-h"] or (argv[:2] == ["ping", "-c"] and len(argv) == 4 and argv[3].isascii())


def test_a_value_never_becomes_an_option() -> None:
    words = parse_words(["cat", "{file}", "--n={n}"], {"file": ".*", "n": ".*"})
    assert match_words("cat", words, ["cat", "-rf", "--n=1"]) is None
    assert match_words("cat", words, ["cat", "rf", "--n=-1"]) == ["cat", "rf", "--n=-1"]


def test_a_pattern_matches_the_whole_value() -> None:
    words = parse_words(["run", "{a}"], {"a": "x|y"})
    assert match_words("run", words, ["run", "y"]) == ["run", "y"]
    assert match_words("run", words, ["run", "xy"]) is None
    assert match_words("run", words, ["run", "x\n"]) is None


@pytest.mark.parametrize(
    ("argv", "args", "mistake"),
    [
        (["a", "{b}"], {}, r"argv\[1\]: args does not say what \{b\} may be"),
        (["a"], {"b": "x"}, r"args.b: argv has no \{b\}"),
        (["{a}"], {"a": "x"}, r"argv\[0\]: the program itself"),
        (["a", "{b}"], {"b": "("}, "args.b: not a regular expression"),
        (["a", "{b}"], {"b": "(?i)x"}, "args.b: not a regular expression"),
        (["a", "{b}"], {"b": "x{99999999999}"}, "args.b: not a regular expression"),
        (["a", "{b}"], {"b": "[[a-z]"}, "args.b: not a regular expression"),
        (["a", "{b}"], {"b": "(" * 5000 + ")" * 5000}, "args.b: not a regular expression"),
        (["a", "{b}-{b}"], {"b": "(?P<n>x)"}, r"argv.1.: not a regular expression"),
        (["a", ""], {}, r"argv\[1\]: a word is not empty"),
        (["a", "b\n"], {}, r"argv\[1\]: a word is not empty"),
    ],
)
def test_mistakes_are_named_with_their_key(argv: list[str], args: dict[str, str], mistake: str) -> None:
    with pytest.raises(ValueError, match=mistake):
        parse_words(argv, args)
