"""Fixtures for every test: the real servers."""

from tests.servers import memcached_server, rabbit_server, rabbit_vhost, redis_server

__all__ = ["memcached_server", "rabbit_server", "rabbit_vhost", "redis_server"]
