"""`Catalog`: what the plugins provide, by name, and what went wrong with which."""

from __future__ import annotations

import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness.errors import HarnessError, PluginError, UnknownNameError
from harness.interfaces import Backend, Dataset, Metric, Model, NetworkRef, Reporter, Task
from harness.records import PluginRef, RunSpec

T = TypeVar("T")

_ABSTRACT = re.compile(r"Can't instantiate abstract class (?P<name>\w+) .*abstract (?P<methods>methods? .+)")


@dataclass(frozen=True)
class Provided(Generic[T]):
    """Something a plugin provides, and which plugin did."""

    value: T
    plugin: PluginRef


@dataclass(frozen=True)
class LoadedPlugin:
    ref: PluginRef
    module: Any


@dataclass(frozen=True)
class PluginFailure:
    ref: PluginRef
    message: str


@dataclass
class Catalog:
    """What the plugins provide, by name. Models are keyed by family, networks by (family, backend)."""

    tasks: dict[str, Provided[Task]] = field(default_factory=dict)
    datasets: dict[str, Provided[Dataset]] = field(default_factory=dict)
    models: dict[str, Provided[Model]] = field(default_factory=dict)
    networks: dict[tuple[str, str], Provided[NetworkRef]] = field(default_factory=dict)
    backends: dict[str, Provided[Backend]] = field(default_factory=dict)
    metrics: dict[str, Provided[Metric]] = field(default_factory=dict)
    reporters: dict[str, Provided[Reporter]] = field(default_factory=dict)
    variants: dict[str, str] = field(default_factory=dict)
    """Model variant -> family."""
    plugins: tuple[LoadedPlugin, ...] = ()
    failures: tuple[PluginFailure, ...] = ()
    conflicts: dict[tuple[str, str], str] = field(default_factory=dict)
    """(kind, name) that two plugins claim -> explanation; such a name is not in the dicts above."""

    def plugin(self, name: str) -> PluginRef:
        """A loaded plugin, by the name of its entry point or file."""
        refs = {loaded.ref.name: loaded.ref for loaded in self.plugins}
        if name not in refs:
            raise self._unknown("plugin", name, refs)
        return refs[name]

    def task(self, name: str) -> Task:
        return self._get("task", self.tasks, name).value

    def dataset(self, name: str) -> Dataset:
        return self._get("dataset", self.datasets, name).value

    def backend(self, name: str) -> Backend:
        return self._get("backend", self.backends, name).value

    def metric(self, name: str) -> Metric:
        return self._get("metric", self.metrics, name).value

    def reporter(self, name: str) -> Reporter:
        return self._get("report format", self.reporters, name).value

    def model(self, name: str) -> tuple[Model, str]:
        """The family and the variant that `name`, a variant or a family, stands for."""
        if ("model", name) in self.conflicts:
            raise self._unknown("model", name, ())
        if name in self.variants:
            return self.models[self.variants[name]].value, name
        if name in self.models:
            model = self.models[name].value
            return model, next(iter(model.variants))
        raise self._unknown("model", name, {*self.models, *self.variants})

    def network(self, family: str, backend: str) -> NetworkRef | None:
        provided = self.networks.get((family, backend))
        return provided.value if provided else None

    def refs_for(self, spec: RunSpec) -> tuple[PluginRef, ...]:
        """The plugins that a run of `spec` needs, each once: all that its worker loads."""
        model, _ = self.model(spec.model)
        used: list[Provided[Any]] = [
            self.tasks[spec.task],
            *([self.datasets[spec.dataset]] if spec.source is None else []),
            self.models[model.name],
            self.backends[spec.backend],
            self.networks[model.name, spec.backend],
            *(self.metrics[name] for name in self.tasks[spec.task].value.metrics if name in self.metrics),
        ]
        return tuple(dict.fromkeys(provided.plugin for provided in used if provided.plugin.value))

    def _get(self, kind: str, known: dict[str, Provided[T]], name: str) -> Provided[T]:
        if name in known:
            return known[name]
        raise self._unknown(kind, name, known)

    def _unknown(self, kind: str, name: str, known: Iterable[str]) -> HarnessError:
        if (kind, name) in self.conflicts:
            return PluginError(self.conflicts[kind, name])
        hint = "".join(
            f"\n  plugin {f.ref.name!r} ({f.ref.distribution}) is not loaded: {f.message}" for f in self.failures
        )
        return UnknownNameError(kind, name, known, hint=hint)


def describe(error: BaseException) -> str:
    """A plugin's exception in a line; harness's own speak for themselves."""
    if isinstance(error, HarnessError):
        return str(error)
    if missing_methods := unwritten(error):
        return f"an abstract method is not implemented; write {missing_methods}"
    return f"{type(error).__name__}: {error}"


def unwritten(error: BaseException) -> str:
    """Return the abstract methods for which Python refused to instantiate a class: ``the method load of Sine``.

    Empty for any other exception.
    """
    lacking = _ABSTRACT.match(str(error)) if isinstance(error, TypeError) else None
    return f"the {lacking['methods']} of {lacking['name']}".replace("'", "") if lacking else ""


def place(error: BaseException) -> str:
    """Where in a plugin's own code an exception began: ``my_plugin.py, line 4, in load``; empty where nowhere."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name}" if own else ""


def _is_library(file: str) -> bool:
    """Of harness, an installed package, or Python itself."""
    path = Path(file)
    inside = Path(__file__).parents[1] in path.parents or "site-packages" in path.parts
    return inside or file.startswith((sysconfig.get_path("stdlib"), "<"))


def described_with_place(error: BaseException) -> str:
    """As `describe`, and where it began; harness's own errors say that themselves."""
    where = "" if isinstance(error, HarnessError) else place(error)
    return f"{describe(error)} ({where})" if where else describe(error)


def missing(requires: Mapping[str, str]) -> str | None:
    """Why something that needs these modules is unavailable, with the command to type; None if it is not.

    `requires`: importable module -> install command. Nothing is imported.
    """
    absent = [module for module in requires if not _importable(module)]
    if not absent:
        return None
    commands = dict.fromkeys(requires[module] for module in absent)
    return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed; run: {' && '.join(commands)}"


def _importable(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # of "a.b" the package a is absent, or is no package
        return False
