"""ROC and precision-recall curves on a common grid. A common grid makes it possible to average over curves, and limits
the size of the data."""

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
"""Grid of false positive rates and recalls. The grid is denser near 0, where ROC curves are steep."""


class Curves(NamedTuple):
    """One-versus-rest curves for each class at `GRID`.

    The curves of a class without positive or negative examples are NaN.
    """

    tpr: Floats
    """``[C, len(GRID)]``: true positive rate at each false positive rate in the grid, linearly interpolated."""
    precision: Floats
    """``[C, len(GRID)]``: highest precision among all thresholds with at least this recall (Manning et al. 2008,
    Introduction to Information Retrieval, section 8.4)."""


def decision_curves(targets: NDArray[Any], logits: NDArray[Any]) -> Curves:
    """Compute the curves from `targets`, int ``[N]``, and `logits`, float ``[N, C]``.

    An example whose target is outside ``[0, C)`` is a negative example for every class.
    """
    from harness.measure.quality.metrics import probabilities

    # A curve changes direction only where the threshold passes a positive example. Two points per positive example are
    # therefore enough: one before it and one at it. Examples are sorted by class, then by their descending score for
    # that class.
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
    with np.errstate(divide="ignore", invalid="ignore"):  # if all examples belong to one class
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
    """Return the start and the end of each example's group as an array ``[N, 2]``.

    A group consists of all examples of a class with equal scores.
    """
    starts = np.ones(len(classes) + 1, bool)
    starts[1:-1] = (descending[1:] != descending[:-1]) | (classes[1:] != classes[:-1])
    runs = starts[:-1].cumsum()
    bounds = starts.nonzero()[0]
    return np.stack([bounds[runs - 1], bounds[runs]], axis=1)


def macro(curves: Curves) -> tuple[Floats, Floats]:
    """Return the true positive rate and the precision, averaged over the classes that have curves. Each of the two
    arrays has the shape ``[len(GRID)]``."""
    known = ~np.isnan(curves.tpr[:, 0])
    return curves.tpr[known].mean(axis=0), curves.precision[known].mean(axis=0)
