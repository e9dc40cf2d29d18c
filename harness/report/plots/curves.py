"""ROC and precision-recall curves on a common grid, so that they can be averaged and stay small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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
    ranked = np.sort(scores, axis=1)
    examples, grid = len(targets), np.asarray(GRID)
    tpr = np.full((len(scores), len(grid)), np.nan)
    precision = tpr.copy()
    for number, (all_scores, class_scores) in enumerate(zip(ranked, scores, strict=True)):
        mine = np.sort(class_scores[targets == number])[::-1]
        positives, negatives = len(mine), examples - len(mine)
        if not positives or not negatives:
            continue
        # Only where a threshold passes a positive example can a curve turn: there is a point before it and one at it.
        before, at = (_at_least(all_scores, mine, side) for side in ("right", "left"))
        true_before, true_at = (_at_least(mine[::-1], mine, side) for side in ("right", "left"))
        false = np.empty(2 * positives + 2)
        true = np.empty(2 * positives + 2)
        false[0], false[1:-1:2], false[2:-1:2], false[-1] = 0, before - true_before, at - true_at, negatives
        true[0], true[1:-1:2], true[2:-1:2], true[-1] = 0, true_before, true_at, positives
        tpr[number] = np.interp(grid, false / negatives, true / positives)
        best = np.maximum.accumulate((true_at / at)[::-1])[::-1]
        place = (true_at / positives).searchsorted(grid - 1e-12)
        precision[number] = best.take(place, mode="clip")
    return Curves(tpr, precision)


def _at_least(ascending: Floats, thresholds: Floats, side: Literal["left", "right"]) -> NDArray[np.intp]:
    """How many of `ascending` reach each threshold (`side` left) or exceed it (right)."""
    return len(ascending) - ascending.searchsorted(thresholds, side)


def macro(curves: Curves) -> tuple[Floats, Floats]:
    """Means over the classes that have curves: true positive rate and precision, ``[len(GRID)]``."""
    known = ~np.isnan(curves.tpr[:, 0])
    return curves.tpr[known].mean(axis=0), curves.precision[known].mean(axis=0)
