"""Loading: each plugin inside its own ``try`` and its own time limit, so that one that is broken, slow or incompatible
is listed with its reason, and everything else works."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pluggy

from harness.errors import PluginError, UnknownNameError, UsageError
from harness.interfaces import Backend, Dataset, Metric, Model, NetworkRef, Reporter, Task
from harness.plugins import hookspecs
from harness.plugins.catalog import Catalog, LoadedPlugin, PluginFailure, described_with_place
from harness.plugins.code import check_api_version, import_object
from harness.plugins.names import fill
from harness.records import PluginRef

T = TypeVar("T")

LOAD_LIMIT_S = 10.0

_CORE = PluginRef(name="core", value="", distribution="harness", version="")


def load(refs: Iterable[PluginRef], failures: Iterable[PluginFailure] = ()) -> Catalog:
    """A catalog of exactly these plugins and the core's own metrics and reporters. Never raises for a plugin's sake;
    `failures` are those that were given up before.

    Raises `harness.UsageError` where ``HARNESS_PLUGIN_TIMEOUT`` is no number of seconds.
    """
    from harness.measure.quality.builtin import METRICS
    from harness.report.builtin import REPORTERS

    limit = limit_s()
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    offers: list[tuple[PluginRef, str, Any]] = [(_CORE, "harness_metrics", metric) for metric in METRICS]
    offers += [(_CORE, "harness_reporters", reporter) for reporter in REPORTERS]
    plugins, failed = [], list(failures)
    for ref in refs:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for tables and JSON that programs read
                module, offered = _within(limit, lambda ref=ref: _load_one(manager, ref))  # type: ignore[misc]
        except BaseException as error:  # whatever a plugin's module does, SystemExit included, stays contained
            if isinstance(error, KeyboardInterrupt):
                raise
            failed.append(PluginFailure(ref, described_with_place(error)))
        else:
            plugins.append(LoadedPlugin(ref, module))
            offers += [(ref, hook, value) for hook, value in offered]
    catalog = Catalog(plugins=tuple(plugins), failures=tuple(failed))
    fill(catalog, offers)
    return catalog


def limit_s() -> float:
    """How long a plugin may take to load or to hear an event."""
    text = os.environ.get("HARNESS_PLUGIN_TIMEOUT") or LOAD_LIMIT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise UsageError(f"HARNESS_PLUGIN_TIMEOUT must be a positive number of seconds, got {text!r}")
    return seconds


def _within(limit: float, work: Callable[[], T]) -> T:
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
    thread.join(limit)
    if error:
        raise error[0]
    if not outcome:
        raise PluginError(f"did not load within {limit:g} s (HARNESS_PLUGIN_TIMEOUT sets the limit)")
    return outcome[0]


YIELDS: dict[str, tuple[type, tuple[str, ...]]] = {
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
"""Hook -> what it yields, and the attributes that these must have."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def _load_one(manager: pluggy.PluginManager, ref: PluginRef) -> tuple[Any, list[tuple[str, Any]]]:
    plugin = import_object(ref.value)
    check_api_version(plugin)
    _check_hook_names(plugin)
    manager.register(plugin, name=f"{ref.distribution}:{ref.name}")
    offered: list[tuple[str, Any]] = []
    for hook, (kind, attributes) in YIELDS.items():
        function = getattr(plugin, hook, None)
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
    return plugin, offered


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
