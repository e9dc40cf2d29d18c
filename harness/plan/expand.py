"""Expansion of selections into run specs."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from harness.data.cache import out_of_reach
from harness.data.user_files.dataset import UserDataset, dataset_of, find_dataset
from harness.errors import CombinationError, HarnessError, PluginError, UnknownNameError, UsageError
from harness.interfaces import Backend, Dataset, Model, Task
from harness.measure.nvml import gpus
from harness.plan import weights
from harness.plan.checkpoint import model_options, read_config
from harness.plan.devices import check_devices, device_counts, threads_per_process
from harness.plan.distillation import check_student, teacher_of
from harness.plan.exporter import ExportedRun
from harness.plan.overrides import as_overrides, combinations, declared_by, parse_overrides
from harness.plan.own_data import model_by_size
from harness.plan.selection import Selection
from harness.plan.settings import ComparisonSettings, DataSettings, TrainingSettings
from harness.plan.splits import data_settings
from harness.plugins import environments
from harness.plugins.catalog import Catalog
from harness.plugins.environments import missing
from harness.records import PROTOCOLS, DataSource, NamedProtocol, Precision, Pretrained, RunSpec
from harness.records.store import StoredRun

ONLY_INFERENCE = "cannot train, because it only computes predictions"


def expand_all(
    selections: Iterable[Selection], catalog: Catalog, *, unavailable: bool = False, jobs: int = 1
) -> tuple[RunSpec, ...]:
    """Return the specs of all `selections`, in execution order.

    By default, the available cores are divided equally among the `jobs` runs that are executed at the same time. If
    several selections contain the same spec with different numbers of repeats, the largest number is used.

    Runs with the same task and dataset are interleaved, even if they come from different selections. The specs with the
    first seed and split are executed first. The specs with the next seed or split follow in reverse order, so that the
    order alternates (A B B A). Repeats are also interleaved. All specs are executed once, and then once more in reverse
    order. A steady drift in the speed of the machine therefore affects all specs equally.

    Raises the same exceptions as `expand`. For a suite, the message contains the file and the line of the entry.
    """
    repeats: dict[str, int] = {}
    specs: dict[str, RunSpec] = {}
    for selection in selections:
        try:
            planned = _expanded(selection, catalog, unavailable=unavailable, jobs=jobs)
            if not planned:
                raise UsageError("exclude matches all runs of this entry; remove one of its items")
        except HarnessError as error:
            if selection.located is not None:
                error.args = (f"{selection.located(error)}: {error}",)
            raise
        count = selection.repeat or _named_protocol(selection.protocol).repeats
        for key, spec in planned.items():
            specs.setdefault(key, spec)
            repeats[key] = max(count, repeats.get(key, 0))
    order = _interleaved(specs)
    rounds = [
        [specs[key] for key in order if repeats[key] > number] for number in range(max(repeats.values(), default=0))
    ]
    return tuple(spec for number, turn in enumerate(rounds) for spec in (reversed(turn) if number % 2 else turn))


def _interleaved(specs: Mapping[str, RunSpec]) -> list[str]:
    """Return the keys of `specs` in execution order, without repeats; see `expand_all`."""
    groups: dict[tuple[str, str], dict[tuple[int | None, int], list[str]]] = {}
    for key, spec in specs.items():
        turns = groups.setdefault((spec.task, spec.dataset), {})
        turns.setdefault((spec.split, spec.seed), []).append(key)
    return [
        key
        for turns in groups.values()
        for number, keys in enumerate(turns.values())
        for key in (reversed(keys) if number % 2 else keys)
    ]


def expand(selection: Selection, catalog: Catalog) -> tuple[RunSpec, ...]:
    """Return the specs of a selection in execution order, without repeats.

    Environments change fastest, followed by backends, values of overrides, precisions, devices and models. The order is
    reversed for every other seed or split (A B B A). If several environments are selected, a backend is executed in
    each environment that contains its packages.

    Raises `harness.UsageError` if a name is unknown, if the selected plugins cannot be combined or if a value is
    invalid. Raises `ValueError` if the selection's checkpoint or teacher has not been located (see
    `Selection.resolved`).
    """
    specs = _expanded(selection, catalog)
    return tuple(specs[key] for key in _interleaved(specs))


def _expanded(
    selection: Selection, catalog: Catalog, *, unavailable: bool = False, jobs: int = 1
) -> dict[str, RunSpec]:
    """Return the specs of a selection, keyed by run key.

    If `unavailable` is true, specs are also returned for backends and datasets that are not available on this machine.
    """
    if selection.weights:
        return _with_weights(selection, catalog, unavailable=unavailable)
    if not selection.tasks:
        raise UsageError(f"no task given; select one of: {', '.join(sorted(catalog.tasks))}")
    precisions = [_precision(name) for name in selection.precisions]
    if "int8" in precisions:
        raise CombinationError(
            "int8 is only for inference; train in another precision with --save-weights, then pass --weights RUN "
            "--precision int8"
        )
    for device in selection.devices:
        _check_device(device)
    threads = threads_per_process(selection, jobs)
    if not all(0 <= seed < 2**32 for seed in selection.seeds):  # numpy and all frameworks accept seeds in this range
        raise UsageError("seeds must be between 0 and 4294967295")
    if selection.repeat is not None and selection.repeat < 1:
        raise UsageError(f"repeat must be at least 1, got {selection.repeat}")
    if isinstance(selection.pretrained, str) or isinstance(selection.teacher, str):
        raise ValueError("the selection's checkpoint or teacher is not resolved; call Selection.resolved first")
    teacher = None if selection.teacher is None else teacher_of(selection.teacher)
    protocol = _named_protocol(selection.protocol)
    variants = [parse_overrides(overrides) for overrides in combinations(selection.overrides)]
    if any("name" in overrides["protocol"] for overrides in variants):
        raise UsageError("protocol.name cannot be overridden; select the protocol with --protocol")
    envs = ["" if name == environments.CURRENT else name for name in selection.envs] or [""]
    places = _backends(selection, envs, catalog, unavailable=unavailable)
    available = list(places)
    seeds = dict.fromkeys(selection.seeds or protocol.seeds)
    specs: dict[str, RunSpec] = {}
    for task_name in selection.tasks:
        task = catalog.task(task_name)
        with declared_by(f"task {task.name!r}"):
            for metric in task.metrics:
                catalog.metric(metric)
            if not selection.datasets:
                catalog.dataset(task.default_dataset)
        primary = _primary_metric(selection.metric, task, catalog)
        for dataset_name in selection.datasets or (task.default_dataset,):
            dataset = find_dataset(dataset_name, task, catalog)
            check_suits(task, dataset)
            if not unavailable or isinstance(dataset, UserDataset):
                check_available(dataset)
            data = _DataOfVariants(selection, dataset)
            default_model = ""
            if not selection.models:
                source = data.of(variants[0]["dataset"])[0].source
                size = source.training_examples if source else None
                default_model = _default_model(task, selection.pretrained, size, catalog)
                with declared_by(f"task {task.name!r}"):
                    catalog.model(default_model)
            for model_name in selection.models or (default_model,):
                settings = [
                    (overrides, data.of(overrides["dataset"]), backend, env, training)
                    for overrides in variants
                    for backend, training in _training_by_backend(
                        selection,
                        ComparisonSettings(
                            task=task,
                            dataset=dataset,
                            protocol=protocol.protocol,
                            overrides=overrides,
                            checkpoint=selection.pretrained,
                            data=data.of(overrides["dataset"]),
                            precisions=precisions,
                            distilled=teacher is not None,
                            default_model=default_model,
                        ),
                        model_name,
                        available,
                        catalog,
                    ).items()
                    for env in places[backend]
                ]
                most = max((len(splits) for _, splits, *_ in settings), default=0)
                for device, count, precision, number, seed in itertools.product(
                    selection.devices, device_counts(selection), precisions, range(most), seeds
                ):
                    for overrides, splits, backend, env, training in settings:
                        if number >= len(splits):
                            continue
                        spec = RunSpec(
                            task=task_name,
                            dataset=dataset.name,
                            model=training.model,
                            backend=backend,
                            device=device,
                            precision=precision,
                            compile=selection.compile,
                            deterministic=selection.deterministic,
                            env=env,
                            seed=seed,
                            threads=threads,
                            devices=count,
                            recipe=training.recipe,
                            protocol=training.protocol,
                            pretrained=training.pretrained,
                            task_options=training.task_options,
                            dataset_options=splits[number].dataset_options,
                            model_options=training.model_options,
                            metric=primary,
                            source=_with_defaults(splits[number].source, training),
                            teacher=None if teacher is None else teacher.weights,
                        )
                        if not _is_excluded(spec, selection.exclude, dataset_name, model_name, overrides, catalog):
                            check_devices(spec, catalog, gpus=None if unavailable else gpus)
                            if teacher is not None:
                                check_student(teacher, spec, catalog, unavailable=unavailable)
                            specs[spec.key] = spec
    _check_environments(selection, envs, specs.values(), catalog)
    return specs


def _with_weights(selection: Selection, catalog: Catalog, *, unavailable: bool) -> dict[str, RunSpec]:
    """Return the specs of a selection that uses the weights of runs, keyed by run key."""
    weights.check_selection(selection)
    precisions = [_precision(name) for name in selection.precisions]
    for device in selection.devices:
        _check_device(device)
    protocol = _named_protocol(selection.protocol).protocol
    envs = ["" if name == environments.CURRENT else name for name in selection.envs] or [""]
    places = _backends(selection, envs, catalog, unavailable=unavailable)
    specs: dict[str, RunSpec] = {}
    for source in weights.resolved_runs(selection):
        run = weights.stored_run(source)
        weights.check_servable(run)
        spec = run.record.spec
        dataset = dataset_of(spec, catalog)
        if not unavailable or isinstance(dataset, UserDataset):
            check_available(dataset)
        data = data_settings(dataset, spec.dataset_options)[0].source  # The user's data must not have changed.
        for metric in catalog.task(spec.task).metrics:
            catalog.metric(metric)
        family = catalog.model(spec.model)[0].name
        chosen_backends = list(places) if selection.backends else _able_to_serve(source, family, places, catalog)
        for backend in chosen_backends:
            for env, device, precision in itertools.product(places[backend], selection.devices, precisions):
                for overrides in map(parse_overrides, combinations(selection.overrides)):
                    chosen = weights.spec_for(source, backend, catalog, overrides, protocol, env)
                    chosen = msgspec.structs.replace(
                        chosen,
                        source=data,
                        env=env,
                        device=device,
                        precision=precision,
                        compile=selection.compile,
                        deterministic=selection.deterministic,
                        threads=selection.threads or spec.threads,
                        devices=1,
                    )
                    specs[chosen.key] = chosen
    return specs


def _able_to_serve(
    source: StoredRun | ExportedRun, family: str, places: Mapping[str, Sequence[str]], catalog: Catalog
) -> list[str]:
    """Return the available backends that can compute predictions with the weights of `source`.

    Raises `harness.CombinationError` if no backend can compute the predictions. The error message lists the reasons.
    """
    reasons, able = {}, []
    for backend, envs in places.items():
        try:
            weights.served_weights(source, backend, catalog, envs[0])
            able.append(backend)
        except CombinationError as error:
            reasons[backend] = str(error)
    if not able:
        raise CombinationError(f"no available backend can run inference with model {family!r}{_lines(reasons)}")
    return able


def _is_excluded(
    spec: RunSpec,
    rules: Iterable[Mapping[str, Any]],
    dataset: str,
    model: str,
    overrides: Mapping[str, Mapping[str, Any]],
    catalog: Catalog,
) -> bool:
    """Return True if a spec matches one of `rules`. `dataset` and `model` are the names given in the selection."""

    def matches(key: str, value: Any) -> bool:
        section, dot, name = key.partition(".")
        if dot:
            return name in overrides[section] and as_overrides({"": overrides[section][name]}) == as_overrides(
                {"": value}
            )
        names = {
            "dataset": (dataset, spec.dataset),
            "model": (model, spec.model, catalog.variants.get(spec.model)),
            "env": (spec.env or environments.CURRENT,),
        }
        return value in names.get(key, (getattr(spec, key),))

    return any(all(matches(key, value) for key, value in rule.items()) for rule in rules)


def _primary_metric(name: str | None, task: Task, catalog: Catalog) -> str:
    """Return the name of the chosen primary metric, or an empty string for the task's primary metric.

    Raises `harness.UnknownNameError` if no plugin provides the metric, and `harness.CombinationError` if the metric
    does not match the task's objective.
    """
    if name is None or name == task.metric:
        return ""
    metric = catalog.metric(name)
    if metric.objective != task.objective:
        known = sorted(other for other, each in catalog.metrics.items() if each.value.objective == task.objective)
        raise CombinationError(
            f"metric {name!r} ({metric.objective}) cannot be used with task {task.name!r} ({task.objective}); choose "
            f"one of: {', '.join(known)}"
        )
    return name


# ---- protocols, seeds, datasets and splits ----------------------------------------------------------------


def _named_protocol(name: str) -> NamedProtocol:
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def _precision(name: str) -> Precision:
    try:
        precision: Precision = msgspec.convert(name, Precision)
    except msgspec.ValidationError:
        raise UnknownNameError("precision", name, get_args(Precision)) from None
    return precision


def _check_device(name: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]*))?", name):
        raise UnknownNameError("device", name, ("auto", "cpu", "cuda", "cuda:0", "cuda:1"))


# ---- datasets ---------------------------------------------------------------------------------------------


def check_dataset(task: Task, dataset: Dataset) -> None:
    """Raise `harness.UsageError` if the task cannot use the dataset, or if the dataset is not available on this
    machine."""
    check_suits(task, dataset)
    check_available(dataset)


def check_suits(task: Task, dataset: Dataset) -> None:
    """Raise `harness.CombinationError` if the task cannot use the dataset."""
    if (dataset.kind, dataset.objective) != (task.kind, task.objective):
        raise CombinationError(
            f"dataset {dataset.name!r} ({dataset.kind}, {dataset.objective}) cannot be used with task {task.name!r} "
            f"({task.kind}, {task.objective}); the default dataset is {task.default_dataset!r}"
        )


def check_model(task: Task, model: Model, variant: str) -> None:
    """Raise `harness.CombinationError` if the task cannot use the model."""
    if not suits(task, model):
        raise CombinationError(
            f"model {variant!r} (accepts {', '.join(model.accepts)}; {', '.join(model.objectives)}) cannot be used "
            f"with task {task.name!r} ({task.produces}, {task.objective}); the default model is {task.default_model!r}"
        )


def check_available(dataset: Dataset) -> None:
    """Raise `harness.UsageError` if the dataset is not available on this machine."""
    if reason := dataset_problem(dataset):
        raise UsageError(reason)


def dataset_problem(dataset: Dataset) -> str | None:
    """Return the reason why the dataset is not available on this machine, or None if it is available."""
    reason = missing(dataset.requires, "") or out_of_reach(dataset)
    return reason and f"dataset {dataset.name!r} is not available: {reason}"


def backend_problem(name: str, catalog: Catalog, env: str = "") -> str | None:
    """Return the reason why the backend is not available on this machine in the named environment `env`.

    If the backend is available, return None.
    """
    reason = missing(catalog.backend(name).requires, env)
    return reason and f"backend {name!r} is not available: {reason}"


class _DataOfVariants:
    """Cache of the dataset settings for each selected split. The user's files are read only once for each set of
    overrides."""

    def __init__(self, selection: Selection, dataset: Dataset) -> None:
        self._selection, self._dataset = selection, dataset
        self._known: dict[str, list[DataSettings]] = {}

    def of(self, overrides: Mapping[str, Any]) -> list[DataSettings]:
        key = msgspec.json.encode(overrides, order="sorted").decode()
        if key not in self._known:
            self._known[key] = data_settings(self._dataset, overrides, self._selection.splits)
        return self._known[key]


# ---- models and backends ----------------------------------------------------------------------------------


def _with_defaults(source: DataSource | None, training: TrainingSettings) -> DataSource | None:
    return source and msgspec.structs.replace(source, defaults=training.defaults)


def _default_model(task: Task, checkpoint: Pretrained | None, size: int | None, catalog: Catalog) -> str:
    """Return the name of the model to train if no model is selected.

    Without a checkpoint, the task's default model is returned. For the user's own data, the default model depends on
    `size`, the number of training examples. For a dataset from a plugin, `size` is None.

    With a checkpoint, the model belongs to the first family that is compatible with the task and can load the
    checkpoint. If no family meets both conditions, the family that the checkpoint specifies is returned. If the
    checkpoint does not specify a family, the default model is returned.
    """
    family = read_config(checkpoint).get("model_type") if checkpoint else None
    for model in (provided.value for provided in catalog.models.values()):
        if suits(task, model) and (model.checkpoint_type or model.name) == family:
            return str(model.name)
    if isinstance(family, str) and family in catalog.models:
        return family
    return task.default_model if size is None else model_by_size(task, size)


def _training_by_backend(
    selection: Selection, comparison: ComparisonSettings, model_name: str, available: Sequence[str], catalog: Catalog
) -> dict[str, TrainingSettings]:
    """Return the training settings of each backend for `model_name`.

    If no model is selected, the default model is used.

    A backend that does not implement the task's default model trains the backend's default model instead.
    """
    model, variant = catalog.model(model_name)
    if comparison.checkpoint is not None:
        _check_variant(comparison.checkpoint, model, model_name)
        variant = model.name
    check_model(comparison.task, model, variant)
    able = [name for name in available if catalog.network(model.name, name) and catalog.backend(name).trains]
    if not (selection.backends or able):
        raise CombinationError(_no_backend_runs(catalog, model))
    return {
        name: _training(comparison, name, model, variant, catalog)
        if selection.models or name in able
        else _fallback_training(comparison, name, model, catalog, alone=not able)
        for name in (available if selection.backends else able)
    }


def suits(task: Task, model: Model) -> bool:
    """Return True if `model` accepts the data that `task` prepares and has the objective of the task."""
    return task.produces in model.accepts and task.objective in model.objectives


def _check_variant(checkpoint: Pretrained, model: Model, name: str) -> None:
    """Raise `harness.CombinationError` if the sizes of the variant `name` differ from the sizes of the checkpoint."""
    sizes = model_options(checkpoint, model)
    if name == model.name:
        return
    for key, size in model.variants[name].items():
        given = sizes.get(key, size)
        if msgspec.json.encode(given) != msgspec.json.encode(size):
            raise CombinationError(
                f"the checkpoint {checkpoint.name!r} has {key}={given}, but model {name!r} has {size}; use --model "
                f"{model.name}"
            )


def _backends(
    selection: Selection, envs: Sequence[str], catalog: Catalog, *, unavailable: bool
) -> dict[str, list[str]]:
    """Return the selected backends, each with the environments in which it is available.

    By default, all backends available on this machine are selected.

    Raises `harness.UsageError` if a selected backend is not available in any of `envs`. If `unavailable` is true,
    backends that are not available are returned with all of `envs`, and no exception is raised.
    """
    for env in filter(None, envs):
        environments.load_usable(env)
    names = dict.fromkeys(selection.backends or catalog.backends)
    reasons = {name: {env: missing(catalog.backend(name).requires, env) for env in envs} for name in names}
    places = {name: [env for env in envs if reasons[name][env] is None] for name in names}
    if selection.backends:
        for name in names:
            if not places[name] and unavailable:
                places[name] = list(envs)
            elif not places[name]:
                raise UsageError(f"backend {name!r} is not available: {'; '.join(map(str, reasons[name].values()))}")
    elif not any(places.values()):
        first = {name: next(iter(by_env.values())) for name, by_env in reasons.items()}
        raise UsageError(f"no backend is available{_lines(first) or '; none is installed'}")
    return {name: places[name] for name in names if places[name]}


def _check_environments(
    selection: Selection, envs: Sequence[str], specs: Collection[RunSpec], catalog: Catalog
) -> None:
    """Raise `harness.UsageError` if no run uses one of the environments, or if the code in an environment differs from
    the code of this process."""
    for env in envs:
        if not env:
            continue
        refs = {ref for spec in specs if spec.env == env for ref in catalog.refs_for(spec)}
        if not any(spec.env == env for spec in specs) and not selection.exclude:
            raise CombinationError(f"environment {env!r} contains none of the selected backends; remove it from --env")
        environments.check(env, refs)


def _training(
    comparison: ComparisonSettings, backend: str, model: Model, variant: str, catalog: Catalog
) -> TrainingSettings:
    """Return the settings that a backend uses for training `model`.

    Raises `harness.CombinationError` if the backend does not implement the model or ignores one of the overrides.
    """
    trainer = catalog.backend(backend)
    if not trainer.trains:
        raise CombinationError(
            f"backend {backend!r} {ONLY_INFERENCE}; train with another backend and --save-weights, then pass --weights "
            f"RUN to measure inference with the weights of that run"
        )
    if catalog.network(model.name, backend) is None:
        others = sorted(name for family, name in catalog.networks if family == model.name)
        name = repr(model.name) if variant in ("", model.name) else f"{variant!r} (family {model.name!r})"
        misspelled = [family for family, name in catalog.networks if name == backend and family not in catalog.models]
        if near := difflib.get_close_matches(model.name, misspelled, 1):
            hint = f"; it has a network for the unknown model {near[0]!r}; did you mean {model.name!r}?"
            raise CombinationError(f"no plugin implements model {model.name!r} for backend {backend!r}{hint}")
        hint = "; select only these backends, or another model" if others else ""
        if _own_default_model(comparison.task, trainer, catalog):
            hint += f"; without --model, backend {backend!r} trains its own default model"
        raise CombinationError(
            catalog.conflicts.get(("network", f"{model.name}/{backend}"))
            or f"no plugin implements model {name} for backend {backend!r}; it is implemented for: "
            f"{', '.join(others) or 'none'}{hint}"
        )
    unused = [f"recipe.{key}" for key in comparison.overrides["recipe"] if key != "batch_size"]
    if unused and not trainer.trains_by_steps:
        raise CombinationError(
            f"backend {backend!r} does not train in steps and does not use {', '.join(unused)}; remove "
            f"{'this override' if len(unused) == 1 else 'these overrides'}"
        )
    return comparison.training(trainer, model, variant)


def _own_default_model(task: Task, backend: Backend, catalog: Catalog) -> tuple[Model, str] | None:
    """Return the family and the variant of the backend's first default model that suits the task, or None if there is
    none. Raises `harness.PluginError` if a default model does not exist."""
    for name in backend.default_models:
        try:
            model, variant = catalog.model(name)
        except UnknownNameError as error:
            raise PluginError(f"Backend.default_models of backend {backend.name!r}: {error}") from error
        if suits(task, model):
            return model, variant
    return None


def _fallback_training(
    comparison: ComparisonSettings, backend: str, model: Model, catalog: Catalog, *, alone: bool
) -> TrainingSettings:
    """Return the settings for a backend's default model, for use with a backend that does not implement the task's
    default model.

    If other backends train the task's default model (`alone` is false), the overrides of the model and the recipe apply
    only to these backends. For the backend's own default model, only the batch size override is used.
    """
    trainer = catalog.backend(backend)
    if default := _own_default_model(comparison.task, trainer, catalog):
        own, variant = default
        overrides = dict(comparison.overrides)
        if not alone:
            batch = {key: value for key, value in overrides["recipe"].items() if key == "batch_size"}
            overrides |= {"model": {}, "recipe": batch}
        overrides["task"] = {**comparison.checkpoint_options(), **overrides["task"]}
        own_settings = dataclasses.replace(comparison, checkpoint=None, overrides=overrides)
        return _training(own_settings, backend, own, variant, catalog)
    if not trainer.default_models:
        return _training(comparison, backend, model, "", catalog)  # raises CombinationError
    task = comparison.task
    raise CombinationError(
        f"backend {backend!r} does not implement the default model {model.name!r} of task {task.name!r}, and its own "
        f"default models ({', '.join(trainer.default_models)}) cannot be used with this task ({task.produces}, "
        f"{task.objective}); use another backend, or select a model with --model"
    )


def _no_backend_runs(catalog: Catalog, model: Model) -> str:
    reasons = {
        name: missing(catalog.backend(name).requires, "")
        if catalog.network(model.name, name)
        else catalog.conflicts.get(("network", f"{model.name}/{name}"))
        for name in sorted(catalog.backends)
    }
    reasons |= {name: ONLY_INFERENCE for name in reasons if not catalog.backend(name).trains}
    return f"no available backend implements model {model.name!r}{_lines(reasons) or '; no plugin implements it'}"


def _lines(reasons: Mapping[str, str | None]) -> str:
    return "".join(f"\n  {name}: {reason}" for name, reason in reasons.items() if reason)
