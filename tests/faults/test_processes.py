"""netd, its Redis and its RabbitMQ are frozen, killed and restarted, while clients work at every door."""

import signal
import time

from tests.faults.conftest import Tell
from tests.faults.world import World


def test_a_frozen_netd_breaks_nothing(world: World, tell: Tell) -> None:
    with world.everybody(each=3) as load:
        world.netd.process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        world.netd.process.send_signal(signal.SIGCONT)
        took = load.until_answered()
        load.settle()
    # Frozen for longer than it waits for Redis, it may find that it has waited too long; and then it says so.
    load.check(refused=True)
    tell("netd: frozen for 3 s", load.said(), took)


def test_a_killed_netd_has_lost_nothing_that_it_answered(world: World, tell: Tell) -> None:
    with world.everybody(each=3) as load:
        for _ in range(3):
            world.kill_netd()
            world.start_netd()
            took = load.until_answered()
        load.settle()
    load.check(broken=True, refused=True)
    tell("netd: killed three times", load.said(), took, "from when it was ready")


def test_a_netd_that_is_told_to_stop_has_lost_nothing_that_it_answered(world: World, tell: Tell) -> None:
    with world.everybody(each=3) as load:
        assert world.netd.stop(timeout=60) == 0
        world.start_netd()
        took = load.until_answered()
        load.settle()
    load.check(broken=True, refused=True)
    tell("netd: stopped and started", load.said(), took, "from when it was ready")


def test_a_frozen_redis(world: World, tell: Tell) -> None:
    with world.unharmed("memcached", "redis") as others, world.callers("memcached", "redis", each=4) as load:
        world.redis.pause()
        load.until(lambda: load.refused.total() > 0, "told that Redis does not answer")
        others.recovered()
        world.redis.resume()
        took = load.until_answered()
        load.settle()
    load.check(refused=True)
    tell("Redis: frozen until clients were told", load.said(), took)


def test_a_killed_redis_which_forgets_everything(world: World, tell: Tell) -> None:
    with world.unharmed("memcached", "redis") as others, world.callers("memcached", "redis", each=4) as load:
        world.redis.kill()
        load.until(lambda: load.refused.total() > 0, "told that Redis is away")
        others.recovered()
        world.redis.start()
        took = load.until_answered()
        load.settle()
    load.check(refused=True, missed=True)
    tell("Redis: killed, and started with nothing in it", load.said(), took)


def test_a_frozen_rabbitmq(world: World, tell: Tell) -> None:
    with world.unharmed("lines") as others, world.lines("lines") as load:
        world.rabbit.pause()
        time.sleep(8)  # four heartbeats: netd has given the connection up
        others.recovered()
        world.rabbit.resume()
        took = load.recovered()
        load.settle()
    load.check()
    tell("RabbitMQ: frozen for 8 s", load.said(), took)


def test_a_killed_rabbitmq(world: World, tell: Tell) -> None:
    with world.unharmed("lines") as others, world.lines("lines") as load:
        world.rabbit.kill()
        load.recovered(load.publishers)
        others.recovered()
        world.rabbit.start()
        took = load.recovered()
        load.settle()
    load.check()
    tell("RabbitMQ: killed, while lines were taken", load.said(), took)
