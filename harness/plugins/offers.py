"""Check the objects that hooks yield and add them to a catalog."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from harness.errors import PluginError, UnknownNameError
from harness.interfaces import Backend, Dataset, Executor, Metric, Model, NetworkRef, Reporter, Task, Tracker
from harness.plugins.attributes import check_attributes
from harness.plugins.catalog import Catalog, Provided
from harness.records import MetricInfo, Objective, PluginRef

_TASK = ("name", "kind", "produces", "objective", "summary", "default_dataset", "default_model", "metric", "metrics")
YIELDS: dict[str, tuple[str, type[Any], tuple[str, ...]]] = {
    "harness_tasks": ("task", Task, _TASK),
    "harness_datasets": ("dataset", Dataset, ("name", "kind", "objective", "summary")),
    "harness_models": ("model", Model, ("name", "summary", "accepts", "objectives", "Config", "variants")),
    "harness_networks": ("network", NetworkRef, ()),
    "harness_backends": ("backend", Backend, ("name", "summary", "requires", "packages")),
    "harness_metrics": ("metric", Metric, ()),
    "harness_reporters": ("report format", Reporter, ()),
    "harness_executors": ("executor", Executor, ("name", "summary")),
    "harness_trackers": ("tracker", Tracker, ()),
}
"""Description, type and required attributes of the objects that each hook yields."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Offer(NamedTuple):
    """An object yielded by a plugin's hook."""

    plugin: PluginRef
    hook: str
    value: Any


def check_result(hook: str, values: Any) -> None:
    """Raise `harness.PluginError` if the result of a hook is not an iterable of objects."""
    if not isinstance(values, Iterable):
        expected = YIELDS[hook][1].__name__
        raise PluginError(
            f"{hook} returned an object of type {type(values).__name__} instead of an iterable of harness.{expected} "
            "objects; use yield instead of return"
        )


def check_offer(hook: str, value: Any) -> None:
    """Raise `harness.PluginError` if an object does not have the type that its hook requires, or if a required
    attribute is missing or not valid."""
    _, kind, attributes = YIELDS[hook]
    if isinstance(value, type) and issubclass(value, kind):
        raise PluginError(f"{hook} yielded the class {value.__name__}; yield an instance: {value.__name__}()")
    if not isinstance(value, kind):
        raise PluginError(
            f"{hook} yielded an object of type {type(value).__name__}; it must yield instances of "
            f"harness.{kind.__name__}"
        )
    absent = [name for name in attributes if not hasattr(value, name)]
    if absent:
        raise PluginError(
            f"the class {type(value).__name__}, yielded by {hook}, does not define "
            f"{'the attribute' if len(absent) == 1 else 'the attributes'} {', '.join(absent)} of "
            f"harness.{kind.__name__}; define {'it' if len(absent) == 1 else 'them'} in the class"
        )
    names = [value.model, value.backend] if isinstance(value, NetworkRef) else [value.name]
    if isinstance(value, Model):
        if not isinstance(value.variants, Mapping) or not value.variants:
            raise PluginError(
                f"model {value.name!r} has no variants; define at least one, such as {{{value.name!r}: {{}}}}"
            )
        names += value.variants
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(f"{hook} yielded the invalid name {name!r}; use only letters, digits and . _ + -")
    if isinstance(value, Metric):
        _check_metric(value)
    else:
        check_attributes(value, kind)
    if isinstance(value, Backend) and value.executes and value.trains:
        raise PluginError(f"backend {value.name!r} executes exported models and cannot train; set trains = False")
    if isinstance(value, Task) and value.metric not in value.metrics:
        raise PluginError(f"task {value.name!r}: the primary metric {value.metric!r} is not one of its metrics; add it")
    if isinstance(value, Task) and {f"{phase}_{value.counts}_per_s" for phase in ("train", "inference")} & RESERVED:
        raise PluginError(
            f"task {value.name!r} cannot count {value.counts!r}, because reports use this name for a column; choose "
            "another name"
        )


