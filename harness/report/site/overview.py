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
from harness.analysis.compare.measures import Measure, measures
from harness.analysis.grouping import representative, rival_key
from harness.analysis.table import Row, one_line
from harness.errors import HarnessError
from harness.records import Success
from harness.records.store import StoredRun
from harness.report.report import Report

FIGURES = {
    "quality": "Quality",
    "train_throughput": "Training throughput",
    "inference_throughput": "Inference throughput",
    "p50_ms": "Median latency",
    "host_peak": "Peak host memory",
    "device_peak": "Peak device memory",
}


@dataclass(frozen=True)
class BackendLead:
    """Of one figure of one comparison."""

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
    verdicts: dict[str, BackendLead]


def contests(report: Report) -> list[Contest]:
    """Of all rows that have a rival, in the table's order."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in report.table.rows:
        runs = report.runs_of(row)
        groups.setdefault(rival_key(representative([run.record for run in runs])), []).append(row)
    fields = []
    for rows in groups.values():
        sides = {row.text("backend"): _done(report, row) for row in rows}
        sides = {backend: runs for backend, runs in sides.items() if runs}
        if len(sides) > 1 and len(sides) == len([row for row in rows if _done(report, row)]):
            fields.append((rows, sides))
    pairs = sum(len(sides) - 1 for _, sides in fields) * len(FIGURES)
    confidence = 1 - ALPHA / max(1, pairs)
    return [_contest(report, rows, sides, confidence) for rows, sides in fields]


def scoreboard(found: Sequence[Contest]) -> dict[str, Counter[str]]:
    """Figure -> how many contests each backend won; ``""`` counts those without a winner."""
    figures = [name for name in FIGURES if any(name in contest.verdicts for contest in found)]
    return {
        name: Counter(contest.verdicts[name].winner for contest in found if name in contest.verdicts)
        for name in figures
    }


def _contest(report: Report, rows: Sequence[Row], sides: dict[str, list[StoredRun]], confidence: float) -> Contest:
    first = rows[0]
    names = [first.text(name) for name in ("dataset", "model", "device", "precision")]
    options = {row.text("options") for row in rows}
    name = " · ".join([*names, *(options if len(options) == 1 else set())])
    verdicts = {}
    for figure in FIGURES:
        verdict = _verdict(report, figure, sides, confidence)
        if verdict is not None:
            verdicts[figure] = verdict
    marks = [row.text("parity") for row in rows if row.text("parity")]
    parity = next((mark for mark in marks if mark.startswith("differs")), marks[-1] if marks else "")
    return Contest(first.text("task"), one_line(name.rstrip(" ·")), parity, verdicts)


def _verdict(report: Report, figure: str, sides: dict[str, list[StoredRun]], confidence: float) -> BackendLead | None:
    everything = [run for runs in sides.values() for run in runs]
    try:
        known = measures(Match(everything, everything), report.catalog)
    except HarnessError:  # a metric of a plugin that is not here
        return None
    outcome = everything[0].record.outcome
    assert isinstance(outcome, Success)
    measure = known.get(outcome.scores.primary if figure == "quality" else figure)
    if measure is None:
        return None
    means = {backend: _mean(runs, measure) for backend, runs in sides.items()}
    ranked = sorted(
        (backend for backend, mean in means.items() if mean is not None),
        key=lambda backend: means[backend] or 0.0,
        reverse=measure.higher_is_better,
    )
    if len(ranked) < 2:
        return None
    leader = ranked[0]
    matches = [Match(sides[other], sides[leader]) for other in ranked[1:]]
    likely = [compare(matched, measure, 0.95, by_example=False) for matched in matches]
    won = all(comparison.verdict == "better" for comparison in likely)
    strict = [compare(matched, measure, confidence, by_example=False) for matched in matches] if won else []
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
    told = " ".join(filter(None, [comparison.metric, f"{comparison.change:+.3g}", comparison.unit]))
    return told + (f" ({ends[0]:+.3g} to {ends[1]:+.3g})" if ends[0] is not None and ends[1] is not None else "")


def _mean(runs: Sequence[StoredRun], measure: Measure) -> float | None:
    outcomes = [run.record.outcome for run in runs]
    values = [measure.value(outcome) for outcome in outcomes if isinstance(outcome, Success)]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _done(report: Report, row: Row) -> list[StoredRun]:
    return [run for run in report.runs_of(row) if isinstance(run.record.outcome, Success)]
