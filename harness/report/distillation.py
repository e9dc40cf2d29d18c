"""Text report on knowledge distillation."""

from __future__ import annotations

from tabulate import tabulate

from harness.analysis.compare.gates import shown
from harness.analysis.distillation import CONFIDENCE, COSTS, Distillation, DistillationRow
from harness.analysis.formatting import rounded


def render(distillation: Distillation) -> str:
    """Return a table of the teacher and its students, and the change in quality for each backend."""
    metric = distillation.metric
    headers = [
        "model",
        "trained",
        "backend",
        "seeds",
        metric,
        *(_header(cost.part or cost.title, cost.unit) for cost in COSTS),
    ]
    rows = [
        [
            row.model,
            row.trained,
            row.backend,
            row.seeds,
            _quality(row),
            *(_cost(row.costs[cost.name]) for cost in COSTS),
        ]
        for row in distillation.rows
    ]
    align = ["left"] * 3 + ["right"] * (len(headers) - 3)
    table = tabulate(rows, headers=headers, tablefmt="simple", colalign=align, disable_numparse=True)
    heading = (
        f"{distillation.task} · {distillation.dataset} · teacher {distillation.teacher} · "
        f"alpha {distillation.alpha:g}, temperature {distillation.temperature:g}"
    )
    return "\n\n".join([heading, table, _changes(distillation)])


def _changes(distillation: Distillation) -> str:
    if not distillation.changes:
        return "No backend has successful runs with and without the teacher, so the students cannot be compared."
    lines = [f"change in {distillation.metric} with distillation, by backend"]
    for change in distillation.changes:
        result = change.comparison
        ends = "no interval"
        if result.low is not None and result.high is not None:
            ends = f"interval {shown(result.low, result.relative)} to {shown(result.high, result.relative)}"
        lines.append(
            f"  {change.backend}: {shown(result.change, result.relative)}, {ends}: {result.verdict} ({result.evidence})"
        )
    count = len(distillation.changes)
    several = f" (Bonferroni correction for {count} backends)" if count > 1 else ""
    lines.append(f"Confidence level: {CONFIDENCE:.0%}{several}.")
    return "\n".join(lines)


def _header(title: str, unit: str) -> str:
    return f"{title}\n{unit}" if unit else title


def _quality(row: DistillationRow) -> str:
    if row.quality is None:
        return "–"
    value, half_width = rounded(row.quality, row.quality_ci95)
    return f"{value} ± {half_width}" if half_width else value


def _cost(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
