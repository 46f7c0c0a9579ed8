"""TOML → validated Config: every mistake at once, each on its line with its key first."""

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from netd.admin.config import AdminSettings
from netd.kinds import ADMIN, KINDS
from netd.settings import Address, DaemonSettings, ListenerSettings, LogSettings, Origin, Settings, show

LARGEST_FILE = 4 << 20
"""Bytes; a configuration is read whole, and a mistyped path should not read a disk image."""

READABLE = "every user may read it: give it to netd's own user with mode 600, or make it a credential"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_GENERAL: Mapping[str, type[Settings]] = {"daemon": DaemonSettings, "log": LogSettings}


class ConfigError(Exception):
    """The configuration is wrong; `mistakes` has one line each, ready to be shown."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """One [KIND.NAME] table."""

    kind: str
    name: str
    settings: ListenerSettings
    files: str = ""
    """A digest of the files that `settings` names and that are read once, such as certificates."""

    @property
    def key(self) -> str:
        """The service's name in logs, metrics and the console: "echo.plain"; of [admin] "admin"."""
        return f"{self.kind}.{self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration without mistakes."""

    path: Path
    state_dir: Path
    daemon: DaemonSettings
    log: LogSettings
    admin: ServiceConfig
    services: tuple[ServiceConfig, ...]
    """In the order of the file."""
    warnings: tuple[str, ...]

    @property
    def tables(self) -> tuple[ServiceConfig, ...]:
        """Every service, [admin] last."""
        return (*self.services, self.admin)

    def addresses(self) -> Iterator[tuple[str, Address]]:
        """Every address with the full key that names it, such as ("echo.plain.listen", …)."""
        for service in self.tables:
            for name, addresses in service.settings.listens().items():
                for address in addresses:
                    yield f"{service.key}.{name}", address


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a configuration file; raises ConfigError with every mistake found."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(raw) > LARGEST_FILE:
        raise ConfigError([f"{path}: larger than {LARGEST_FILE >> 20} MiB, which no configuration is"])
    return parse(raw, path, environ, others_may_read=bool(mode & (stat.S_IRGRP | stat.S_IROTH)))


def parse(raw: bytes, path: Path, environ: Mapping[str, str], *, others_may_read: bool = False) -> Config:
    """Check the bytes of a configuration file named `path`; raises ConfigError."""
    try:
        tables = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}: line {line}: not UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: {_toml_mistake(str(error))}"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: tables and lists are nested too deep"]) from None
    except ValueError as error:  # a number with thousands of digits
        raise ConfigError([f"{path}: not TOML: {error}"]) from None
    origin = Origin(path.absolute().parent, environ)
    reader = _Reader(origin)
    general = {key: reader.table(key, model, tables.pop(key, {})) for key, model in _GENERAL.items()}
    daemon, log = general["daemon"], general["log"]
    state_dir = daemon.state_directory(origin) if isinstance(daemon, DaemonSettings) else origin.directory
    admin = reader.admin(tables.pop(ADMIN, {}), state_dir)
    services = tuple(reader.services(tables))
    reader.mistakes += _clashes((*([admin] if admin else []), *services))
    if not services and not reader.mistakes:
        reader.mistakes.append("no service: add a table such as [echo.plain] with a listen address")
    if reader.mistakes or admin is None or not isinstance(daemon, DaemonSettings) or not isinstance(log, LogSettings):
        raise ConfigError([f"{path}: {mistake}" for mistake in reader.mistakes])
    warnings = [
        f"{key}: {name} is in the file itself, which others may read: use {name}_file"
        for key, name in (reader.inline_secrets if others_may_read else [])
    ]
    warnings += [f"{key}: {name}: {file}: {READABLE}" for key, name, file in reader.readable_secrets]
    warnings += [
        f"{service.key}.{warning}" for service in (admin, *services) for warning in service.settings.warnings()
    ]
    return Config(
        path,
        state_dir,
        daemon,
        log,
        admin,
        services,
        tuple(f"{path}: {warning}" for warning in dict.fromkeys(warnings)),
    )


