"""Rules for models, which are data: they need no framework. They are looked at with the data of a task that suits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from harness.interfaces import Model
from harness.plugins.catalog import Catalog
from harness.records import DataInfo
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.rules.tasks import PreparedTask


class SizedModel:
    """A model, and the info of data that it accepts."""

    def __init__(self, model: Model, catalog: Catalog) -> None:
        self.model, self.catalog = model, catalog

    @cached_property
    def info(self) -> DataInfo:
        reasons = []
        for provided in self.catalog.tasks.values():
            task = provided.value
            if task.produces in self.model.accepts and task.objective in self.model.objectives:
                try:
                    return PreparedTask(task, self.catalog).data.info
                except NotChecked as reason:
                    reasons.append(str(reason))
        raise NotChecked("; ".join(reasons) or f"no task here prepares {', '.join(self.model.accepts)}")

    @property
    def trained_by_steps(self) -> bool:
        """On some backend; else it may learn what has no canonical form."""
        names = [backend for model, backend in self.catalog.networks if model == self.model.name]
        backends = [self.catalog.backends[name].value for name in names if name in self.catalog.backends]
        return not backends or any(backend.trains_by_steps for backend in backends)

    def variants(self) -> Iterator[tuple[str, Any]]:
        import msgspec

        for name, values in self.model.variants.items():
            try:
                yield name, msgspec.convert(dict(values), self.model.Config)
            except (msgspec.ValidationError, ValueError) as error:
                raise Broken(f"the variant {name!r} is no Config: {error}") from None


def _parameters_are_drawn(it: SizedModel) -> None:
    from harness.execute.weights import initial_weights
    from harness.records.arrays import digest

    if not it.trained_by_steps:
        return
    _, config = next(it.variants())
    parameters = tuple(it.model.parameters(config, it.info))
    trainable = [parameter for parameter in parameters if parameter.trainable]
    if not trainable:
        raise Broken("it has no trainable parameter")
    for parameter in parameters:
        if any(size < 1 for size in parameter.shape):
            raise Broken(f"the parameter {parameter.name!r} has the shape {parameter.shape}")
    one = digest(initial_weights(parameters, 0))
    if digest(initial_weights(tuple(it.model.parameters(config, it.info)), 0)) != one:
        raise Broken("asked twice, it lists other parameters")
    if all(parameter.init in ("zeros", "ones", "constant") for parameter in trainable) and len(trainable) > 2:
        raise Broken("no parameter is drawn at random, so that its units stay alike")


def _variants_are_sizes(it: SizedModel) -> None:
    for name, config in it.variants():
        if not tuple(it.model.parameters(config, it.info)) and it.trained_by_steps:
            raise Broken(f"the variant {name!r} has no parameters")


def _flops_are_told(it: SizedModel) -> None:
    for name, config in it.variants():
        flops = it.model.flops_per_sample(config, it.info)
        if not (math.isfinite(flops) and (flops > 0 or (flops == 0 and not it.trained_by_steps))):
            raise Broken(f"the variant {name!r} has {flops} FLOPs a sample")
    if not (it.model.flops_per_sample.__doc__ or "").strip():
        raise Broken("flops_per_sample has no docstring with its formula")


def _recipes_are_known(it: SizedModel) -> None:
    from harness.records import Recipe

    names = {it.model.name, *it.model.variants}
    for name, changes in it.model.recipes.items():
        if name not in names:
            raise Broken(f"recipes has {name!r}, which is neither the family nor a variant")
        unknown = set(changes) - set(Recipe.__struct_fields__)
        if unknown:
            raise Broken(f"the recipe of {name!r} has unknown fields: {', '.join(sorted(unknown))}")


def _has_a_network(it: SizedModel) -> None:
    if not any(model == it.model.name for model, _ in it.catalog.networks):
        raise Broken("no plugin here brings a network of it to any backend")


MODEL_RULES: tuple[Rule[SizedModel], ...] = (
    Rule(
        "model-variants-are-sizes",
        "Every variant is a valid Config, and has parameters.",
        "correct the values in variants, whose names are the fields of Config",
        _variants_are_sizes,
    ),
    Rule(
        "model-parameters-are-drawn",
        "Parameters have names of their own and positive shapes, and some start at random.",
        "list each array once in parameters, and give matrices an init such as truncated_normal",
        _parameters_are_drawn,
    ),
    Rule(
        "model-flops-are-told",
        "flops_per_sample is positive and finite for every variant, and its docstring has the formula.",
        "count two for each multiply-add of the matrix products and write the formula down",
        _flops_are_told,
    ),
    Rule(
        "model-recipes-are-known",
        "recipes changes fields of harness.Recipe, of its own variants.",
        "use the names of harness.Recipe's fields, under the family's or a variant's name",
        _recipes_are_known,
    ),
    Rule(
        "model-has-a-network",
        "Some backend has a network of it.",
        "yield a harness.NetworkRef for it from harness_networks",
        _has_a_network,
    ),
)
