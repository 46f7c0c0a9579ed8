"""The report tells what a result holds: reached and missed targets, where netd is behind, what failed."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import charts, echo, report
from benchmarks.suite import Result, Suite
from benchmarks.words import shown, table

CANNED = Path(__file__).parent / "canned.json"


@pytest.fixture
def suite() -> Suite:
    return echo.suite("python3")


@pytest.fixture
def result() -> Result:
    return Result.from_json(json.loads(CANNED.read_text()))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def row(text: str, name: str) -> list[str]:
    """The cells of the table row that begins with `name`."""
    (found,) = [cells(line) for line in text.splitlines() if line.startswith("|") and cells(line)[0] == name]
    return found


def test_a_result_survives_its_file(result: Result) -> None:
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_peer_stands_with_its_medians_and_its_ratio(suite: Suite, result: Result) -> None:
    scenario = next(scenario for scenario in suite.scenarios if scenario.name == echo.PINGPONG)
    shown_row = row(report.scenario_table(scenario, result), "uvloop")
    assert shown_row == ["uvloop", "8.00", "125,000", "700", "1,400", "100", "0.800x", "0 %"]


def test_cases_stand_beside_the_first(suite: Suite, result: Result) -> None:
    scenario = next(scenario for scenario in suite.scenarios if scenario.name == echo.MANY_OPEN)
    assert row(report.scenario_table(scenario, result), echo.ALL_ACTIVE)[1] == "15.0 (1.50x)"


def test_targets_are_computed_not_claimed(suite: Suite, result: Result) -> None:
    text = report.targets_table(suite.targets, result)
    assert row(text, "ping-pong: netd / Twisted epoll") == [
        "ping-pong: netd / Twisted epoll",
        "at least 2.5x",
        "2.80x",
        "reached",
    ]
    assert row(text, "ping-pong: netd / uvloop")[2:] == ["0.800x", "**not reached**"]
    assert row(text, "CPU with 10,000 active / 100 open")[2:] == ["1.50x", "reached"]
    assert row(text, "memory of an idle connection")[2:] == ["2,600 bytes", "**not reached**"]
    assert row(text, "start to ready")[2:] == ["-", "not measured"]


def test_where_netd_is_behind_is_said(suite: Suite, result: Result) -> None:
    said = report.behind_sentences(suite, result)
    assert "Target missed: ping-pong: netd / uvloop is 0.800x, not 0.9x." in said
    assert "Ping-pong: 64 bytes, 100 connections: uvloop needs 0.800 of netd's CPU." in said
    assert not any("Twisted" in sentence for sentence in said)


def test_failures_and_missing_peers_are_said(suite: Suite, result: Result) -> None:
    text = report.summary(suite, result)
    assert "- gevent: gevent is not installed" in text
    assert "- socat, 100 open, all active: connection 3 lost a byte" in text


def test_the_page_holds_everything_and_is_the_same_each_time(suite: Suite, result: Result) -> None:
    page = report.page([(suite, result)])
    assert page == report.page([(suite, result)])
    for part in ("# Benchmarks", "CPU: A Processor", "Twisted 26.10.0", "### Targets", "(benchmarks-growth.svg)"):
        assert part in page


def test_charts_are_well_formed_and_the_same_each_time(suite: Suite, result: Result) -> None:
    drawn = suite.charts(result)
    assert set(drawn) == {"benchmarks-echo.svg", "benchmarks-growth.svg"}
    assert drawn == suite.charts(result)
    for svg in drawn.values():
        texts = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
        assert "fastio" in texts or "netd" in texts


def test_courses_are_drawn_from_zero_up_with_the_line_through_them_and_what_happened() -> None:
    course = charts.Course("memory", [(0, 50), (10, 100)], [(5, 80), (10, 80)])
    svg = ET.fromstring(charts.courses("A run", "minutes", [course, course], [2.5]))
    drawn, fit, *_ = [each.attrib["points"] for each in svg.iter("{http://www.w3.org/2000/svg}polyline")]
    (x0, y0), (x1, y1) = [map(float, point.split(",")) for point in drawn.split()]
    (_, level), (end, same) = [map(float, point.split(",")) for point in fit.split()]
    bottom = y0 + (y0 - y1)  # the first point stands half way up to the second
    assert end == x1
    assert level == same == pytest.approx(bottom - 0.8 * (bottom - y1), abs=0.1)
    marks = [
        each.attrib for each in svg.iter("{http://www.w3.org/2000/svg}line") if each.attrib["x1"] == each.attrib["x2"]
    ]
    assert [float(each["x1"]) for each in marks] == pytest.approx([x0 + (x1 - x0) / 4] * 2, abs=0.1)
    assert {"A run", "minutes", "memory"} <= {each.text for each in svg.iter("{http://www.w3.org/2000/svg}text")}


def test_figures_have_three_digits_that_count() -> None:
    assert [shown(value) for value in (0.123, 1.234, 12.34, 1234.5, None)] == ["0.123", "1.23", "12.3", "1,234", "-"]


def test_a_table_is_aligned() -> None:
    assert table(("", "a"), [("x", "10"), ("yy", "5")]).splitlines() == [
        "|    |  a |",
        "| :- | -: |",
        "| x  | 10 |",
        "| yy |  5 |",
    ]
