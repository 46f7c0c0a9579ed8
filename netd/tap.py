"""twistd's way in: options, configuration, reactor, logging, and the daemon as a service.

The only module that touches the global reactor.
"""

import gc
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized

from netd.config import Config, ConfigError, load
from netd.log import LogOutput, make_output
from netd.process import handle_signals, keep_to_itself, leave, outlive_hangups, raise_descriptor_limit
from netd.runtime import Reactor

SELECT_DESCRIPTORS = 1024
"""FD_SETSIZE: select(2) cannot watch a descriptor beyond it, so under that reactor none may come to be."""


class Options(usage.Options):
    """Options of `twistd netd`."""

    synopsis = "[twistd options] netd [--config FILE]"
    longdesc = (
        "netd serves what its configuration names: echo, a cache for memcached and Redis clients, a bridge of lines to "
        "RabbitMQ, an operator's console by ssh; and a page, metrics and netdctl's socket. "
        "Check a configuration with `netdctl check FILE`; "
        "run in the foreground with `twistd -n --pidfile= netd --config FILE`. "
        "Exit status: 0 stopped as asked; 78 the configuration is wrong; 75 it could not start."
    )
    optParameters = (("config", "c", "/etc/netd/netd.toml", "The configuration, a TOML file."),)

    config: Config
    log: LogOutput

    def postOptions(self) -> None:
        """Check the configuration before anything else happens, then choose the reactor and where logs go."""
        outlive_hangups()
        try:
            self.config = load(Path(self["config"]))
        except ConfigError as error:
            refuse(error.mistakes)
        if self.config.daemon.fastio and "twisted.internet.reactor" not in sys.modules:
            from netd.fastio.reactor import install

            install()
        from netd.ports import check_endpoints

        if mistakes := check_endpoints(self.config):
            refuse(mistakes)
        self.log = make_output(self.config.log, self._log_stream(), os.environ)

    def _log_stream(self) -> TextIO:
        """Where twistd's own options send logs: --logfile, twistd.log when it daemonizes, else standard output."""
        parent: Mapping[str, Any] = self.parent or {}
        name = parent.get("logfile") or ("-" if parent.get("nodaemon") else "twistd.log")
        if name == "-":
            return sys.__stdout__ or sys.stdout
        try:
            return open(name, "a", encoding="utf-8", opener=partial(os.open, mode=0o600))
        except OSError as error:
            refuse([f"--logfile: {name}: cannot be written: {error.strerror}"], os.EX_TEMPFAIL)


def refuse(lines: list[str], status: int = os.EX_CONFIG) -> NoReturn:
    """Say why on standard error, a line each, and exit: from here, unlike from within the reactor, that works."""
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201 - what a shell or systemd shows
    raise SystemExit(status)


def makeService(options: Options) -> IService:
    """The daemon, ready to be started by twistd."""
    from twisted.internet import reactor as installed  # noqa: TID251 - twistd's way in is the one place
    from twisted.internet.selectreactor import SelectReactor

    from netd.daemon import Daemon
    from netd.systemd import announcer

    reactor = cast("Reactor", installed)
    keep_to_itself()
    raise_descriptor_limit(SELECT_DESCRIPTORS if isinstance(installed, SelectReactor) else None)
    announce = announcer(os.environ, reactor)
    daemon = Daemon(options.config, options.log, reactor, partial(leave, reactor), announce)
    reactor.callWhenRunning(handle_signals, reactor, daemon.request_stop, daemon.request_reload)
    reactor.callWhenRunning(gc.freeze)  # a full collection went through every module: 45 ms in which nobody was served
    syslog = options.parent is not None and options.parent.get("syslog")
    return cast("IService", daemon if syslog else _Logging(daemon, options.log))


class _Logging(MultiService):
    """Stands between the application and the daemon to give twistd the log observer: it asks the application for one.

    `twistd --logger=…` wins over it.
    """

    def __init__(self, daemon: IService, log: LogOutput) -> None:
        super().__init__()
        self._log = log
        daemon.setServiceParent(self)

    def setServiceParent(self, parent: Componentized) -> None:
        parent.setComponent(ILogObserver, self._log)
        super().setServiceParent(parent)
