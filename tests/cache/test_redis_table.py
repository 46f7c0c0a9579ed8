"""What netd makes of how Redis describes its commands."""

import pytest

from netd.cache.redis_table import Table
from netd.cache.redis_words import Refused

DESCRIBED = [
    [b"get", 2, [b"readonly"], 1, 1, 1],
    [b"zunion", -3, [b"readonly", b"movablekeys"], 0, 0, 0],
    [b"msetex", -4, [b"write", b"movablekeys"], 0, 0, 0],
]


def test_a_command_whose_keys_stand_who_knows_where_is_refused() -> None:
    """It would go round the near cache and `key_prefix`."""
    table = Table(DESCRIBED)
    assert table.keys([b"GET", b"a"]) == [1]
    assert table.keys([b"ZUNION", b"2", b"a", b"b"]) == [2, 3]
    with pytest.raises(Refused):
        table.keys([b"MSETEX", b"1", b"a", b"1"])
