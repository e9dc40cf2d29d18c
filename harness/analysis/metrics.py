"""Declarations of run metrics, shared by tables, comparisons, histories, reports and the site.

`METRICS` lists the costs, such as throughput and memory. Scores are declared in the records (`MetricInfo`). Costs and
scores are instances of `RunMetric`, which keeps a metric's name, its unit and the function that reads its value in one
place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.interfaces import Metric
from harness.measure.quality.metrics import info_of
from harness.records import MetricInfo, RunRecord, Success

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog


@dataclass(frozen=True)
class RunMetric:
    """A number about a successful run."""

    name: str
    """Name in options, columns and files. It ends with the unit, except for scores, whose unit depends on the data."""
    title: str
    """Header of the metric's column, without the unit."""
    unit: str
    """Unit of the values, or an empty string for fractions."""
    higher_is_better: bool | None
    """True if higher values are better, or None if the direction is not known.

    A metric without a direction is shown but never ranked.
    """
    read: Callable[[RunRecord], float | None]
    """Function that returns the value from the record of a successful run, or None if the record does not have it."""
    group: Literal["score", "throughput", "latency", "memory", "energy", "other"] = "other"
    part: str = ""
    """Name within the group, such as ``training`` or ``device, allocator``."""
    headline: str = ""
    """Title in summaries, which show only the most important metrics, or an empty string if summaries do not show the
    metric.
    """
    flag: str = ""
    """Name by which a record's flags refer to the metric."""
    compared: Literal["by default", "on request", "never"] = "on request"
    """Condition under which ``harness compare`` includes the metric."""
    relative: bool = True
    """True if changes are relative to the base, False if they are absolute differences."""

    def value(self, record: RunRecord) -> float | None:
        """Return the value for this run, or None if the run failed or its record has no finite value."""
        return finite(self.read(record)) if isinstance(record.outcome, Success) else None


def better_value(higher_is_better: bool | None) -> Literal["higher", "lower", ""]:
    """Return a phrase that states which values of a metric are better, or an empty string if this is not known."""
    return "" if higher_is_better is None else "higher" if higher_is_better else "lower"


def finite(value: float | None) -> float | None:
    """Return `value`, or None if it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def success(record: RunRecord) -> Success:
    """Return the outcome of a successful run."""
    assert isinstance(record.outcome, Success)
    return record.outcome


def _at(path: str, scale: float = 1.0) -> Callable[[RunRecord], float | None]:
    """Return a function that reads the number at `path`, such as ``latency.p50_ms``, from a run's outcome.

    The function multiplies the number by `scale`. It returns None if any attribute on the path is None.
    """
    names = path.split(".")

    def read(record: RunRecord) -> float | None:
        value: Any = record.outcome
        for name in names:
            value = getattr(value, name)
            if value is None:
                return None
        return float(value * scale)

    return read


def fitted_in_one_call(record: RunRecord) -> bool:
    """Return True if each training step of a successful run fitted the model to the whole training split.

    The duration of such a step depends on the solver, not on the number of examples alone, so its rate is not compared
    with that of steps on batches. Older records do not state how the model was trained. In this case, the model is
    assumed to have been fitted in one call if there was one step per epoch although the training split has several
    batches. If the split has only one batch, models without canonical weights are assumed to have been fitted in one
    call.
    """
    outcome = success(record)
    if outcome.speed.by_steps is not None:
        return not outcome.speed.by_steps
    if not outcome.curves or outcome.curves[-1].step != outcome.curves[-1].epoch:
        return False
    several = outcome.examples.get("train", 0) >= 2 * record.spec.recipe.batch_size
    return several or outcome.model.parameters == 0


def _if_fitted(read: Callable[[RunRecord], float | None], *, in_one_call: bool) -> Callable[[RunRecord], float | None]:
    """Return a function that calls `read` only for runs that were, or were not, fitted in one call."""
    return lambda record: read(record) if fitted_in_one_call(record) == in_one_call else None


def _mfu_percent(record: RunRecord) -> float | None:
    """Return the model FLOPs utilization during training, as a percentage of the device's measured peak."""
    flops_per_s = success(record).speed.train_flops_per_s
    peak = record.roofline.matrix_flops_per_s if record.roofline else None
    return 100 * flops_per_s / peak if flops_per_s and peak else None


def _host_peak_mib(record: RunRecord) -> float:
    """Return the peak host memory of the worker and the processes that it started."""
    memory = success(record).memory
    return max(memory.host_peak_bytes, memory.tree_peak_bytes or 0) / 2**20


def _throughput(phase: str, part: str, read: Callable[[RunRecord], float | None]) -> RunMetric:
    return RunMetric(
        f"{phase}_samples_per_s",
        phase,
        "samples/s",
        True,
        read,
        "throughput",
        part,
        headline=f"{part} throughput",
        flag=f"{phase}_throughput",
        compared="by default",
    )


def _latency(percent: int, **more: Any) -> RunMetric:
    part = f"p{percent}"
    return RunMetric(f"latency_{part}_ms", part, "ms", False, _at(f"latency.{part}_ms"), "latency", part, **more)


def _peak(kind: str, part: str, path: str, **more: Any) -> RunMetric:
    read = _at(f"memory.device.{path}", 2**-20)
    return RunMetric(f"{kind}_peak_mib", f"{kind} peak", "MiB", False, read, "memory", part, **more)


