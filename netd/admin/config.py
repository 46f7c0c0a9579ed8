"""The configuration of [admin]: netdctl's socket, and the port of the page and the metrics."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, StrictStr

from netd.settings import Addresses, ConfigPath, Limit, ListenerSettings, Origin, show

LONGEST_SOCKET_PATH = 107
"""Bytes; unix(7): sun_path has 108 with its final zero."""

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})")


def _parse_hosts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and _HOST_NAME.fullmatch(each) for each in value):
        raise ValueError(f'expected a list of host names such as ["netd.example.org"]; got {show(value)}')
    return tuple(each.lower() for each in value)


class AdminSettings(ListenerSettings):
    """What operators reach netd by, beside ssh. The socket runs every verb; `listen` only shows."""

    socket: ConfigPath | None = None
    """netdctl's socket, mode 0600. Default: netd.sock in $RUNTIME_DIRECTORY, else in the state directory."""
    socket_group: StrictStr | None = None
    """A group whose members may use the socket too, mode 0660; to netd they are admins."""
    listen: Addresses = ()
    """The page, /status, /events, /metrics, /livez and /readyz, read-only. Not given: no port."""
    hosts: Annotated[tuple[str, ...], BeforeValidator(_parse_hosts)] = ()
    """Names by which browsers and scrapers reach `listen`, beside addresses, localhost and the machine's own name."""
    max_connections: Limit = 256
    """Connections open at once; an open page is one. 0: no limit."""
    max_connections_per_host: Limit = 128
    """The same for one client address. 0: no limit."""

    def with_socket(self, origin: Origin, state_dir: Path) -> Self:
        """These settings with the path of the socket in force; None where the default would be too long to bind."""
        if self.socket is not None:
            return self
        runtime = origin.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
        path = (Path(runtime) if runtime else state_dir) / "netd.sock"
        return self.model_copy(update={"socket": path if is_short_enough(path) else None})

    def warnings(self) -> list[str]:
        if self.socket is None:
            return [
                "socket: the state directory's path is too long for one, so there is none for netdctl: set a short one"
            ]
        return []


def is_short_enough(path: Path) -> bool:
    """Whether a unix socket can be bound at this path."""
    return len(bytes(path)) <= LONGEST_SOCKET_PATH
