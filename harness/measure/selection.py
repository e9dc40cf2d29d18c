"""Rules that determine the best epoch, the end of training and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.records import EpochEnded, Recipe, Selection
from harness.records.record import Ended


def best_epoch(scores: Sequence[float]) -> int:
    """Return the number of the first epoch with the best score.

    If all scores are undefined, the last epoch is returned.
    """
    best = max(scores)
    return scores.index(best) + 1 if best > -math.inf else len(scores)


def is_stale(scores: Sequence[float], patience: int | None) -> bool:
    """Return True if there was no new best score in the last `patience` epochs."""
    return patience is not None and len(scores) - best_epoch(scores) >= patience


def average_weight(decay: float, step: int) -> float:
    """Return the weight given to the current weights in the moving average after step `step` (counted from 1).

    If each update uses the returned weight, the average equals a moving average that starts at zero and is divided by
    ``1 - decay ** step`` (Kingma and Ba 2015, section 3).
    """
    return (1 - decay) / -math.expm1(step * math.log(decay))


def monitored(curves: Sequence[EpochEnded], recipe: Recipe, metric: str, *, higher_is_better: bool) -> list[float]:
    """Return the validation scores selected by `Recipe.monitor`, one per epoch.

    The scores are negated if smaller scores are better. An undefined score is replaced by minus infinity.

    Parameters
    ----------
    curves : sequence of EpochEnded
        Learning curves.
    recipe : Recipe
        Training settings.
    metric : str
        Name of the task's primary metric.
    higher_is_better : bool
        True if larger values of the metric are better.

    Returns
    -------
    list of float
        Scores. Larger values are better.
    """
    name = _monitor(recipe, metric)
    sign = 1.0 if name == metric and higher_is_better else -1.0
    scores = (epoch.validation.get(name) for epoch in curves)
    return [-math.inf if score is None or math.isnan(score) else sign * score for score in scores]


def selection(
    curves: Sequence[EpochEnded], scores: Sequence[float], recipe: Recipe, metric: str, ended: Ended
) -> Selection:
    """Return how training ended. `scores` contains the values that `monitored` returns for the curves."""
    best, name = best_epoch(scores), _monitor(recipe, metric)
    return Selection(
        ended=ended,
        monitor=name,
        best_epoch=best,
        best=curves[best - 1].validation.get(name),
        last_epoch=len(curves),
        last=curves[-1].validation.get(name),
        evaluated_epoch=best if recipe.keep_best else len(curves),
    )


def _monitor(recipe: Recipe, metric: str) -> str:
    return metric if recipe.monitor == "metric" else "loss"
