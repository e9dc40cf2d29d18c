"""Finding plugins: `discover` gives a `Catalog` of what they provide, and of what went wrong with which.

Each entry point loads inside its own ``try`` and its own time limit: a plugin that is broken, slow or incompatible is
listed with its reason, and everything else works. What ships with harness is found exactly as a stranger's plugin.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pluggy

from harness import hookspecs
from harness.errors import HarnessError, PluginError, UnknownNameError, UsageError
from harness.protocols import Backend, Dataset, Metric, Model, NetworkRef, Reporter, Task
from harness.types import PluginRef, RunSpec

T = TypeVar("T")

LOAD_LIMIT_S = 10.0
"""A plugin that takes longer to import is left out; ``HARNESS_PLUGIN_TIMEOUT`` overrides it."""


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
            self.datasets[spec.dataset],
            self.models[model.name],
            self.backends[spec.backend],
            self.networks[model.name, spec.backend],
            *(self.metrics[name] for name in self.tasks[spec.task].value.metrics if name in self.metrics),
        ]
        return tuple(dict.fromkeys(provided.plugin for provided in used if provided.plugin.value))

    def notify(self, hook: str, **arguments: object) -> None:
        """Call an event hook of every plugin; one that raises is reported on stderr and the others still hear."""
        for plugin in self.plugins:
            function = getattr(plugin.module, hook, None)
            if function is None:
                continue
            try:
                wanted = inspect.signature(function).parameters
                function(**{name: value for name, value in arguments.items() if name in wanted})
            except (Exception, SystemExit) as error:  # a tracker's trouble must not end a benchmark
                print(f"harness: plugin {plugin.ref.name!r} failed in {hook}: {_describe(error)}", file=sys.stderr)

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


def resolve(reference: str) -> Callable[..., Any]:
    """The object that ``"module:attribute"`` names. Raises `harness.PluginError` where it cannot be had."""
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise PluginError(f"{reference!r} cannot be imported: {_describe(error)}") from error
    value: Callable[..., Any] | None = getattr(module, attribute, None)
    if value is None:
        raise PluginError(f"{reference!r}: module {module_name!r} has no attribute {attribute!r}")
    return value


# ---- discovery --------------------------------------------------------------------------------------------

_CORE = PluginRef(name="core", value="", distribution="harness", version="")


def discover() -> Catalog:
    """Load every entry point of the group ``harness``. Never raises for a plugin's sake."""
    refs = []
    for point in importlib.metadata.entry_points(group=hookspecs.GROUP):
        dist = point.dist
        refs.append(
            PluginRef(
                name=point.name,
                value=point.value,
                distribution=dist.name if dist else "unknown",
                version=dist.version if dist else "unknown",
            )
        )
    return load(sorted(set(refs), key=lambda ref: (ref.name, ref.distribution, ref.value)))


def _limit_s() -> float:
    text = os.environ.get("HARNESS_PLUGIN_TIMEOUT") or LOAD_LIMIT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise UsageError(f"HARNESS_PLUGIN_TIMEOUT must be a positive number of seconds, got {text!r}")
    return seconds


def load(refs: Iterable[PluginRef]) -> Catalog:
    """A catalog of exactly these plugins and the core's own metrics and reporters.

    Raises `harness.UsageError` where ``HARNESS_PLUGIN_TIMEOUT`` is no number of seconds.
    """
    from harness.metrics import BUILTIN as METRICS
    from harness.report import BUILTIN as REPORTERS

    limit_s = _limit_s()
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    offers: list[tuple[PluginRef, str, Any]] = [(_CORE, "harness_metrics", metric) for metric in METRICS]
    offers += [(_CORE, "harness_reporters", reporter) for reporter in REPORTERS]
    plugins, failures = [], []
    for ref in refs:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for tables and JSON that programs read
                module, offered = _within(limit_s, lambda ref=ref: _load_one(manager, ref))  # type: ignore[misc]
        except BaseException as error:  # whatever a plugin's module does, SystemExit included, stays contained
            if isinstance(error, KeyboardInterrupt):
                raise
            failures.append(PluginFailure(ref, _describe(error)))
        else:
            plugins.append(LoadedPlugin(ref, module))
            offers += [(ref, hook, value) for hook, value in offered]
    catalog = Catalog(plugins=tuple(plugins), failures=tuple(failures))
    _fill(catalog, offers)
    return catalog


def _within(limit_s: float, work: Callable[[], T]) -> T:
    """The result of `work`, run in a thread that is left behind when it does not end in time."""
    outcome: list[T] = []
    error: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(work())
        except BaseException as caught:
            error.append(caught)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(limit_s)
    if error:
        raise error[0]
    if not outcome:
        raise PluginError(f"did not load within {limit_s:g} s (HARNESS_PLUGIN_TIMEOUT sets the limit)")
    return outcome[0]


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, HarnessError) else str(error)


