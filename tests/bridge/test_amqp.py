"""The contract of brokers on a real RabbitMQ, with classic and with quorum queues."""

import pytest

from tests.bridge.broker_contract import BrokerContract
from tests.bridge.rabbit import RabbitArena
from tests.servers import RabbitServer, VirtualHost


class TestClassicQueues(BrokerContract):
    """Durable classic queues."""

    @pytest.fixture
    def arena(self, rabbit_server: RabbitServer, rabbit_vhost: VirtualHost) -> RabbitArena:
        return RabbitArena(rabbit_server, rabbit_vhost)


class TestQuorumQueues(BrokerContract):
    """Quorum queues, on one node."""

    @pytest.fixture
    def arena(self, rabbit_server: RabbitServer, rabbit_vhost: VirtualHost) -> RabbitArena:
        return RabbitArena(rabbit_server, rabbit_vhost, "quorum")
