"""Planning of studies. All errors in a request are detected here, before any trial starts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from harness.data.user_files.dataset import UserDataset, dataset_of
from harness.errors import CombinationError, HarnessError, UnknownNameError, UsageError
from harness.execute.runner import LOCAL, check_executor
from harness.execute.side_by_side import lanes_for
from harness.interfaces import Executor
from harness.plan.devices import threads_per_process
from harness.plan.expand import expand
from harness.plan.overrides import override_path
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import Recipe, RunSpec
from harness.tuning.sampling import PRUNERS, SAMPLERS, check_installed
from harness.tuning.space import Dimension, Value, grid, overrides, parse
from harness.tuning.study import Objective

OBJECTIVES = ("quality", "loss", "train_throughput", "parameters")
LEARNED = ("quality", "loss")
"""Objectives that have a value after each epoch, as required for pruning."""
MAX_CHECKED = 1000
"""Maximum number of setting combinations to check before a study starts."""
MAX_TRIALS = 10_000
MAX_CONFIRMED = 100


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A user's request for tuning."""

    selection: Selection
    """Selection of one or more backends. The selection contains exactly one task, dataset, model, device, precision and
    seed."""
    search: tuple[str, ...]
    trials: int = 20
    objectives: tuple[str, ...] = ("quality",)
    sampler: str = "tpe"
    pruner: str = ""
    """Name of the pruner. An empty string selects ``median`` if pruning is possible and ``none`` otherwise."""
    sampler_seed: int = 0
    confirm: int = 3
    """Number of fresh seeds used to confirm the best settings and the default settings."""
    jobs: int = 1
    """Number of trials executed at the same time."""
    executor: str = LOCAL
    executor_options: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class StudyPlan:
    """The plan for a study of one backend."""

    selection: Selection
    """Selection for the run with the default settings and the seed of the trials."""
    spec: RunSpec
    """Specification of the default run."""
    dimensions: tuple[Dimension, ...]
    objectives: tuple[Objective, ...]
    pruner: str
    request: Tuning
    epochs: int
    """Maximum number of epochs per trial."""
    executor: Executor
    """Executor of the trials and of the runs that confirm the settings."""
    checked: tuple[RunSpec, ...]
    """Specifications for the listed values and the bounds of the ranges."""

    @property
    def name(self) -> str:
        """Name of the study. The name depends on all settings that affect the trials, except for the number of
        trials."""
        identity = {
            "key": self.spec.key,
            "search": [each.text for each in self.dimensions],
            "objectives": [each.name for each in self.objectives],
            "sampler": [self.request.sampler, self.request.sampler_seed],
            "pruner": self.pruner,
        }
        digest = hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()
        return f"{self.spec.task}-{self.spec.model}-{self.spec.backend}-{digest[:8]}"

    @property
    def measures_speed(self) -> bool:
        return any(each.name == "train_throughput" for each in self.objectives)

    def spec_with(self, settings: Mapping[str, Value], catalog: Catalog) -> RunSpec:
        """Return the specification with these settings. Raises `harness.UsageError` if the settings cannot be combined,
        or if the user's data have changed."""
        (spec,) = expand(with_overrides(self.selection, overrides(settings)), catalog)
        if spec.dataset_options != self.spec.dataset_options:
            raise UsageError(f"the data of {self.spec.dataset!r} changed during the study; run the command again")
        return spec

    def default_settings(self, catalog: Catalog) -> dict[str, Value] | None:
        """Return the default values of the searched settings, or None if one of them is not in the search space."""
        found: dict[str, Value] = {}
        for dimension in self.dimensions:
            value = _value(self.spec, dimension.name, catalog)
            value = value if isinstance(value, Value) else msgspec.json.encode(value).decode()
            same = [choice for choice in dimension.choices if choice == value]
            if same:  # 1 and 1.0 are the same number of a list
                found[dimension.name] = same[0]
            elif dimension.kind != "choices" and dimension.contains(value):
                found[dimension.name] = value
            else:
                return None
        return found


