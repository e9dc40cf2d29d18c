"""ROC and precision-recall curves on a common grid, so that they can be averaged and stay small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

GRID = tuple(
    float(x) for x in np.unique(np.round(np.concatenate([np.geomspace(1e-3, 0.1, 20), np.linspace(0, 1, 31)]), 4))
)
"""Abscissae: false positive rates, and recalls; denser near 0, where ROC curves bend."""


class Curves(NamedTuple):
    """Of each class against the rest, at `GRID`; a class of which the split holds only one side is NaN."""

    tpr: Floats
    """``[C, len(GRID)]``, the true positive rate: the highest threshold's whose false positive rate is the grid's at
    most, interpolated linearly to the next one."""
    precision: Floats
    """``[C, len(GRID)]``: the highest precision at this recall or more (Manning et al. 2008, Introduction to
    Information Retrieval, section 8.4)."""


def decision_curves(targets: NDArray[Any], logits: NDArray[Any]) -> Curves:
    """`targets` int ``[N]``, `logits` float ``[N, C]``."""
    from harness.metrics import probabilities

    scores = np.ascontiguousarray(np.asarray(probabilities(logits), np.float64).T)  # [C, N]
    order = np.argsort(-scores, axis=1)  # in any order within a tie
    ranked = np.take_along_axis(scores, order, axis=1)
    true = np.cumsum(targets[order] == np.arange(len(scores))[:, None], axis=1)
    ends = ranked[:, 1:] != ranked[:, :-1]  # ties are one threshold
    grid = np.asarray(GRID)
    tpr = np.full((len(scores), len(grid)), np.nan)
    precision = tpr.copy()
    zero, end = np.zeros(1), np.array([len(targets) - 1])
    for number in range(len(scores)):
        last = np.concatenate([np.flatnonzero(ends[number]), end])
        found = true[number, last]
        positives = found[-1]
        negatives = len(targets) - positives
        if not positives or not negatives:
            continue
        seen = last + 1
        rates = found / positives
        false_rates = np.concatenate([zero, (seen - found) / negatives])
        tpr[number] = np.interp(grid, false_rates, np.concatenate([zero, rates]))
        best = np.maximum.accumulate((found / seen)[::-1])[::-1]
        at = np.searchsorted(rates, grid - 1e-12)
        precision[number] = best[np.minimum(at, len(best) - 1)]
    return Curves(tpr, precision)


def macro(curves: Curves) -> tuple[Floats, Floats]:
    """Means over the classes that have curves: true positive rate and precision, ``[len(GRID)]``."""
    known = ~np.isnan(curves.tpr[:, 0])
    return curves.tpr[known].mean(axis=0), curves.precision[known].mean(axis=0)
