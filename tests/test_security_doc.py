"""docs/security.md names the tests of what it promises."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_it_names_is_there() -> None:
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 10
    assert [each for each in named if not (ROOT / each).exists()] == []
