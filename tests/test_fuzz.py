"""What `make fuzz` has gathered is tried again; and what makes it a finding."""

from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger

from fuzz import inputs
from fuzz.target import bounded_memory, describe, examine, load, names, nothing_fails, pieces
from netd.proxy import read_header

PATIENCE = 10.0
"""Seconds for an input: the machine may be slow, and it is not what is tested here."""


@pytest.mark.parametrize("name", names())
def test_no_input_that_was_gathered_makes_its_codec_fail(name: str) -> None:
    gathered = inputs.read(inputs.corpus_of(name))
    assert gathered, "every codec has a corpus"
    check = load(name).check
    wrong = {}
    for data in [b"", *gathered, *inputs.read(inputs.findings_of(name))]:
        with bounded_memory():
            error = examine(check, data, PATIENCE)
        if error is not None:
            wrong[data] = f"{describe(error)}: {error}"
    assert wrong == {}


def test_every_file_of_inputs_belongs_to_a_codec() -> None:
    files = [*inputs.corpus_of("").parent.glob("*.txt"), *inputs.findings_of("").parent.glob("*.txt")]
    assert {path.stem for path in files} <= set(names())


def test_what_a_codec_raises_is_found_and_placed() -> None:
    def check(data: bytes) -> None:
        assert read_header(data) is None

    error = examine(check, b"no header")
    assert error is not None
    assert describe(error) == "NoHeader in netd/proxy.py:read_header"


def test_what_never_ends_is_found() -> None:
    def check(data: bytes) -> None:
        while data:
            with suppress(Exception):  # as code under test might
                sum(range(1000))

    error = examine(check, b"x", 0.1)
    assert error is not None
    assert describe(error).startswith("Hang")
    assert examine(check, b"", 0.1) is None


def test_what_netd_logs_as_its_own_failure_is_found() -> None:
    def check(data: bytes) -> None:
        with nothing_fails():
            try:
                int(data)
            except ValueError:
                Logger().failure("no number")

    assert isinstance(examine(check, b"x"), ValueError)
    assert examine(check, b"1") is None


@given(st.binary(max_size=500))
def test_an_input_is_cut_into_all_of_its_pieces_and_always_alike(data: bytes) -> None:
    assert b"".join(pieces(data)) == data
    assert b"" not in pieces(data)
    assert pieces(data) == pieces(data)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5))
def test_inputs_are_read_as_they_were_written(given_inputs: list[bytes]) -> None:
    with NamedTemporaryFile() as file:
        path = Path(file.name)
        inputs.write(path, given_inputs)
        assert set(inputs.read(path)) == set(given_inputs)


def test_findings_are_added_once_under_what_came_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    inputs.add(path, {"Error in a": b"#\n\xff"})
    inputs.add(path, {"Error in b": b"#\n\xff", "Error in c": b"x"})
    assert path.read_text() == "# Error in a\n\\x23\\n\\xff\n# Error in c\nx\n"
    assert inputs.read(path) == [b"#\n\xff", b"x"]


def test_what_takes_all_the_memory_is_found() -> None:
    def check(data: bytes) -> None:
        assert bytes(len(data) << 40)

    with bounded_memory():
        error = examine(check, b"x")
    assert isinstance(error, MemoryError)
