"""Functions that create selections, commands and suites for reproducing runs.

The selections contain only the settings that differ from the installed plugins' defaults. If a plugin is missing, the
selections contain all settings.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import structs
from msgspec.json import encode
from msgspec.structs import asdict

from harness.data.user_files.dataset import dataset_of
from harness.errors import HarnessError
from harness.plan.overrides import SECTIONS, as_overrides, merge
from harness.plan.selection import Selection
from harness.plan.settings import ComparisonSettings, plain
from harness.plan.suite import dump
from harness.plugins.catalog import Catalog
from harness.records import PROTOCOLS, PluginRef, RunSpec, TrainedWeights


def selection(spec: RunSpec, catalog: Catalog) -> Selection:
    """Return the selection that expands to `spec` on a machine with the same plugins and files."""
    protocol = spec.protocol.name if spec.protocol.name in PROTOCOLS else "standard"
    if spec.weights is not None:
        return _inference_selection(spec, spec.weights, protocol)
    defaults = _defaults(spec, protocol, catalog)
    sections = {
        "recipe": asdict(spec.recipe),
        "protocol": asdict(spec.protocol),
        "model": spec.model_options,
        "task": _public_names(spec.task_options, spec, catalog),
        "dataset": spec.dataset_options,
    }
    selected_otherwise = {"protocol.name", "dataset.split"}
    overrides = {
        f"{section}.{name}": value
        for section, values in sections.items()
        for name, value in values.items()
        if f"{section}.{name}" not in selected_otherwise
        and (
            name not in defaults[section] or encode(defaults[section][name]) != encode(value)
        )  # compared as JSON, because -0.0 == 0.0
    }
    return Selection(
        tasks=(spec.task,),
        datasets=(spec.source.path if spec.source else spec.dataset,),
        models=(spec.model,),
        backends=(spec.backend,),
        envs=(spec.env,) if spec.env else (),
        devices=(spec.device,),
        device_counts=(spec.devices,) if spec.devices > 1 else (),
        precisions=(spec.precision,),
        seeds=(spec.seed,),
        threads=spec.threads,
        protocol=protocol,
        pretrained=_checkpoint(spec),
        teacher=None if spec.teacher is None else spec.teacher.path or spec.teacher.run,
        splits=() if spec.split is None else (spec.split,),
        metric=spec.metric or None,
        compile=spec.compile,
        deterministic=spec.deterministic,
        overrides=as_overrides(overrides),
    )


def _inference_selection(spec: RunSpec, weights: TrainedWeights, protocol: str) -> Selection:
    """Return the selection that measures inference again with the weights of the same run."""
    known = asdict(PROTOCOLS[protocol].protocol)
    changed = {
        f"protocol.{name}": value
        for name, value in asdict(spec.protocol).items()
        if name != "name" and encode(value) != encode(known[name])
    }
    return Selection(
        weights=((weights.exported and weights.exported.path) or weights.path or weights.run,),
        backends=(spec.backend,),
        envs=(spec.env,) if spec.env else (),
        devices=(spec.device,),
        precisions=(spec.precision,),
        threads=spec.threads,
        protocol=protocol,
        compile=spec.compile,
        deterministic=spec.deterministic,
        overrides=as_overrides(changed),
    )


def arguments(chosen: Selection) -> list[str]:
    """Return the arguments of ``harness run`` for a selection."""
    words = []
    for option, values in chosen.values():
        for value in values:
            words += [f"--{option.name}"] if option.kind is bool else [f"--{option.name}", str(value)]
    return words


def command(spec: RunSpec, plugins: Iterable[PluginRef], catalog: Catalog) -> str:
    """Return the shell command that reproduces a run. `plugins` are the plugins listed in the run's record."""
    return command_for(selection(spec, catalog), plugins)


def command_for(chosen: Selection, plugins: Iterable[PluginRef]) -> str:
    """Return the shell command that executes a selection again, even if its runs are already in the results directory.

    Plugins that are files or modules rather than installed packages are passed with ``--plugin``.
    """
    words = ["harness", "run", "--rerun"]
    for ref in plugins:
        words += ["--plugin", ref.value] if ref.name == ref.value or ref.distribution == "file" else []
    return shlex.join([*words, *arguments(chosen)])


def suite(specs: Iterable[RunSpec], catalog: Catalog) -> str:
    """Return a suite for ``harness run --suite``.

    Specs that differ only in the seed or split are combined in one entry if `specs` contains all combinations of their
    seeds and splits.
    """
    seeds: dict[tuple[str, int | None], set[int]] = {}
    first: dict[str, RunSpec] = {}
    for spec in specs:
        first.setdefault(spec.group_key, spec)
        seeds.setdefault((spec.group_key, spec.split), set()).add(spec.seed)
    splits: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for (group, split), values in seeds.items():
        splits.setdefault((group, tuple(sorted(values))), []).extend([] if split is None else [split])
    chosen = {group: selection(spec, catalog) for group, spec in first.items()}
    return dump(
        dataclasses.replace(chosen[group], seeds=values, splits=tuple(sorted(numbers)))
        for (group, values), numbers in splits.items()
    )


def _defaults(spec: RunSpec, protocol: str, catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Return the default values of each section. If a plugin is missing, return empty sections.

    For the user's own data, the default number of epochs is omitted, because it depends on the data and on other
    settings (see `harness.plan.own_data`).
    """
    nothing: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    try:
        model, variant = catalog.model(spec.model)
        comparison = ComparisonSettings(
            task=catalog.task(spec.task),
            dataset=dataset_of(spec, catalog),
            protocol=PROTOCOLS[protocol].protocol,
            overrides=nothing,
            checkpoint=spec.pretrained,
            distilled=spec.teacher is not None,
        )
        backend = catalog.backend(spec.backend)
        training = comparison.training(backend, model, model.name if spec.pretrained else variant)
        options = plain(merge(comparison.dataset.Options, "dataset"))
    except (HarnessError, OSError):
        return nothing
    recipe = asdict(training.recipe)
    if spec.source is not None and backend.trains_by_steps:
        del recipe["epochs"]
    return {
        "recipe": recipe,
        "protocol": asdict(training.protocol),
        "model": training.model_options,
        "task": _public_names(training.task_options, spec, catalog),
        "dataset": options,
    }


def _public_names(task_options: Mapping[str, Any], spec: RunSpec, catalog: Catalog) -> dict[str, Any]:
    """Return a task's options, keyed by public name. Some options are stored under a different name (see
    `msgspec.field`)."""
    task = catalog.tasks.get(spec.task)
    names = {field.encode_name: field.name for field in structs.fields(task.value.Options)} if task else {}
    return {names.get(name, name): value for name, value in task_options.items()}


def _checkpoint(spec: RunSpec) -> str | None:
    if spec.pretrained is None:
        return None
    if spec.pretrained.path and Path(spec.pretrained.path).is_dir():
        return spec.pretrained.path
    return f"{spec.pretrained.name}@{spec.pretrained.revision}" if spec.pretrained.revision else spec.pretrained.name
