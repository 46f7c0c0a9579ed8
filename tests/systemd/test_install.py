"""What `make install` puts where, and that `make uninstall` takes it away again."""

import shutil
import subprocess
from pathlib import Path

from tests.systemd.box import Box

ROOT = Path(__file__).parents[2]


def files(directory: Path) -> set[str]:
    """Everything below a directory but the environment itself."""
    found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}
    return {path for path in found if not path.startswith("opt/netd/")}


def test_units_manual_pages_and_a_configuration_are_in_place(installed: Path) -> None:
    pages = {f"usr/local/share/man/man{path.suffix[1:]}/{path.name}" for path in (ROOT / "man").glob("*.[1-8]")}
    units = {f"usr/local/lib/systemd/system/{name}" for name in ("netd.service", "netd@.service", "netd.socket")}
    assert files(installed) == {"etc/netd/netd.toml", "usr/local/bin/netdctl", *units, *pages}
    assert (installed / "etc/netd/secrets").stat().st_mode & 0o777 == 0o700
    assert (installed / "usr/local/bin/netdctl").readlink() == Path("/opt/netd/bin/netdctl")


def test_nothing_installed_remembers_where_it_was_made(installed: Path) -> None:
    found = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "--fixed-strings", "--regexp", str(ROOT), installed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.splitlines() == []


def test_its_programs_are_compiled_beforehand(installed: Path) -> None:
    (site,) = (installed / "opt/netd/lib").glob("python3.*/site-packages")
    sources = {path.stem for path in (site / "netd").glob("*.py")}
    assert {path.name.split(".")[0] for path in (site / "netd/__pycache__").glob("*.pyc")} == sources


def test_installing_writes_nothing_to_the_checkout(installed: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "build", "state", "__pycache__"))
    shutil.copytree(installed / "opt", tmp_path / "there/opt", symlinks=True)
    before = set(checkout.rglob("*"))
    command = ["make", "--silent", "install", f"DESTDIR={tmp_path / 'there'}"]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    assert set(checkout.rglob("*")) == before


def test_uninstalling_leaves_configuration_and_secrets(installed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(installed, copy, symlinks=True, copy_function=lambda a, b: Path(b).hardlink_to(a))
    (copy / "etc/netd/secrets/redis").write_text("secret")
    subprocess.run(["make", "--silent", "uninstall", f"DESTDIR={copy}"], cwd=ROOT, check=True, capture_output=True)
    assert files(copy) == {"etc/netd/netd.toml", "etc/netd/secrets/redis"}
    assert not (copy / "opt/netd").exists()


def test_uninstalling_drains_and_disables_every_instance(installed: Path) -> None:
    with Box(installed) as box:
        for name, port in (("netd", 9000), ("edge", 9001), ("idle", 9002)):
            box.write(f"/etc/netd/{name}.toml", f'[echo.plain]\nlisten = "127.0.0.1:{port}"\n')
            box.path(f"/etc/netd/{name}.secrets").mkdir()
        box.write("/etc/systemd/system/netd@edge.service.d/override.conf", "[Service]\nLimitNOFILE=1000\n")
        box.run("systemctl", "enable", "--quiet", "--now", "netd.socket", "netd.service", "netd@edge")
        box.run("systemctl", "enable", "--quiet", "netd@idle")
        box.write("/srv/install", (ROOT / "config/install").read_text())
        box.run("sh", "/srv/install", "uninstall")
        stopped = [str(entry["MESSAGE"]) for entry in box.journal("netd@edge")]
        assert any('"message": "stopped"' in message for message in stopped), stopped
        assert box.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "netd*") == ""
        assert box.run("find", "/etc/systemd/system", "-name", "netd*.service", "-o", "-name", "netd.socket") == ""
        assert box.path("/etc/systemd/system/netd@edge.service.d/override.conf").exists()


def test_an_interpreter_that_the_service_could_not_see_is_not_used(installed: Path) -> None:
    home = next(
        line.partition(" = ")[2]
        for line in (installed / "opt/netd/pyvenv.cfg").read_text().splitlines()
        if line.startswith("home")
    )
    assert not home.startswith(("/root", "/home"))
