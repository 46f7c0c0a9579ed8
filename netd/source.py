"""Whom an address stands for, where what one client may take is counted."""

import ipaddress
from functools import lru_cache

IPV6_PREFIX = 64
"""One customer's network: addresses in it cost nothing."""


@lru_cache(maxsize=1024)
def source_of(host: str) -> str:
    """An IPv4 address itself, an IPv6 address's /64; "" (a unix socket) as it is."""
    if ":" not in host:
        return host
    return str(ipaddress.ip_network((host.partition("%")[0], IPV6_PREFIX), strict=False))
