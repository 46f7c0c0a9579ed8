"""Two hundred rounds of crashes, freezes, resets and alarms: no acknowledged line is lost.

NETD_ROUNDS and NETD_SEED ask for another number and another choice.
"""

import os
from pathlib import Path

import pytest

from tests.faults.rounds import Rounds
from tests.servers import RabbitServer, VirtualHost

ROUNDS = int(os.environ.get("NETD_ROUNDS", "200"))
SEED = int(os.environ.get("NETD_SEED", "7"))
WEIGHTS = {
    "kill netd": 5,
    "kill broker": 3,
    "kill both": 3,
    "freeze broker": 3,
    "freeze netd": 2,
    "reset clients": 3,
    "close broker's connections": 2,
    "alarm": 1,
}


def test_no_acknowledged_line_is_lost_in_200_rounds(
    tmp_path: Path, rabbit_server: RabbitServer, rabbit_vhost: VirtualHost, capsys: pytest.CaptureFixture[str]
) -> None:
    with Rounds(tmp_path, rabbit_server, rabbit_vhost, SEED) as rounds:
        rounds.play(rounds.random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=ROUNDS))
        rounds.settle()
        repeats = rounds.check_repeats()
        rounds.check_order()
        with capsys.disabled():
            print(f"\n{len(rounds.answered())} acknowledged, 0 lost, {repeats} repeats: {dict(rounds.done)}")  # noqa: T201
