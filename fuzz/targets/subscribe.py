"""What subscribers answer: ACK and NACK."""

from collections.abc import Sequence

from fuzz.target import pieces
from netd.bridge.lines import LONGEST_COMMAND, BadLine, LineReader, Settlement, parse_settlement

LONGEST = 1024
WORDS = (b"ACK 1\n", b"ACK *1\n", b"NACK 1\n", b"ACK ", b"NACK ", b"*", b" ", b"\r\n", b"18446744073709551616")


def check(data: bytes) -> None:
    """Settlements and refusals, the same however the bytes are cut."""
    assert _settle(pieces(data)) == _settle([data])


def _settle(parts: Sequence[bytes]) -> list[Settlement | str]:
    reader = LineReader(LONGEST_COMMAND)
    found: list[Settlement | str] = []
    for part in parts:
        for line in reader.feed(part):
            try:
                settlement = parse_settlement(line)
            except BadLine as bad:
                found.append(str(bad))
            else:
                assert 0 <= settlement.id < 10**LONGEST_COMMAND
                assert not (settlement.all_up_to and settlement.verb == "NACK")
                found.append(settlement)
    assert all(isinstance(each, Settlement) or each.isprintable() for each in found)
    return found
