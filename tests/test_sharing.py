"""`make test` runs in one process what shares a server that takes seconds to start."""

import pytest

from tests.conftest import shared

SERVERS = {"rabbit_server": "a RabbitMQ", "box": "a box"}


def test_all_that_use_a_slow_server_share_it(request: pytest.FixtureRequest) -> None:
    apart = {
        item.nodeid.partition("::")[0]
        for item in request.session.items
        for fixture, server in SERVERS.items()
        if fixture in getattr(item, "fixturenames", ()) and shared(item.nodeid) != server
    }
    assert apart == set(), "name them in conftest.TOGETHER"
