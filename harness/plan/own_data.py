"""Defaults for the user's own data, which depend on the number of training examples.

``docs/explanation/defaults.md`` describes how these defaults were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from harness.interfaces import Task
from harness.records import Recipe

_LIMITS = ("max_steps", "max_seconds", "step_size", "milestones")
"""Recipe fields that limit the length of the training, or that specify the epochs at which the learning rate
changes."""


def model_by_size(task: Task, training_examples: int) -> str:
    """Return the default model of `task` for user data with the given number of training examples."""
    return [task.default_model, *(model for least, model in _sizes(task) if training_examples >= least)][-1]


def model_note(task: Task, training_examples: int) -> str:
    """Return a sentence that describes the default model and the dataset sizes for which it is used. The
    sentence is empty if the default model does not depend on the number of examples.
    """
    sizes = _sizes(task)
    if not sizes:
        return ""
    least = max((least for least, _ in sizes if training_examples >= least), default=0)
    above = min((least for least, _ in sizes if training_examples < least), default=None)
    bounds = [f"at least {least:,}"] if least else []
    bounds += [f"fewer than {above:,}"] if above is not None else []
    sized = f" with {' and '.join(bounds)} training examples (here {training_examples:,})" if bounds else ""
    model = model_by_size(task, training_examples)
    return f"model {model} is the default for your own data{sized}; --model selects another"


def with_enough_steps(task: Task, recipe: Recipe, training_examples: int, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe, with enough epochs for at least `Task.min_steps` steps.

    The recipe is returned unchanged if the user set the number of epochs (`changes` contains ``epochs``). The recipe is
    also returned unchanged if it limits the length of the training or specifies epochs at which the learning rate
    changes.
    """
    from harness.data.batches import steps_per_epoch

    if "epochs" in changes or any(getattr(recipe, name) for name in _LIMITS):
        return recipe
    each = steps_per_epoch(training_examples, recipe.batch_size)
    return msgspec.structs.replace(recipe, epochs=max(recipe.epochs, -(-task.min_steps // each)))


def epochs_note(task: Task, model: str, before: Recipe, after: Recipe) -> str:
    """Return a sentence saying that the number of epochs was raised, or an empty string if it was not."""
    if before.epochs == after.epochs:
        return ""
    return (
        f"recipe.epochs of {model} was raised from {before.epochs} to {after.epochs}, so that training has at least "
        f"{task.min_steps:,} steps; --set recipe.epochs=N selects another number"
    )


def _sizes(task: Task) -> list[tuple[int, str]]:
    return sorted(task.models_by_size.items())
