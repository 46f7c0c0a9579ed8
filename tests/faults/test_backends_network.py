"""The network between netd and its Redis or RabbitMQ: clients stay connected and are told; nothing is false or lost."""

import pytest

from tests.faults.conftest import Tell
from tests.faults.network import CASES, Fault
from tests.faults.world import World

WHERE = {"up": "what {} is sent", "down": "what {} answers", "both": "connections to {}"}
LASTS = {"Redis": 7.0, "RabbitMQ": 8.0}
"""Seconds: longer than netd waits for an answer, five seconds, and two heartbeats of two."""


@pytest.mark.parametrize(("fault", "direction"), CASES)
def test_redis(world: World, tell: Tell, fault: Fault, direction: str) -> None:
    with world.unharmed("memcached", "redis") as others, world.callers("memcached", "redis", each=4) as load:
        fault.befall(world.proxies["Redis"], direction, LASTS["Redis"])
        took = load.until_answered()
        others.recovered()
        load.settle()
    load.check(refused=True)
    tell(f"cache: {WHERE[direction].format('Redis')} {fault.name}", load.said(), took)


@pytest.mark.parametrize(("fault", "direction"), CASES)
def test_rabbitmq(world: World, tell: Tell, fault: Fault, direction: str) -> None:
    with world.unharmed("lines") as others, world.lines("lines") as load:
        fault.befall(world.proxies["RabbitMQ"], direction, LASTS["RabbitMQ"])
        took = load.recovered()
        others.recovered()
        load.settle()
    load.check()
    tell(f"bridge: {WHERE[direction].format('RabbitMQ')} {fault.name}", load.said(), took)
