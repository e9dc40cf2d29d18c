"""From what the user selected to the runs it means: pure, and complete before anything starts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from harness import pretrained
from harness.catalog import Catalog, missing
from harness.data.cache import out_of_reach
from harness.data.own.dataset import OwnDataset, find_dataset
from harness.data.own.options import OPTIONS
from harness.errors import CombinationError, DataError, UnknownNameError, UsageError
from harness.overrides import merge, parse_overrides
from harness.protocols import Backend, Dataset, Model, Task
from harness.types import PROTOCOLS, NamedProtocol, Precision, Pretrained, Protocol, Recipe, RunSpec

MOST_THREADS = 1024
"""Beyond it, libraries fail to start their pools."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a user asked for; empty tuples mean the defaults."""

    tasks: tuple[str, ...]
    backends: tuple[str, ...] = ()
    """Empty: every backend that can run here."""
    datasets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ("fp32",)
    compile: bool = False
    deterministic: bool = False
    seeds: tuple[int, ...] = ()
    """Empty: those of the protocol."""
    protocol: str = "standard"
    """Which of `harness.types.PROTOCOLS` says how speed is measured."""
    pretrained: str | None = None
    """A checkpoint's folder or hub id."""
    splits: tuple[int, ...] | Literal["all"] = ()
    """Of the datasets' published splits, a run each; empty: the one that the dataset options say."""
    threads: int | None = None
    """None: every core that this process may use."""
    overrides: tuple[str, ...] = field(default=())
    """``section.key=value``, values in JSON or plain text."""


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def expand(selection: Selection, catalog: Catalog) -> tuple[RunSpec, ...]:
    """The runs of a selection. Backends vary fastest, so that the runs to be compared alternate (A B A B).

    Raises `harness.UsageError` for an unknown name, an impossible combination or a wrong value; nothing has run then.
    """
    if not selection.tasks:
        raise UsageError(f"no task given; known: {', '.join(sorted(catalog.tasks))}")
    precisions = [_precision(name) for name in selection.precisions]
    for device in selection.devices:
        _check_device(device)
    if selection.threads is not None and not 1 <= selection.threads <= MOST_THREADS:
        raise UsageError(f"threads must lie between 1 and {MOST_THREADS}, got {selection.threads}")
    if not all(0 <= seed < 2**32 for seed in selection.seeds):  # what numpy and every framework take
        raise UsageError("a seed must lie between 0 and 4294967295")
    named = named_protocol(selection.protocol)
    overrides = parse_overrides(selection.overrides)
    available = _backends(selection, catalog)
    checkpoint = pretrained.locate(selection.pretrained) if selection.pretrained else None
    specs = []
    for task_name in selection.tasks:
        task = catalog.task(task_name)
        for metric in task.metrics:
            catalog.metric(metric)
        for dataset_name in selection.datasets or (task.default_dataset,):
            dataset = find_dataset(dataset_name, task, catalog)
            _check_dataset(task, dataset)
            data_settings = [
                _data_settings(dataset, overrides["dataset"] | split)
                for split in _splits(selection, dataset, overrides["dataset"])
            ]
            for model_name in selection.models or (_default_model(task, checkpoint, catalog),):
                model, variant = catalog.model(model_name)
                if checkpoint is not None:
                    _check_variant(checkpoint, model, model_name)
                    variant = model.name
                _check_model(task, model, variant)
                backends = [name for name in available if catalog.network(model.name, name)]
                if not (selection.backends or backends):
                    raise _nothing_runs(catalog, model)
                asked = _Asked(task, dataset, named.protocol, overrides, checkpoint, catalog)
                contenders = {
                    name: asked.contender(name, model, variant)
                    if selection.models or name in backends
                    else asked.stand_in(name, model)
                    for name in (available if selection.backends else backends)
                }
                specs += [
                    RunSpec(
                        task=task_name,
                        dataset=dataset.name,
                        backend=backend,
                        device=device,
                        precision=precision,
                        compile=selection.compile,
                        deterministic=selection.deterministic,
                        seed=seed,
                        threads=selection.threads or available_cores(),
                        **contender,
                        **data,
                    )
                    for device in selection.devices
                    for precision in precisions
                    for data in data_settings
                    for seed in selection.seeds or named.seeds
                    for backend, contender in contenders.items()
                ]
    return tuple({spec.key: spec for spec in specs}.values())


