"""The configuration of an [echo.NAME] service."""

from typing import Literal

from netd.settings import Addresses, Duration, ListenerSettings


class EchoSettings(ListenerSettings):
    """What arrives goes back."""

    listen: Addresses
    """Where to listen: one address or a list."""
    transform: Literal["none", "upper"] = "none"
    """upper: ASCII letters come back in upper case, other bytes untouched."""
    idle_timeout: Duration = 600.0
    """A connection without a byte either way for this long is closed. 0: never."""
