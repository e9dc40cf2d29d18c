"""Checks of recipe options that refer to the parameters of the model, to the classes of the data, or to epochs of a
training whose number of steps is limited.

The parameters, the classes and the number of steps in an epoch are known only when the data are prepared. The data are
therefore prepared in a child process, before the first run starts. Prepared data that can be cached are reused by the
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from harness.errors import UsageError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import load_plugins, prepare_data
from harness.execute.training_options import check_options, options_in_use
from harness.execute.variables import child_environment
from harness.plan.recipe_checks import length_options
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import Failure, PluginRef, Recipe, RunSpec

TIMEOUT_S = 3600.0
"""Time limit for preparing the data of one model, in seconds."""


class OptionsJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that checks options."""

    specs: tuple[RunSpec, ...]
    """Specifications with the same data and the same model."""
    plugins: tuple[PluginRef, ...]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the child process."""

    problem: str = ""
    """Message of the first error, or an empty string."""


def check_before_runs(specs: Iterable[RunSpec], catalog: Catalog, *, say: Callable[[str], None]) -> None:
    """Raise `harness.UsageError` if an option is incompatible with the parameters of the model, the classes of the data
    or the number of steps.

    Only the options in `harness.execute.training_options.options_in_use` are checked. No process is started if there
    are none. If the data cannot be prepared, no exception is raised, and the run reports the error.
    """
    groups: dict[bytes, dict[bytes, RunSpec]] = {}
    for spec in specs:
        trains = spec.weights is None and catalog.backend(spec.backend).trains_by_steps
        if trains and (used := options_in_use(spec.recipe)):
            data = [spec.task, spec.dataset, spec.dataset_options, spec.task_options]
            group = msgspec.json.encode([spec.env, *data, spec.model, spec.model_options])
            plain = msgspec.structs.replace(spec, teacher=None)
            groups.setdefault(group, {}).setdefault(msgspec.json.encode(used), plain)
    for alike in groups.values():
        chosen = tuple(alike.values())
        names = ", ".join(dict.fromkeys(f"recipe.{name}" for spec in chosen for name in _shown(spec.recipe)))
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


def _shown(recipe: Recipe) -> list[str]:
    """Return the names of the options for a message. If the length of the training is checked, the limit is named."""
    lengths = length_options(recipe)
    return [name for name in options_in_use(recipe) if name == "max_steps" or name not in lengths]


def check_in_child(job: OptionsJob, context: ChildContext) -> Checked:
    """Prepare the data, and check the options of each specification."""
    catalog, first = load_plugins(job.plugins), job.specs[0]
    info = prepare_data(catalog, first).info
    model, _ = catalog.model(first.model)
    try:
        parameters = model.parameters(msgspec.convert(first.model_options, model.Config), info)
        for spec in job.specs:
            check_options(spec.recipe, parameters, info)
    except UsageError as error:
        return Checked(problem=str(error))
    return Checked()
