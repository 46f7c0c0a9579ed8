"""A configuration as it is in force: every setting with its value, defaults too, secrets hidden.

The text is TOML again, but for what is hidden. Nothing here imports Twisted.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from netd.config import Config
from netd.settings import Secret, Settings, parse_duration, parse_size

HIDDEN = "(hidden)"

_PASSWORD_IN_URL = re.compile(r"(?<=://)([^@:]*):.*(?=@)", re.DOTALL)
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_DURATION_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))
_STEP = 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting."""

    table: str
    """As it is headed: "echo.plain"."""
    name: str
    """Within its table: "tls.certificate"."""
    text: str
    """Its value as TOML writes it."""
    given: bool
    """Whether the file has it; else this is its default."""
    value: object
    """The value itself, to be compared."""

    @property
    def key(self) -> str:
        """The full key: "echo.plain.tls.certificate"."""
        return f"{self.table}.{self.name}"


def effective(config: Config) -> list[Setting]:
    """Every setting that has a value, in the order of the tables and their models."""
    daemon = config.daemon.model_copy(update={"state_dir": config.state_dir})
    found = [*_table("daemon", daemon), *_table("log", config.log)]
    for each in (config.admin, *config.services):
        found += _table(each.key, each.settings)
    return found


def as_toml(settings: list[Setting]) -> str:
    """The settings as a file would have them; a comment tells which are defaults."""
    lines: list[str] = []
    table = ""
    for each in settings:
        if each.table != table:
            table = each.table
            lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
        line = f"{each.name} = {each.text}"
        lines.append(line if each.given else f"{line:<40} # default")
    return "\n".join(lines)


def _table(table: str, settings: Settings) -> Iterator[Setting]:
    for name, value, info, given in _walk(settings, ""):
        if value is not None and value not in ((), {}):
            yield Setting(table, name, _toml(value, info), given, value)


def _walk(settings: Settings, prefix: str) -> Iterator[tuple[str, Any, FieldInfo, bool]]:
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        yield from _walk_value(prefix + name, value, info, given=name in settings.model_fields_set)


def _walk_value(name: str, value: Any, info: FieldInfo, *, given: bool) -> Iterator[tuple[str, Any, FieldInfo, bool]]:
    if isinstance(value, Settings):
        yield from _walk(value, f"{name}.")
    elif isinstance(value, Mapping) and value:
        for key, inner in value.items():
            shown = key if _PLAIN_KEY.fullmatch(str(key)) else json.dumps(str(key))
            yield from _walk_value(f"{name}.{shown}", inner, info, given=given)
    elif isinstance(value, Secret) and value.path is not None:
        yield name + "_file", value.path, info, given
    else:
        yield name, value, info, given


def _toml(value: Any, info: FieldInfo) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(each, info) for each in value) + "]"
    if isinstance(value, Secret):
        return _string(without_password(value.text or ""))
    if isinstance(value, int | float):
        return _number(value, info)
    return _string(str(value))


def _number(value: float, info: FieldInfo) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() if _parsed_by(info, parse_size):
            return _size(value)
        case float() if _parsed_by(info, parse_duration):
            return _duration(value)
    return str(value)


def _parsed_by(info: FieldInfo, parser: object) -> bool:
    return any(getattr(each, "func", None) is parser for each in info.metadata)


def without_password(text: str) -> str:
    """A URL without its password; what is no URL is hidden as a whole."""
    return _PASSWORD_IN_URL.sub(rf"\1:{HIDDEN}", text) if "://" in text or text == "embedded:" else HIDDEN


def _string(text: str) -> str:
    """JSON's strings are TOML's, but for what TOML wants escaped besides."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _size(value: int) -> str:
    power = 0
    while value and value % _STEP == 0 and power < len(_SIZE_UNITS) - 1:
        value //= _STEP
        power += 1
    return f'"{value}{_SIZE_UNITS[power]}"' if power else str(value)


def _duration(seconds: float) -> str:
    for unit, letter in _DURATION_UNITS:
        if seconds >= unit and seconds % unit == 0:
            return f'"{seconds / unit:g}{letter}"'
    return f"{seconds:g}"


# --- two of them


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that is not the same in both; None where it is missing."""

    key: str
    before: str | None
    after: str | None


def changes(before: list[Setting], after: list[Setting]) -> list[Change]:
    """What differs, by key: values are compared, not how they are written. A secret that differs shows hidden twice."""
    old, new = ({each.key: each for each in settings} for settings in (before, after))
    found = []
    for key in dict.fromkeys([*old, *new]):
        one, other = old.get(key), new.get(key)
        if one is None or other is None or one.value != other.value:
            found.append(Change(key, one.text if one else None, other.text if other else None))
    return found
