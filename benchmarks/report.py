"""The report: results as Markdown, with the targets and, said plainly, where netd is behind."""

from collections.abc import Sequence

from benchmarks import stats
from benchmarks.suite import Result, Scenario, Suite, Target
from benchmarks.words import NOTHING, shown, table

METHOD = """\
One command, `make bench`, measures everything here and writes this page anew; no part of it is done by hand. The
figures of each round are kept in `benchmarks/results/`.

- **Load** comes from a C client (`benchmarks/load/`) over loopback. It checks every byte that comes back; a wrong,
  missing or surplus byte fails the trial. Server and client are pinned to a core each.
- **CPU** is the server's, user and system, all threads and all processes that it forks, read from the kernel's clocks
  from outside. It is the measure to compare by: a rate also depends on how fast the client is, and on a shared machine
  on what the neighbours do.
- **Rounds** are interleaved: each round measures every server in turn, each in a fresh process, warmed up. Figures are
  medians over the rounds. A ratio is the median of the rounds' ratios. *Spread* is how far the rounds lie apart, as a
  part of the median: differences below it mean nothing.
- What the kernel does in softirqs for the server's socket while the client sends counts for the client, for all alike.
"""


def page(suites: Sequence[tuple[Suite, Result]]) -> str:
    """docs/benchmarks.md, whole."""
    parts = ["# Benchmarks", METHOD]
    for suite, result in suites:
        parts += [f"## {suite.title}", suite.about, *_circumstances(result)]
        parts += [f"![{title_of(name)}]({name})" for name in suite.charts(result)]
        parts += [summary(suite, result)]
        for scenario in suite.scenarios:
            if scenario.name in result.records:
                parts += [f"### {scenario.title}", scenario.about, scenario_table(scenario, result)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def title_of(chart: str) -> str:
    """`benchmarks-growth.svg` → `growth`: the text for those who do not see the chart."""
    return chart.removeprefix("benchmarks-").removesuffix(".svg")


def summary(suite: Suite, result: Result) -> str:
    """The targets, where netd is behind, and what could not be measured."""
    whole = len(result.records) == len(suite.scenarios)
    targets = [target for target in suite.targets if whole or target.value(result) is not None]
    parts = ["### Targets", targets_table(targets, result)] if targets else []
    if behind := behind_sentences(suite, result):
        parts += ["### Where netd is behind", "\n".join(f"- {sentence}" for sentence in behind)]
    failures = [failure for record in result.records.values() for failure in record.failures]
    missing = [f"{name}: {why}" for name, why in result.missing.items()]
    if failures or missing:
        parts += ["### Not measured", "\n".join(f"- {line}" for line in missing + failures)]
    return "\n\n".join(parts)


def targets_table(targets: Sequence[Target], result: Result) -> str:
    """Each target with what was measured and whether that reaches it."""
    rows = []
    for target in targets:
        value = target.value(result)
        goal = f"{'at least' if target.at_least else 'at most'} {target.goal:g}{target.unit}"
        verdict = "not measured" if value is None else "reached" if target.reached(value) else "**not reached**"
        rows.append((target.text, goal, NOTHING if value is None else f"{shown(value)}{target.unit}", verdict))
    return table(("target", "goal", "measured", ""), rows)


def behind_sentences(suite: Suite, result: Result) -> list[str]:
    """A sentence for each missed target, and for each peer that needs less than netd."""
    said = [
        f"Target missed: {target.text} is {shown(value)}{target.unit}, not {target.goal:g}{target.unit}."
        for target in suite.targets
        if (value := target.value(result)) is not None and not target.reached(value)
    ]
    for scenario in suite.scenarios:
        for case in scenario.cases:
            cheaper = [
                f"{peer.name} needs {shown(share)} of {scenario.subject}'s {scenario.noun}"
                for peer in scenario.peers
                if peer.name != scenario.subject and (share := advantage(scenario, result, case, peer.name)) is not None
                if share < 1
            ]
            where = f"{scenario.title} ({case})" if len(scenario.cases) > 1 else scenario.title
            if cheaper:
                said.append(f"{where}: {', '.join(cheaper)}.")
    return said


def advantage(scenario: Scenario, result: Result, case: str, peer: str) -> float | None:
    """How many times as much as the scenario's subject the peer needs."""
    return stats.ratio(
        result.rounds(scenario.name, case, peer), result.rounds(scenario.name, case, scenario.subject), scenario.figure
    )


def scenario_table(scenario: Scenario, result: Result) -> str:
    """A scenario's figures: a row for each peer, or for each case if there are several."""
    return _by_peer(scenario, result) if len(scenario.cases) == 1 else _by_case(scenario, result)


def _by_peer(scenario: Scenario, result: Result) -> str:
    case = scenario.cases[0]
    head = (
        "",
        *(column.title for column in scenario.columns),
        f"against {scenario.subject}'s {scenario.noun}",
        "spread",
    )
    rows = []
    for peer in scenario.peers:
        rounds = result.rounds(scenario.name, case, peer.name)
        middles = [stats.middle(rounds, column.figure) for column in scenario.columns]
        cells = [
            shown(None if middle is None else middle * column.factor)
            for middle, column in zip(middles, scenario.columns, strict=True)
        ]
        times = None if peer.name == scenario.subject else advantage(scenario, result, case, peer.name)
        spread = stats.spread(rounds, scenario.figure)
        against = NOTHING if times is None else f"{shown(times)}x"
        rows.append((peer.name, *cells, against, NOTHING if spread is None else f"{spread * 100:.0f} %"))
    return table(head, rows)


def _by_case(scenario: Scenario, result: Result) -> str:
    first = scenario.cases[0]
    rows = []
    for case in scenario.cases:
        cells = []
        for peer in scenario.peers:
            rounds = result.rounds(scenario.name, case, peer.name)
            grown = stats.ratio(rounds, result.rounds(scenario.name, first, peer.name), scenario.figure)
            bracket = f" ({shown(grown)}x)" if grown is not None and case != first else ""
            cells.append(shown(stats.middle(rounds, scenario.figure)) + bracket)
        rows.append((case, *cells))
    return table(("", *(peer.name for peer in scenario.peers)), rows)


def _circumstances(result: Result) -> list[str]:
    machine = ", ".join(f"{name}: {text}" for name, text in result.machine.items())
    versions = ", ".join(f"{name} {text}" for name, text in result.versions.items())
    rounds, seconds = result.pace["rounds"], result.pace["seconds"]
    pace = f"{rounds:g} rounds of {seconds:g} s, fewer rounds where connections are many"
    return [f"- Machine: {machine}\n- Versions: {versions}\n- Measured on {result.date}: {pace}"]
