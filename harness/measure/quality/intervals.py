"""95% intervals of test scores over the examples: what the scores would be on other test sets of this size.

The examples are drawn with replacement `RESAMPLES` times, from one fixed seed; the interval is that of the percentiles
(Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13). It says nothing of another training: that
is what seeds are for.
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
"""Of large test splits fewer samples are drawn, so that no more numbers are."""
CHUNK = 10**7
"""Numbers drawn at once."""


def intervals(objective: Objective, targets: Array, outputs: Array) -> dict[str, tuple[float, float]]:
    """(low, high) by metric, for those of `harness.measure.quality.metrics` that sums over examples determine
    (all but the ROC-AUC).

    `targets` int64 [N] and `outputs` logits [N, C], or for regression both [N, T] in the target's own unit. Draws in
    which a metric is not defined are left out; where that is most of them, so is the metric.
    """
    if objective == "classification":
        drawn = _classification(targets, outputs.argmax(axis=-1), outputs.shape[1])
    else:
        drawn = _regression(targets.astype(np.float64), outputs.astype(np.float64))
    found = {}
    for name, values in drawn.items():
        finite = values[np.isfinite(values)]
        if 2 * len(finite) > len(values):
            low, high = np.quantile(finite, (0.025, 0.975))
            found[name] = (float(low), float(high))
    return found


def _classification(targets: Array, predicted: Array, classes: int) -> dict[str, Array]:
    """A draw of examples is a draw of cells of the confusion matrix."""
    cells, counts = np.unique(targets * classes + predicted, return_counts=True)
    true, said = np.divmod(cells, classes)
    of_class = np.arange(classes)
    in_row = (true[:, None] == of_class).astype(np.float64)
    in_column = (said[:, None] == of_class).astype(np.float64)
    hit = in_row * in_column

    def scores(drawn: Array) -> dict[str, Array]:
        right, support, answers = (drawn @ part for part in (hit, in_row, in_column))  # [R, C]
        precision, recall = _share(right, answers), _share(right, support)
        f1 = _share(2 * right, answers + support)
        n = drawn.sum(axis=1)
        accuracy = right.sum(axis=1) / n
        return {
            "accuracy": accuracy,
            "f1_macro": f1.mean(axis=1),
            "f1_micro": accuracy,  # one label an example
            "f1_weighted": (f1 * support).sum(axis=1) / n,
            "precision_macro": precision.mean(axis=1),
            "recall_macro": recall.mean(axis=1),
        }

    return _resampled(counts, scores)


def _regression(targets: Array, outputs: Array) -> dict[str, Array]:
    n = len(targets)
    centered = targets - targets.mean(axis=0)  # so that the sums of squares do not cancel
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
    """`scores` of draws [R, K] of as many examples as there are, from K kinds of which there are `counts`."""
    rng, n, kinds = np.random.default_rng(0), int(counts.sum()), len(counts)
    resamples = min(RESAMPLES, max(MIN_RESAMPLES, MAX_NUMBERS // kinds))
    chunk = max(1, CHUNK // kinds)
    parts = [
        scores(rng.multinomial(n, counts / n, min(chunk, resamples - start)).astype(np.float64))
        for start in range(0, resamples, chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _share(part: Array, whole: Array) -> Array:
    """0 where there is nothing, as the scores have it."""
    result = np.zeros_like(part)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
