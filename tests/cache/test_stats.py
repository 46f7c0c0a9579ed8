"""What memcached's `stats` tells of a netd: values that are true, under the names that monitoring looks for."""

import os

import pytest

from netd.cache.service import CacheService
from tests.fakes import Client, MemoryNetwork, configure, result_of, runtime_on

CONFIG = """
[cache.main]
listen_memcached = "127.0.0.1:11211"
listen_redis = "127.0.0.1:6380"
max_memory = "8MiB"
max_connections = 77
idle_timeout = "90s"
eviction = "refuse"
"""


class House:
    """A cache service in memory."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.service = CacheService(configure(CONFIG).services[0], runtime_on(self.network))
        result_of(self.service.start())

    def client(self, host: str = "127.0.0.1") -> Client:
        return self.network.client(host)


def stats(client: Client, which: str = "") -> dict[str, str]:
    said = client.send(f"stats {which}".strip().encode() + b"\r\n").decode()
    *lines, end = said.splitlines()
    assert end == "END"
    assert all(line.startswith("STAT ") for line in lines)
    return dict(line.split(" ", 2)[1:] for line in lines)


@pytest.fixture
def house() -> House:
    return House()


def test_what_clients_did_is_counted(house: House) -> None:
    client = house.client()
    client.send(
        b"set a 0 0 3\r\nabc\r\nget a\r\nget a b\r\ntouch a 100\r\ndelete a\r\ndelete a\r\nset n 0 0 1\r\n1\r\n"
    )
    client.send(b"incr n 1\r\ndecr x 1\r\ngets n\r\ncas n 0 0 1 9999\r\n1\r\n")
    found = stats(client)
    expected = {
        "cmd_get": 4,
        "cmd_set": 3,
        "get_hits": 3,
        "get_misses": 1,
        "delete_hits": 1,
        "delete_misses": 1,
        "touch_hits": 1,
        "incr_hits": 1,
        "decr_misses": 1,
        "cas_badval": 1,
        "curr_items": 1,
        "total_items": 2,
        "evictions": 0,
        "limit_maxbytes": 8 << 20,
        "pid": os.getpid(),
        "max_connections": 77,
        "curr_connections": 1,
    }
    assert {name: found[name] for name in expected} == {name: str(value) for name, value in expected.items()}
    assert int(found["bytes_read"]) > 100
    assert int(found["bytes"]) > 0
    assert float(found["rusage_user"]) > 0


def test_reset_counts_from_nought_again_and_keeps_the_items(house: House) -> None:
    client = house.client()
    client.send(b"set a 0 0 1\r\n1\r\nget a\r\n")
    assert client.send(b"stats reset\r\n") == b"RESET\r\n"
    found = stats(client)
    assert (found["cmd_get"], found["get_hits"], found["cmd_set"], found["curr_items"]) == ("0", "0", "0", "1")


def test_settings_are_those_of_the_configuration(house: House) -> None:
    found = stats(house.client(), "settings")
    expected = {"maxbytes": str(8 << 20), "maxconns": "77", "evictions": "off", "idle_timeout": "90"}
    assert {name: found[name] for name in expected} == expected
    assert (found["flush_enabled"], found["shutdown_command"], found["item_size_max"]) == ("yes", "no", str(1 << 20))


def test_items_and_slabs_tell_of_one_class_that_has_everything(house: House) -> None:
    client = house.client()
    assert stats(client, "items") == {}
    assert stats(client, "slabs")["active_slabs"] == "0"
    client.send(b"set a 0 0 1\r\n1\r\nset b 0 0 1\r\n1\r\nget a\r\nget c\r\n")
    assert stats(client, "items") == {"items:1:number": "2", "items:1:evicted": "0", "items:1:reclaimed": "0"}
    found = stats(client, "slabs")
    assert found.pop("total_malloced") == stats(client)["bytes"]
    assert found == {"1:used_chunks": "2", "1:get_hits": "1", "1:cmd_set": "2", "active_slabs": "1"}


def test_sizes_are_not_counted_and_said_not_to_be(house: House) -> None:
    assert stats(house.client(), "sizes") == {"sizes_status": "disabled"}


def test_connections_are_told_with_their_address_and_how_long_they_have_been_idle(house: House) -> None:
    idle = house.client("192.0.2.7")
    for _ in range(5):
        house.network.advance(1)
    found = stats(house.client(), "conns")
    addresses = [value for name, value in found.items() if name.endswith(":addr")]
    assert addresses == ["tcp:192.0.2.7:40000", "tcp:127.0.0.1:40000"]
    assert [value for name, value in found.items() if name.endswith(":secs_since_last_cmd")] == ["5", "0"]
    idle.leave()
    assert "192.0.2.7" not in str(stats(house.client(), "conns"))
