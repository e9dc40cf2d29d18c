"""95% bootstrap confidence intervals for test scores.

The test examples are resampled `RESAMPLES` times with replacement and a fixed seed, and percentile intervals are
computed (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13). The intervals do not cover the
variation between training runs, which is measured by using several seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from harness.records import Objective

Array = NDArray[Any]

RESAMPLES = 2_000
MIN_RESAMPLES, MAX_NUMBERS = 200, 10**8
"""Minimum number of resamples, and maximum count of random numbers, which limits the number of resamples for large test
splits."""
CHUNK = 10**7
"""Count of random numbers to draw at once, which limits memory usage."""


def intervals(objective: Objective, targets: Array, outputs: Array) -> dict[str, tuple[float, float]]:
    """Return (low, high) by metric, for all metrics in `harness.measure.quality.metrics` except ROC AUC.

    For classification, `targets` are int64 ``[N]`` and `outputs` are logits ``[N, C]``. For regression, both are
    ``[N, T]`` in the target's unit. Resamples for which a metric is undefined are dropped. A metric that is undefined
    for at least half of the resamples has no interval.
    """
    if objective == "classification":
        drawn = _classification(targets, outputs.argmax(axis=-1), outputs.shape[1])
    else:
        drawn = _regression(targets.astype(np.float64), outputs.astype(np.float64))
    bounds = {}
    for name, values in drawn.items():
        finite = values[np.isfinite(values)]
        if 2 * len(finite) > len(values):
            low, high = np.quantile(finite, (0.025, 0.975))
            bounds[name] = (float(low), float(high))
    return bounds


def _classification(targets: Array, predicted: Array, classes: int) -> dict[str, Array]:
    """Return resampled scores by metric. Drawing examples is equivalent to drawing cells of the confusion matrix."""
    cells, counts = np.unique(targets * classes + predicted, return_counts=True)
    true, answered = np.divmod(cells, classes)
    of_class = np.arange(classes)
    in_row = (true[:, None] == of_class).astype(np.float64)
    in_column = (answered[:, None] == of_class).astype(np.float64)
    hit = in_row * in_column

    def scores(drawn: Array) -> dict[str, Array]:
        right, support, answers = (drawn @ part for part in (hit, in_row, in_column))  # [R, C]
        precision, recall = _ratio(right, answers), _ratio(right, support)
        f1 = _ratio(2 * right, answers + support)
        n = drawn.sum(axis=1)
        accuracy = right.sum(axis=1) / n
        return {
            "accuracy": accuracy,
            "f1_macro": f1.mean(axis=1),
            "f1_micro": accuracy,  # equal to accuracy, because each example has exactly one label
            "f1_weighted": (f1 * support).sum(axis=1) / n,
            "precision_macro": precision.mean(axis=1),
            "recall_macro": recall.mean(axis=1),
        }

    return _resampled(counts, scores)


def _regression(targets: Array, outputs: Array) -> dict[str, Array]:
    n = len(targets)
    centered = targets - targets.mean(axis=0)  # avoids cancellation in the sums of squares
    squared, absolute = (outputs - targets) ** 2, abs(outputs - targets)

    def scores(drawn: Array) -> dict[str, Array]:
        squares, mean, spread = drawn @ squared / n, drawn @ centered / n, drawn @ centered**2 / n  # [R, T]
        total = spread - mean**2
        r2 = np.full_like(squares, np.nan)
        np.divide(squares, total, out=r2, where=total > 0)
        return {
            "rmse": np.sqrt(squares).mean(axis=1),
            "mae": (drawn @ absolute / n).mean(axis=1),
            "r2": (1 - r2).mean(axis=1),
        }

    return _resampled(np.ones(n), scores)


def _resampled(counts: Array, scores: Callable[[Array], Mapping[str, Array]]) -> dict[str, Array]:
    """Return `scores` for multinomial draws ``[R, K]`` of N examples from K categories, whose `counts` sum to N."""
    rng, n, kinds = np.random.default_rng(0), int(counts.sum()), len(counts)
    resamples = min(RESAMPLES, max(MIN_RESAMPLES, MAX_NUMBERS // kinds))
    chunk = max(1, CHUNK // kinds)
    parts = [
        scores(rng.multinomial(n, counts / n, min(chunk, resamples - start)).astype(np.float64))
        for start in range(0, resamples, chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _ratio(part: Array, whole: Array) -> Array:
    """Return part / whole, with 0 where `whole` is 0, like ``zero_division=0`` in scikit-learn."""
    result = np.zeros_like(part)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
