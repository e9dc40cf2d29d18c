"""Check the objects that plugins' hooks yield."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.errors import PluginError
from harness.interfaces import Backend, Dataset, Metric, Model, NetworkRef, Reporter, Task
from harness.records import PluginRef

YIELDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
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
"""Hook -> the type of the objects it yields, and the attributes that they must have."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Offer(NamedTuple):
    """An object that a plugin's hook yielded."""

    plugin: PluginRef
    hook: str
    value: Any


def check_offer(hook: str, value: Any) -> None:
    """Raise `harness.PluginError` if the hook must not yield this object."""
    kind, attributes = YIELDS[hook]
    if not isinstance(value, kind):
        raise PluginError(f"{hook} yielded a {type(value).__name__}; it must yield harness.{kind.__name__}")
    absent = [name for name in attributes if not hasattr(value, name)]
    if absent:
        raise PluginError(f"{hook} yielded a {kind.__name__} without {', '.join(absent)}")
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
