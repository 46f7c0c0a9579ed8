"""config/netd.toml shows every setting with its default, and keeps doing so."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from netd.config import load, parse
from netd.kinds import KINDS
from netd.settings import DaemonSettings, LogSettings, Settings

CONFIG = Path(__file__).parents[1] / "config"
EXAMPLES = {"allow", "tls"}
"""Settings that are off by default, and shown with an example instead."""


def uncommented() -> dict[str, Any]:
    """The file with each `# key = value` switched on."""
    text = (CONFIG / "netd.toml").read_text()
    return tomllib.loads(re.sub(r"^# (?=[a-z_.]+ = )", "", text, flags=re.MULTILINE))


def tables() -> list[tuple[str, type[Settings], dict[str, Any]]]:
    text = uncommented()
    found: list[tuple[str, type[Settings], dict[str, Any]]] = [
        ("daemon", DaemonSettings, text["daemon"]),
        ("log", LogSettings, text["log"]),
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
    assert switched_on.daemon.model_copy(update={"state_dir": None}) == plain.daemon
    assert switched_on.state_dir == plain.state_dir


def test_shown_tls_settings_are_all_there_are() -> None:
    (tls,) = [table["tls"] for name, _, table in tables() if name == "echo"]
    inner = get_args(KINDS["echo"].load_settings().model_fields["tls"].annotation)[0]
    assert set(tls) == set(inner.model_fields)


def test_the_development_configuration_needs_no_server_and_is_right() -> None:
    config = load(CONFIG / "dev.toml")
    assert {service.kind for service in config.services} == set(KINDS)
    assert all(address.local for _, address in config.addresses())
