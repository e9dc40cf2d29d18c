"""ROC and precision-recall curves on a common grid, so that they can be averaged and stay small."""

from __future__ import annotations

import itertools
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
    """`targets` int ``[N]``, `logits` float ``[N, C]``. An example of none of the classes counts against each."""
    from harness.measure.quality.metrics import probabilities

    # Only where a threshold passes a positive example can a curve turn: there is a point before it and one at it. So
    # each example counts for its own class alone: by class, and within it from its highest score to its lowest.
    scores = np.ascontiguousarray(probabilities(logits).T)  # [C, N]
    known = ((targets >= 0) & (targets < len(scores))).nonzero()[0]
    classes = targets[known].astype(np.intp, copy=False)
    own = scores[classes, known]
    order = np.lexsort((-own, classes))
    own, classes = own[order], classes[order]
    ends = classes.searchsorted(np.arange(len(scores) + 1))
    sizes, members = np.diff(ends), list(itertools.pairwise(ends.tolist()))
    true = _passed(own, classes) - ends[:-1].repeat(sizes)[:, None]  # [N, 2]
    passed = np.empty_like(true)
    for (start, end), ascending in zip(members, np.sort(scores, axis=1), strict=True):
        passed[start:end, 0] = ascending.searchsorted(own[start:end], "right")
        passed[start:end, 1] = ascending.searchsorted(own[start:end], "left")
    passed = len(targets) - passed
    positives = sizes.repeat(sizes)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # of a class that the split holds nothing but
        false_rate, true_rate = (passed - true) / (len(targets) - positives), true / positives
    precision_at = true[:, 1] / passed[:, 1]

    grid, recalls = np.asarray(GRID), np.asarray(GRID) - 1e-12
    tpr = np.full((len(scores), len(grid)), np.nan)
    precision = tpr.copy()
    for number, (start, end) in enumerate(members):
        if 0 < end - start < len(targets):
            tpr[number] = np.interp(grid, false_rate[start:end].ravel(), true_rate[start:end].ravel())
            best = np.maximum.accumulate(precision_at[start:end][::-1])[::-1]
            precision[number] = best.take(true_rate[start:end, 1].searchsorted(recalls), mode="clip")
    return Curves(tpr, precision)


def _passed(descending: Floats, classes: NDArray[Any]) -> NDArray[np.intp]:
    """``[N, 2]``: how many come before the first that is equal to each in score and class, and how many up to the
    last that is."""
    starts = np.ones(len(classes) + 1, bool)
    starts[1:-1] = (descending[1:] != descending[:-1]) | (classes[1:] != classes[:-1])
    runs = starts[:-1].cumsum()
    bounds = starts.nonzero()[0]
    return np.stack([bounds[runs - 1], bounds[runs]], axis=1)


def macro(curves: Curves) -> tuple[Floats, Floats]:
    """Means over the classes that have curves: true positive rate and precision, ``[len(GRID)]``."""
    known = ~np.isnan(curves.tpr[:, 0])
    return curves.tpr[known].mean(axis=0), curves.precision[known].mean(axis=0)
