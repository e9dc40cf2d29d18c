"""Validation of the recipe's options for a task, its data, a backend and a precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.errors import CombinationError
from harness.interfaces import Backend, Dataset, Model, Task
from harness.records import Precision, Recipe
from harness.records.recipe import session_options

_DEFAULTS = Recipe()
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""Smallest and largest positive normal numbers in float32."""


def check_dropout(model: Model, changes: Mapping[str, Any]) -> None:
    """Raise `harness.CombinationError` if a plugin's recipe changes set a dropout rate for a model without dropout
    layers."""
    if changes.get("dropout") and not model.has_dropout:
        raise CombinationError(
            f"the recipe sets dropout to {changes['dropout']}, but model {model.name!r} does not declare dropout "
            "layers, so the rate would be ignored; set has_dropout = True in the class of the model, or remove dropout "
            "from the recipe"
        )


def check_recipe(
    recipe: Recipe,
    changes: Mapping[str, Any],
    *,
    task: Task,
    dataset: Dataset,
    label_names: Sequence[str],
    backend: Backend,
    precisions: Sequence[Precision],
    distilled: bool = False,
    training_examples: int | None = None,
) -> None:
    """Check that the options of a recipe can be combined, and that the options set by the user have an effect.

    Parameters
    ----------
    recipe : Recipe
        The complete recipe.
    changes : mapping of str to Any
        Fields that the user changed.
    task, dataset : Task, Dataset
        Task and dataset of the run.
    label_names : sequence of str
        Names of the classes. The sequence is empty if the class names are not known before the data are prepared.
    backend : Backend
        Backend that trains with the recipe.
    precisions : sequence of str
        Selected precisions.
    distilled : bool, default=False
        True if the run has a teacher.
    training_examples : int, optional
        Number of training examples, if it is known before the data are prepared.

    Raises
    ------
    harness.CombinationError
        If an option cannot be used or has no effect.
    """
    for name, reason in _unused(recipe, task):
        if name in changes and getattr(recipe, name) != getattr(_DEFAULTS, name):
            raise CombinationError(f"recipe.{name} has no effect {reason}; remove it")
    if set(precisions) != {"fp64"}:
        _check_range(recipe)
    _check_teacher(recipe, distilled=distilled)
    missing = [option for option in session_options(recipe) if option not in backend.recipe_options]
    if missing:
        listed = ", ".join(backend.recipe_options) or "none of the newer options"
        raise CombinationError(
            f"backend {backend.name!r} does not implement {', '.join(missing)}; it implements {listed}. Remove "
            f"{', '.join(_option_text(name, recipe) for name in missing)}, or select another backend"
        )
    if recipe.loss_scale is not None and set(precisions) != {"fp16"}:
        raise CombinationError(
            "recipe.loss_scale has an effect only in fp16; add --precision fp16, or remove recipe.loss_scale"
        )
    # `Recipe` itself does not check this, because the batch size may be reduced later if memory is exhausted.
    if recipe.accumulation_steps > recipe.batch_size:
        raise CombinationError(
            f"recipe.accumulation_steps={recipe.accumulation_steps} is larger than the batch size, "
            f"{recipe.batch_size}; choose a smaller number, or a larger recipe.batch_size"
        )
    if isinstance(recipe.class_weights, tuple) and label_names and len(recipe.class_weights) != len(label_names):
        raise CombinationError(
            f"recipe.class_weights has {len(recipe.class_weights)} weights, but dataset {dataset.name!r} has "
            f"{len(label_names)} classes ({', '.join(label_names[:8])}); pass one weight per class"
        )
    by_validation = [name for name in ("early_stopping", "keep_best") if getattr(recipe, name)]
    by_validation += ["schedule=plateau"] if recipe.schedule == "plateau" else []
    if by_validation and dataset.examples.get("validation") == 0:
        raise CombinationError(
            f"recipe.{by_validation[0]} requires a validation split, but dataset {dataset.name!r} has none; remove the "
            f"option, or use a dataset with a validation split (the test split is used only once, after training)"
        )
    check_length(recipe, training_examples)


def _check_range(recipe: Recipe) -> None:
    """Raise `harness.CombinationError` if float32 cannot represent a number that training uses.

    In float32, a number that is too small becomes zero or loses precision, and a number that is too large becomes
    infinite.
    """
    temperature = recipe.distillation_temperature
    values = {
        name: getattr(recipe, name)
        for name in ("learning_rate", "epsilon", "weight_decay", "l1", "clip_norm", "loss_scale")
    }
    for name, value in values.items():
        if value and not _SMALLEST <= value <= _LARGEST:
            raise CombinationError(
                f"recipe.{name}={value} is outside the range of float32, {_SMALLEST:.3g} to {_LARGEST:.3g}; choose a "
                f"number in this range"
            )
    if not _SMALLEST <= temperature * temperature <= _LARGEST:  # the loss is multiplied by the square
        raise CombinationError(
            f"the square of recipe.distillation_temperature={temperature} is outside the range of float32, "
            f"{_SMALLEST:.3g} to {_LARGEST:.3g}; choose a temperature such as 2"
        )
    for name in ("beta1", "beta2"):
        if getattr(recipe, name) > 1 - 2.0**-24:  # the largest float32 number below 1
            raise CombinationError(
                f"recipe.{name}={getattr(recipe, name)} rounds to 1 in float32; choose a smaller number"
            )
    if not recipe.epsilon and recipe.optimizer not in ("sgd", "lion"):
        raise CombinationError(
            f"with recipe.epsilon=0, the optimizer {recipe.optimizer} divides zero by zero if all gradients of a "
            "parameter are zero; choose a positive number, such as 1e-8"
        )