class _Reader:
    """Validates one table after the other and gathers their mistakes."""

    def __init__(self, origin: Origin) -> None:
        self.mistakes: list[str] = []
        self.inline_secrets: list[tuple[str, str]] = []
        self.readable_secrets: list[tuple[str, str, Path]] = []
        self._origin = origin

    def table(self, key: str, model: type[Settings], table: object) -> Settings | None:
        if not isinstance(table, dict):
            self.mistakes.append(f"{key}: expected a table, [{key}]; got {show(table)}")
            return None
        self._origin.inline_secrets.clear()
        self._origin.readable_secrets.clear()
        try:
            settings = model.model_validate(table, context=self._origin)
        except ValidationError as error:
            mistakes = error.errors(include_url=False)
            self.mistakes += [_describe(key, model, each) for each in mistakes]
            unknown = {
                each["loc"][0] for each in mistakes if each["type"] == "extra_forbidden" and len(each["loc"]) == 1
            }
            if len(unknown) < len(mistakes):
                return None
            # What is known of it may be wrong in other ways, that show only when it is whole.
            return self.table(key, model, {name: value for name, value in table.items() if name not in unknown})
        self.inline_secrets += [(key, name) for name in self._origin.inline_secrets]
        self.readable_secrets += [(key, name, file) for name, file in self._origin.readable_secrets]
        return settings

    def admin(self, table: object, state_dir: Path) -> ServiceConfig | None:
        """The one service that is always there."""
        settings = self.table(ADMIN, AdminSettings, table)
        if not isinstance(settings, AdminSettings):
            return None
        self.mistakes += _unprotected(ADMIN, settings)
        return ServiceConfig(ADMIN, "", settings.with_socket(self._origin, state_dir), settings.digest_files())

    def services(self, tables: dict[str, Any]) -> Iterator[ServiceConfig]:
        for kind, named in tables.items():
            if kind not in KINDS:
                known = [*KINDS, *_GENERAL, ADMIN]
                self.mistakes.append(f"{_shown(kind)}: unknown kind of service{_did_you_mean(kind, known)}")
            elif not isinstance(named, dict) or not named:
                self.mistakes.append(f"{kind}: expected tables with a name, such as [{kind}.main]; got {show(named)}")
            else:
                yield from self._of_kind(kind, named)

    def _of_kind(self, kind: str, named: dict[str, Any]) -> Iterator[ServiceConfig]:
        model = KINDS[kind].load_settings()
        for name, table in named.items():
            key = f"{kind}.{name}"
            if not _NAME.fullmatch(name):
                self.mistakes.append(f"{kind}.{show(name)}: a name is 1 to 64 letters, digits, - or _")
            elif not isinstance(table, dict):
                self.mistakes.append(f"{key}: expected a table: settings of a service stand under [{kind}.NAME]")
            elif isinstance(settings := self.table(key, model, table), ListenerSettings):
                self.mistakes += _unprotected(key, settings)
                yield ServiceConfig(kind, name, settings, settings.digest_files())


def _unprotected(key: str, settings: ListenerSettings) -> list[str]:
    return [
        f"{key}.{listen}: {address} can be reached from other machines and nothing protects it: "
        "add allow = [networks] or tls.client_ca, or say open = true"
        for listen, address in settings.exposed().items()
    ]


def _clashes(services: tuple[ServiceConfig, ...]) -> Iterator[str]:
    taken: list[tuple[str, Address]] = []
    for service in services:
        for name, addresses in service.settings.listens().items():
            for address in addresses:
                for key, other in taken:
                    if address.overlaps(other) and not key.startswith(f"{service.key}.{name}"):
                        yield f"{service.key}.{name}: {address} overlaps {other} of {key}"
            taken += [(f"{service.key}.{name}", address) for address in addresses]


def _toml_mistake(text: str) -> str:
    """From "Expected '=' (at line 3, column 5)" to "line 3, column 5: Expected '='"."""
    if match := re.fullmatch(r"(.*) \(at (line \d+, column \d+)\)", text, re.DOTALL):
        return f"{match[2]}: {match[1]}"
    return f"not TOML: {text}"


def _describe(key: str, model: type[BaseModel], error: ErrorDetails) -> str:
    """One of pydantic's errors as "echo.plain.listen: what is wrong; what is expected"."""
    where = key
    for step in error["loc"]:
        where += f"[{step}]" if isinstance(step, int) else f".{_shown(step)}"
    return f"{where}: {_sentence(model, error)}"


def _shown(key: str) -> str:
    """A key as it may stand in one line on a terminal."""
    return key if key.isprintable() else show(key)


def _sentence(model: type[BaseModel], error: ErrorDetails) -> str:
    given = show(error["input"])
    match error["type"]:
        case "extra_forbidden":
            table = _model_at(model, error["loc"][:-1])
            return f"unknown key{_did_you_mean(str(error['loc'][-1]), _keys_of(table))}"
        case "value_error":
            return str(error["ctx"]["error"])
        case "literal_error":
            return f"expected {error['ctx']['expected'].replace(chr(39), chr(34))}; got {given}"
        case "greater_than_equal":
            return f"expected at least {error['ctx']['ge']}; got {given}"
        case kind if kind in _EXPECTED:
            return f"expected {_EXPECTED[kind]}; got {given}"
        case kind:
            return _PLAIN.get(kind, error["msg"])


_PLAIN = {"missing": "is required"}


_EXPECTED = {
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "a string",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def _keys_of(model: type[BaseModel] | None) -> list[str]:
    if model is None:
        return []
    secrets = model.secret_names() if issubclass(model, Settings) else []
    return [*model.model_fields, *(f"{name}_file" for name in secrets)]


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model of the table at a pydantic location, to know which keys it has."""
    for step in location:
        if isinstance(step, int) or step not in model.model_fields:
            continue
        inner = next(_models_in(model.model_fields[step].annotation), None)
        if inner is None:
            return None
        model = inner
    return model


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""
