"""Contents of a run page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.analysis import groups
from harness.analysis.flags import run_flags
from harness.analysis.metrics import (
    FIT_THROUGHPUT,
    HEADLINES,
    INFERENCE_THROUGHPUT,
    PARAMETERS,
    TRAIN_THROUGHPUT,
    score,
)
from harness.checks.audit.finding import Finding
from harness.errors import RecordError
from harness.measure.quality.metrics import BINS
from harness.records import Failure, RunRecord, Steady, Success, Trial
from harness.records.reading import MAX_JSON_BYTES, MAX_LOG_BYTES, decode, open_stored, read_stored
from harness.records.samples import stored
from harness.records.store import AUDIT, LOG, StoredRun
from harness.report.confusion import class_labels, mistakes
from harness.report.costs import Section, sections, text
from harness.report.groups import gaps_table, notes, rates_table
from harness.report.plots import run_points
from harness.report.run_text import (
    by_group,
    circumstances,
    interval_title,
    per_class,
    per_target,
    quality,
    run_data,
    run_section,
    trial_section,
    without_interval,
)
from harness.report.site.explanations import attribution_parts, importance_views
from harness.report.site.latency import latency_tables
from harness.report.site.tables import PAGE, View, plain

LOG_BYTES = 6_000
"""Maximum number of bytes shown from the end of the log."""
_QUALITY = {
    "confusion": "Confusion matrix",
    "roc": "ROC curve",
    "precision_recall": "Precision-recall curve",
    "reliability": "Reliability",
    "predicted": "Predicted against true",
    "residual": "Residuals",
    "score_by_step": "Validation {metric} by step",
    "score_by_time": "Validation {metric} by time",
    "loss": "Training loss",
}
_COST = {
    "windows": "Throughput by window (warm-up windows are faint)",
    "latency": "Latency of a batch",
    "memory": "Peak memory by phase",
    "seconds": "Duration of each phase",
}
"""Titles of the plots in the quality and cost sections, by specification name."""


def context(run: StoredRun, command: str, siblings: Mapping[str, str]) -> dict[str, Any]:
    """Return the values for the run page template.

    `command` is the command that reproduces the run. `siblings` contains HTML list items for the runs in the same row,
    including this run.
    """
    record = run.record
    outcome = record.outcome
    values: dict[str, Any] = {
        "record": record,
        "name": record.run_id,
        "command": command,
        "siblings": Markup("".join([item for name, item in siblings.items() if name != record.run_id][:PAGE])),
        "failed": isinstance(outcome, Failure),
        "complete": isinstance(outcome, Success),
        "trial": _pairs([trial_section(outcome)] if isinstance(outcome, Trial) else []),
        "data": _pairs([run_data(record, record.provenance.data)] if record.provenance.data else []),
        "log": _log(run),
        "sections": _pairs([run_section(record), *circumstances(record)]),
        "parity": [_parity(mark) for mark in record.parity],
        "audit": _audit(run.path),
        "plots": {},
        "tables": [],
        "notes": {},
        "without_interval": [],
        "groups": [],
        "group_notes": [],
        "importance": [],
        "importance_notes": [],
        "attributions": [],
        "attribution_notes": [],
        "latency": [],
        "latency_problems": [],
    }
    if isinstance(outcome, Success):
        arrays, problem = _arrays(run)
        values["problem"] = problem
        values["figures"] = _headline(record, outcome)
        values["costs"] = _pairs(sections(record))
        values["flags"] = [(flag.columns[0], flag) for flag in run_flags(record)]
        values["plots"], values["notes"] = _plots(record, outcome, arrays)
        quality = score(outcome.scores.primary, outcome.scores.metrics.get(outcome.scores.primary))
        for part, titles in (("quality_plots", _QUALITY), ("cost_plots", _COST)):
            shown = ((name, title) for name, title in titles.items() if name in values["plots"])
            values[part] = [(name, title.format(metric=quality.title)) for name, title in shown]
        values["tables"] = _tables(outcome)
        values["groups"], values["group_notes"] = _groups(record)
        values["without_interval"] = without_interval(outcome.scores)
        values["importance"], values["importance_notes"] = importance_views(run)
        values["attributions"], values["attribution_notes"] = attribution_parts(run)
        values["latency"], values["latency_problems"] = latency_tables(run)
    return values


def _headline(record: RunRecord, outcome: Success) -> list[tuple[str, str, str]]:
    """Return (name, value, remark) for the most important metrics."""
    scores, speed = outcome.scores, outcome.speed
    ends = scores.intervals.get(scores.primary)
    remark = f"{interval_title(scores)} over examples: {ends[0]:.4g} to {ends[1]:.4g}" if ends else "test split"
    quality = score(scores.primary, scores.metrics.get(scores.primary))
    rows = [(quality.column.header, text(scores.test.get(scores.primary)), remark)]
    steady: dict[str, Steady | None] = dict.fromkeys((TRAIN_THROUGHPUT.name, FIT_THROUGHPUT.name), speed.train)
    steady[INFERENCE_THROUGHPUT.name] = speed.inference
    for metric in HEADLINES:
        value = metric.value(record)
        if value is None:
            continue
        if metric.name in steady:
            rows.append((metric.part, _large(value), _interval(metric.unit, steady[metric.name])))
        elif metric.group == "latency":
            remark = f"{metric.unit} per batch of {outcome.latency.batch_size}"
            rows.append((metric.headline, f"{value:.3g}", remark))
        else:
            rows.append((metric.headline, f"{value:,.0f}", metric.unit))
    return [*rows, (PARAMETERS.title, f"{outcome.model.parameters:,}", PARAMETERS.unit)]


def _interval(unit: str, steady: Steady | None) -> str:
    if steady is None or steady.low is None or steady.high is None:
        return unit
    return f"{unit}; within-run range: {_large(steady.low)} to {_large(steady.high)}"


def _large(value: float) -> str:
    """Format a number with four significant digits and thousands separators."""
    return f"{float(f'{value:.4g}'):,.10g}"


def _plots(record: RunRecord, outcome: Success, arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the data for the plots, and the notes below the plots. Both dictionaries are keyed by the names of shared
    specifications."""
    plots: dict[str, Any] = {}
    notes: dict[str, str] = {}
    curve = run_points.learning(outcome)
    if len(curve["epoch"]) > 1:
        plots["score_by_step"] = curve
    drawn = {"loss": run_points.losses(arrays)}
    if not record.quality_only:
        drawn["score_by_time"] = plots.get("score_by_step", {})
        drawn |= {
            "windows": run_points.windows(record, arrays),
            "latency": run_points.latency(arrays),
            "memory": run_points.memory(outcome),
            "seconds": run_points.seconds(outcome),
        }
    plots |= {name: columns for name, columns in drawn.items() if columns}
    if outcome.scores.confusion:
        names = class_labels(outcome)
        plots["confusion"] = run_points.confusion(outcome) | {"names": names}
        notes["confusion"] = (
            "Cells show the fraction of the examples of each true class. Scroll to zoom, drag to pan, double-click to "
            "reset."
        )
    curves = run_points.decisions(record, outcome, arrays)
    if curves:
        left_out = curves["left_out"]
        note = (
            f"Mean and the {run_points.MAX_CLASSES} classes with the smallest area; {left_out} classes are not shown."
        )
        for name, key in (("roc", "tpr"), ("precision_recall", "precision")):
            plots[name] = {"x": curves["x"], "series": curves[key]}
            notes[name] = note if left_out else "One class versus the rest. Click a name in the legend to highlight it."
    calibration = run_points.calibration(record, outcome, arrays)
    if calibration:
        plots["reliability"] = calibration
        notes["reliability"] = (
            f"Accuracy of the test predictions by the probability of the predicted class, in {BINS} bins. Below the "
            "dashed line, the model is overconfident."
        )
    errors = run_points.errors(record, arrays)
    if errors:
        plots["predicted"] = plots["residual"] = errors
        targets = outcome.scores.per_target
        if targets:
            notes["predicted"] = notes["residual"] = f"{targets[0].label}, the first of {len(targets)} targets."
    return plots, notes