def plan(request: Tuning, catalog: Catalog) -> list[StudyPlan]:
    """Return a study plan for each backend.

    Raises `harness.UsageError` if a setting is unknown, if the search space is empty or invalid, or if options
    contradict each other.
    """
    _check_numbers(request)
    check_installed(request.sampler)
    executor = catalog.executor(request.executor, request.executor_options)
    base, specs = base_specs(request.selection, catalog, jobs=request.jobs if executor.name == LOCAL else 1)
    _check_executor(request, specs, executor)
    plans = []
    for spec in specs:
        dimensions = parse(request.search, _fields(spec, catalog))
        selection = dataclasses.replace(base, backends=(spec.backend,), models=(spec.model,))
        _check_not_set(request.selection, dimensions)
        _check_validation(spec, catalog)
        objectives = _objectives(request.objectives, spec, catalog)
        checked = _checked_specs(selection, dimensions, catalog)
        plans.append(
            StudyPlan(
                selection=selection,
                spec=spec,
                dimensions=dimensions,
                objectives=objectives,
                pruner=_pruner(request),
                request=request,
                epochs=max(each.recipe.epochs for each in [spec, *checked]),
                executor=executor,
                checked=(spec, *checked),
            )
        )
    return plans


def base_specs(selection: Selection, catalog: Catalog, *, jobs: int = 1) -> tuple[Selection, tuple[RunSpec, ...]]:
    """Return the selection for the runs with the default settings, and the specification for each backend. The runs use
    the same seed as the trials. By default, each run uses the number of available cores divided by `jobs`.

    Raises `harness.UsageError` if the selection contains more than one run per backend.
    """
    base = _base(selection)
    if jobs > 1:
        base = dataclasses.replace(base, threads=threads_per_process(base, jobs))
    specs = expand(base, catalog)
    if len(specs) > len({spec.backend for spec in specs}):
        if any(spec.split_count for spec in specs):
            raise UsageError(
                "harness tune uses only one split; pass --split N to tune on one fold or random split, or remove "
                "--folds, --fold-column and --random-splits"
            )
        several = ", ".join(base.several()) or "each option"
        raise UsageError(
            f"harness tune varies only the settings in --search; pass a single value to {several}, or tune the "
            "setting with --search"
        )
    return base, specs


def with_overrides(selection: Selection, added: Sequence[str]) -> Selection:
    return dataclasses.replace(selection, overrides=(*selection.overrides, *added))


def _check_numbers(request: Tuning) -> None:
    if not 1 <= request.trials <= MAX_TRIALS:
        raise UsageError(f"trials must be between 1 and {MAX_TRIALS}, got {request.trials}")
    if not 0 <= request.confirm <= MAX_CONFIRMED:
        raise UsageError(f"confirm must be between 0 and {MAX_CONFIRMED}, got {request.confirm}")
    if not 0 <= request.sampler_seed < 2**32:
        raise UsageError(f"sampler-seed must be between 0 and {2**32 - 1}, got {request.sampler_seed}")
    if not 1 <= request.jobs <= MAX_TRIALS:
        raise UsageError(f"jobs must be between 1 and {MAX_TRIALS}, got {request.jobs}")
    if request.sampler not in SAMPLERS:
        raise UnknownNameError("sampler", request.sampler, SAMPLERS)
    if request.pruner and request.pruner not in PRUNERS:
        raise UnknownNameError("pruner", request.pruner, PRUNERS)
    for name in request.objectives:
        if name not in OBJECTIVES:
            raise UnknownNameError("objective", name, OBJECTIVES)
    if not request.objectives:
        raise UsageError("at least one objective is required, such as quality")
    if len(set(request.objectives)) < len(request.objectives):
        repeated = next(name for name in request.objectives if request.objectives.count(name) > 1)
        raise UsageError(f"the objective {repeated!r} is given twice; remove one of them")
    if request.pruner not in ("", "none"):
        if len(request.objectives) > 1:
            raise CombinationError(
                f"pruning with several objectives is not supported by Optuna; remove --pruner {request.pruner}, or "
                "pass a single --objective"
            )
        if request.objectives[0] not in LEARNED:
            raise CombinationError(
                f"the objective {request.objectives[0]!r} has no value during training, so trials cannot be pruned; "
                f"remove --pruner {request.pruner}"
            )


def _pruner(request: Tuning) -> str:
    if request.pruner:
        return request.pruner
    return "median" if len(request.objectives) == 1 and request.objectives[0] in LEARNED else "none"


