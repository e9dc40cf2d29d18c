"""Which backend wins what, by how much and how surely: the home page's answer.

A comparison holds the rows that share everything but the backend. For each figure the backend with the best mean is
compared with each of the others as ``harness compare`` does it. It wins if the 95% interval of each difference says so;
it wins beyond doubt if that holds at the confidence that all comparisons of the page together need (Bonferroni, 1%).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.compare.judge import ALPHA, Comparison, compare
from harness.analysis.compare.match import Match
from harness.analysis.formatting import one_line
from harness.analysis.grouping import representative, rival_key
from harness.analysis.metrics import HEADLINES, RunMetric, comparable, success
from harness.analysis.table import Row
from harness.errors import HarnessError
from harness.records.store import StoredRun
from harness.report.report import Report

TITLES = {"quality": "Quality"} | {metric.name: metric.headline.capitalize() for metric in HEADLINES}
"""The metrics that backends are compared by; ``quality`` is the task's primary metric."""


@dataclass(frozen=True)
class BackendLead:
    """Which backend leads by one metric of one comparison."""

    winner: str
    """A backend; empty where none is told apart from all others."""
    certainty: str
    """``beyond doubt``, ``likely`` or ``open``."""
    leader: str
    """The backend with the best mean; empty where there are none to compare."""
    amount: str
    """How much better the best mean is than the next one, with the 95% interval where there is one."""
    evidence: str
    """What the certainty rests on, or why there is none."""


@dataclass(frozen=True)
class Contest:
    """One comparison: the rows of several backends."""

    task: str
    name: str
    parity: str
    leads: dict[str, BackendLead]
    """By metric."""


def contests(report: Report) -> list[Contest]:
    """Of all rows that have a rival, in the table's order."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in report.table.rows:
        runs = report.runs_of(row)
        groups.setdefault(rival_key(representative([run.record for run in runs])), []).append(row)
    fields = []
    for rows in groups.values():
        sides = {row.text("backend"): report.successes(row) for row in rows}
        sides = {backend: runs for backend, runs in sides.items() if runs}
        if len(sides) > 1 and len(sides) == len([row for row in rows if report.successes(row)]):
            fields.append((rows, sides))
    pairs = sum(len(sides) - 1 for _, sides in fields) * len(TITLES)
    confidence = 1 - ALPHA / max(1, pairs)
    return [_contest(report, rows, sides, confidence) for rows, sides in fields]


def scoreboard(held: Sequence[Contest]) -> dict[str, Counter[str]]:
    """Return how many contests each backend won, by metric; ``""`` counts those without a winner."""
    winners = {name: [c.leads[name].winner for c in held if name in c.leads] for name in TITLES}
    return {name: Counter(backends) for name, backends in winners.items() if backends}


def _contest(report: Report, rows: Sequence[Row], sides: dict[str, list[StoredRun]], confidence: float) -> Contest:
    first = rows[0]
    names = [first.text(name) for name in ("dataset", "model", "device", "precision")]
    options = {row.text("options") for row in rows}
    name = " · ".join([*names, *(options if len(options) == 1 else set())])
    leads = _leads(report, sides, confidence)
    marks = [row.text("parity") for row in rows if row.text("parity")]
    parity = next((mark for mark in marks if mark.startswith("differs")), marks[-1] if marks else "")
    return Contest(first.text("task"), one_line(name.rstrip(" ·")), parity, leads)


def _leads(report: Report, sides: dict[str, list[StoredRun]], confidence: float) -> dict[str, BackendLead]:
    records = [run.record for runs in sides.values() for run in runs]
    try:
        metrics = comparable([records], report.catalog)
    except HarnessError:  # a metric of a plugin that is not installed
        return {}
    primary = success(records[0]).scores.primary
    by_name = {name: metrics.get(primary if name == "quality" else name) for name in TITLES}
    leads = {name: _lead(metric, sides, confidence) for name, metric in by_name.items() if metric}
    return {name: lead for name, lead in leads.items() if lead}


def _lead(metric: RunMetric, sides: dict[str, list[StoredRun]], confidence: float) -> BackendLead | None:
    means = {backend: _mean(runs, metric) for backend, runs in sides.items()}
    ranked = sorted(
        (backend for backend, mean in means.items() if mean is not None),
        key=lambda backend: means[backend] or 0.0,
        reverse=metric.higher_is_better,
    )
    if len(ranked) < 2:
        return None
    leader = ranked[0]
    matches = [Match(sides[other], sides[leader]) for other in ranked[1:]]
    likely = [compare(matched, metric, 0.95, by_example=False) for matched in matches]
    won = all(comparison.verdict == "better" for comparison in likely)
    strict = [compare(matched, metric, confidence, by_example=False) for matched in matches] if won else []
    sure = won and all(comparison.verdict == "better" for comparison in strict)
    return BackendLead(
        winner=leader if won else "",
        certainty="beyond doubt" if sure else "likely" if won else "open",
        leader=leader,
        amount=_amount(likely[0]),
        evidence=likely[0].evidence or "too few runs",
    )


def _amount(comparison: Comparison) -> str:
    """A ratio where the figure is compared as one, else the difference, with its metric and unit."""
    if comparison.change is None:
        return ""
    ends = (comparison.low, comparison.high)
    if comparison.relative:
        factor = [1 + value for value in (comparison.change, *(end for end in ends if end is not None))]
        shown = [f"{value:.2f}" for value in factor]
        return f"{shown[0]}×" + (f" ({shown[1]} to {shown[2]})" if len(shown) == 3 else "")
    difference = " ".join(filter(None, [comparison.metric, f"{comparison.change:+.3g}", comparison.unit]))
    return difference + (f" ({ends[0]:+.3g} to {ends[1]:+.3g})" if ends[0] is not None and ends[1] is not None else "")


def _mean(runs: Sequence[StoredRun], metric: RunMetric) -> float | None:
    values = [value for run in runs if (value := metric.value(run.record)) is not None]
    return sum(values) / len(values) if values else None
