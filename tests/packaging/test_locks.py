"""The lock files hold what pyproject.toml asks for, for every machine: a test fails when `make lock` was forgotten."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

LOCKS = {
    "requirements.lock": "build",
    "requirements-dev.lock": "dev",
    "requirements-fuzz.lock": "fuzz",
    "requirements-bench.lock": "bench",
}
"""Each lock file and the dependency group that it holds beside the runtime."""

PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9a-z.+]+)(?: ; (?P<marker>[a-zA-Z0-9_.'<>=! ()]+))? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")
COMMENT = re.compile(r" *# [a-zA-Z0-9_.:(), -]*|#    make lock")


class Pin(NamedTuple):
    """One package of a lock file."""

    name: str
    version: str
    marker: str | None


def lines(lock: str) -> list[str]:
    """The lines of a lock file."""
    return (ROOT / lock).read_text().splitlines()


def pins(lock: str) -> set[Pin]:
    """What a lock file pins."""
    return {Pin(**found.groupdict()) for line in lines(lock) if (found := PIN.fullmatch(line))}


def group(name: str) -> list[str]:
    """A dependency group with those it includes."""
    members: list[str] = []
    for entry in PROJECT["dependency-groups"][name]:
        members += [entry] if isinstance(entry, str) else group(entry["include-group"])
    return members


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_satisfies_what_the_project_declares(lock: str) -> None:
    locked = pins(lock)
    declared = [Requirement(text) for text in PROJECT["project"]["dependencies"] + group(LOCKS[lock])]
    unsatisfied = [
        str(wanted)
        for wanted in declared
        if not any(pin.name == canonicalize_name(wanted.name) and pin.version in wanted.specifier for pin in locked)
    ]
    assert not unsatisfied, "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes(lock: str) -> None:
    text = lines(lock)
    after = [following for line, following in pairwise(text) if PIN.fullmatch(line)]
    assert after
    assert all(HASH.fullmatch(line) for line in after)


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_names_no_host_path_or_option_of_the_machine_that_made_it(lock: str) -> None:
    assert [
        line for line in lines(lock) if not (PIN.fullmatch(line) or HASH.fullmatch(line) or COMMENT.fullmatch(line))
    ] == []


def test_developers_and_benchmarks_run_what_users_run() -> None:
    def versions(lock: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for pin in pins(lock):
            found.setdefault(pin.name, set()).add(pin.version)
        return found

    runtime = versions("requirements.lock")
    for lock in LOCKS:
        found = versions(lock)
        assert {name: found[name] for name in runtime} == runtime


def test_whatever_netd_imports_is_locked_for_its_users() -> None:
    locked = {pin.name for pin in pins("requirements.lock")}
    distributions = packages_distributions()
    missing = {
        module
        for module in imported()
        if not locked.intersection(canonicalize_name(name) for name in distributions.get(module, ()))
    }
    assert not missing, "declare what they belong to in pyproject.toml, and run `make lock`"


def imported() -> set[str]:
    """The top-level modules beside the standard library's and netd's own that netd imports anywhere."""
    found: set[str] = set()
    for path in (ROOT / "netd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"netd"}
