"""Checks of options that refer to the model's parameters, to the data's classes or, if the number of training steps is
limited, to epochs.

The parameters, the classes and the number of steps in an epoch are known only when the data are prepared. The data are
therefore prepared in a child process, before the first run starts. Prepared data that can be cached are reused by the
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from harness.errors import UsageError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.declarations import declared_parameters
from harness.execute.preparation import load_plugins, prepare_data
from harness.execute.training_options import check_options, options_in_use
from harness.execute.variables import child_environment
from harness.plan.recipe_checks import length_options
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import Failure, PluginRef, RunSpec

TIMEOUT_S = 3600.0
"""Time limit for preparing the data of one model, in seconds."""


class OptionsJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that checks options."""

    specs: tuple[RunSpec, ...]
    """Specifications with the same data and the same model. Their model options may differ."""
    plugins: tuple[PluginRef, ...]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the child process."""

    problem: str = ""
    """Message of the first error, or an empty string."""


def check_before_runs(specs: Iterable[RunSpec], catalog: Catalog, *, say: Callable[[str], None]) -> None:
    """Raise `harness.UsageError` if an option is incompatible with the parameters of the model, the classes of the data
    or the number of steps, or if the configured model does not accept the data (`Model.parameters`).

    Only the options in `harness.execute.training_options.options_in_use` and the options of the model are checked. No
    process is started if these options have their default values. If the data cannot be prepared, no exception is
    raised, and the run reports the error.
    """
    groups: dict[bytes, dict[bytes, RunSpec]] = {}
    for spec in specs:
        if spec.weights is None and (used := _used(spec, catalog)):
            data = [spec.task, spec.dataset, spec.dataset_options, spec.task_options]
            group = msgspec.json.encode([spec.env, *data, spec.model])
            plain = msgspec.structs.replace(spec, teacher=None)
            groups.setdefault(group, {}).setdefault(msgspec.json.encode(used), plain)
    for alike in groups.values():
        chosen = tuple(alike.values())
        names = ", ".join(dict.fromkeys(name for spec in chosen for name in _shown(spec, catalog)))
        say(f"{chosen[0].task} · {chosen[0].dataset} · {chosen[0].model}: checking {names}")
        found = call_in_child(
            check_in_child,
            OptionsJob(specs=chosen, plugins=catalog.refs_for(chosen[0])),
            timeout_s=TIMEOUT_S,
            environment=child_environment(chosen[0]),
            interpreter=interpreter(chosen[0].env),
        )
        if not isinstance(found, Failure) and found.problem:
            raise UsageError(found.problem)


def _used(spec: RunSpec, catalog: Catalog) -> dict[str, Any]:
    """Return the options to check that differ from their defaults, as a mapping from names to values.

    Recipes are used only by backends that train in steps. The sizes of a pretrained model are determined by its
    checkpoint.
    """
    used: dict[str, Any] = {}
    if catalog.backend(spec.backend).trains_by_steps:
        used = {f"recipe.{name}": value for name, value in options_in_use(spec.recipe).items()}
    if spec.pretrained is None:
        model, variant = catalog.model(spec.model)
        default = msgspec.to_builtins(msgspec.convert(dict(model.variants[variant]), model.Config))
        used |= {f"model.{name}": value for name, value in spec.model_options.items() if value != default[name]}
    return used


def _shown(spec: RunSpec, catalog: Catalog) -> list[str]:
    """Return the names of the options for a message. If the length of the training is checked, the limit is named."""
    lengths = {f"recipe.{name}" for name in length_options(spec.recipe) if name != "max_steps"}
    return [name for name in _used(spec, catalog) if name not in lengths]


def check_in_child(job: OptionsJob, context: ChildContext) -> Checked:
    """Prepare the data, and check the options of each specification."""
    catalog, first = load_plugins(job.plugins), job.specs[0]
    info = prepare_data(catalog, first).info
    model, _ = catalog.model(first.model)
    try:
        for spec in job.specs:
            parameters = declared_parameters(model, msgspec.convert(spec.model_options, model.Config), info)
            check_options(spec.recipe, parameters, info)
    except UsageError as error:
        return Checked(problem=str(error))
    return Checked()