def named_protocol(name: str) -> NamedProtocol:
    """Raises `harness.UnknownNameError`."""
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def recipe_for(
    task: Task, dataset: Dataset, model: Model, variant: str, changes: Mapping[str, Any], *, fine_tuning: bool = False
) -> Recipe:
    """The task's recipe as its model, then its dataset, then the user change it. Fine-tuning has recipes of its own,
    since the others are made for training from scratch."""
    if fine_tuning:
        layers = [model.fine_tuning, dataset.fine_tuning.get(model.name, {})]
    else:
        layers = [source.recipes.get(name, {}) for source in (model, dataset) for name in (model.name, variant)]
    recipe: Recipe = merge(Recipe, "recipe", msgspec.to_builtins(task.recipe), *layers, changes)
    if recipe.dropout and not model.has_dropout:
        if changes.get("dropout"):
            raise CombinationError(f"model {variant!r} has no dropout; leave recipe.dropout out")
        recipe = msgspec.structs.replace(recipe, dropout=0.0)
    return recipe


def settings_for(
    task: Task,
    dataset: Dataset,
    backend: Backend,
    model: Model,
    variant: str,
    protocol: Protocol,
    overrides: Mapping[str, Mapping[str, Any]],
    checkpoint: Pretrained | None,
) -> dict[str, Any]:
    """The parts of a `RunSpec` that options change: recipe, protocol, model and task options."""
    if checkpoint is None:
        sizes, preparation = model.variants[variant], {}
    else:
        sizes = pretrained.model_options(checkpoint, model)
        preparation = dict(task.checkpoint_options(Path(checkpoint.path)))
    changes = overrides["recipe"]
    suited = dataset.task_options.get(task.name, {})
    recipe = recipe_for(task, dataset, model, variant, changes, fine_tuning=checkpoint is not None)
    return {
        "recipe": recipe if backend.trains_by_steps else msgspec.structs.replace(recipe, epochs=1),
        "protocol": merge(Protocol, "protocol", _plain(protocol), overrides["protocol"]),
        "model_options": _plain(merge(model.Config, "model", sizes, overrides["model"])),
        "task_options": _plain(merge(task.Options, "task", suited, preparation, overrides["task"])),
    }


@dataclass(frozen=True)
class _Asked:
    """What all backends of a comparison share."""

    task: Task
    dataset: Dataset
    protocol: Protocol
    overrides: Mapping[str, Mapping[str, Any]]
    checkpoint: Pretrained | None
    catalog: Catalog

    def contender(self, backend: str, model: Model, variant: str) -> dict[str, Any]:
        """The part of a `RunSpec` that says what a backend trains, and how. Raises `harness.CombinationError`."""
        _check_network(self.catalog, model, backend)
        trainer = self.catalog.backend(backend)
        if not trainer.trains_by_steps:
            foreign = [f"recipe.{key}" for key in self.overrides["recipe"] if key != "batch_size"]
            if foreign:
                raise CombinationError(
                    f"backend {backend!r} fits its models at once: it has no {', '.join(foreign)}; leave it out"
                )
        settings = settings_for(
            self.task, self.dataset, trainer, model, variant, self.protocol, self.overrides, self.checkpoint
        )
        return {"model": variant, "pretrained": self.checkpoint, **settings}

    def stand_in(self, backend: str, model: Model) -> dict[str, Any]:
        """As `contender`, of the backend's own model where it has no network of `model`, the default.

        It sees the same prepared data; what was said of the model, and of its training but for the batch size, is not
        meant for it.
        """
        for name in self.catalog.backend(backend).default_models:
            other, variant = self.catalog.model(name)
            if not _suits(self.task, other):
                continue
            recipe = {key: value for key, value in self.overrides["recipe"].items() if key == "batch_size"}
            task: dict[str, Any] = {}
            if self.checkpoint:
                task = dict(self.task.checkpoint_options(Path(self.checkpoint.path)))
            changes = {**self.overrides, "model": {}, "recipe": recipe, "task": {**task, **self.overrides["task"]}}
            return dataclasses.replace(self, checkpoint=None, overrides=changes).contender(backend, other, variant)
        return self.contender(backend, model, "")  # raises


def _default_model(task: Task, checkpoint: Pretrained | None, catalog: Catalog) -> str:
    """The family that takes such a checkpoint and suits the task, else the one it is named after, else the task's."""
    family = pretrained.read_config(checkpoint).get("model_type") if checkpoint else None
    for model in (provided.value for provided in catalog.models.values()):
        if _suits(task, model) and (model.checkpoint_type or model.name) == family:
            return str(model.name)
    return family if isinstance(family, str) and family in catalog.models else task.default_model


def _check_variant(checkpoint: Pretrained, model: Model, name: str) -> None:
    """The checkpoint decides the sizes: a variant may be named, if it has the same."""
    sizes = pretrained.model_options(checkpoint, model)
    if name == model.name:
        return
    for key, size in model.variants[name].items():
        given = sizes.get(key, size)
        if msgspec.json.encode(given) != msgspec.json.encode(size):
            raise CombinationError(
                f"the checkpoint {checkpoint.name!r} has {key}={given}, {name} has {size}; use --model {model.name}"
            )


