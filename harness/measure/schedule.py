"""Learning rate schedules, shared by all backends."""

from __future__ import annotations

import math

from harness.records import Recipe


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate for optimizer step `step` (counted from 0) out of `steps`.

    The learning rate increases linearly during warm-up and reaches its maximum at the first step after warm-up. The
    schedules ``linear`` and ``cosine`` (Loshchilov and Hutter 2017, without restarts) then decay and would reach zero
    one step after the last.
    """
    warmup = round(recipe.warmup_fraction * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - warmup) / max(1, steps - warmup)
    shape = 1 - done if recipe.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * shape
