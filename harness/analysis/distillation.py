"""Comparison of a teacher, its students, and the same models trained without the teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from harness.analysis.compare.judge import Comparison, compare
from harness.analysis.compare.match import Match
from harness.analysis.metrics import INFERENCE_THROUGHPUT, PARAMETERS, TRAIN_THROUGHPUT, RunMetric, comparable, success
from harness.measure import stats
from harness.plugins.catalog import Catalog
from harness.records import Success
from harness.records.store import StoredRun

CONFIDENCE = 0.95
"""Probability that all intervals, one per backend, contain the true changes."""
COSTS = (PARAMETERS, TRAIN_THROUGHPUT, INFERENCE_THROUGHPUT)
"""Costs in the report."""


class DistillationRow(Struct, frozen=True, kw_only=True):
    """A model in the report, with means over its runs."""

    trained: Literal["teacher", "alone", "distilled"]
    model: str
    backend: str
    seeds: int
    """Number of seeds with a successful run."""
    quality: float | None
    """Mean of the primary metric on the test split. None if the metric is undefined."""
    quality_ci95: float | None
    """Half-width of the 95% confidence interval over seeds. None for a single seed."""
    costs: dict[str, float | None]
    """Mean of each cost, keyed by the name of the metric. None if the cost was not measured."""


class DistilledChange(Struct, frozen=True, kw_only=True):
    """Change in the primary metric from the student trained alone to the distilled student, for one backend."""

    backend: str
    comparison: Comparison


class Distillation(Struct, frozen=True, kw_only=True):
    """Results of ``harness distill``."""

    teacher: str
    """Id of the teacher's run."""
    task: str
    dataset: str
    metric: str
    """Primary metric."""
    alpha: float
    temperature: float
    rows: list[DistillationRow]
    changes: list[DistilledChange]
    """One entry for each backend with successful runs of both students. The differences are paired by seed."""


def summarize(teacher: StoredRun, students: Sequence[StoredRun], catalog: Catalog) -> Distillation:
    """Return the report on a teacher and its students, which were trained with and without the teacher.

    All students have the same model, and all students trained with the teacher have the same recipe. At least one
    student was trained with the teacher. Failed runs are ignored. The confidence level of each interval is 1 - (1 -
    `CONFIDENCE`) / m for m backends (Bonferroni correction).
    """
    recipe = next(run.record.spec.recipe for run in students if run.record.spec.teacher is not None)
    done = [run for run in students if isinstance(run.record.outcome, Success)]
    chosen = comparable([[run.record for run in done or [teacher]]], catalog)["quality"]
    name = chosen.score  # of the students; the teacher may be judged by another metric
    metric = dataclasses.replace(chosen, read=lambda record: success(record).scores.test.get(name))
    backends = dict.fromkeys(run.record.spec.backend for run in students)
    pairs = {}
    rows = [_row("teacher", [teacher], metric)]
    for backend in backends:
        own = [run for run in done if run.record.spec.backend == backend]
        alone = [run for run in own if run.record.spec.teacher is None]
        distilled = [run for run in own if run.record.spec.teacher is not None]
        rows += [_row("alone", alone, metric)] if alone else []
        rows += [_row("distilled", distilled, metric)] if distilled else []
        if alone and distilled:
            pairs[backend] = Match(alone, distilled)
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(pairs))
    changes = [
        DistilledChange(backend=backend, comparison=compare(pair, metric, confidence))
        for backend, pair in pairs.items()
    ]
    spec = teacher.record.spec
    return Distillation(
        teacher=teacher.record.run_id,
        task=spec.task,
        dataset=spec.dataset,
        metric=metric.score or metric.name,
        alpha=recipe.distillation_alpha,
        temperature=recipe.distillation_temperature,
        rows=rows,
        changes=changes,
    )


def _row(
    trained: Literal["teacher", "alone", "distilled"], runs: Sequence[StoredRun], metric: RunMetric
) -> DistillationRow:
    spec = runs[0].record.spec
    quality = _mean(runs, metric)
    return DistillationRow(
        trained=trained,
        model=spec.model,
        backend=spec.backend,
        seeds=quality.n if quality else 0,
        quality=quality and quality.value,
        quality_ci95=quality and quality.ci95,
        costs={cost.name: (mean.value if (mean := _mean(runs, cost)) else None) for cost in COSTS},
    )


def _mean(runs: Sequence[StoredRun], metric: RunMetric) -> stats.Mean | None:
    """Return the mean over seeds. The repeats of each seed are averaged first."""
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        if (value := metric.value(run.record)) is not None:
            by_seed.setdefault(run.record.spec.seed, []).append(value)
    return stats.mean([sum(values) / len(values) for values in by_seed.values()]) if by_seed else None