def _energy(phase: str, title: str, chip: str) -> RunMetric:
    read = _at(f"energy.{chip}.{phase}_j_per_sample")
    if phase == "train":
        read = _if_fitted(read, in_one_call=False)
    return RunMetric(f"{phase}_{chip}_j_per_sample", f"{title} {chip}", "J/sample", False, read, "energy")


_TRAINING = _at("speed.train_samples_per_s")
TRAIN_THROUGHPUT = _throughput("train", "training", _if_fitted(_TRAINING, in_one_call=False))
INFERENCE_THROUGHPUT = _throughput("inference", "inference", _at("speed.inference_samples_per_s"))
FIT_THROUGHPUT = RunMetric(
    "fit_samples_per_s",
    "fit",
    "samples/s",
    True,
    _if_fitted(_TRAINING, in_one_call=True),
    part="fit in one call",
    headline="rate of the fit in one call",
    compared="by default",
)
"""Training throughput of models that were fitted in one call.

It is a separate metric because it cannot be compared with `TRAIN_THROUGHPUT`, and each run has only one of the two.
"""
MFU = RunMetric("mfu_percent", "MFU", "%", True, _if_fitted(_mfu_percent, in_one_call=False))
HOST_PEAK = RunMetric(
    "host_peak_mib",
    "host peak",
    "MiB",
    False,
    _host_peak_mib,
    "memory",
    "host",
    headline="peak host memory",
    compared="by default",
)
METRICS = (
    TRAIN_THROUGHPUT,
    FIT_THROUGHPUT,
    INFERENCE_THROUGHPUT,
    MFU,
    # Never compared, because runs that missed the target have no value and the remaining runs are a biased sample.
    RunMetric("time_to_target_s", "to target", "s", False, _at("time_to_target.train_s"), compared="never"),
    _latency(50, headline="median latency", compared="by default"),
    _latency(90),
    _latency(99, compared="by default"),
    HOST_PEAK,
    _peak("device", "device, allocator", "allocator_peak_bytes", headline="peak device memory", compared="by default"),
    _peak("reserved", "device, reserved", "reserved_peak_bytes"),
    _peak("driver", "device, driver", "driver_peak_bytes"),
    _energy("train", "train", "cpu"),
    _energy("inference", "infer.", "cpu"),
    _energy("train", "train", "gpu"),
    _energy("inference", "infer.", "gpu"),
)
"""Costs of a run, in the order of the comparison table's columns."""

BY_NAME = {metric.name: metric for metric in METRICS}
BY_FLAG = {metric.flag: metric for metric in METRICS if metric.flag}
HEADLINES = tuple(metric for metric in METRICS if metric.headline)


def in_group(group: str) -> tuple[RunMetric, ...]:
    """Return the metrics in a group, in the order of `METRICS`."""
    return tuple(metric for metric in METRICS if metric.group == group)


def meaning(name: str, records: Iterable[RunRecord], metrics: Mapping[str, Metric]) -> MetricInfo | None:
    """Return the meaning of a score, as declared in the records of successful runs or, for older records, in `metrics`.

    Return None if neither declares the score, or if the records disagree on the direction.
    """
    known = [info for record in records if (info := _declared(name, record, metrics)) is not None]
    return known[0] if len({info.higher_is_better for info in known}) == 1 else None


def _declared(name: str, record: RunRecord, metrics: Mapping[str, Metric]) -> MetricInfo | None:
    info = success(record).scores.metrics.get(name)
    if info is None and name in metrics:
        return info_of(metrics[name], record.provenance.data)
    return info


def score(name: str, info: MetricInfo | None) -> RunMetric:
    """Return a `RunMetric` for the test score `name`, whose meaning is `info`, or None if it is not known."""
    return RunMetric(
        name,
        name,
        info.unit if info else "",
        info.higher_is_better if info else None,
        lambda record: success(record).scores.test.get(name),
        group="score",
        relative=False,
    )


def comparable(sides: Sequence[Sequence[RunRecord]], catalog: Catalog) -> dict[str, RunMetric]:
    """Return the metrics with a value on each side, which can be used to compare successful runs of one task.

    Scores come first. The plugins in `catalog` are needed only for scores of older records.
    """
    records = [record for side in sides for record in side]
    if not records:
        return {}
    scores = [success(record).scores.test for record in records]
    plugins = {name: provided.value for name, provided in catalog.metrics.items()}
    common = [name for name in scores[0] if all(name in test for test in scores)]
    metrics = [score(name, meaning(name, records, plugins)) for name in common]
    metrics += [metric for metric in METRICS if metric.compared != "never"]
    return {
        metric.name: metric
        for metric in metrics
        if all(any(metric.value(record) is not None for record in side) for side in sides)
    }


def unranked_note(names: Iterable[str]) -> str:
    """Return a note on metrics whose direction is not known, for reports."""
    return (
        f"{', '.join(names)}: not ranked, because it is not known whether higher values are better; the records do not "
        "state it and no loaded plugin provides the metric, or the records disagree."
    )


def named_with_unit(name: str, unit: str) -> str:
    """Return the name of a metric, followed by its unit unless the name already ends with it."""
    return f"{name} ({unit})" if unit and name not in BY_NAME else name
