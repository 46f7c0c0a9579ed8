"""conch's own words, of which there are many."""

from constantly import NamedConstant
from twisted.logger import Logger, LogLevel


class Quiet(Logger):
    """For classes made of conch's, as their `_log`.

    What conch says at info and debug is chatter, costs a tenth of a log-in, and shows what clients send; its warnings
    stay, under conch's name and not that of netd's class.
    """

    def __get__(self, instance: object, owner: type[object] | None = None) -> "Quiet":
        return self

    def emit(self, level: NamedConstant, format: str | None = None, **kwargs: object) -> None:  # noqa: A002 - Twisted's
        if level >= LogLevel.warn:
            super().emit(level, format, **kwargs)

    def debug(self, format: str | None = None, **kwargs: object) -> None:  # noqa: A002 - Twisted's
        """Nothing."""

    info = debug


CONCH = Quiet(namespace="twisted.conch.ssh")
