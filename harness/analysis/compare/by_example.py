"""Comparison of two runs with the same seed and split, example by example."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from harness.analysis.compare.effects import MIN_RUNS, Effect, Estimate, of_hits, of_pairs, of_squares
from harness.analysis.compare.match import Match
from harness.analysis.metrics import RunMetric, success
from harness.errors import HarnessError
from harness.measure.quality.call import values_of
from harness.plugins import resolve
from harness.records import RunRecord
from harness.records.samples import predictions, stored
from harness.records.store import StoredRun


def of_one_run(matched: Match, metric: RunMetric, confidence: float, unit: str = "seed") -> Estimate:
    """Compare, example by example, two runs with the same seed and split. The score must be a mean over test
    examples. `unit` is the unit in which the runs are counted, such as ``seed`` or ``fold``."""
    scored = [[run for run in side if metric.value(run.record) is not None] for side in (matched.base, matched.new)]
    few, more = f"fewer than {MIN_RUNS} {unit}s", f"run more {unit}s"
    built_in = metric.score in _PER_EXAMPLE and not _several_targets(matched)
    if not (built_in or metric.per_example):
        return Estimate(None, f"{few}, and this score cannot be compared example by example; {more}")
    drawn = [pair for pair in itertools.product(*scored) if draw_of(pair[0].record) == draw_of(pair[1].record)]
    if not drawn:
        split = " and split" if any(run.record.spec.split is not None for side in scored for run in side) else ""
        return Estimate(None, f"{few}, and no runs of BASE and NEW have the same seed{split}; {more}")
    pairs = [pair for pair in drawn if len({run.record.provenance.dataset_digest for run in pair}) == 1]
    if not pairs:
        return Estimate(None, f"{few}, and the runs with the same seed used different data; {more}")
    base, new = (_predictions(run) for run in pairs[0])
    if base is None or new is None:
        return Estimate(None, f"{few}, and the predictions were not saved; {more}")
    effect_of: Callable[[Any, Any, float], Effect]
    if metric.per_example:
        try:
            before, after = (_own_values(metric, *side) for side in zip(pairs[0], (base, new), strict=True))
        except HarnessError as error:
            return Estimate(None, f"{few}, and this score cannot be compared example by example: {error}")
        effect_of = of_hits if _are_hits(before) and _are_hits(after) else _of_differences
    else:
        each, effect_of = _PER_EXAMPLE[metric.score]
        before, after = each(*base), each(*new)
    if len(before) < MIN_RUNS:
        return Estimate(None, f"{few}, and fewer than {MIN_RUNS} test examples; {more}")
    base_value, new_value = (metric.value(run.record) for run in pairs[0])
    assert base_value is not None  # runs without a value were excluded
    assert new_value is not None
    spec = pairs[0][0].record.spec
    place = f" of {spec.split_title}" if spec.split_title else ""
    return Estimate(
        effect_of(before, after, confidence),
        f"{len(before)} examples from seed {spec.seed}{place}",
        ([base_value], [new_value]),
        all_runs=all(len(side) == 1 for side in scored),
    )


def _predictions(run: StoredRun) -> tuple[Any, Any] | None:
    return predictions(run.record, stored(run))


def _own_values(metric: RunMetric, run: StoredRun, arrays: tuple[Any, Any]) -> Any:
    """Return the values of a plugin's metric for each test example, float64 ``[N]``.

    Raises `harness.HarnessError` if the function fails, or if the mean of the values differs from the score in the
    record, for example because the definition of the metric has changed since the run.
    """
    info, (targets, outputs) = run.record.provenance.data, arrays
    assert info is not None  # the predictions are known
    outputs = outputs if info.objective == "regression" else outputs.astype("float32")
    scores = success(run.record).scores
    declared, score = scores.metrics.get(metric.score), scores.test[metric.score]
    bounds = declared.bounds if declared is not None else (None, None)
    return values_of(metric.score, resolve(metric.per_example), bounds, targets, outputs, info, mean=score)


def _are_hits(values: Any) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _of_differences(base: Any, new: Any, confidence: float) -> Effect:
    return of_pairs(new - base, confidence)


_PER_EXAMPLE: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any, float], Effect]]] = {
    "accuracy": (lambda targets, outputs: (outputs.argmax(axis=-1) == targets).astype(float), of_hits),
    "rmse": (lambda targets, outputs: (outputs - targets)[:, 0] ** 2, of_squares),
    "mae": (lambda targets, outputs: abs(outputs - targets)[:, 0], _of_differences),
}
"""Pairs of functions for comparing two runs example by example, keyed by metric.

The first function computes a value for each example from targets and outputs. The second function computes the change
and its confidence interval from the values of both models.
"""


def _several_targets(matched: Match) -> bool:
    info = matched.base[0].record.provenance.data
    return info is None or (info.objective == "regression" and info.outputs > 1)


def draw_of(record: RunRecord) -> tuple[int | None, int]:
    """Return the split and the seed of a run."""
    return record.spec.split, record.spec.seed
