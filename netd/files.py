"""The files that a configuration names, looked at before the daemon needs them: for `netdctl check`.

The daemon may be another user, and have credentials of systemd's: what cannot be seen from here is doubted, no mistake.
"""

import os
from collections.abc import Iterator, Mapping

from netd.config import Config
from netd.settings import Secret, Settings


def examine(config: Config) -> tuple[list[str], list[str]]:
    """Mistakes in files that settings name, and what could not be looked at: a line each, key first."""
    mistakes: list[str] = []
    doubts: list[str] = []
    for service in config.tables:
        problems = dict(_problems(service.settings, f"{service.key}."))
        for key, (problem, certain) in problems.items():
            (mistakes if certain else doubts).append(f"{config.path}: {key}: {problem}")
        if service.settings.tls is not None and not any(key.startswith(f"{service.key}.tls.") for key in problems):
            from netd.tls import TlsUnusable, make_context  # noqa: PLC0415 - Twisted takes a moment to import

            try:
                make_context(service.settings.tls)
            except TlsUnusable as error:
                mistakes.append(f"{config.path}: {service.key}.tls.{error}")
    return mistakes, doubts


def _problems(settings: Settings, prefix: str) -> Iterator[tuple[str, tuple[str, bool]]]:
    """Keys, what is wrong with their files, and whether that is certain."""
    for name in type(settings).model_fields:
        match getattr(settings, name):
            case Secret(path=path) as secret if path is not None:
                try:
                    secret.read()
                except OSError as error:
                    _, credentials, inside = str(path).partition("$CREDENTIALS_DIRECTORY")
                    if credentials:
                        yield (
                            f"{prefix}{name}",
                            (f"{credentials}{inside}: is there for the daemon under systemd only", False),
                        )
                    else:
                        hidden = isinstance(error, PermissionError)
                        yield f"{prefix}{name}", (f"{path}: {os.strerror(error.errno or 0)}", not hidden)
                except UnicodeDecodeError:
                    yield f"{prefix}{name}", (f"{path}: not UTF-8", True)
            case Settings() as table:
                yield from _problems(table, f"{prefix}{name}.")
            case Mapping() as tables:
                for each, table in tables.items():
                    if isinstance(table, Settings):
                        yield from _problems(table, f"{prefix}{name}.{each}.")
            case _:
                pass
