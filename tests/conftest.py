"""Fixtures for every test: the real servers."""

from hypothesis import HealthCheck, settings

from tests.servers import memcached_server, rabbit_server, rabbit_vhost, redis_server

__all__ = ["memcached_server", "rabbit_server", "rabbit_vhost", "redis_server"]

# How long an example takes says more about the machine than about netd.
settings.register_profile("netd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("netd")
