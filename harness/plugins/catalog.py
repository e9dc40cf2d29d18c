"""`Catalog`, which contains the objects that plugins provide and the plugins that failed to load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from harness.errors import HarnessError, PluginError, UnknownNameError, UsageError
from harness.interfaces import Backend, Dataset, Executor, Metric, Model, NetworkRef, Reporter, Task, Tracker
from harness.plugins import requirements
from harness.plugins.failures import PluginFailure, not_loaded
from harness.plugins.find import core, without_entry_point
from harness.records import PluginRef, RunSpec

if TYPE_CHECKING:
    from pluggy import HookRelay

T = TypeVar("T")


@dataclass(frozen=True)
class Provided(Generic[T]):
    """An object in the catalog and the plugin that provides it."""

    value: T
    plugin: PluginRef


@dataclass(frozen=True)
class LoadedPlugin:
    """A loaded plugin, with its reference, module and hooks."""

    ref: PluginRef
    module: Any
    """Module or object that implements the hooks."""
    hooks: HookRelay
    """Object for calling only the hooks of this plugin."""
    kind: Literal["plugin", "tracker"] = "plugin"
    """``tracker`` for the event listener of an experiment tracker, and ``plugin`` for all other plugins."""

    def handles(self, hook: str) -> bool:
        """Return True if the plugin implements a hook."""
        return bool(getattr(self.hooks, hook).get_hookimpls())


@dataclass
class Catalog:
    """The objects that plugins provide, by name. Models are keyed by family, and networks by family and backend."""

    tasks: dict[str, Provided[Task]] = field(default_factory=dict)
    datasets: dict[str, Provided[Dataset]] = field(default_factory=dict)
    models: dict[str, Provided[Model]] = field(default_factory=dict)
    networks: dict[tuple[str, str], Provided[NetworkRef]] = field(default_factory=dict)
    backends: dict[str, Provided[Backend]] = field(default_factory=dict)
    metrics: dict[str, Provided[Metric]] = field(default_factory=dict)
    reporters: dict[str, Provided[Reporter]] = field(default_factory=dict)
    executors: dict[str, Provided[Executor]] = field(default_factory=dict)
    trackers: dict[str, Provided[Tracker]] = field(default_factory=dict)
    variants: dict[str, str] = field(default_factory=dict)
    """Model families, keyed by the names of their variants."""
    plugins: tuple[LoadedPlugin, ...] = ()
    listeners: tuple[LoadedPlugin, ...] = ()
    """Event listeners of the selected trackers; see `harness.plugins.trackers.with_trackers`."""
    failures: tuple[PluginFailure, ...] = ()
    conflicts: dict[tuple[str, str], str] = field(default_factory=dict)
    """Error messages about name conflicts, keyed by tuples (kind, name). Objects with conflicting names are not in the
    catalog."""
    recorded: tuple[PluginRef, ...] = ()
    """Plugins used by the stored run that is being repeated. If a name is not found, the error message explains how to
    load the missing plugins."""

    def for_run(self, plugins: Iterable[PluginRef]) -> Catalog:
        """Return a copy of the catalog for repeating a stored run that used the given plugins."""
        return replace(self, recorded=tuple(plugins))

    def plugin(self, name: str) -> PluginRef:
        """Return the loaded plugin with this name. A plugin is named after its entry point or file."""
        refs = {loaded.ref.name: loaded.ref for loaded in self.plugins}
        if name not in refs:
            raise self._unknown("plugin", name, refs)
        return refs[name]

    def task(self, name: str) -> Task:
        """Return the task with this name.

        Raises `harness.PluginError` if several plugins provide a task with this name, or if a plugin in `recorded` is
        not loaded. Raises `harness.UnknownNameError` if the name is unknown. The methods `dataset`, `backend`,
        `metric`, `reporter` and `model` raise the same errors.
        """
        return self._get("task", self.tasks, name).value

    def dataset(self, name: str) -> Dataset:
        return self._get("dataset", self.datasets, name).value

    def backend(self, name: str) -> Backend:
        return self._get("backend", self.backends, name).value

    def metric(self, name: str) -> Metric:
        return self._get("metric", self.metrics, name).value

    def primary_metric(self, spec: RunSpec) -> Metric:
        """Return the primary metric of a run."""
        return self.metric(spec.metric or self.task(spec.task).metric)

    def metrics_of(self, spec: RunSpec) -> list[Metric]:
        """Return the metrics of a run's task, and the primary metric of the run."""
        return [
            self.metric(name) for name in dict.fromkeys((*self.task(spec.task).metrics, *filter(None, [spec.metric])))
        ]

    def reporter(self, name: str) -> Reporter:
        return self._get("report format", self.reporters, name).value

    def tracker(self, name: str) -> Provided[Tracker]:
        """Return the tracker with this name and the plugin that provides it. Raises the same errors as `task`."""
        return self._get("tracker", self.trackers, name)

    def handles(self, hook: str) -> bool:
        """Return True if a plugin, or the event listener of a selected tracker, implements an event hook."""
        return any(plugin.handles(hook) for plugin in (*self.plugins, *self.listeners))

    def executor(self, name: str, options: Mapping[str, str] | None = None) -> Executor:
        """Return the executor with this name, configured with the given options.

        Raises the same errors as `task`. Raises the same errors as `task`, and `harness.UsageError` if a module that
        the executor requires is not installed or an option is not valid.
        """
        executor = self._get("executor", self.executors, name).value
        if problem := requirements.missing(executor.requires):
            raise UsageError(f"the executor {name!r} cannot be used: {problem}")
        for option in options or {}:
            if option not in executor.options:
                raise UnknownNameError(f"{name} executor option", option, executor.options)
        return executor.configured(options) if options else executor

    def model(self, name: str) -> tuple[Model, str]:
        """Return the family and the variant of a model.

        `name` is the name of a variant or of a family. A family name selects the first variant of the family.
        """
        if ("model", name) in self.conflicts:
            raise self._unknown("model", name, ())
        if name in self.variants:
            return self.models[self.variants[name]].value, name
        if name in self.models:
            model = self.models[name].value
            return model, next(iter(model.variants))
        raise self._unknown("model", name, {*self.models, *self.variants})

    def about_model(self, name: str) -> str:
        """Return the summary of a model and the plugin that provides it, such as ``a Vision Transformer (plugin vit,
        harness-vit 1.0)``. Return an empty string if no loaded plugin provides the model."""
        provided = self.models.get(self.variants.get(name, name))
        if provided is None:
            return ""
        package = " ".join(filter(None, (provided.plugin.distribution, provided.plugin.version)))
        return f"{provided.value.summary} (plugin {', '.join(filter(None, (provided.plugin.name, package)))})"

    def network(self, family: str, backend: str) -> NetworkRef | None:
        provided = self.networks.get((family, backend))
        return provided.value if provided else None

    def refs_for(self, spec: RunSpec) -> tuple[PluginRef, ...]:
        """Return the plugins that a run of `spec` requires.

        Core plugins are not returned, because `load` always adds them.

        Metrics that no plugin provides are omitted. Raises the same errors as `task` if the task, dataset, model,
        network or backend is not found.
        """
        task = self._get("task", self.tasks, spec.task)
        model, _ = self.model(spec.model)
        backends, framework = [spec.backend], spec.backend
        if spec.weights is not None and spec.weights.exported is not None:
            framework = "" if spec.weights.exported.path else spec.weights.exported.exporter
            backends += [framework] if framework else []
        if framework and (model.name, framework) not in self.networks:
            networks = (f"{family}/{name}" for family, name in self.networks)
            raise self._unknown("network", f"{model.name}/{framework}", networks)
        used: list[Provided[Any]] = [
            task,
            *([self._get("dataset", self.datasets, spec.dataset)] if spec.source is None else []),
            self.models[model.name],
            *(self._get("backend", self.backends, name) for name in backends),
            *([self.networks[model.name, framework]] if framework else []),
            *(self.metrics[name] for name in (*task.value.metrics, spec.metric) if name in self.metrics),
        ]
        return tuple(dict.fromkeys(provided.plugin for provided in used if provided.plugin not in core()))

    def _get(self, kind: str, known: dict[str, Provided[T]], name: str) -> Provided[T]:
        if name in known:
            return known[name]
        raise self._unknown(kind, name, known)

    def _unknown(self, kind: str, name: str, known: Iterable[str]) -> HarnessError:
        if (kind, name) in self.conflicts:
            return PluginError(self.conflicts[kind, name])
        if missing := not_loaded(self.recorded, [plugin.ref for plugin in self.plugins], self.failures):
            return PluginError(f"the {kind} {name!r} of the run is not available: {missing}")
        unregistered = without_entry_point(name)
        return UnknownNameError(kind, name, known, hint=self.hint + (f"\n  {unregistered}" if unregistered else ""))

    @property
    def hint(self) -> str:
        """One line for each plugin that is not loaded. The lines are appended to messages about missing objects."""
        return "".join(
            f"\n  plugin {f.ref.name!r} ({f.ref.distribution}) is not loaded: {f.message}"
            + (f"; {f.solution}" if f.solution else "")
            for f in self.failures
        )
