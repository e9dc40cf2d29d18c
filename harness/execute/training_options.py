"""Recipe options that refer to the parameters of a model, to the classes of the data, or to epochs if the number of
training steps is limited."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from harness.errors import UsageError
from harness.interfaces import Parameter
from harness.plan.recipe_checks import check_length, length_options
from harness.records import DataInfo, Recipe

OPTIONS = ("frozen", "layer_decay", "class_weights")
"""Fields of the recipe that refer to the parameters of a model or to the classes of the data."""
_DEFAULTS = Recipe()


def options_in_use(recipe: Recipe) -> dict[str, Any]:
    """Return the options that `check_options` checks, as a mapping from names to values.

    The options in `OPTIONS` are included if they differ from their defaults.
    """
    values = {name: getattr(recipe, name) for name in OPTIONS}
    used = {name: value for name, value in values.items() if value != getattr(_DEFAULTS, name)}
    return used | length_options(recipe)


def check_options(recipe: Recipe, parameters: Sequence[Parameter], info: DataInfo) -> None:
    """Raise `harness.UsageError` if one of `options_in_use` is incompatible with the parameters, the classes or the
    number of steps.
    """
    check_length(recipe, info.splits["train"].examples)
    rate_factors(recipe, with_frozen(parameters, frozen_names(recipe, parameters)))
    class_weights(recipe, info)


def frozen_names(recipe: Recipe, parameters: Sequence[Parameter]) -> frozenset[str]:
    """Return the names of the trainable parameters that match a pattern in `Recipe.frozen`.

    Raises `harness.UsageError` if a pattern matches no parameter, or if no parameter remains trainable.
    """
    names = [parameter.name for parameter in parameters if parameter.trainable]
    for pattern in recipe.frozen:
        if not any(fnmatchcase(name, pattern) for name in names):
            rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UsageError(
                f"recipe.frozen: the pattern {pattern!r} matches no trainable parameter of the model; change or remove "
                f"it (the parameters are {', '.join(names[:3])}{rest})"
            )
    frozen = frozenset(name for name in names if any(fnmatchcase(name, pattern) for pattern in recipe.frozen))
    if frozen and len(frozen) == len(names):
        raise UsageError("recipe.frozen: the patterns match all trainable parameters; leave some of them trainable")
    return frozen


def with_frozen(parameters: Sequence[Parameter], frozen: frozenset[str]) -> tuple[Parameter, ...]:
    """Return the parameters, with the parameters in `frozen` marked as not trainable."""
    return tuple(msgspec.structs.replace(each, trainable=False) if each.name in frozen else each for each in parameters)


def layer_of(name: str) -> str:
    """Return the name of a parameter's layer; see `Recipe.layer_decay`."""
    parts = name.split(".")
    number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    return ".".join(parts[: min(2, len(parts) - 1)] if number is None else parts[: number + 1])


def rate_factors(recipe: Recipe, parameters: Sequence[Parameter]) -> dict[str, float]:
    """Return the learning rate factor of each trainable parameter. If all factors are 1, return an empty dictionary.

    Raises `harness.UsageError` if the model has only one layer.
    """
    if recipe.layer_decay == 1:
        return {}
    layers = list(dict.fromkeys(layer_of(parameter.name) for parameter in parameters))
    if len(layers) == 1:
        raise UsageError("recipe.layer_decay: the model has only one layer; remove this option")
    depth = {layer: len(layers) - 1 - index for index, layer in enumerate(layers)}
    return {each.name: recipe.layer_decay ** depth[layer_of(each.name)] for each in parameters if each.trainable}


def class_weights(recipe: Recipe, info: DataInfo) -> tuple[float, ...] | None:
    """Return each class's weight in the loss.

    The weights are scaled such that the mean weight of the training examples is 1.

    Raises `harness.UsageError` if the data have no classes, if the number of weights differs from the number of
    classes, or if a class has no training examples.
    """
    if recipe.class_weights is None:
        return None
    if info.objective == "regression":
        raise UsageError("recipe.class_weights: regression has no classes; remove this option")
    counts = info.splits["train"].classes
    if recipe.class_weights == "balanced":
        missing = [index for index, count in enumerate(counts) if not count]
        if missing:
            label = info.label_names[missing[0]] if info.label_names else str(missing[0])
            raise UsageError(
                f"recipe.class_weights: the balanced weight of class {label!r} is undefined because the class has no "
                f"training examples; pass a list of weights"
            )
        weights: Sequence[float] = [1 / count for count in counts]
    else:
        weights = [float(weight) for weight in recipe.class_weights]
        if len(weights) != info.outputs:
            raise UsageError(
                f"recipe.class_weights: {len(weights)} weights for {info.outputs} classes; pass one weight per class"
            )
    mean = math.fsum(weight * count for weight, count in zip(weights, counts, strict=True)) / sum(counts)
    return tuple(weight / mean for weight in weights)
