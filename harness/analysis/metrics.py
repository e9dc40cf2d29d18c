"""The metrics of a run: one declaration each, read by tables, comparisons, the history, the reports and the site.

The costs, such as throughput and memory, are `METRICS`; the scores are those that a run's task declares. Both are
`RunMetric`, so that whatever shows or compares a metric finds its name, unit and value in one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.interfaces import Metric
from harness.measure.quality.metrics import unit_of
from harness.records import DataInfo, EnergyUse, RunRecord, Success

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog


@dataclass(frozen=True, kw_only=True)
class RunMetric:
    """A number about a successful run."""

    name: str
    """Name in options, columns and files. Ends in the unit, except for scores, whose unit depends on the data."""
    title: str
    """Header of the metric's column, without the unit."""
    unit: str = ""
    """Empty for a fraction."""
    higher_is_better: bool
    read: Callable[[RunRecord], float | None]
    """Return the value from the record of a successful run; None where the record lacks it."""
    group: Literal["score", "throughput", "latency", "memory", "energy", "other"] = "other"
    part: str = ""
    """Name within its group, such as ``training`` or ``device, allocator``."""
    headline: str = ""
    """Title where only the most important metrics are shown; empty for the others."""
    flag: str = ""
    """Name by which the flags of a record refer to the metric."""
    compared: Literal["by default", "on request", "never"] = "on request"
    relative: bool = True
    """Whether changes are given relative to the base, rather than as differences."""

    def value(self, record: RunRecord) -> float | None:
        """Return the metric of this run; None where the run failed, or its record has no finite value."""
        return finite(self.read(record)) if isinstance(record.outcome, Success) else None


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def success(record: RunRecord) -> Success:
    """Return the outcome of a run that is known to have succeeded."""
    assert isinstance(record.outcome, Success)
    return record.outcome


def _percent_of_roofline(record: RunRecord) -> float | None:
    """Return the model FLOPs utilisation of training."""
    flops_per_s = success(record).speed.train_flops_per_s
    if record.roofline is None or not flops_per_s:
        return None
    return 100 * flops_per_s / record.roofline.matrix_flops_per_s


def _time_to_target_s(record: RunRecord) -> float | None:
    reached = success(record).time_to_target
    return reached.train_s if reached else None


def _latency(percent: int, headline: str, compared: Literal["by default", "on request"]) -> RunMetric:
    return RunMetric(
        name=f"latency_p{percent}_ms",
        title=f"p{percent}",
        unit="ms",
        higher_is_better=False,
        read=lambda record: getattr(success(record).latency, f"p{percent}_ms"),
        group="latency",
        part=f"p{percent}",
        headline=headline,
        compared=compared,
    )


def _device_peak(
    kind: str, counter: str, compared: Literal["by default", "on request"] = "on request", headline: str = ""
) -> RunMetric:
    def read(record: RunRecord) -> float | None:
        size = getattr(success(record).memory.device, f"{counter}_peak_bytes", None)
        return None if size is None else size / 2**20

    return RunMetric(
        name=f"{kind}_peak_mib",
        title=f"{kind} peak",
        unit="MiB",
        higher_is_better=False,
        read=read,
        group="memory",
        part=f"device, {counter}",
        headline=headline,
        compared=compared,
    )


def _energy(chip: Literal["cpu", "gpu"], phase: Literal["train", "inference"]) -> RunMetric:
    def read(record: RunRecord) -> float | None:
        use: EnergyUse | None = getattr(success(record).energy, chip)
        return getattr(use, f"{phase}_j_per_sample") if use else None

    return RunMetric(
        name=f"{phase}_{chip}_j_per_sample",
        title=f"{'train' if phase == 'train' else 'infer.'} {chip}",
        unit="J/sample",
        higher_is_better=False,
        read=read,
        group="energy",
    )


TRAIN_THROUGHPUT = RunMetric(
    name="train_samples_per_s",
    title="train",
    unit="samples/s",
    higher_is_better=True,
    read=lambda record: success(record).speed.train_samples_per_s,
    group="throughput",
    part="training",
    headline="training throughput",
    flag="train_throughput",
    compared="by default",
)
INFERENCE_THROUGHPUT = RunMetric(
    name="inference_samples_per_s",
    title="inference",
    unit="samples/s",
    higher_is_better=True,
    read=lambda record: success(record).speed.inference_samples_per_s,
    group="throughput",
    part="inference",
    headline="inference throughput",
    flag="inference_throughput",
    compared="by default",
)
MFU = RunMetric(name="mfu_percent", title="MFU", unit="%", higher_is_better=True, read=_percent_of_roofline)
METRICS = (
    TRAIN_THROUGHPUT,
    INFERENCE_THROUGHPUT,
    MFU,
    RunMetric(
        name="time_to_target_s",
        title="to target",
        unit="s",
        higher_is_better=False,
        read=_time_to_target_s,
        compared="never",  # runs that did not reach the target have no value: the others alone would be a biased sample
    ),
    _latency(50, "median latency", "by default"),
    _latency(90, "", "on request"),
    _latency(99, "", "by default"),
    RunMetric(
        name="host_peak_mib",
        title="host peak",
        unit="MiB",
        higher_is_better=False,
        read=lambda record: success(record).memory.host_peak_bytes / 2**20,
        group="memory",
        part="host",
        headline="peak host memory",
        compared="by default",
    ),
    _device_peak("device", "allocator", "by default", "peak device memory"),
    _device_peak("reserved", "reserved"),
    _device_peak("driver", "driver"),
    _energy("cpu", "train"),
    _energy("cpu", "inference"),
    _energy("gpu", "train"),
    _energy("gpu", "inference"),
)
"""What a run cost, in the order of the comparison table."""

BY_NAME = {metric.name: metric for metric in METRICS}
HEADLINES = tuple(metric for metric in METRICS if metric.headline)


def in_group(group: str) -> tuple[RunMetric, ...]:
    """Return the metrics of a group, in the order of `METRICS`."""
    return tuple(metric for metric in METRICS if metric.group == group)


def score(metric: Metric, data: DataInfo | None) -> RunMetric:
    """Return the score that runs have by one of their task's metrics on the test split of this data."""
    return RunMetric(
        name=metric.name,
        title=metric.name,
        unit=unit_of(metric, data),
        higher_is_better=metric.higher_is_better,
        read=lambda record: success(record).scores.test.get(metric.name),
        group="score",
        compared="by default",
        relative=False,
    )


def comparable(sides: Sequence[Sequence[RunRecord]], catalog: Catalog) -> dict[str, RunMetric]:
    """Return the metrics that successful runs of one task can be compared by: those with a value on each side.

    The scores come first. Raises `harness.UnknownNameError` for a metric whose plugin is not installed.
    """
    records = [record for side in sides for record in side]
    if not records:
        return {}
    scores = [success(record).scores.test for record in records]
    data = records[0].provenance.data
    metrics = [score(catalog.metric(name), data) for name in scores[0] if all(name in test for test in scores)]
    metrics += [metric for metric in METRICS if metric.compared != "never"]
    return {
        metric.name: metric
        for metric in metrics
        if all(any(metric.value(record) is not None for record in side) for side in sides)
    }


def named_with_unit(name: str, unit: str) -> str:
    """Return a metric's name with the unit, where the name does not end in it."""
    return f"{name} ({unit})" if unit and name not in BY_NAME else name
