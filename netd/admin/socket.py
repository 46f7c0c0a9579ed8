"""The unix socket that netdctl speaks to: its address, and what a dead daemon left of it."""

import grp
import os
import socket
import stat
from contextlib import closing
from errno import ECONNREFUSED
from pathlib import Path

from netd.runtime import CannotStart
from netd.settings import Address, escape_endpoint


def address_of(path: Path) -> Address:
    """The address to listen at, for its owner alone.

    Twisted's lock file is not used: after a restart of a container its process number may well be ours, and the lock
    then holds for ever.
    """
    return Address(f"unix:{path}", endpoint=f"unix:{escape_endpoint(str(path))}:mode=600:lockfile=0", local=True)


def clear_away(path: Path) -> None:
    """Remove a socket that nobody listens at any more; raises CannotStart when somebody does."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotStart(f"admin.socket: {path}: is there already, and is no socket")
    except OSError:
        return
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(bytes(path))
        except OSError as error:
            if error.errno == ECONNREFUSED:
                path.unlink(missing_ok=True)
                return
            raise CannotStart(f"admin.socket: {path}: {os.strerror(error.errno or 0)}") from None
    raise CannotStart(f"admin.socket: {path}: another daemon answers there; give each its own state_dir or socket")


def give_to_group(path: Path, group: str) -> None:
    """Let a group use the socket; raises CannotStart when that cannot be.

    The mode comes last: before, it would have let in the group that netd itself is of. The unit's sandbox forbids
    chown(2), so that it is not asked for what is so already: there netd's own group is the one.
    """
    try:
        wanted = grp.getgrnam(group).gr_gid
        if path.stat().st_gid != wanted:
            os.chown(path, -1, wanted)
        path.chmod(0o660)
    except KeyError:
        raise CannotStart(f"admin.socket_group: no group {group}") from None
    except OSError as error:
        raise CannotStart(
            f"admin.socket_group: netd may not give its socket to this group: {os.strerror(error.errno or 0)}; "
            f"under systemd say Group={group} in the unit"
        ) from None
