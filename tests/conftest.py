"""For every test: the real servers, and how `make test` shares the tests out among processes."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # has no annotations

from tests.servers import free_port, memcached_server, rabbit_server, rabbit_vhost, redis_server

__all__ = ["free_port", "memcached_server", "rabbit_server", "rabbit_vhost", "redis_server"]

TOGETHER = {
    "tests/benchmarks/test_rabbit": "a RabbitMQ",
    "tests/bridge/test_amqp": "a RabbitMQ",
    "tests/integration/test_bridge_": "a RabbitMQ",
    "tests/test_servers": "a RabbitMQ",
    "tests/systemd/": "a box",
}
"""Files, by how their paths begin, that share what takes seconds to start: one process runs them, before all others."""

# How long an example takes says more about the machine than about netd.
settings.register_profile("netd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("netd")


def shared(nodeid: str) -> str:
    """What a test shares with those of other files; "" for most."""
    return next((what for start, what in TOGETHER.items() if nodeid.startswith(start)), "")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: not shared(item.nodeid))


class FilesTogether(LoadFileScheduling):  # type: ignore[misc]  # see above
    """Whole files go to a process, as what a module's fixtures start is started once; and some files go together."""

    def _split_scope(self, nodeid: str) -> str:
        return shared(nodeid) or str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether:
    """Called in the process that shares the tests out."""
    config.option.loadscopereorder = False
    return FilesTogether(config, log)
