"""Rules for models. Models are checked without importing a framework, using data from a suitable task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from harness.errors import UsageError
from harness.execute.declarations import declared_flops, declared_parameters
from harness.interfaces import Model, Parameter
from harness.plan.expand import suits
from harness.plan.recipe_checks import check_dropout
from harness.plugins.catalog import Catalog
from harness.records import DataInfo
from harness.testing.rule import Broken, NotChecked, Rule
from harness.testing.rules.tasks import PreparedTask


class SizedModel:
    """A model and a description of data that it accepts."""

    def __init__(self, model: Model, catalog: Catalog) -> None:
        self.model, self.catalog = model, catalog

    @cached_property
    def info(self) -> DataInfo:
        reasons = []
        for provided in self.catalog.tasks.values():
            task = provided.value
            if suits(task, self.model):
                try:
                    return PreparedTask(task, self.catalog).data.info
                except NotChecked as reason:
                    reasons.append(str(reason))
        raise NotChecked("; ".join(reasons) or f"no installed task prepares {', '.join(self.model.accepts)}")

    @property
    def trained_by_steps(self) -> bool:
        """False if all backends fit the model from scratch. If False, the model does not need any canonical
        parameters."""
        names = [backend for model, backend in self.catalog.networks if model == self.model.name]
        backends = [self.catalog.backends[name].value for name in names if name in self.catalog.backends]
        return not backends or any(backend.trains_by_steps for backend in backends)

    def variants(self) -> Iterator[tuple[str, Any]]:
        import msgspec

        for name, values in self.model.variants.items():
            try:
                yield name, msgspec.convert(dict(values), self.model.Config)
            except (msgspec.ValidationError, ValueError) as error:
                raise Broken(f"the variant {name!r} is not a valid Config: {error}") from None

    def suitable_variants(self) -> Iterator[tuple[str, Any, Sequence[Parameter]]]:
        """Yield the name, the config and the parameters of each variant.

        A variant is omitted if `Model.parameters` rejects the data with `harness.UsageError`, for example because the
        images are too small for the variant. The default variant must accept the data.
        """
        for number, (name, config) in enumerate(self.variants()):
            try:
                parameters = declared_parameters(self.model, config, self.info)
            except UsageError:
                if number == 0:
                    raise
                continue
            yield name, config, parameters


def _parameters_are_valid(sized: SizedModel) -> None:
    from harness.execute.weights import initial_weights
    from harness.records.arrays import digest

    if not sized.trained_by_steps:
        return
    _, config = next(sized.variants())
    parameters = declared_parameters(sized.model, config, sized.info)
    trainable = [parameter for parameter in parameters if parameter.trainable]
    if not trainable:
        raise Broken("the model has no trainable parameters")
    for parameter in parameters:
        if any(size < 1 for size in parameter.shape):
            raise Broken(
                f"the parameter {parameter.name!r} has the shape {parameter.shape}, which contains no elements"
            )
    one = digest(initial_weights(parameters, 0))
    if digest(initial_weights(declared_parameters(sized.model, config, sized.info), 0)) != one:
        raise Broken("a second call to parameters() returns a different list")
    if all(parameter.init in ("zeros", "ones", "constant") for parameter in trainable) and len(trainable) > 2:
        raise Broken("no parameter is initialized randomly, so all units of a layer remain identical")


def _variants_are_valid(sized: SizedModel) -> None:
    for name, _, parameters in sized.suitable_variants():
        if not parameters and sized.trained_by_steps:
            raise Broken(f"the variant {name!r} has no parameters")


def _has_flops(sized: SizedModel) -> None:
    for name, config, _ in sized.suitable_variants():
        if not declared_flops(sized.model, config, sized.info) and sized.trained_by_steps:
            raise Broken(f"the variant {name!r} has 0 FLOPs per example")
    if not (sized.model.flops_per_sample.__doc__ or "").strip():
        raise Broken("flops_per_sample has no docstring with the formula")


def _recipes_are_valid(sized: SizedModel) -> None:
    from harness.records import Recipe

    names = {sized.model.name, *sized.model.variants}
    for name, changes in sized.model.recipes.items():
        if name not in names:
            raise Broken(f"the key {name!r} of recipes is neither the name of the model family nor that of a variant")
        unknown = set(changes) - set(Recipe.__struct_fields__)
        if unknown:
            raise Broken(f"the recipe of {name!r} has unknown fields: {', '.join(sorted(unknown))}")
    for changes in (*sized.model.recipes.values(), sized.model.fine_tuning):
        check_dropout(sized.model, changes)


def _has_a_network(sized: SizedModel) -> None:
    if not any(model == sized.model.name for model, _ in sized.catalog.networks):
        raise Broken("no installed plugin provides a network for the model")


MODEL_RULES: tuple[Rule[SizedModel], ...] = (
    Rule(
        "model-variants-are-valid",
        "Every variant is a valid Config and has parameters.",
        "fix `variants`; the keys of each entry must be fields of Config",
        _variants_are_valid,
    ),
    Rule(
        "model-parameters-are-valid",
        "Parameters have unique names and positive shapes, and some of them are initialized randomly.",
        "list each array once, and initialize matrices randomly, for example with init='truncated_normal'",
        _parameters_are_valid,
    ),
    Rule(
        "model-has-flops",
        "flops_per_sample is positive and finite for every variant, and its docstring contains the formula.",
        "count each multiply-add of the matrix products as two operations, and document the formula",
        _has_flops,
    ),
    Rule(
        "model-recipes-are-valid",
        "The keys of recipes are the family or its variants, the values change fields of harness.Recipe, and dropout "
        "is set only if has_dropout is True.",
        "use the family or a variant as the key, and field names of harness.Recipe in the value",
        _recipes_are_valid,
    ),
    Rule(
        "model-has-a-network",
        "At least one backend has a network for the model.",
        "yield a harness.NetworkRef in harness_networks",
        _has_a_network,
    ),
)
