"""config/netd.toml shows every setting with its default, and keeps doing so."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netd.admin.config import AdminSettings
from netd.bridge.config import BrokerTlsSettings, PublishSettings, SubscribeSettings
from netd.cache.config import CacheUserSettings
from netd.config import load, parse
from netd.kinds import KINDS
from netd.settings import DaemonSettings, LogSettings, Settings, TlsSettings
from netd.ssh.config import CommandSettings, LimitSettings, UserSettings

CONFIG = Path(__file__).parents[1] / "config"
EXAMPLES = {
    "allow",
    "allow_flush",
    "audit_log",
    "broker_tls",
    "commands",
    "content_type",
    "expiration",
    "hosts",
    "penalty_exempt",
    "priority",
    "socket",
    "socket_group",
    "tls",
    "users",
}
"""Settings that are empty by default, and shown with an example instead."""


def uncommented() -> dict[str, Any]:
    """The file with each `# key = value` switched on."""
    text = (CONFIG / "netd.toml").read_text()
    return tomllib.loads(re.sub(r"^# (?=[a-z_.]+ = )", "", text, flags=re.MULTILINE))


def tables() -> list[tuple[str, type[Settings], dict[str, Any]]]:
    text = uncommented()
    found: list[tuple[str, type[Settings], dict[str, Any]]] = [
        ("daemon", DaemonSettings, text["daemon"]),
        ("log", LogSettings, text["log"]),
        ("admin", AdminSettings, text["admin"]),
    ]
    found += [(kind, KINDS[kind].load_settings(), next(iter(text[kind].values()))) for kind in KINDS]
    return found


@pytest.mark.parametrize(
    ("name", "model", "table"), tables(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_setting_is_shown(name: str, model: type[Settings], table: dict[str, Any]) -> None:
    assert set(table) == set(model.model_fields)


def test_the_values_shown_are_the_defaults() -> None:
    plain = load(CONFIG / "netd.toml")
    shown = re.sub(r"^# (?=[a-z_.]+ = )", "", (CONFIG / "netd.toml").read_text(), flags=re.MULTILINE)
    shown = re.sub(rf"^({'|'.join(EXAMPLES)})\b.*$", "", shown, flags=re.MULTILINE)
    switched_on = parse(shown.encode(), CONFIG / "netd.toml", {})
    assert switched_on.services == plain.services
    assert switched_on.log == plain.log
    assert switched_on.admin == plain.admin
    assert switched_on.daemon.model_copy(update={"state_dir": None}) == plain.daemon
    assert switched_on.state_dir == plain.state_dir


@pytest.mark.parametrize(
    ("kind", "shown", "model"),
    [
        ("echo", lambda table: table["tls"], TlsSettings),
        ("bridge", lambda table: table["broker_tls"], BrokerTlsSettings),
        ("bridge", lambda table: table["publish"]["hello"], PublishSettings),
        ("bridge", lambda table: table["subscribe"]["hello"], SubscribeSettings),
        ("ssh", lambda table: table["limits"], LimitSettings),
        ("cache", lambda table: table["users"]["app"], CacheUserSettings),
        ("ssh", lambda table: table["users"]["ops"], UserSettings),
        ("ssh", lambda table: table["commands"]["ping"], CommandSettings),
    ],
)
def test_every_setting_of_inner_tables_is_shown(
    kind: str, shown: Callable[[dict[str, Any]], dict[str, Any]], model: type[Settings]
) -> None:
    (table,) = [table for name, _, table in tables() if name == kind]
    assert set(shown(table)) == set(model.model_fields)


def test_the_development_configuration_needs_no_server_and_is_right() -> None:
    config = load(CONFIG / "dev.toml")
    assert {service.kind for service in config.services} == set(KINDS)
    assert all(address.local for _, address in config.addresses())


def test_the_unit_of_an_instance_is_the_other_but_for_its_names() -> None:
    def settings(name: str) -> list[str]:
        lines = (CONFIG / name).read_text().splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    named = {
        "Description=netd,": "Description=netd %i,",
        "/etc/netd/netd.toml": "/etc/netd/%i.toml",
        "/etc/netd/secrets": "/etc/netd/%i.secrets",
        "%t/netd/": "%t/netd-%i/",
        "SyslogIdentifier=netd": "SyslogIdentifier=netd@%i",
        "StateDirectory=netd": "StateDirectory=netd-%i",
        "RuntimeDirectory=netd": "RuntimeDirectory=netd-%i",
        "User=netd": "User=netd-%i",
    }
    expected = [line for line in settings("netd.service") if line != "PartOf=netd.socket"]
    for one, many in named.items():
        assert any(one in line for line in expected)
        expected = [line.replace(one, many) for line in expected]
    assert settings("netd@.service") == expected
