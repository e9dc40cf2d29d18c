"""Plugin for tests of options that depend on the data: a backend for the toy model that claims to implement all recipe
options, and a model with an option that does not suit all data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness_toy import Config, NumpyBackend, ToyLinear

import harness
from harness import DataInfo, Model, NetworkRef, Parameter, Recipe

HARNESS_API_VERSION = "1.0"


class Able(NumpyBackend):
    name = "toy-able"
    recipe_options = tuple(sorted(Recipe.SESSION_OPTIONS))


class PatchedConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    patch: int = 1


class Patched(ToyLinear):
    name, variants, recipes = "toy-patched", {"toy-patched": {}}, {}
    Config = PatchedConfig

    def parameters(self, config: PatchedConfig, info: DataInfo) -> Sequence[Parameter]:  # type: ignore[override]
        (features,) = info.inputs["features"].shape
        if features % config.patch:
            raise harness.UsageError(
                f"{features} features cannot be divided into patches of {config.patch}; set --set model.patch= to a "
                "divisor"
            )
        return super().parameters(config, info)


@harness.hookimpl
def harness_models() -> Iterable[Model]:
    yield Patched()


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield Able()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    for model in ("toy", "toy-patched"):
        yield NetworkRef(model=model, backend="toy-able", build="harness_toy:build")
