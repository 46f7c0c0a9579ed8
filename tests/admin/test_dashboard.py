"""The dashboard for Grafana asks for what /metrics has, in queries that Prometheus understands."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from netd.kinds import KINDS
from tests.admin.door import Door
from tests.admin.test_metrics import service_of

DASHBOARD = Path(__file__).parents[2] / "config" / "grafana.json"


def panels() -> list[dict[str, Any]]:
    document = json.loads(DASHBOARD.read_text())
    return [each for each in document["panels"] if each["type"] != "row"]


def queries() -> list[str]:
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [
        each.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$service", ".*") for each in found
    ]


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:query{number}", "expr": query} for number, query in enumerate(queries())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_every_metric_that_it_asks_for_is_there() -> None:
    asked = set(re.findall(r"\b(?:netd|process)_\w+", " ".join(queries())))
    text = Door().get("/metrics").body.decode()
    told = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    for kind in KINDS:
        service = service_of(kind)
        told |= {
            f"netd_{kind}_{name}" + ("_total" if figure.type == "counter" else "")
            for name, figure in service.figures.items()
        }
        told |= {f"netd_{kind}_{name}_seconds" for name in service.histograms()}
    bare = {name.removesuffix("_bucket") for name in asked}
    absent = {"cache", "bridge"} - set(KINDS)
    missing = {name for name in bare - told if name.split("_")[1] not in absent}
    assert missing <= {"netd_cache_upstream_seconds"}  # which only a cache before Redis has


def test_every_panel_says_what_it_shows() -> None:
    shown = panels()
    assert len({panel["id"] for panel in shown}) == len(shown)
    assert all(panel["title"] and panel["targets"] for panel in shown)
    places = [panel["gridPos"] for panel in shown]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
