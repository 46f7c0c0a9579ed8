"""Who did what: a JSON object a line, appended to a file that is rotated by size.

Written at once and without a thread: a line is a hundred bytes to the page cache, and nobody is told that something
was done before it is written down. A file that cannot be written is said in the log; the operator's way in stays open.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from netd.log import Repeated
from netd.ssh.commands import LONGEST_LINE

OLD_FILES = 5
"""Kept beside the current one: NAME.1 is the newest."""
LONGEST_VALUE = LONGEST_LINE
"""Characters of a value: a line that was run is there whole, or what matters could stand behind what does not."""
MODE = 0o600

_log = Logger()


class Audit:
    """The file, opened by the first line."""

    def __init__(self, path: Path | None, largest: int, clock: IReactorTime, service: str) -> None:
        self._path = path
        self._largest = largest
        self._service = service
        self._descriptor: int | None = None
        self._size = 0
        self._failed = Repeated(clock, self._report)
        self._why = ""

    def write(self, event: str, **values: object) -> None:
        """Append a line: the time, what happened, and these values."""
        if self._path is None:
            return
        record: dict[str, object] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        record |= {
            key: value if isinstance(value, bool | int | float | None) else str(value)[:LONGEST_VALUE]
            for key, value in values.items()
        }
        line = json.dumps(record).encode() + b"\n"
        try:
            self._append(self._path, line)
        except OSError as error:
            self._why = f"{error.strerror}"
            self._failed.happened()
            self.close()

    def _append(self, path: Path, line: bytes) -> None:
        if self._descriptor is not None and self._largest and self._size + len(line) > self._largest:
            self.close()
            for number in range(OLD_FILES - 1, 0, -1):
                old = path.with_name(f"{path.name}.{number}")
                if old.exists():
                    old.rename(path.with_name(f"{path.name}.{number + 1}"))
            path.rename(path.with_name(f"{path.name}.1"))
        if self._descriptor is None:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, MODE)
            self._size = os.fstat(self._descriptor).st_size
        self._size += os.write(self._descriptor, line)

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def stop(self) -> None:
        """Close it for good."""
        self.close()
        self._failed.stop()

    def _report(self, count: int) -> None:
        _log.error(
            "{count} line(s) of the audit log {path} are lost: {why}",
            count=count,
            path=str(self._path),
            why=self._why,
            service=self._service,
        )
