"""Values as an operator reads them."""

from datetime import UTC, datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_UNIT = 1024
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def printable(text: str) -> str:
    r"""The text with everything that does not print escaped, so that it can move no cursor and forge no line.

    Escapes look like Python's: \x1b, \n, \u202e.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def show_bytes(count: float) -> str:
    """From 1536 to "1.5 KiB"; a digit after the point below ten."""
    for unit in _UNITS[:-1]:
        if count < _UNIT - 0.5:
            return _quantity(count, unit)
        count /= _UNIT
    return _quantity(count, _UNITS[-1])


def _quantity(count: float, unit: str) -> str:
    return f"{count:.0f} {unit}" if unit == "B" or count >= 9.95 else f"{count:.1f} {unit}"  # noqa: PLR2004 - rounds to 10


def show_count(count: float) -> str:
    """From 12345 to "12,345"; a fraction keeps two digits."""
    return f"{count:,.0f}" if float(count).is_integer() else f"{count:,.2f}"


def show_duration(seconds: float) -> str:
    """The two largest units: "3 d 4 h", "5 m 12 s", "7 s"; below a second "0.4 s"."""
    if 0 < seconds < 1:
        return f"{max(seconds, 0.1):.1f} s" if seconds < 0.95 else "1 s"  # noqa: PLR2004 - 1.0 s would look more exact
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    for small, small_name, large, large_name in (
        (1, "s", _MINUTE, "m"),
        (_MINUTE, "m", _HOUR, "h"),
        (_HOUR, "h", _DAY, "d"),
    ):
        if large_name == "d" or whole < large * (60 if large_name == "m" else 24):
            rest = whole % large // small
            return f"{whole // large} {large_name} {rest} {small_name}"
    raise AssertionError("days are the largest unit")


def show_moment(timestamp: float) -> str:
    """Local time of a Unix timestamp: "2026-11-23 08:42:40"."""
    return datetime.fromtimestamp(timestamp, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def plural(count: int, noun: str) -> str:
    """From 1, "connection" to "1 connection"; 2 gives "2 connections"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
