"""From one configuration to the next: what is added, changed, removed, and what only a restart can change.

A reload prepares everything, then commits: the whole file is checked, each new service and port opened and each changed
service asked to adapt, before anything that runs is touched. If one of these fails nothing has changed, and all reasons
are told. `Daemon.reload` does it; here stands what needs no daemon.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netd.config import Config, ServiceConfig
from netd.settings import Settings

NEEDS_RESTART = ("daemon.fastio", "log.format", "admin.socket", "admin.socket_group")
"""Keys that are in force from the start to the end of the process, beside the state directory."""


class CannotReload(Exception):
    """Nothing has changed; `reasons` has a line each, ready to be shown."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class Difference:
    """What a reload does to the services and the general tables, by their keys."""

    added: Sequence[ServiceConfig]
    changed: Sequence[ServiceConfig]
    removed: Sequence[str]
    untouched: Sequence[str]
    general: Sequence[str]
    """Changed keys of the general tables: "log.level"."""
    warnings: Sequence[str]
    """Of the new configuration."""

    def document(self) -> dict[str, list[str]]:
        """The same as lists of keys, for `--json`."""
        return {
            "added": [each.key for each in self.added],
            "changed": [*self.general, *(each.key for each in self.changed)],
            "removed": list(self.removed),
            "untouched": list(self.untouched),
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        parts = [f"{what} {', '.join(keys)}" for what, keys in self.document().items() if keys and what != "warnings"]
        return "; ".join(parts)


def compare(old: Config, new: Config) -> Difference:
    """What is different; raises CannotReload for what needs a restart."""
    if reasons := list(_restarts(old, new)):
        raise CannotReload([f"{new.path}: {reason}: needs a restart" for reason in reasons])
    before = {each.key: each for each in old.tables}
    after = {each.key for each in new.tables}
    return Difference(
        added=[each for each in new.tables if each.key not in before],
        changed=[each for each in new.tables if each.key in before and each != before[each.key]],
        removed=[key for key in before if key not in after],
        untouched=[each.key for each in new.services if each == before.get(each.key)],
        general=list(_general(old, new)),
        warnings=new.warnings,
    )


def _restarts(old: Config, new: Config) -> Iterator[str]:
    keys = [*_general(old, new), *_changed("admin", old.admin.settings, new.admin.settings)]
    if old.state_dir != new.state_dir:
        yield f"daemon.state_dir: {old.state_dir} to {new.state_dir}"
        keys = [key for key in keys if key != "admin.socket"]  # stands in the state directory unless it is said where
    yield from (key for key in keys if key in NEEDS_RESTART)


def _general(old: Config, new: Config) -> Iterator[str]:
    yield from _changed("daemon", old.daemon, new.daemon)
    yield from _changed("log", old.log, new.log)


def _changed(table: str, before: Settings, after: Settings) -> Iterator[str]:
    for name in type(before).model_fields:
        if getattr(before, name) != getattr(after, name):
            yield f"{table}.{name}"