def _tables(outcome: Success) -> list[View]:
    views = [plain("scores", "Quality", *quality(outcome))]
    headers, rows = per_class(outcome)
    if rows:
        controls = len(rows) > 20
        views.append(plain("per-class", "Per class, test split", headers, rows, places=".4f", controls=controls))
        headers, pairs = mistakes(outcome)
        views += [plain("mistaken", "Most frequent mistakes", headers, pairs, places=".1f")] if pairs else []
    headers, rows = per_target(outcome)
    if rows:
        views.append(plain("per-target", "Per target, test split", headers, rows))
    headers, rows = by_group(outcome)
    if rows:
        views.append(plain("slices", "By group, test split", headers, rows, places=".4f"))
    return views


def _groups(record: RunRecord) -> tuple[list[View], list[str]]:
    """Return the tables of rates by group and of the largest gaps, and notes about these tables."""
    found = groups.summary(record)
    if found is None:
        return [], []
    binary = len(found.classes) == 1
    headers, rows = rates_table(found, of_classes=binary)
    views = [plain("group-rates", "Rates by group, test split", headers, rows, controls=len(rows) > 20)]
    headers, rows = gaps_table(found)
    views.append(plain("group-gaps", "Largest gaps between groups", headers, rows))
    more = [] if binary else [f"To show all classes, run: harness groups {record.run_id}"]
    return views, [*notes(found), *more]


def _pairs(shown: Iterable[Section]) -> Markup:
    """Return names and values as HTML. For speed, the HTML is built without a template."""
    parts = []
    for title, rows in shown:
        if rows:
            listed = "".join(_pair(name, text(value)) for name, value in rows)
            parts.append(f'<section class="pairs"><h3>{escape(title)}</h3><dl>{listed}</dl></section>')
    return Markup("\n".join(parts))


@lru_cache(maxsize=4096)
def _pair(name: str, value: str) -> str:
    """Return one name and value as HTML. The result is cached, because most values are the same in many runs."""
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"


def _parity(mark: Any) -> str:
    state = {"same": "agrees with", "partly checked": "partly checked, agrees with", "differs": "DIFFERS from"}[
        mark.state
    ]
    reason = f"; {mark.partly}" if mark.state == "partly checked" else ""
    return f"Parity: {state} {mark.backend} (largest relative error of the logits: {text(mark.error)}{reason})"


def _audit(path: Path) -> list[Finding] | None:
    """Return the findings saved by ``harness audit``, or None if they are missing or cannot be read."""
    try:
        return decode(read_stored(path / AUDIT, MAX_JSON_BYTES), list[Finding], path / AUDIT)
    except RecordError:
        return None


def _arrays(run: StoredRun) -> tuple[dict[str, Any], str]:
    try:
        arrays = stored(run)
    except RecordError as error:
        return {}, str(error)
    missing = "The raw samples of this run were not saved, so the plots that require them are missing."
    return arrays, "" if arrays else missing


def _log(run: StoredRun) -> str:
    if isinstance(run.record.outcome, Failure) and run.record.outcome.log_tail:
        return run.record.outcome.log_tail
    try:
        with open_stored(run.path / LOG, MAX_LOG_BYTES) as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_BYTES))
            return file.read(LOG_BYTES).decode(errors="replace").strip()
    except (OSError, RecordError):
        return ""
