"""What the log says of messages that become dead letters: a line at once, then at most one a second; never a body."""

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from netd.log import Repeated

_log = Logger()


class Burials:
    """Those of one port, or of one queue."""

    def __init__(self, clock: IReactorTime, place: str, service: str) -> None:
        self._place = place
        self._service = service
        self._reason = ""
        self._repeated = Repeated(clock, self._report)

    def happened(self, count: int, reason: str) -> None:
        """So many messages have become dead letters."""
        self._reason = self._reason or reason
        self._repeated.happened(count)

    def stop(self) -> None:
        """Say what has not been said."""
        self._repeated.stop()

    def _report(self, count: int) -> None:
        reason, self._reason = self._reason, ""
        _log.warn(
            "{count} message(s) of {place} became dead letters, see `bridge dead list`; the first: {reason}",
            count=count,
            place=self._place,
            reason=reason,
            service=self._service,
        )
