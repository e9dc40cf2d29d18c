"""The validation scores that determine the best epoch and the end of training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.records import EpochEnded, Recipe


def monitored(curves: Sequence[EpochEnded], recipe: Recipe, metric: str, *, higher_is_better: bool) -> list[float]:
    """Return the validation score of each epoch that `Recipe.monitor` selects, with the sign changed if smaller scores
    are better. An undefined score is replaced by minus infinity.

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
        Scores, of which larger ones are better.
    """
    name = metric if recipe.monitor == "metric" else "loss"
    sign = 1.0 if name == metric and higher_is_better else -1.0
    scores = (epoch.validation.get(name) for epoch in curves)
    return [-math.inf if score is None or math.isnan(score) else sign * score for score in scores]
