"""The data for the plots of a report: points with named values, grouped by panel. The values are the same as in the
table.

A panel contains the rows of one task, dataset and device, so that the rows can be compared with each other.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.analysis.comparison_table import RATIOS
from harness.analysis.metrics import in_group, success
from harness.analysis.table import Cell, Row, Table
from harness.measure import stats
from harness.records import RunRecord, Success
from harness.records.samples import predictions, usable
from harness.records.store import StoredRun
from harness.report.confusion import class_labels
from harness.report.layout import Block, blocks
from harness.report.plots.curves import GRID, decision_curves, macro
from harness.report.report import Report

Points = tuple[dict[str, Any], ...]
"""A set of points that all have the same fields. The type is a tuple because altair copies lists whenever a chart is
modified."""

MAX_CURVES = 48
"""Maximum number of runs whose curves or raw samples are shown in one plot. If there are more runs, only the first runs
of each row are shown."""
MAX_EPOCHS, MAX_POINTS = 60, 960
"""Maximum number of points in one learning curve, and approximate maximum number of points in all curves of one plot.
Longer curves are reduced to every k-th epoch, plus the last epoch."""
QUANTILES = 101
"""Number of points in a latency distribution."""


@dataclass(frozen=True)
class Panel:
    """Rows of the table that are shown together in one plot."""

    number: int
    title: str
    metric: str
    """Name of the primary metric."""
    metric_title: str
    unit: str
    better: str
    """``higher`` or ``lower``. The string is empty if the direction is unknown or if the rows have different
    directions."""
    block: Block
    report: Report

    @property
    def rows(self) -> list[tuple[str, Row]]:
        """(label, row) pairs."""
        return list(zip(self.block.labels, self.block.rows, strict=True))

    @property
    def variants(self) -> dict[str, str]:
        """Mapping from row labels to row names without the backend and the device."""
        return dict(zip(self.block.labels, self.block.variants, strict=True))

    @property
    def quality(self) -> str:
        """Title of the metric with its unit, for use as an axis title."""
        return f"{self.metric_title} ({self.unit})" if self.unit else self.metric_title


def panels(report: Report, table: Table | None = None) -> list[Panel]:
    """Return the panels of a report or, if `table` is given, those of the table."""
    made = []
    for number, block in enumerate(blocks(report.table if table is None else table)):
        first = next((row for row in block.rows if row.text("metric")), block.rows[0])
        title = " · ".join(first.text(name) for name in ("task", "dataset", "device"))
        metric, shown, unit = (first.text(name) for name in ("metric", "metric_title", "metric_unit"))
        judged = {(row.text("metric"), row.text("metric_better")) for row in block.rows if row.text("metric")}
        better = first.text("metric_better") if len(judged) == 1 else ""
        made.append(Panel(number, title, metric, shown, unit, better, block, report))
    return made


def pareto(panel: Panel, column: str) -> Points:
    """Return quality and throughput with their intervals. ``front`` is True for rows on the Pareto front.

    If the direction of the quality metric is unknown, no row is on the front.
    """
    points = []
    for label, row in panel.rows:
        quality, speed = row.cells["quality"], row.cells[column]
        if isinstance(quality.value, float) and isinstance(speed.value, float) and speed.value > 0:
            points.append(
                _identified(panel, label, row)
                | _ends("quality", quality)
                | _ends("speed", speed, least=speed.value / 20)
            )
    sign = -1 if panel.better == "lower" else 1
    for point in points:
        point["front"] = panel.better != "" and not any(
            other["speed"] >= point["speed"]
            and sign * other["quality"] >= sign * point["quality"]
            and (other["speed"], other["quality"]) != (point["speed"], point["quality"])
            for other in points
        )
    return tuple(points)


def quality(panel: Panel) -> Points:
    """Return the primary metric of each row with its interval. Labels are shortened as in `short_labels`."""
    cells = zip(short_labels(panel), (row for _, row in panel.rows), strict=True)
    return tuple(
        _named(label, row) | _ends("quality", cell)
        for label, row in cells
        if isinstance((cell := row.cells["quality"]).value, float)
    )


def short_labels(panel: Panel) -> list[str]:
    """Return shortened row labels. Prefixes such as ``recipe.`` are removed from the names of options. Options with the
    same value in more than half of the rows are omitted.

    If two rows would have the same label, the complete labels are returned.
    """
    chosen = [re.split(r", (?=\w+\.)", row.text("options")) if row.text("options") else [] for _, row in panel.rows]
    counts = Counter(option for options in chosen for option in options)
    short = []
    for (label, row), options in zip(panel.rows, chosen, strict=True):
        rest = label.removesuffix(row.text("options")).strip()
        rare = (option.partition(".")[2] for option in options if 2 * counts[option] <= len(chosen))
        short.append(" ".join(part for part in (rest, ", ".join(rare)) if part))
    return short if len(set(short)) == len(short) else [label for label, _ in panel.rows]


def ratios(panel: Panel) -> Points:
    """Return throughput values relative to the first backend. Rows without a ratio are omitted."""
    points = []
    for name, metric in RATIOS.items():
        for label, row in panel.rows:
            cell = row.cells[name]
            if isinstance(cell.value, float) and not (cell.value == 1.0 and cell.ci95 is None):
                points.append(_named(label, row) | {"phase": metric.part} | _ends("ratio", cell, least=cell.value / 20))
    return tuple(points)


def memory(panel: Panel) -> Points:
    """Return the peak memory of each row by memory counter, in MiB."""
    points = []
    for label, row in panel.rows:
        for metric in in_group("memory"):
            cell = row.cells[metric.name]
            if isinstance(cell.value, float):
                points.append(_named(label, row) | {"kind": metric.part} | _ends("mib", cell, least=0.0))
    return tuple(points)


def curves(panel: Panel) -> Points:
    """Return each run's validation score after each epoch, with the number of steps and the training time."""
    points = []
    runs = _some_runs(panel)
    most = min(MAX_EPOCHS, MAX_POINTS // max(1, len(runs)))
    for label, row, run in runs:
        epochs = success(run.record).curves
        step = max(1, -(-len(epochs) // most))
        for epoch in [*epochs[:-1:step], *epochs[-1:]]:
            score = epoch.validation.get(panel.metric)
            if score is not None:
                seconds = None if run.record.quality_only else epoch.train_s
                points.append(
                    _identified(panel, label, row)
                    | {"run": run.record.run_id, "seed": run.record.spec.seed, "epoch": epoch.epoch}
                    | {"step": epoch.step, "seconds": seconds, "score": score}
                )
    return tuple(points)


def time_to_quality(panel: Panel) -> tuple[float | None, Points]:
    """Return a validation score that all runs reach, and the training time of each row until this score is reached.

    This score is the lowest of the runs' best scores. Returns None and no points if fewer than two rows have learning
    curves, or if the direction of the score is unknown.
    """
    if not panel.better:
        return None, ()
    sign = -1 if panel.better == "lower" else 1
    by_row = {}
    for label, row in panel.rows:
        records = [run.record for run in panel.report.runs_of(row)]
        lines = [line for record in records if (line := _validation(record, panel.metric))]
        if lines:
            by_row[label] = (row, lines)
    if len(by_row) < 2:
        return None, ()
    level = sign * min(max(sign * score for _, score in line) for _, lines in by_row.values() for line in lines)
    points = []
    for label, (row, lines) in by_row.items():
        reached = [next(s for s, score in line if sign * score >= sign * level) for line in lines]
        mean = stats.mean(reached)
        points.append(_named(label, row) | _ends("seconds", Cell(mean.value, mean.ci95), least=0.0))
    return level, tuple(points)


def latency(panel: Panel) -> Points:
    """Return quantiles of the batch latency over all runs of each row, in milliseconds."""
    import numpy as np

    points: list[dict[str, Any]] = []
    shares = np.linspace(0, 1, QUANTILES)
    for label, row in panel.rows:
        samples = [a["latencies_s"] for run in _first(panel, row) if len((a := arrays_of(run)).get("latencies_s", ()))]
        if samples:
            quantiles = np.quantile(np.concatenate(samples) * 1e3, shares)
            named = _identified(panel, label, row)
            points += [named | {"share": float(s), "ms": float(ms)} for s, ms in zip(shares, quantiles, strict=True)]
    return tuple(points)


def roc(panel: Panel) -> Points:
    """Return one-versus-rest ROC and precision-recall curves. The curves are averaged over classes and runs.

    Curves are averaged at fixed false positive rates and recalls. This method is called vertical averaging (Fawcett
    2006, Pattern Recognition Letters 27, 861-874).
    """
    points: list[dict[str, Any]] = []
    for label, row in panel.rows:
        curves_of_runs = []
        for run in _first(panel, row):
            pair = predictions(run.record, arrays_of(run))
            if pair is not None and _classifies(run.record, pair[1].ndim):
                curves_of_runs.append(macro(decision_curves(*pair)))
        if curves_of_runs:
            tpr, precision = (sum(values) / len(curves_of_runs) for values in zip(*curves_of_runs, strict=True))
            named = _identified(panel, label, row)
            points += [
                named | {"x": x, "tpr": float(t), "precision": float(p)}
                for x, t, p in zip(GRID, tpr, precision, strict=True)
            ]
    return tuple(points)


def confusion(panel: Panel) -> Iterator[tuple[str, list[str], list[list[int]]]]:
    """Yield the label, the class names and the summed confusion matrix of each row."""
    import numpy as np

    for label, row in panel.rows:
        matrices = [
            scores.confusion for run in panel.report.successes(row) if (scores := success(run.record).scores).confusion
        ]
        if matrices:
            names = class_labels(success(panel.report.successes(row)[0].record))
            yield label, names, np.sum(matrices, axis=0).tolist()


def arrays_of(run: StoredRun) -> dict[str, Any]:
    """Return the raw samples of a run, keyed by name. The result is empty if the samples were not saved or cannot be
    read."""
    return usable(run)


def _classifies(record: RunRecord, dimensions: int) -> bool:
    info = record.provenance.data
    return info is not None and info.objective == "classification" and dimensions == 2


def _first(panel: Panel, row: Row) -> list[StoredRun]:
    """Return the runs whose raw samples are plotted for a row."""
    return panel.report.successes(row)[: max(1, MAX_CURVES // len(panel.rows))]


def _some_runs(panel: Panel) -> list[tuple[str, Row, StoredRun]]:
    lines = [(label, row, run) for label, row in panel.rows for run in panel.report.successes(row)]
    if len(lines) <= MAX_CURVES:
        return lines
    return [(label, row, runs[0]) for label, row in panel.rows if (runs := panel.report.successes(row))][:MAX_CURVES]


def _validation(record: RunRecord, metric: str) -> list[tuple[float, float]]:
    if not isinstance(record.outcome, Success) or record.quality_only:
        return []
    scores = [(epoch.train_s, epoch.validation.get(metric)) for epoch in record.outcome.curves]
    return [(seconds, score) for seconds, score in scores if score is not None and math.isfinite(score)]


def _identified(panel: Panel, label: str, row: Row) -> dict[str, Any]:
    """Return the names of a row, including those that distinguish it from other rows of the same backend."""
    return _named(label, row) | {"variant": panel.variants[label]}


def _named(label: str, row: Row) -> dict[str, Any]:
    return {"label": label, "backend": row.text("backend"), "model": row.text("model")}


def _ends(name: str, cell: Cell, least: float = -math.inf) -> dict[str, Any]:
    """Return the value, the endpoints of its interval and the text shown in tables.

    If the lower endpoint is less than `least`, it is replaced with `least`.
    """
    assert isinstance(cell.value, float)
    half = cell.ci95 or 0.0
    shown = f"{cell.shown} ± {cell.shown_ci95}" if cell.shown_ci95 else cell.shown
    return {
        name: cell.value,
        f"{name}_low": max(cell.value - half, least),
        f"{name}_high": cell.value + half,
        f"{name}_shown": shown,
    }
