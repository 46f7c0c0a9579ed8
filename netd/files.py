"""The files that a configuration names, looked at before the daemon needs them: for `netdctl check`.

The daemon may be another user, and have credentials of systemd's: what cannot be seen from here is doubted, no mistake.
"""

import os
from collections.abc import Container, Iterator, Mapping

from netd.config import Config
from netd.settings import Secret, Settings, TlsSettings


def examine(config: Config) -> tuple[list[str], list[str]]:
    """Mistakes in files that settings name, and what could not be looked at: a line each, key first."""
    mistakes: list[str] = []
    doubts: list[str] = []
    for service in config.tables:
        problems = dict(_problems(service.settings, f"{service.key}."))
        for key, (problem, certain) in problems.items():
            (mistakes if certain else doubts).append(f"{config.path}: {key}: {problem}")
        if service.settings.tls is not None:
            unseen = {name for name in TlsSettings.model_fields if f"{service.key}.tls.{name}" in problems}
            if problem := _tls_problem(service.settings.tls, unseen):
                mistakes.append(f"{config.path}: {service.key}.tls.{problem}")
    return mistakes, doubts


def _tls_problem(settings: TlsSettings, unseen: Container[str]) -> str:
    """What is wrong with a certificate or its key; with the certificates alone where the key is out of sight."""
    from netd.tls import TlsUnusable, make_context, read_certificates  # noqa: PLC0415 - Twisted takes a moment to import

    try:
        if not unseen:
            make_context(settings)
            return ""
        for name, pem in (("certificate", settings.certificate), ("client_ca", settings.client_ca)):
            if pem is not None and name not in unseen:
                read_certificates(name, pem)
    except TlsUnusable as error:
        return str(error)
    return ""


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
