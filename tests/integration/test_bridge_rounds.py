"""A handful of rounds of what `make faults` does two hundred of."""

from pathlib import Path

from tests.faults.rounds import Rounds
from tests.servers import RabbitServer, VirtualHost


def test_no_acknowledged_line_is_lost_when_netd_its_broker_and_their_connections_break(
    tmp_path: Path, rabbit_server: RabbitServer, rabbit_vhost: VirtualHost
) -> None:
    with Rounds(tmp_path, rabbit_server, rabbit_vhost, seed=1) as rounds:
        rounds.play(["kill netd", "close broker's connections", "kill both", "reset clients", "freeze broker"])
        rounds.settle()
        assert len(rounds.answered()) > 500
        rounds.check_repeats()
        rounds.check_order()