def _check_executor(request: Tuning, specs: Sequence[RunSpec], executor: Executor) -> None:
    """Raise `harness.UsageError` if the executor cannot execute or prune the trials."""
    check_executor(specs, executor)
    if _pruner(request) != "none" and not executor.prunes:
        raise CombinationError(
            f"the executor {executor.name!r} does not report epochs during a run or cannot stop a run early, so trials "
            "cannot be pruned; pass --pruner none"
        )
    if request.jobs > 1 and executor.name == LOCAL:
        lanes_for(specs, request.jobs)


def _base(selection: Selection) -> Selection:
    """Return the selection for the run with the default settings and the seed of the trials."""
    if selection.weights:
        raise UsageError("nothing is trained with --weights, so no settings can be tuned; remove --weights")
    if selection.repeat is not None:
        raise UsageError("harness tune executes each trial once; remove --repeat")
    if len(selection.seeds) > 1:
        raise UsageError(
            "all trials of a study use the same seed; pass a single --seed, and set the number of fresh "
            "seeds with --confirm"
        )
    return dataclasses.replace(selection, seeds=selection.seeds or (0,))


def _fields(spec: RunSpec, catalog: Catalog) -> dict[str, type[Struct]]:
    return {
        "recipe": Recipe,
        "model": catalog.model(spec.model)[0].Config,
        "task": catalog.task(spec.task).Options,
    }


def _check_not_set(selection: Selection, dimensions: Sequence[Dimension]) -> None:
    both = {override_path(text) for text in selection.overrides} & {each.name for each in dimensions}
    if both:
        raise CombinationError(f"{', '.join(sorted(both))}: both --set and --search change this setting; remove one")


def _check_validation(spec: RunSpec, catalog: Catalog) -> None:
    dataset = dataset_of(spec, catalog)
    if not isinstance(dataset, UserDataset) and dataset.examples.get("validation") == 0:
        raise CombinationError(
            f"dataset {spec.dataset!r} has no validation split, and tuning must not use the test split; "
            "choose another dataset, or pass your own data as files (a validation split is then created)"
        )


def _objectives(names: Sequence[str], spec: RunSpec, catalog: Catalog) -> tuple[Objective, ...]:
    metric = catalog.primary_metric(spec)
    known = {
        "quality": Objective(
            name="quality",
            title=f"validation {metric.name}",
            unit="" if metric.unit == "target" else metric.unit,
            higher_is_better=metric.higher_is_better,
        ),
        "loss": Objective(name="loss", title="validation loss", unit="", higher_is_better=False),
        "train_throughput": Objective(
            name="train_throughput", title="training throughput", unit="samples/s", higher_is_better=True
        ),
        "parameters": Objective(name="parameters", title="trainable parameters", unit="", higher_is_better=False),
    }
    return tuple(known[name] for name in names)


def _checked_specs(selection: Selection, dimensions: Sequence[Dimension], catalog: Catalog) -> list[RunSpec]:
    """Return the specifications for the listed values and the bounds of the ranges.

    Raises `harness.UsageError` if a specification is invalid, or if a setting has no effect. If there are too many
    combinations, settings are varied one at a time, with all other settings at their default values.
    """
    found: list[RunSpec] = []
    for dimension in dimensions:
        try:
            specs = [
                expand(with_overrides(selection, overrides({dimension.name: value})), catalog)[0]
                for value in dimension.ends
            ]
        except HarnessError as error:
            error.args = (f"invalid search {dimension.text!r}: {error}",)
            raise
        if len({spec.key for spec in specs}) < len(specs):
            raise UsageError(
                f"invalid search {dimension.text!r}: two of the values have the same effect with backend "
                f"{selection.backends[0]!r}; remove one of the values, or do not search this setting"
            )
        found += specs
    combined = grid(dimensions, MAX_CHECKED) if len(dimensions) > 1 else None
    for settings in combined or ():
        try:
            found += expand(with_overrides(selection, overrides(settings)), catalog)
        except HarnessError as error:
            shown = ", ".join(overrides(settings))
            raise UsageError(f"the search space contains settings that cannot be combined ({shown}): {error}") from None
    return found


def _value(spec: RunSpec, name: str, catalog: Catalog) -> Any:
    """Return the value of a setting in a specification. Some options have a different name in the specification."""
    section, _, field = name.partition(".")
    if section == "recipe":
        return getattr(spec.recipe, field)
    kind = _fields(spec, catalog)[section]
    stored = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    options = spec.model_options if section == "model" else spec.task_options
    return options.get(stored[field])