RESERVED = frozenset(
    (
        *("backend", "batch_size", "cost", "data", "dataset", "device", "failures", "flags", "loss", "metric"),
        *(
            "metric_better",
            "metric_title",
            "metric_unit",
            "model",
            "options",
            "parity",
            "precision",
            "quality",
            "reference",
            "runs",
        ),
        *("seeds", "status", "task", "train_cost_per_million", "inference_cost_per_million", "train_ratio"),
        *("inference_ratio", "train_samples_per_s", "fit_samples_per_s", "inference_samples_per_s", "mfu_percent"),
        *("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "time_to_target_s", "host_peak_mib"),
        *("device_peak_mib", "reserved_peak_mib", "driver_peak_mib", "train_cpu_j_per_sample"),
        *("train_gpu_j_per_sample", "inference_cpu_j_per_sample", "inference_gpu_j_per_sample"),
        *("rank_peak_mib", "scaling_efficiency", "tuning_s", "tuning_steps", "tuning_trials"),
        *("train_gflop_per_s", "first_step_s", "wall_s", "worker_peak_mib", "train_cpu_w", "inference_cpu_w"),
        *("train_gpu_w", "inference_gpu_w", "parameters", "forward_flop_per_sample"),
    )
)
"""Reserved names that metrics must not use, such as the names of costs and of columns in the comparison table."""


_RATE = re.compile("(train|inference)_.+_per_s")
"""Pattern of additional reserved names: throughput in the unit that a task counts (`harness.Task.counts`)."""


def _check_metric(metric: Metric) -> None:
    """Raise `harness.PluginError` if the name is reserved.

    `harness.PluginError` is also raised if the metric's direction, bounds, unit, title or summary cannot be stored in a
    record.
    """
    if metric.name in RESERVED or _RATE.fullmatch(metric.name):
        raise PluginError(f"a metric cannot have the name {metric.name!r}, which is reserved for reports; rename it")
    if metric.objective not in get_args(Objective):
        error = UnknownNameError("objective", str(metric.objective), get_args(Objective))
        raise PluginError(f"metric {metric.name!r}: {error}")
    fields = {"higher_is_better": metric.higher_is_better, "bounds": metric.bounds, "unit": metric.unit}
    fields |= {"title": metric.title, "summary": metric.summary, "in_tables": metric.in_tables}
    try:
        declared = msgspec.convert(fields, MetricInfo)
    except msgspec.ValidationError as error:
        raise PluginError(f"metric {metric.name!r} is not valid: {error}") from None
    if not isinstance(metric.per_example, str):
        raise PluginError(
            f"metric {metric.name!r} is not valid: per_example is of type {type(metric.per_example).__name__}; write "
            'the location of the function as "module:callable"'
        )
    if not isinstance(metric.streaming, bool):
        raise PluginError(
            f"metric {metric.name!r} is not valid: streaming is of type {type(metric.streaming).__name__}; write True "
            "or False"
        )
    low, high = declared.bounds
    if low is not None and high is not None and not low < high:
        raise PluginError(
            f"metric {metric.name!r} has the bounds {low:g} and {high:g}; the first bound must be "
            "smaller than the second"
        )


def enter(offers: Iterable[Offer], catalog: Catalog) -> None:
    """Add objects to the catalog.

    If several objects have the same name, none of them is added, and the conflict is recorded.
    """
    claims: dict[tuple[str, Any], list[Offer]] = {}
    for offer in offers:
        value = offer.value
        name = (value.model, value.backend) if isinstance(value, NetworkRef) else value.name
        claims.setdefault((offer.hook, name), []).append(offer)
    for (hook, name), (first, *others) in claims.items():
        if others:
            _conflict(catalog, YIELDS[hook][0], name, [first.plugin, *(offer.plugin for offer in others)])
        else:
            getattr(catalog, hook.removeprefix("harness_"))[name] = Provided(first.value, first.plugin)
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
    who = " and ".join(
        ref.value if ref.distribution == "file" else f"{ref.name!r} of distribution {ref.distribution}" for ref in refs
    )
    shown = "/".join(name) if isinstance(name, tuple) else name
    catalog.conflicts[kind, shown] = f"the {kind} {shown!r} is provided more than once, by {who}; remove all but one"