_YIELDS: dict[str, tuple[type, tuple[str, ...]]] = {
    "harness_tasks": (
        Task,
        ("name", "kind", "produces", "objective", "summary", "default_dataset", "default_model", "metric", "metrics"),
    ),
    "harness_datasets": (Dataset, ("name", "kind", "objective", "summary", "licence")),
    "harness_models": (Model, ("name", "summary", "accepts", "objectives", "Config", "variants")),
    "harness_networks": (NetworkRef, ()),
    "harness_backends": (Backend, ("name", "summary", "requires", "packages")),
    "harness_metrics": (Metric, ()),
    "harness_reporters": (Reporter, ()),
}


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""Names are typed in comma-separated lists and become parts of file names."""


def _load_one(manager: pluggy.PluginManager, ref: PluginRef) -> tuple[Any, list[tuple[str, Any]]]:
    point = importlib.metadata.EntryPoint(ref.name, ref.value, hookspecs.GROUP)
    module = point.load()
    _check_hook_names(module)
    manager.register(module, name=f"{ref.distribution}:{ref.name}")
    offered: list[tuple[str, Any]] = []
    for hook, (kind, attributes) in _YIELDS.items():
        function = getattr(module, hook, None)
        if function is None or not _is_hook(function):
            continue
        for value in function() or ():
            if not isinstance(value, kind):
                raise PluginError(f"{hook} yielded a {type(value).__name__}; it must yield harness.{kind.__name__}")
            absent = [name for name in attributes if not hasattr(value, name)]
            if absent:
                raise PluginError(f"{hook} yielded a {kind.__name__} without {', '.join(absent)}")
            _check_names(hook, value)
            offered.append((hook, value))
    return module, offered


def _check_names(hook: str, value: Any) -> None:
    names = [value.model, value.backend] if isinstance(value, NetworkRef) else [value.name]
    if isinstance(value, Model):
        if not isinstance(value.variants, Mapping) or not value.variants:
            raise PluginError(
                f"model {value.name!r} has no variants; it needs at least one, as {{{value.name!r}: {{}}}}"
            )
        names += value.variants
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(f"{hook} yielded the name {name!r}; names consist of letters, digits and . _ + -")
    if isinstance(value, Task) and value.metric not in value.metrics:
        raise PluginError(f"task {value.name!r} has the primary metric {value.metric!r}, which its metrics lack")


def _is_hook(function: object) -> bool:
    # Some objects answer to every attribute, so the mark's type counts, as it does for pluggy.
    return isinstance(getattr(function, f"{hookspecs.GROUP}_impl", None), dict)


def _check_hook_names(module: Any) -> None:
    """Raise for a marked function that is no hook, and for a hook's name without the mark."""
    known = {name for name in vars(hookspecs) if name.startswith("harness_")}
    for name in dir(module):
        value = getattr(module, name, None)
        if callable(value) and _is_hook(value) and name not in known:
            raise UnknownNameError("hook", name, known)
        if name in known and callable(value) and not _is_hook(value):
            raise PluginError(f"{name} is not marked with @harness.hookimpl")


def _fill(catalog: Catalog, offers: list[tuple[PluginRef, str, Any]]) -> None:
    kinds: dict[str, tuple[str, dict[Any, Any]]] = {
        "harness_tasks": ("task", catalog.tasks),
        "harness_datasets": ("dataset", catalog.datasets),
        "harness_models": ("model", catalog.models),
        "harness_networks": ("network", catalog.networks),
        "harness_backends": ("backend", catalog.backends),
        "harness_metrics": ("metric", catalog.metrics),
        "harness_reporters": ("report format", catalog.reporters),
    }
    claims: dict[tuple[str, Any], list[tuple[PluginRef, Any]]] = {}
    for ref, hook, value in offers:
        name = (value.model, value.backend) if hook == "harness_networks" else value.name
        claims.setdefault((hook, name), []).append((ref, value))
    for (hook, name), claimants in claims.items():
        kind, known = kinds[hook]
        if len(claimants) > 1:
            _conflict(catalog, kind, name, [ref for ref, _ in claimants])
        else:
            ref, value = claimants[0]
            known[name] = Provided(value, ref)
    owners: dict[str, list[str]] = {}
    for family, provided in catalog.models.items():
        for name in dict.fromkeys((family, *provided.value.variants)):
            owners.setdefault(name, []).append(family)
    for name, families in owners.items():
        if len(families) > 1:
            _conflict(catalog, "model", name, [catalog.models[family].plugin for family in families])
        elif name in catalog.models[families[0]].value.variants:
            catalog.variants[name] = families[0]


def _conflict(catalog: Catalog, kind: str, name: Any, refs: list[PluginRef]) -> None:
    who = " and ".join(f"{ref.name!r} of distribution {ref.distribution}" for ref in refs)
    shown = "/".join(name) if isinstance(name, tuple) else name
    catalog.conflicts[kind, shown] = f"the {kind} {shown!r} is provided more than once, by {who}; uninstall all but one"
