"""Who may import whom: ARCHITECTURE.md's rules, checked in the source."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "netd").rglob("*.py"))
SERVICES = {"echo", "cache", "bridge", "ssh", "admin"}

ONLY_IN = {
    "txredisapi": r"netd/cache/redis\.py",
    "pika": r"netd/bridge/amqp\.py",
    "twisted.conch": r"netd/ssh/.*",
    "twisted.web": r"netd/admin/.*",
}
"""A library's types never leave the rooms named here."""

WITHOUT_TWISTED = [
    r"netd/settings\.py",
    r"netd/config\.py",
    r"netd/kinds\.py",
    r"netd/\w+/config\.py",
    r"netd/cache/(memcached\w*|resp|requests|batch|layout|items|counters)\.py",
    r"netd/bridge/(blocks|envelope|fields|frames|ledger|lines|messages|queuerows|shares|spoolfile)\.py",
    r"netd/ssh/terminal\.py",
]
"""Configuration models and codecs."""


def imports(path: Path) -> Iterator[str]:
    """The modules a file names at run time; what stands under TYPE_CHECKING does not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_keep_to_the_rules(path: Path) -> None:
    room = path.relative_to(ROOT / "netd").parts[0]
    for module in imports(path):
        first, *rest = module.split(".")
        if name(path) == "netd/config.py" and module.startswith("netd.admin.config"):
            continue  # [admin] is a general table like [daemon] and [log]
        if first == "netd" and rest and rest[0] in SERVICES and rest[0] != room:
            pytest.fail(f"{name(path)} imports {module}: a service is imported by its own kind alone")
        if room == "console" and first == "netd" and rest and rest[0] in SERVICES:
            pytest.fail(f"{name(path)} imports {module}: the console sees the daemon, never a service module")
        for library, where in ONLY_IN.items():
            if module == library or module.startswith(f"{library}."):
                assert re.fullmatch(where, name(path)), f"{name(path)} imports {module}"
        if module == "twisted.internet.reactor":
            assert name(path) == "netd/tap.py"
        assert first != "asyncio", f"{name(path)} imports asyncio"


@pytest.mark.parametrize(
    "path", [each for each in SOURCES if any(re.fullmatch(p, name(each)) for p in WITHOUT_TWISTED)], ids=name
)
def test_models_and_codecs_import_no_twisted(path: Path) -> None:
    found = [module for module in imports(path) if module.split(".")[0] in {"twisted", "zope"}]
    assert found == []


def test_checking_an_echo_configuration_loads_neither_twisted_nor_other_kinds() -> None:
    program = (
        "import sys; from pathlib import Path; from netd.config import load; load(Path(sys.argv[1]));"
        "print(*sorted(m for m in sys.modules if m.split('.')[0] == 'twisted' or m.startswith('netd.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, ROOT / "tests" / "echo.toml"], capture_output=True, text=True, check=True
    )
    admin = ["netd.admin", "netd.admin.config"]  # [admin] is in every configuration
    echo = ["netd.echo", "netd.echo.config"]
    assert done.stdout.split() == [*admin, "netd.config", *echo, "netd.kinds", "netd.settings"]


def test_packages_have_no_code_in_their_init() -> None:
    assert [name(path) for path in SOURCES if path.name == "__init__.py" and path.read_text().strip()] == []


def test_a_daemon_that_echoes_loads_neither_the_console_nor_prometheus() -> None:
    program = "import sys, netd.daemon, netd.echo.service, netd.admin.service; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"click", "wcwidth", "prometheus_client", "netd.console.console"} & set(done.stdout.split())
