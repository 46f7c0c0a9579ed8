"""Where verbs write: to a client as bytes, or into memory."""

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred


def wants_colour(term: str, environ: Mapping[str, str]) -> bool:
    """Whether a terminal is to be sent colours: not a dumb one, and not where NO_COLOR is set (no-color.org)."""
    return term not in {"", "dumb", "unknown"} and not environ.get("NO_COLOR")


class ByteOutput:
    """An Output for `ssh host verb`: UTF-8 to two functions that take bytes.

    With `pty` the lines end in CR LF, as the client's terminal is raw. Nobody can be asked.
    """

    interactive = False

    def __init__(
        self,
        write: Callable[[bytes], object],
        error: Callable[[bytes], object],
        *,
        width: int = 0,
        colour: bool = False,
        pty: bool = False,
    ) -> None:
        self.width = width
        self.colour = colour
        self._write = write
        self._error = error
        self._newline = "\r\n" if pty else "\n"

    def write(self, text: str) -> None:
        self._write(self._encode(text))

    def error(self, text: str) -> None:
        self._error(self._encode(text))

    def confirm(self, question: str) -> Deferred[bool]:
        raise TypeError(f"nobody to ask: {question}")

    def _encode(self, text: str) -> bytes:
        return text.replace("\n", self._newline).encode("utf-8", "replace")


class MemoryOutput(ByteOutput):
    """Keeps what is written, for netdctl, HTTP, watch and tests: `text`, `errors`."""

    def __init__(self, *, width: int = 0, colour: bool = False) -> None:
        super().__init__(self._keep, self._keep_error, width=width, colour=colour)
        self._texts: list[bytes] = []
        self._errors: list[bytes] = []

    def _keep(self, data: bytes) -> None:
        self._texts.append(data)

    def _keep_error(self, data: bytes) -> None:
        self._errors.append(data)

    @property
    def text(self) -> str:
        """What was written to standard output so far."""
        return b"".join(self._texts).decode()

    @property
    def errors(self) -> str:
        """The same of standard error."""
        return b"".join(self._errors).decode()
