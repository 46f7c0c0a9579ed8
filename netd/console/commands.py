"""The built-in verbs: one explicit table, in the order that help shows."""

from netd.console.command import Command
from netd.console.configuration import ConfigDiff, ConfigShow
from netd.console.connections import Close, Connections
from netd.console.control import Drain, Reload, Resume
from netd.console.help import Help, Version, WhoAmI
from netd.console.logs import LogLevel, LogTail
from netd.console.services import Services, Stats, Status
from netd.console.sessions import Sessions

BUILT_IN: tuple[Command, ...] = (
    Help(),
    Status(),
    Services(),
    Connections(),
    Close(),
    Stats(),
    LogLevel(),
    LogTail(),
    Sessions(),
    ConfigShow(),
    ConfigDiff(),
    Reload(),
    Drain(),
    Resume(),
    WhoAmI(),
    Version(),
)
