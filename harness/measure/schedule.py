"""Learning rate schedules, shared by all backends."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.records import Recipe

_CYCLE_START, _CYCLE_END = 1 / 25, 1 / 250_000
"""Learning rates at the first and last steps of ``one_cycle``, relative to the maximum learning rate, as in PyTorch."""


def learning_rate(recipe: Recipe, step: int, steps: int, reductions: int = 0) -> float:
    """Return the learning rate of optimizer step `step` (counted from 0) out of `steps` steps.

    The learning rate increases linearly during warm-up and reaches its maximum at the first step after warm-up. The
    ``linear`` and ``cosine`` schedules (Loshchilov and Hutter 2017, without restarts) then decay to zero. The learning
    rate would reach zero one step after the last step. The ``step`` and ``plateau`` schedules multiply the learning
    rate by ``gamma`` once for each of the `reductions`. The number of reductions changes only between epochs.
    ``one_cycle`` is described in `harness.Recipe`.
    """
    warmup = round(recipe.warmup_fraction * steps)
    if recipe.schedule == "one_cycle":
        warmup = min(warmup, max(0, steps - 2))  # so that the last step has the final rate
        up = step < warmup
        low, done = (_CYCLE_START, step / warmup) if up else (_CYCLE_END, (step - warmup) / max(1, steps - 1 - warmup))
        risen = 0.5 * (1 - math.cos(math.pi * (done if up else 1 - done)))
        return recipe.learning_rate * (low + (1 - low) * risen)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    if recipe.schedule in ("linear", "cosine"):
        done = (step - warmup) / max(1, steps - warmup)
        shape = 1 - done if recipe.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return recipe.learning_rate * shape
    return recipe.learning_rate * recipe.gamma**reductions if reductions else recipe.learning_rate


def reductions(recipe: Recipe, epochs: int, scores: Sequence[float]) -> int:
    """Return how many times the schedule has reduced the learning rate after a number of completed epochs.

    Parameters
    ----------
    recipe : Recipe
        Training settings.
    epochs : int
        Number of completed epochs.
    scores : sequence of float
        Validation scores of these epochs. Larger scores are better. The scores are used by the ``plateau`` schedule.

    Returns
    -------
    int
        Number of reductions, which is 0 for schedules other than ``step`` and ``plateau``.
    """
    if recipe.schedule == "step":
        if recipe.milestones:
            return sum(epochs >= milestone for milestone in recipe.milestones)
        return epochs // recipe.step_size if recipe.step_size else 0
    count = stale = 0
    best = -math.inf
    for score in scores if recipe.schedule == "plateau" else ():
        best, stale = (score, 0) if score > best else (best, stale + 1)
        if stale == recipe.plateau_patience:
            count, stale = count + 1, 0
    return count


def planned_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Return the number of training steps, assuming no early stopping and no time limit (`Recipe.max_seconds`)."""
    steps = steps_per_epoch * recipe.epochs
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)