def check_length(recipe: Recipe, training_examples: int | None) -> None:
    """Raise `harness.CombinationError` if an option could have an effect only after the end of training.

    `training_examples` is the number of training examples, or None if it is not known. `Recipe.max_steps` then has the
    largest possible number of epochs, which is the number of steps.
    """
    epochs, length, more = recipe.epochs, f"training has {recipe.epochs} epochs", "more epochs (recipe.epochs)"
    if recipe.max_steps is not None:
        per_epoch = 1
        if training_examples is not None:
            from harness.data.batches import steps_per_epoch

            per_epoch = steps_per_epoch(training_examples, recipe.batch_size)
        limited = -(-recipe.max_steps // per_epoch)
        if limited < epochs:
            epochs, more = limited, "more steps (recipe.max_steps)"
            steps = f"recipe.max_steps={recipe.max_steps}"
            length = f"training ends in epoch {epochs}{'' if training_examples else ' or earlier'} ({steps})"
    if recipe.early_stopping is not None and recipe.early_stopping >= epochs:
        raise CombinationError(
            f"recipe.early_stopping={recipe.early_stopping} has no effect, because {length}; choose a smaller number, "
            f"or {more}"
        )
    late = [milestone for milestone in recipe.milestones if milestone >= epochs]
    if recipe.schedule == "step" and (late or (recipe.step_size or 0) >= epochs):
        name, after = ("milestones", late[0]) if late else ("step_size", recipe.step_size)
        raise CombinationError(
            f"recipe.{name}: the learning rate would be reduced after epoch {after}, but {length}; choose a smaller "
            f"number, or {more}"
        )
    # The first epoch always has the best score so far.
    if recipe.schedule == "plateau" and recipe.plateau_patience + 1 >= epochs:
        raise CombinationError(
            f"recipe.plateau_patience={recipe.plateau_patience}: the learning rate would be reduced after epoch "
            f"{recipe.plateau_patience + 1} at the earliest, but {length}; choose a smaller number, or {more}"
        )
    if recipe.schedule == "plateau" and recipe.early_stopping and recipe.early_stopping <= recipe.plateau_patience:
        raise CombinationError(
            f"recipe.plateau_patience={recipe.plateau_patience}: training ends after {recipe.early_stopping} epochs "
            "without a new best score (recipe.early_stopping), before the learning rate would be reduced; choose a "
            "smaller recipe.plateau_patience, or a larger recipe.early_stopping"
        )


def length_options(recipe: Recipe) -> dict[str, Any]:
    """Return the options for which `check_length` needs the number of training examples.

    The dictionary is empty if `check_length` does not need the number of training examples.
    """
    names = ("schedule", "step_size", "milestones", "plateau_patience", "early_stopping")
    if recipe.max_steps is None or not (recipe.schedule in ("step", "plateau") or recipe.early_stopping):
        return {}
    return {name: getattr(recipe, name) for name in ("max_steps", "epochs", "batch_size", *names)}


def _check_teacher(recipe: Recipe, *, distilled: bool) -> None:
    if recipe.distillation_alpha and not distilled:
        raise CombinationError("recipe.distillation_alpha requires a teacher; add --teacher RUN, or remove the option")
    if distilled and not recipe.distillation_alpha:
        raise CombinationError(
            "the teacher has no effect with recipe.distillation_alpha=0; remove the teacher or this setting"
        )


def _option_text(name: str, recipe: Recipe) -> str:
    """Return the setting for an element of `Recipe.SESSION_OPTIONS`, as the user wrote it."""
    if name == "distillation_alpha":
        return "the teacher"
    return f"recipe.optimizer={name}" if name == recipe.optimizer else f"recipe.{name}"


def _unused(recipe: Recipe, task: Task) -> Iterator[tuple[str, str]]:
    """Yield the name of each field that has no effect, with the reason."""
    optimizer, schedule = recipe.optimizer, recipe.schedule
    with_optimizer, with_schedule = f"with the optimizer {optimizer}", f"with the schedule {schedule}"
    if optimizer != "sgd":
        yield from ((name, with_optimizer) for name in ("momentum", "nesterov"))
    elif not recipe.momentum:
        yield "nesterov", "without recipe.momentum"
    if optimizer not in ("adam", "adamw", "lion", "lamb"):
        yield from ((name, with_optimizer) for name in ("beta1", "beta2"))
    if optimizer in ("sgd", "lion"):
        yield "epsilon", with_optimizer
    if not recipe.weight_decay:
        yield "decoupled_decay", "without recipe.weight_decay"
    if schedule not in ("step", "plateau"):
        yield "gamma", with_schedule
    if schedule != "step":
        yield from ((name, with_schedule) for name in ("step_size", "milestones"))
    if schedule != "plateau":
        yield "plateau_patience", with_schedule
    if not (schedule == "plateau" or recipe.early_stopping or recipe.keep_best):
        yield "monitor", "without recipe.early_stopping, recipe.keep_best or the schedule plateau"
    if not recipe.distillation_alpha:
        yield "distillation_temperature", "without recipe.distillation_alpha"
    if recipe.distillation_alpha == 1:
        alone = "with recipe.distillation_alpha=1, which ignores the true classes"
        yield from ((name, alone) for name in ("label_smoothing", "class_weights"))
    if task.objective == "regression":
        yield from ((name, "in regression, which has no classes") for name in ("label_smoothing", "class_weights"))
