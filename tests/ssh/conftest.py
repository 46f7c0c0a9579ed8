"""Fixtures: the service in memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from tests.ssh.daemon import Sshd, serving
from tests.ssh.service import Served

Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts the service with some settings."""
    made: list[Served] = []

    def start(settings: str = "", **options: str) -> Served:
        made.append(Served(tmp_path, settings, **options))
        return made[-1]

    yield start
    for served in made:
        served.service.stopService()


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """What is logged meanwhile."""
    heard: list[LogEvent] = []

    @implementer(ILogObserver)
    class Ear:
        def __call__(self, event: LogEvent) -> None:
            heard.append(event)

    ear = Ear()
    globalLogPublisher.addObserver(ear)
    yield heard
    globalLogPublisher.removeObserver(ear)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """The real daemon."""
    with serving(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd
