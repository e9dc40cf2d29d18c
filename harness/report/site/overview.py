"""Comparisons of backends for the home page.

The home page shows the best backend for each metric, and the size and significance of its lead. A contest is a set of
rows that differ only in the backend, which makes their backends comparable. For each metric, the backend with the best
mean is compared with every other backend, as in ``harness compare``. The backend with the best mean is highlighted if
the 95% confidence intervals for all differences exclude zero. No backend is highlighted if the metric depends on the
state of the machine and the runs were not interleaved. The result is labeled ``significant after Bonferroni
correction`` if the intervals also exclude zero at a stricter confidence level. The stricter level limits the familywise
error rate for all comparisons on the page to 1%.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.compare.judge import ALPHA, Comparison, compare
from harness.analysis.compare.match import Match
from harness.analysis.formatting import one_line
from harness.analysis.grouping import representative, rival_key
from harness.analysis.metrics import FIT_THROUGHPUT, HEADLINES, QUALITY, RunMetric, comparable
from harness.analysis.table import Row
from harness.records.store import StoredRun
from harness.report.report import Report

TITLES = {QUALITY.name: QUALITY.title.capitalize()} | {
    metric.name: metric.headline.capitalize() for metric in HEADLINES if metric is not FIT_THROUGHPUT
}
"""Title of each metric, by name. ``quality`` is the task's primary metric."""

CORRECTED, SIGNIFICANT, INCONCLUSIVE = "significant after Bonferroni correction", "significant (95%)", "inconclusive"


@dataclass(frozen=True)
class BackendLead:
    """The leading backend in one comparison according to one metric."""

    winner: str
    """Backend that is significantly better than all others. The name is an empty string if no backend is significantly
    better."""
    certainty: str
    """``significant after Bonferroni correction``, ``significant (95%)`` or ``inconclusive``."""
    leader: str
    """Backend with the best mean, or an empty string if the two best means are equal at the precision shown."""
    amount: str
    """Ratio of the best mean to the second-best mean, or the difference between these means, with a 95% confidence
    interval if available."""
    evidence: str
    """Number of runs or pairs of runs used to compute the confidence interval. If there is no interval, this field
    contains the reason."""


@dataclass(frozen=True)
class Contest:
    """Table rows that differ only in the backend."""

    task: str
    name: str
    parity: str
    leads: dict[str, BackendLead]
    """Leading backends by metric."""


def contests(report: Report) -> list[Contest]:
    """Return the comparisons of backends in a report, in the same order as in its table."""
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
    """Return, for each metric, the number of comparisons won by each backend. Comparisons without a winner are counted
    under the key ``""`` (the empty string)."""
    winners = {name: [c.leads[name].winner for c in held if name in c.leads] for name in TITLES}
    return {name: Counter(backends) for name, backends in winners.items() if backends}


def _contest(report: Report, rows: Sequence[Row], sides: dict[str, list[StoredRun]], confidence: float) -> Contest:
    first = rows[0]
    names = [first.text(name) for name in ("dataset", "model", "device", "precision")]
    options = {row.text("options") for row in rows}
    name = " · ".join([*names, *(options if len(options) == 1 else set())])
    leads = _leads(report, sides, confidence)
    marks = [row.text("parity") for row in rows if row.text("parity")]
    return Contest(first.text("task"), one_line(name.rstrip(" ·")), worst_mark(marks), leads)


def worst_mark(marks: Sequence[str]) -> str:
    """Return the worst of the parity marks of rows that are compared, or an empty string if there are none."""
    worst = (mark for state in ("differs", "partly", "unchecked") for mark in marks if mark.startswith(state))
    return next(worst, marks[-1] if marks else "")


def _leads(report: Report, sides: dict[str, list[StoredRun]], confidence: float) -> dict[str, BackendLead]:
    records = [run.record for runs in sides.values() for run in runs]
    metrics = comparable([records], report.catalog)
    by_name = {name: metrics.get(name) for name in TITLES}
    leads = {name: _lead(metric, sides, confidence) for name, metric in by_name.items() if metric}
    return {name: lead for name, lead in leads.items() if lead}


def _lead(metric: RunMetric, sides: dict[str, list[StoredRun]], confidence: float) -> BackendLead | None:
    if metric.higher_is_better is None:
        return None
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
    at_95 = [compare(matched, metric, 0.95, by_example=False) for matched in matches]
    equal = _equal_as_shown(at_95[0])
    won = all(comparison.verdict == "better" and comparison.interleaved for comparison in at_95)
    corrected = [compare(matched, metric, confidence, by_example=False) for matched in matches] if won else []
    certain = won and all(comparison.verdict == "better" for comparison in corrected)
    return BackendLead(
        winner=leader if won else "",
        certainty=CORRECTED if certain else SIGNIFICANT if won else INCONCLUSIVE,
        leader="" if equal and not won else leader,
        amount=_amount(at_95[0], metric.title),
        evidence=(at_95[0].evidence or "too few runs") + ("" if at_95[0].interleaved else ", not interleaved"),
    )


def _equal_as_shown(comparison: Comparison) -> bool:
    """Return whether the printed ratio is 1 or, for scores, whether both means have the same four significant
    digits."""
    if comparison.base is None or comparison.new is None or comparison.change is None:
        return False
    if comparison.relative:
        return f"{1 + comparison.change:.2f}" == "1.00"
    return f"{comparison.base:.4g}" == f"{comparison.new:.4g}"


def _amount(comparison: Comparison, title: str) -> str:
    """Return the ratio of the means as text or, for scores, the difference between the means, with the metric's title
    and unit."""
    if comparison.change is None:
        return ""
    ends = (comparison.low, comparison.high)
    if comparison.relative:
        factor = [1 + value for value in (comparison.change, *(end for end in ends if end is not None))]
        shown = [f"{value:.2f}" for value in factor]
        return f"{shown[0]}×" + (f" ({shown[1]} to {shown[2]})" if len(shown) == 3 else "")
    difference = " ".join(filter(None, [title, f"{comparison.change:+.3g}", comparison.unit]))
    return difference + (f" ({ends[0]:+.3g} to {ends[1]:+.3g})" if ends[0] is not None and ends[1] is not None else "")


def _mean(runs: Sequence[StoredRun], metric: RunMetric) -> float | None:
    values = [value for run in runs if (value := metric.value(run.record)) is not None]
    return sum(values) / len(values) if values else None
