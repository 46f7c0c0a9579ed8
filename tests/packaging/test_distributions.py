"""The wheel, and a checkout installed editable, are found by twistd from any directory and say how they are used."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import files
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PLUGIN = "twisted/plugins/netd_plugin.py"
TWISTD = """#!{python}
import sys
from twisted.scripts.twistd import run
sys.exit(run())
"""


@dataclass(frozen=True, slots=True)
class Distributions:
    """What is published: the source distribution, and the wheel that was built from it."""

    sdist: Path
    wheel: Path


@dataclass(frozen=True, slots=True)
class Installation:
    """An environment with netd's dependencies and netd, and a directory that has nothing to do with it."""

    bin: Path
    elsewhere: Path

    def run(self, program: str, *arguments: str) -> str:
        """What a program of the environment prints; it must succeed."""
        done = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.elsewhere,
            env={"PATH": os.defpath},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Both, built without a look at the network."""
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, ROOT],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [sdist] = directory.glob("*.tar.gz")
    [wheel] = directory.glob("*.whl")
    return Distributions(sdist, wheel)


@pytest.fixture(scope="module")
def metadata(distributions: Distributions) -> Message:
    """The metadata that the wheel's users see."""
    with ZipFile(distributions.wheel) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(wheel.read(name).decode())


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, distributions: Distributions, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """Netd as its users install it, and as its developers do."""
    environment = tmp_path_factory.mktemp(request.param)
    target = [str(distributions.wheel)] if request.param == "wheel" else ["--editable", str(ROOT)]
    python = make_environment(environment)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", "--no-build-isolation", *target], check=True)
    return Installation(python.parent, tmp_path_factory.mktemp("elsewhere"))


def make_environment(path: Path) -> Path:
    """Make an environment that has all packages of this one but netd, and return its interpreter.

    They are linked. Twisted is copied: into its directory the plug-in is installed and its cache written.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    python = path / "bin" / "python"
    paths = sysconfig.get_paths("venv", {"base": str(path), "platbase": str(path)})
    site = Path(paths["purelib"])
    ours = {entry.parts[0] for entry in files("netd") or ()} - {"twisted"}
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if package.name == "twisted":
            ignored = shutil.ignore_patterns("test", Path(PLUGIN).name, "netd_plugin.*.pyc", "dropin.cache")
            shutil.copytree(package, site / "twisted", ignore=ignored)
        elif package.name not in ours:
            (site / package.name).symlink_to(package)
    script = path / "bin" / "twistd"
    script.write_text(TWISTD.format(python=python))
    script.chmod(0o755)
    return python


def source_files() -> Iterator[str]:
    """Every file of the package: modules, the mark of typing, the page, the scripts for Redis."""
    for path in (ROOT / "netd").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(ROOT).as_posix()


def test_twistd_lists_netd_from_any_directory(installed: Installation) -> None:
    assert "    netd             One daemon for lines, caches and consoles." in installed.run("twistd", "--help")


def test_twistd_says_how_netd_is_used(installed: Installation) -> None:
    assert "--config=" in installed.run("twistd", "-n", "netd", "--help")


def test_netdctl_says_how_it_is_used(installed: Installation) -> None:
    assert "Usage: netdctl" in installed.run("netdctl", "--help")


def test_the_wheel_holds_the_package_and_the_plugin_and_nothing_else(distributions: Distributions) -> None:
    with ZipFile(distributions.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {*source_files(), PLUGIN}
    assert "netd/py.typed" in names


def test_the_wheel_carries_the_license(metadata: Message, distributions: Distributions) -> None:
    assert metadata["License-Expression"] == "MIT"
    with ZipFile(distributions.wheel) as wheel:
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_source_distribution_holds_example_configurations_and_tests(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"config/dev.toml", "tests/packaging/test_distributions.py", "twistd_plugins/netd_plugin.py"} <= names


def test_the_metadata_names_the_python_that_runs_this_test(metadata: Message) -> None:
    named = [text.rpartition(" ")[2] for text in metadata.get_all("Classifier", []) if "Python :: 3." in text]
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in named
    assert all(version in SpecifierSet(metadata["Requires-Python"]) for version in named)
