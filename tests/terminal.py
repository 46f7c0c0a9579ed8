"""A program on a terminal of its own, as its session's leader, without a fork of this process and its threads."""

import os
import pty
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def on_a_terminal(
    command: Sequence[str | Path], environ: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The running program, surely gone afterwards, and the descriptor on which a person would sit."""
    person, terminal = pty.openpty()
    try:
        child = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=terminal, stdout=terminal, stderr=terminal, env=environ
        )
        os.close(terminal)
        try:
            yield child, person
        finally:
            child.kill()
            child.wait()
    finally:
        os.close(person)
