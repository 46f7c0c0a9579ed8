"""The kinds of service netd knows: one explicit table, no discovery.

A kind's modules are imported when the configuration uses it, and not before; nor is pydantic, for netdctl's sake.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from click import Command

    from netd.service import Service
    from netd.settings import ListenerSettings


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of service: the model of its configuration table, and the class that serves it."""

    settings: str
    """module:class, a `ListenerSettings`; the module imports no Twisted."""
    service: str
    """module:class, a `netd.service.Service`."""
    ctl: Mapping[str, str] = field(default_factory=dict)
    """Commands of netdctl by name, module:command each; the modules import no Twisted."""

    def load_settings(self) -> "type[ListenerSettings]":
        """The model of a [KIND.NAME] table."""
        return cast("type[ListenerSettings]", _load(self.settings))

    def load_service(self) -> "type[Service]":
        """The class of the service."""
        return cast("type[Service]", _load(self.service))

    def load_ctl(self, name: str) -> "Command":
        """One of the commands that netdctl has of this kind."""
        return cast("Command", _load(self.ctl[name]))


ADMIN = "admin"
"""The kind of the one service that is always there, and the name of its table."""


def kind_of(name: str) -> Kind:
    """A kind by its name, [admin]'s included."""
    return _ADMIN if name == ADMIN else KINDS[name]


def _load(path: str) -> object:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


KINDS: Mapping[str, Kind] = {
    "echo": Kind("netd.echo.config:EchoSettings", "netd.echo.service:EchoService"),
    "cache": Kind("netd.cache.config:CacheSettings", "netd.cache.service:CacheService"),
    "bridge": Kind(
        "netd.bridge.config:BridgeSettings",
        "netd.bridge.service:BridgeService",
        ctl={"send": "netd.bridge.ctl:send", "spool": "netd.bridge.ctl:spool"},
    ),
    "ssh": Kind("netd.ssh.config:SshSettings", "netd.ssh.service:SshService", ctl={"ssh": "netd.ssh.ctl:ssh"}),
}
_ADMIN = Kind(
    "netd.admin.config:AdminSettings", "netd.admin.service:AdminService", ctl={"verbs": "netd.admin.ctl:verbs"}
)
