"""The best results for each dataset, as shown on the home page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.differences import IDENTITY
from harness.analysis.formatting import one_line
from harness.analysis.metrics import QUALITY, success
from harness.analysis.table import Cell, Row
from harness.report.report import Report
from harness.report.site.tables import HtmlCell, Value, View, plain

_NAMED = (*IDENTITY[2:], "options")


@dataclass(frozen=True)
class _Result:
    """The quality of one row."""

    row: Row
    value: float
    half: float | None
    """Half-width of the 95% interval over seeds or splits. For a single run, the interval is computed over its test
    examples."""

    @property
    def name(self) -> str:
        return one_line(" · ".join(text for name in _NAMED if (text := self.row.text(name))))


def best_results(report: Report, addresses: dict[str, str]) -> View | None:
    """Return a table with the best row of each task and dataset, or None if there are no scores.

    Rows are not compared if they have different primary metrics, or if the direction of the metric is unknown.
    """
    parts: dict[tuple[str, ...], list[_Result]] = {}
    for row in report.table.rows:
        value = row.cells[QUALITY.name].value
        if isinstance(value, float) and row.text("metric_better"):
            key = tuple(row.text(name) for name in ("task", "dataset", "metric_title", "metric_unit", "metric_better"))
            parts.setdefault(key, []).append(_Result(row, value, _half_width(report, row)))
    rows: list[list[Value]] = []
    for (task, dataset, title, unit, better), results in parts.items():
        first = (max if better == "higher" else min)(results, key=lambda result: result.value)
        shown = Cell(first.value, first.half)
        number = HtmlCell(shown.shown, first.value, shown.shown_ci95, "num")
        link = HtmlCell(first.name, h=addresses[report.successes(first.row)[0].record.run_id])
        metric = f"{title} ({unit})" if unit else title
        others = [result for result in results if result is not first]
        rows.append([one_line(task), one_line(dataset), link, one_line(metric), number, _verdict(first, others)])
    headers = ("task", "dataset", "best result", "metric", QUALITY.column, "certainty")
    return plain("best", "Best result by dataset", headers, rows) if rows else None


def _half_width(report: Report, row: Row) -> float | None:
    cell, runs = row.cells[QUALITY.name], report.successes(row)
    if cell.ci95 is not None or len(runs) != 1:
        return cell.ci95
    scores = success(runs[0].record).scores
    ends = scores.intervals.get(scores.primary)
    return (ends[1] - ends[0]) / 2 if ends else None


def _verdict(first: _Result, others: Sequence[_Result]) -> str:
    if not others:
        return "the only result"
    unknown = [other for other in others if first.half is None or other.half is None]
    tied = [
        other.name
        for other in others
        if other.value == first.value
        or (other not in unknown and abs(other.value - first.value) <= math.hypot(first.half or 0, other.half or 0))
    ]
    if tied:
        more = f" and {len(tied) - 3} more" if len(tied) > 3 else ""
        return f"tied with {', '.join(tied[:3])}{more}"
    return "best value, but confidence intervals are not available" if unknown else f"best of {1 + len(others)}"
