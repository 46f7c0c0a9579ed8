"""A configuration as it is in force: complete, without its secrets, and TOML again."""

import tomllib
from pathlib import Path

import pytest

from netd.config import Config, load, parse
from netd.effective import Change, as_toml, changes, effective, without_password
from tests.fakes import configure

CONFIG = Path(__file__).parents[1] / "config"
HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"


def shown(config: Config) -> dict[str, str]:
    return {each.key: each.text for each in effective(config)}


@pytest.mark.parametrize("name", ["dev.toml", "netd.toml"])
def test_what_is_shown_means_the_same_configuration(name: str) -> None:
    config = load(CONFIG / name)
    again = parse(as_toml(effective(config)).encode(), CONFIG / name, {})
    assert (again.services, again.admin, again.daemon.model_copy(update={"state_dir": None}), again.log) == (
        config.services,
        config.admin,
        config.daemon.model_copy(update={"state_dir": None}),
        config.log,
    )
    assert again.state_dir == config.state_dir


def test_defaults_are_told_from_what_the_file_says() -> None:
    config = configure('[echo.plain]\nlisten = "127.0.0.1:1"\nidle_timeout = "90s"\n')
    given = {each.key for each in effective(config) if each.given and each.table == "echo.plain"}
    assert given == {"echo.plain.listen", "echo.plain.idle_timeout"}
    assert shown(config)["echo.plain.idle_timeout"] == '"90s"'
    assert shown(config)["echo.plain.max_connections"] == "10000"


def test_secrets_are_hidden_and_files_of_secrets_are_named() -> None:
    config = configure(
        f'[ssh.console]\nlisten = "127.0.0.1:1"\nusers.a = {{ password_hash = "{HASH}" }}\n'
        'users.b = { password_hash_file = "b.hash" }\n'
    )
    text = as_toml(effective(config))
    assert "argon2id" not in text
    assert shown(config)["ssh.console.users.a.password_hash"] == '"(hidden)"'
    assert shown(config)["ssh.console.users.b.password_hash_file"] == '"/etc/netd/b.hash"'


def test_names_that_toml_wants_quoted_are() -> None:
    config = configure('[ssh.console]\nlisten = "127.0.0.1:1"\ncommands."a.b" = ["echo", "\\"é\\\\"]\n')
    text = as_toml(effective(config))
    assert tomllib.loads(text)["ssh"]["console"]["commands"]["a.b"]["argv"] == ["echo", '"é\\']


@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("redis://u:secret@host/0", "redis://u:(hidden)@host/0"),
        ("redis://:secret@host", "redis://:(hidden)@host"),
        ("redis://u:se@cr/et@host", "redis://u:(hidden)@host"),
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("embedded:", "embedded:"),
        ("secret", "(hidden)"),
    ],
)
def test_of_an_address_with_a_password_the_password_is_hidden(url: str, without: str) -> None:
    assert without_password(url) == without


def test_changes_are_told_by_value_and_not_by_how_they_are_written() -> None:
    before = configure('[echo.a]\nlisten = "127.0.0.1:1"\nidle_timeout = 60\n[echo.b]\nlisten = "127.0.0.1:2"\n')
    after = configure('[echo.a]\nlisten = ["127.0.0.1:1"]\nidle_timeout = "1m"\nmax_connections = 5\n')
    found = changes(effective(before), effective(after))
    assert found[0] == Change("echo.a.max_connections", "10000", "5")
    assert Change("echo.b.listen", '["127.0.0.1:2"]', None) in found
    assert not any(each.key.startswith("echo.a.idle") for each in found)


def test_a_secret_that_changed_is_told_without_it() -> None:
    text = '[ssh.console]\nlisten = "127.0.0.1:1"\nusers.a = {{ password_hash = "{}" }}\n'
    before, after = configure(text.format(HASH)), configure(text.format(HASH.replace("QUJD", "RUJD")))
    assert changes(effective(before), effective(after)) == [
        Change("ssh.console.users.a.password_hash", '"(hidden)"', '"(hidden)"')
    ]
