"""/metrics as Prometheus reads it."""

import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netd.config import load
from netd.kinds import ADMIN, KINDS, kind_of
from netd.service import Service
from netd.stats import Histogram, quantile
from tests.admin.door import Door
from tests.fakes import MemoryNetwork, runtime_on

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def door() -> Door:
    return Door()


def samples(door: Door) -> dict[str, float]:
    """Each sample by its name and labels."""
    lines = [line for line in door.get("/metrics").body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def service_of(kind: str) -> Service:
    """One of a kind, as the development configuration has it."""
    config = load(CONFIG / "dev.toml")
    first = next(each for each in (config.admin, *config.services) if each.kind == kind)
    return kind_of(kind).load_service()(first, runtime_on(MemoryNetwork()))


def test_promtool_finds_nothing_to_complain_about(door: Door) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=door.get("/metrics").body, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.fixture
def no_descriptors(door: Door) -> Iterator[None]:
    """From here on none can be had; until then the daemon was asked for its figures now and then, as it should be."""
    samples(door)
    door.get("/status")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("no_descriptors")
def test_figures_can_be_had_when_no_descriptor_can(door: Door) -> None:
    assert samples(door)['netd_service_up{service="echo.plain"}'] == 1
    assert door.get("/status").document["descriptors"] == {"open": 3, "limit": 3}


def test_what_a_client_does_is_counted(door: Door) -> None:
    client = door.network.client(port=[each[0] for each in door.network.tcpServers].index(8001))
    client.send(b"hello")
    found = samples(door)
    assert found['netd_connections{service="echo.plain"}'] == 1
    assert found['netd_connections_accepted_total{service="echo.plain"}'] == 1
    assert found['netd_received_bytes_total{service="echo.plain"}'] == 5
    assert found['netd_sent_bytes_total{service="echo.plain"}'] == 5
    assert found['netd_connections{service="echo.upper"}'] == 0


def test_a_service_that_is_unwell_is_not_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door.runtime.services[0], "health", lambda: "its backend does not answer")
    found = samples(door)
    assert found['netd_service_up{service="echo.plain"}'] == 0
    assert found['netd_service_up{service="echo.upper"}'] == 1


def test_refusals_are_told_by_their_reason() -> None:
    door = Door("[admin]\nlisten = '127.0.0.1:9180'\n[echo.plain]\nlisten = '127.0.0.1:8001'\nmax_connections = 1\n")
    port = [each[0] for each in door.network.tcpServers].index(8001)
    door.network.connect(port=port)
    assert door.network.connect("192.0.2.7", port=port) is None
    name = 'netd_connections_refused_total{reason="max_connections",service="echo.plain"}'
    assert samples(door)[name] == 1


def test_no_label_names_a_client(door: Door) -> None:
    door.network.client("192.0.2.7", port=0)
    text = door.get("/metrics").body.decode()
    labels = set(re.findall(r'[{,]([a-z_]+)="', text))
    assert labels == {"service", "level", "le", "version", "python", "twisted"}
    assert "192.0.2.7" not in text


def test_the_process_and_what_runs_are_told(door: Door) -> None:
    found = samples(door)
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_open_fds"] > 3
    assert any(name.startswith('netd_build_info{python="3.') for name in found)


def test_how_late_the_reactor_is_shows_in_buckets(door: Door) -> None:
    door.network.pump([0.25, 0.25, 0.75])
    found = samples(door)
    assert found["netd_reactor_lag_seconds_count"] == 3
    assert found['netd_reactor_lag_seconds_bucket{le="0.25"}'] == 2
    assert found['netd_reactor_lag_seconds_bucket{le="0.5"}'] == 3
    assert found["netd_reactor_lag_seconds_sum"] == 0.5


def test_openmetrics_is_given_to_who_asks_for_it(door: Door) -> None:
    answer = door.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_a_version_that_is_none_is_no_trouble(door: Door) -> None:
    assert door.get("/metrics", Accept="application/openmetrics-text; version=x").status == 200


@pytest.mark.parametrize("kind", [ADMIN, *KINDS])
def test_every_figure_has_its_meaning(kind: str) -> None:
    service = service_of(kind)
    assert set(service.stats()) <= set(service.figures)
    drawn = {name for chart in service.charts for name in chart.lines.values()}
    assert drawn <= set(service.figures)
    assert all(figure.help and not figure.help.endswith(".") for figure in service.figures.values())


# --- histograms


def test_a_histogram_counts_in_the_bucket_whose_bound_is_not_exceeded() -> None:
    histogram = Histogram("", (1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 99.0):
        histogram.observe(seconds)
    assert (histogram.counts, histogram.total, histogram.count) == ([2, 1, 1], 102.0, 4)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0], 0.5, 0.0),
        ([4, 0, 0], 0.5, 0.5),
        ([0, 4, 0], 0.5, 1.5),
        ([2, 2, 0], 0.5, 1.0),
        ([2, 2, 0], 1.0, 2.0),
        ([0, 0, 9], 0.5, 2.0),
    ],
)
def test_a_quantile_is_estimated_within_its_bucket(counts: list[int], share: float, expected: float) -> None:
    assert quantile((1.0, 2.0), counts, share) == expected