def _splits(selection: Selection, dataset: Dataset, changes: Mapping[str, Any]) -> list[dict[str, int]]:
    """Changes to the dataset's options, one for each split that is asked for."""
    if not selection.splits:
        return [{}]
    if not dataset.splits:
        raise CombinationError(f"dataset {dataset.name!r} has no numbered splits; leave --split out")
    if "split" in changes:
        raise CombinationError("--split and --set dataset.split say the same thing; give one of them")
    return [{"split": number} for number in (dataset.splits if selection.splits == "all" else selection.splits)]


def _named(numbers: Sequence[int]) -> str:
    gapless = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if gapless else ", ".join(map(str, numbers))


def _data_settings(dataset: Dataset, overrides: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(dataset, OwnDataset):
        own = {field for kind in OPTIONS.values() for field in kind.__struct_fields__}
        foreign = [key for key in overrides if key in own and key not in dataset.Options.__struct_fields__]
        if foreign:
            raise UsageError(
                f"{', '.join(foreign)} describe data of your own; dataset {dataset.name!r} knows its columns, leave "
                "them out (or is this a path that does not exist?)"
            )
    options = merge(dataset.Options, "dataset", overrides)
    if not isinstance(dataset, OwnDataset):
        number = getattr(options, "split", None)
        if dataset.splits and number not in dataset.splits:
            raise UsageError(f"dataset {dataset.name!r} has the splits {_named(dataset.splits)}, not {number}")
        return {"dataset_options": _plain(options)}
    try:
        settled, source = dataset.settle(options)
    except DataError as error:  # nothing has run: the request is wrong
        raise UsageError(str(error)) from None
    return {"dataset_options": _plain(settled), "source": source}


def _plain(options: Struct) -> dict[str, Any]:
    """As JSON would give it back, so that a spec equals itself after a round trip through a file."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(options))
    return values


def _backends(selection: Selection, catalog: Catalog) -> list[str]:
    if selection.backends:
        for name in selection.backends:
            reason = missing(catalog.backend(name).requires)
            if reason:
                raise UsageError(f"backend {name!r} is not available here: {reason}")
        return list(dict.fromkeys(selection.backends))
    reasons = {name: missing(provided.value.requires) for name, provided in catalog.backends.items()}
    usable = [name for name, reason in reasons.items() if reason is None]
    if not usable:
        told = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())
        raise UsageError(f"no backend can run here{told or '; none is installed'}")
    return usable


def _nothing_runs(catalog: Catalog, model: Model) -> UsageError:
    reasons = {
        name: missing(catalog.backend(name).requires)
        if catalog.network(model.name, name)
        else catalog.conflicts.get(("network", f"{model.name}/{name}"))
        for name in sorted(catalog.backends)
    }
    told = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items() if reason)
    return CombinationError(f"no backend that can run here has the model {model.name!r}{told or '; none has it'}")


def _precision(name: str) -> Precision:
    try:
        precision: Precision = msgspec.convert(name, Precision)
    except msgspec.ValidationError:
        raise UnknownNameError("precision", name, ("fp32", "tf32", "bf16", "fp16", "fp64")) from None
    return precision


def _check_device(name: str) -> None:
    kind, colon, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and (kind != "cuda" or not number.isdigit())):
        raise UnknownNameError("device", name, ("auto", "cpu", "cuda", "cuda:0", "cuda:1"))


def _check_dataset(task: Task, dataset: Dataset) -> None:
    if (dataset.kind, dataset.objective) != (task.kind, task.objective):
        raise CombinationError(
            f"dataset {dataset.name!r} ({dataset.kind}, {dataset.objective}) does not suit task {task.name!r} "
            f"({task.kind}, {task.objective}); its default is {task.default_dataset!r}"
        )
    reason = missing(dataset.requires) or out_of_reach(dataset)
    if reason:
        raise UsageError(f"dataset {dataset.name!r} is not available here: {reason}")


def _check_model(task: Task, model: Model, variant: str) -> None:
    if not _suits(task, model):
        raise CombinationError(
            f"model {variant!r} (takes {', '.join(model.accepts)}; {', '.join(model.objectives)}) does not suit task "
            f"{task.name!r} ({task.produces}, {task.objective}); its default is {task.default_model!r}"
        )


def _suits(task: Task, model: Model) -> bool:
    return task.produces in model.accepts and task.objective in model.objectives


def _check_network(catalog: Catalog, model: Model, backend: str) -> None:
    if catalog.network(model.name, backend) is None:
        conflict = catalog.conflicts.get(("network", f"{model.name}/{backend}"))
        others = sorted(b for family, b in catalog.networks if family == model.name)
        raise CombinationError(
            conflict
            or f"no plugin brings model {model.name!r} to backend {backend!r}; it runs on: "
            f"{', '.join(others) or 'none'}"
        )
