"""What a [cache.NAME] table may say, and what is said of mistakes."""

import pytest

from netd.cache.config import CacheSettings, RedisTarget, parse_store
from netd.config import ConfigError
from tests.fakes import configure

LISTEN = 'listen_memcached = "127.0.0.1:11211"\n'


def mistakes(table: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configure(f"[cache.main]\n{table}")
    return [each.split(": ", 1)[1] for each in caught.value.mistakes]


def settings(table: str = "") -> CacheSettings:
    found = configure(f"[cache.main]\n{LISTEN}{table}").services[0].settings
    assert isinstance(found, CacheSettings)
    return found


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("embedded:", None),
        ("redis://h", RedisTarget("h", 6379, "", False, "", "", 0)),
        ("redis://h:1/3", RedisTarget("h", 1, "", False, "", "", 3)),
        ("rediss://u:p%40ss@[::1]:2/", RedisTarget("::1", 2, "", True, "u", "p@ss", 0)),
        ("redis://:secret@h", RedisTarget("h", 6379, "", False, "", "secret", 0)),
        ("redis+unix:///run/redis.sock", RedisTarget("", 0, "/run/redis.sock", False, "", "", 0)),
        ("redis+unix://:pw@/run/redis.sock", RedisTarget("", 0, "/run/redis.sock", False, "", "pw", 0)),
    ],
)
def test_a_store_is_embedded_or_a_redis(text: str, target: RedisTarget | None) -> None:
    assert parse_store(text) == target


@pytest.mark.parametrize(
    "text", ["", "redis", "http://h", "redis://", "redis://h/x", "redis://h?db=1", "redis+unix://h/x", "redis://h:x"]
)
def test_other_stores_are_mistakes(text: str) -> None:
    assert mistakes(f'{LISTEN}store = "{text}"')[0].startswith("cache.main.store: ")


@pytest.mark.parametrize(
    "url", ["redis://:secret@h/x", "redis://secret@h", "redis://u:secret/x@h", "redis://u:[secret@h"]
)
def test_a_mistake_in_a_url_never_shows_the_password(url: str) -> None:
    (only,) = mistakes(f'{LISTEN}store = "{url}"')
    assert "secret" not in only


@pytest.mark.parametrize(
    ("table", "mistake"),
    [
        ("", "cache.main: where to listen is missing: add listen_memcached, listen_redis or both"),
        (LISTEN + 'max_memory = "10KiB"', "cache.main.max_memory: expected at least 1 MiB"),
        (
            LISTEN + 'max_item_size = "64MiB"',
            "cache.main.max_item_size: expected at least 1 byte, at most half of max_memory, and at most 512 MiB",
        ),
        (LISTEN + "timeout = 0", "cache.main.timeout: expected more than 0"),
        (LISTEN + 'eviction = "fifo"', 'cache.main.eviction: expected "lru" or "refuse"; got "fifo"'),
        (
            'listen_redis = ":6380"',
            (
                "cache.main.listen_redis: :6380 can be reached from other machines and nothing protects it: "
                "add allow = [networks] or tls.client_ca, or say open = true"
            ),
        ),
    ],
)
def test_a_mistake_is_told_with_its_key(table: str, mistake: str) -> None:
    assert mistakes(table) == [mistake]


def test_users_protect_the_redis_port_and_no_other() -> None:
    users = 'users.app.password_hash = "$2b$12$....................................................."\n'
    configure(f'[cache.main]\nlisten_redis = ":6380"\n{users}')
    assert mistakes(f'listen_memcached = ":11211"\nlisten_redis = ":6380"\n{users}')[0].startswith(
        "cache.main.listen_memcached: "
    )


def test_flushing_is_allowed_on_the_embedded_store_and_not_on_a_redis_that_others_use() -> None:
    assert settings().may_flush
    assert not settings('store = "redis://h"').may_flush
    assert settings('store = "redis://h"\nallow_flush = true').may_flush


def test_what_has_no_effect_is_warned_about() -> None:
    config = configure(f'[cache.main]\n{LISTEN}key_prefix = "x:"\nserve_stale = "1m"\n')
    assert [each.split(": ")[-2] for each in config.warnings] == ["cache.main.serve_stale", "cache.main.key_prefix"]
