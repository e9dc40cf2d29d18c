"""What to type to do a run again: the selection that means a spec, as a command and as a suite.

Only what differs from the defaults of the installed plugins is said; where a plugin is not there, everything is.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from harness.data.user_files.dataset import dataset_of
from harness.errors import HarnessError
from harness.plan import Selection, settings_for
from harness.plan.overrides import SECTIONS, merge
from harness.plugins.catalog import Catalog
from harness.records import PROTOCOLS, PluginRef, RunSpec

_OPTIONS = {"model_options": "model", "task_options": "task", "dataset_options": "dataset"}


def selection(spec: RunSpec, catalog: Catalog) -> Selection:
    """The selection that `harness.plan.expand` turns into this spec, on a machine with the same plugins and files."""
    named = spec.protocol.name if spec.protocol.name in PROTOCOLS else "standard"
    usual = _usual(spec, named, catalog)
    values = msgspec.to_builtins(spec) | {"protocol": msgspec.structs.asdict(spec.protocol)}
    overrides = []
    for field, section in ({"recipe": "recipe", "protocol": "protocol"} | _OPTIONS).items():
        for name, value in values[field].items():
            told_apart = (section, name) == ("protocol", "name") or (section, name) == ("dataset", "split")
            if not told_apart and (name not in usual[section] or usual[section][name] != value):
                overrides.append(f"{section}.{name}={msgspec.json.encode(value).decode()}")
    return Selection(
        tasks=(spec.task,),
        backends=(spec.backend,),
        datasets=(spec.source.path if spec.source else spec.dataset,),
        models=(spec.model,),
        devices=(spec.device,),
        precisions=(spec.precision,),
        compile=spec.compile,
        deterministic=spec.deterministic,
        seeds=(spec.seed,),
        protocol=named,
        pretrained=_checkpoint(spec),
        splits=() if spec.split is None else (spec.split,),
        threads=spec.threads,
        overrides=tuple(overrides),
    )


def command(spec: RunSpec, plugins: Iterable[PluginRef], catalog: Catalog) -> str:
    """A line for a shell. `plugins` are those of the record: what is not installed is named."""
    chosen = selection(spec, catalog)
    words = ["harness", "run"]
    for ref in plugins:
        words += ["--plugin", ref.value] if ref.name == ref.value or ref.distribution == "file" else []
    words += ["--task", spec.task, "--dataset", chosen.datasets[0], "--model", spec.model]
    words += ["--backend", spec.backend, "--device", spec.device, "--precision", spec.precision]
    words += ["--seed", str(spec.seed), "--threads", str(spec.threads), "--protocol", chosen.protocol]
    words += ["--pretrained", chosen.pretrained] if chosen.pretrained else []
    words += ["--split", str(spec.split)] if spec.split is not None else []
    words += ["--compile"] * spec.compile + ["--deterministic"] * spec.deterministic
    for override in chosen.overrides:
        words += ["--set", override]
    return shlex.join(words)


def suite(specs: Iterable[RunSpec], catalog: Catalog) -> str:
    """A file for ``harness run --suite``: specs that differ in their seed or split only share an entry."""
    entries: dict[str, tuple[Selection, list[int], list[int]]] = {}
    for spec in specs:
        if spec.group_key not in entries:
            entries[spec.group_key] = (selection(spec, catalog), [], [])
        _, seeds, splits = entries[spec.group_key]
        if spec.seed not in seeds:
            seeds.append(spec.seed)
        if spec.split is not None and spec.split not in splits:
            splits.append(spec.split)
    return "\n".join(_entry(*entry) for entry in entries.values())


def _entry(chosen: Selection, seeds: list[int], splits: list[int]) -> str:
    lines = ["[[run]]"]
    values: dict[str, Any] = {
        "task": chosen.tasks[0],
        "dataset": chosen.datasets[0],
        "model": chosen.models[0],
        "backend": chosen.backends[0],
        "device": chosen.devices[0],
        "precision": chosen.precisions[0],
        "protocol": chosen.protocol,
        "threads": chosen.threads,
        "seed": sorted(seeds),
    }
    values |= {"split": sorted(splits)} if splits else {}
    values |= {"pretrained": chosen.pretrained} if chosen.pretrained else {}
    values |= {name: True for name in ("compile", "deterministic") if getattr(chosen, name)}
    lines += [f"{name} = {_toml(value)}" for name, value in values.items()]
    pairs = [override.partition("=") for override in chosen.overrides]
    settable = [f"{_toml(key)} = {_toml(msgspec.json.decode(value))}" for key, _, value in pairs if value != "null"]
    lines += [f"# TOML cannot say it: {key} = null" for key, _, value in pairs if value == "null"]
    if settable:
        lines.append(f"set = {{ {', '.join(settable)} }}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A TOML value; JSON's strings, numbers and lists are TOML's."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007F")


def _usual(spec: RunSpec, protocol: str, catalog: Catalog) -> dict[str, dict[str, Any]]:
    """What each section holds if nothing is said of it."""
    usual: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    try:
        task, dataset = catalog.task(spec.task), dataset_of(spec, catalog)
        model, variant = catalog.model(spec.model)
        variant = model.name if spec.pretrained else variant
        trainer, settings = catalog.backend(spec.backend), PROTOCOLS[protocol].protocol
        found = settings_for(task, dataset, trainer, model, variant, settings, usual, spec.pretrained)
        options = msgspec.to_builtins(merge(dataset.Options, "dataset"))
    except (HarnessError, OSError):
        return usual
    plain = {name: msgspec.json.decode(msgspec.json.encode(value)) for name, value in found.items()}
    usual |= {"recipe": plain["recipe"], "protocol": msgspec.structs.asdict(found["protocol"])}
    usual |= {"model": plain["model_options"], "task": plain["task_options"], "dataset": options}
    return usual


def _checkpoint(spec: RunSpec) -> str | None:
    if spec.pretrained is None:
        return None
    if spec.pretrained.path and Path(spec.pretrained.path).is_dir():
        return spec.pretrained.path
    return f"{spec.pretrained.name}@{spec.pretrained.revision}" if spec.pretrained.revision else spec.pretrained.name
