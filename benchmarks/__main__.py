"""`make bench`: measures netd beside its peers, prints the tables, and writes docs/benchmarks.md and its charts."""

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import bridge, cache, echo, machine, rabbit, report, ssh
from benchmarks.runner import HERE, Pace, Record, Trial, client_core, raise_file_limit, run, server_core
from benchmarks.suite import Result, Scenario, Suite

SUITES = {
    "echo": echo.suite,
    "cache": cache.suite,
    "bridge": bridge.suite,
    "rabbit": rabbit.suite,
    "ssh": ssh.suite,
}
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs"
FULL = Pace(rounds=5, seconds=0.8, warmup=0.2)
QUICK = Pace(rounds=1, seconds=0.3, warmup=0.1)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.render:
        _write_docs()
        return 0
    suites = [SUITES[name](options.python) for name in options.suite or SUITES]
    unknown = set(options.only) - {scenario.name for suite in suites for scenario in suite.scenarios}
    if unknown:
        print(f"benchmarks: no such scenario: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    if subprocess.run(("make", "--silent", "-C", str(HERE)), check=False).returncode:
        print("benchmarks: the load clients were not built: a C compiler (cc) and make are needed", file=sys.stderr)
        return 2
    pace = dataclasses.replace(
        QUICK if options.quick else FULL,
        **{name: value for name in ("rounds", "seconds") if (value := getattr(options, name)) is not None},
    )
    partial = bool(options.only or options.quick)
    failed = False
    for suite in suites:
        result = _measure(suite, pace, options.python, options.only)
        failed = failed or any(record.failures for record in result.records.values())
        print(_tables(suite, result))
        if not partial:
            RESULTS.mkdir(exist_ok=True)
            Path(RESULTS, f"{suite.name}.json").write_text(json.dumps(result.to_json(), indent=1) + "\n")
    if partial:
        print("docs/benchmarks.md is as it was: only a whole run writes it.")
    else:
        _write_docs()
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--suite", action="append", choices=SUITES, help="what to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="one short round of each; writes nothing")
    parser.add_argument("--only", action="append", default=[], metavar="SCENARIO", help="this scenario; writes nothing")
    parser.add_argument("--rounds", type=int, help=f"rounds of each scenario (default: {FULL.rounds})")
    parser.add_argument("--seconds", type=float, help=f"how long each trial measures (default: {FULL.seconds})")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers' packages")
    parser.add_argument(
        "--render", action="store_true", help="only write the page and charts anew from the last results"
    )
    return parser


def _measure(suite: Suite, pace: Pace, python: str, only: Sequence[str]) -> Result:
    versions = machine.versions(python)
    result = Result(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=machine.describe(),
        versions=versions,
        pace=dataclasses.asdict(pace),
    )
    if server_core() == client_core():
        result.missing["separate cores"] = "there is only one, which server and client share: compare ratios at most"
    files = raise_file_limit()
    for scenario in suite.scenarios:
        if only and scenario.name not in only:
            continue
        if files < scenario.files:
            result.missing[scenario.title] = f"a process may open only {files} files here, not {scenario.files}"
            continue
        began = time.monotonic()
        print(f"{scenario.name}: {scenario.title}", flush=True)
        result.records[scenario.name] = _run(scenario, pace, versions, result)
        print(f"  took {time.monotonic() - began:.0f} s", flush=True)
    return result


def _run(scenario: Scenario, pace: Pace, versions: dict[str, str], result: Result) -> Record:
    trials: list[Trial] = []
    for trial in scenario.trials:
        if lacking := [need for need in trial.peer.needs if need not in versions]:
            result.missing[trial.peer.name] = f"{', '.join(lacking)} is not installed"
        else:
            trials.append(trial)
    rounds = min(pace.rounds, scenario.rounds or pace.rounds)
    return run(tuple(trials), dataclasses.replace(pace, rounds=rounds), lambda line: print(line, flush=True))


def _tables(suite: Suite, result: Result) -> str:
    tables = [
        f"### {scenario.title}\n\n{report.scenario_table(scenario, result)}"
        for scenario in suite.scenarios
        if scenario.name in result.records
    ]
    return "\n\n".join(["", *tables, report.summary(suite, result), ""])


def _write_docs() -> None:
    """Writes the page and charts from the results that are stored, those of suites not run now included."""
    suites = []
    for name, make in SUITES.items():
        stored = Path(RESULTS, f"{name}.json")
        if stored.exists():
            suites.append((make(sys.executable), Result.from_json(json.loads(stored.read_text()))))
    DOCS.mkdir(exist_ok=True)
    for suite, result in suites:
        for name, svg in suite.charts(result).items():
            Path(DOCS, name).write_text(svg)
    Path(DOCS, "benchmarks.md").write_text(report.page(suites))
    print(f"wrote docs/benchmarks.md and {sum(len(suite.charts(result)) for suite, result in suites)} charts")


if __name__ == "__main__":
    sys.exit(main())
