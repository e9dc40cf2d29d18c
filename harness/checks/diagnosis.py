"""The state of a machine: versions, devices, plugins that fail to load, and the results directory."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

from harness.execute.devices import probe
from harness.execute.environment import collect
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import DISTRIBUTION, missing
from harness.records import Environment
from harness.records.files import real_path


class Device(Struct, frozen=True, kw_only=True):
    name: str
    description: str
    precisions: tuple[str, ...]


class BackendState(Struct, frozen=True, kw_only=True):
    name: str
    devices: list[Device]
    problem: str | None
    """Reason why the backend is unavailable, including a command that fixes the problem. None if the backend is
    available."""


class Diagnosis(Struct, frozen=True, kw_only=True):
    """The output of ``harness doctor --format json``."""

    harness: str
    environment: Environment
    backends: list[BackendState]
    plugin_problems: dict[str, str]
    results_dir: str
    results_problem: str | None


def diagnose(catalog: Catalog, directory: Path) -> Diagnosis:
    """Examine this machine, the plugins in `catalog` and the results directory. Each backend lists its devices in a
    separate process."""
    packages = {name for provided in catalog.backends.values() for name in provided.value.packages}
    return Diagnosis(
        harness=version(DISTRIBUTION),
        environment=collect(sorted(packages)),
        backends=[_state_of(name, catalog) for name in sorted(catalog.backends)],
        plugin_problems={failure.ref.name: failure.message for failure in catalog.failures}
        | {f"{kind} {name}": explanation for (kind, name), explanation in catalog.conflicts.items()},
        results_dir=str(real_path(directory)),
        results_problem=_problem_with(directory),
    )


def _problem_with(directory: Path) -> str | None:
    """Return the reason why results cannot be written to `directory`, or None if the directory is writable. Nothing is
    created."""
    existing = next(path for path in (directory, *real_path(directory).parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is not a directory; choose another directory with --results DIR"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} is not writable; choose another directory with --results DIR"
    return None


def _state_of(name: str, catalog: Catalog) -> BackendState:
    provided = catalog.backends[name]
    problem = missing(provided.value.requires)
    if problem:
        return BackendState(name=name, devices=[], problem=problem)
    answer = probe(name, provided.plugin)
    devices = [
        Device(name=device.name, description=device.description, precisions=tuple(device.precisions))
        for device in answer.devices
    ]
    return BackendState(
        name=name, devices=devices, problem=answer.error or (None if devices else "no device was found")
    )
