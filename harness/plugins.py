"""Finding plugins: `discover` gives a `Catalog` of what they provide, and of what went wrong with which.

Each entry point loads inside its own ``try`` and its own time limit: a plugin that is broken, slow or incompatible is
listed with its reason, and everything else works. What ships with harness is found exactly as a stranger's plugin.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pluggy

from harness import hookspecs
from harness.catalog import Catalog, LoadedPlugin, PluginFailure, Provided, describe
from harness.errors import PluginError, UnknownNameError, UsageError
from harness.protocols import Backend, Dataset, Metric, Model, NetworkRef, Reporter, Task
from harness.types import PluginRef

T = TypeVar("T")

LOAD_LIMIT_S = 10.0


def resolve(reference: str) -> Callable[..., Any]:
    """The object that ``"module:attribute"`` names. Raises `harness.PluginError` where it cannot be had."""
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise PluginError(f"{reference!r} cannot be imported: {describe(error)}") from error
    value: Callable[..., Any] | None = getattr(module, attribute, None)
    if value is None:
        raise PluginError(f"{reference!r}: module {module_name!r} has no attribute {attribute!r}")
    return value


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
            failures.append(PluginFailure(ref, describe(error)))
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
