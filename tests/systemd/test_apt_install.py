"""What `make test` leaves of services that come with Debian packages: none runs, none is started at the next boot."""

from pathlib import Path

import pytest

from tests.systemd.box import Box

APT_INSTALL = Path(__file__).parents[1] / "packaging" / "apt-install"
CONTROL = """\
Package: {name}
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: brings a service
"""
SERVICE = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
POSTINST = "#!/bin/sh\nset -e\ndeb-systemd-helper enable {name}.service\ndeb-systemd-invoke start {name}.service\n"
"""As dh_installsystemd(1) makes them."""


def package(box: Box, name: str) -> str:
    """Make a package with a service in the box; its path there."""
    box.write(f"/srv/{name}/DEBIAN/control", CONTROL.format(name=name))
    box.write(f"/srv/{name}/DEBIAN/postinst", POSTINST.format(name=name))
    box.path(f"/srv/{name}/DEBIAN/postinst").chmod(0o755)
    box.write(f"/srv/{name}/lib/systemd/system/{name}.service", SERVICE)
    box.run("dpkg-deb", "--build", f"/srv/{name}")
    return f"/srv/{name}.deb"


@pytest.fixture(scope="module")
def _installed(box: Box) -> None:
    """A package that is there, with its service, and then one that apt-install brings."""
    box.path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)  # images for containers start no service by themselves
    box.run("dpkg", "--install", package(box, "netd-box-old"))
    box.write("/srv/apt-install", APT_INSTALL.read_text())
    box.run("sh", "/srv/apt-install", package(box, "netd-box-new"), package(box, "netd-box-old"))


def state(box: Box, service: str) -> tuple[str, str]:
    """Whether a service runs, and whether it is started at the next boot."""
    shown = box.show(service)
    return shown["ActiveState"], shown["UnitFileState"]


@pytest.mark.usefixtures("_installed")
def test_a_service_that_an_installed_package_brings_neither_runs_nor_is_enabled(box: Box) -> None:
    assert state(box, "netd-box-new.service") == ("inactive", "disabled")


@pytest.mark.usefixtures("_installed")
def test_a_service_that_was_enabled_before_stays_so_and_runs_on(box: Box) -> None:
    assert state(box, "netd-box-old.service") == ("active", "enabled")
