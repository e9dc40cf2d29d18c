"""Definitions of the metrics of a run, used by tables, comparisons, histories, reports and the site.

Each metric is a `RunMetric` with a name, a unit, a direction, and a function that reads the value from a record.
`METRICS` lists speed, memory and other cost metrics. `QUALITY` and `REFERENCE` are scores whose meaning depends on
the task. Records contain the definitions of all other scores (`MetricInfo`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from harness.analysis.table import Column
from harness.interfaces import Metric
from harness.interfaces.output import readable
from harness.measure.quality.metrics import info_of
from harness.records import MetricInfo, RunRecord, Success

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog


@dataclass(frozen=True)
class RunMetric:
    """A metric of a successful run."""

    name: str
    """Name of the metric in options, columns and files. The name ends with the unit, except for scores, whose unit
    depends on the data."""
    title: str
    """Header of the metric's column, without the unit."""
    unit: str
    """Unit of the values, or an empty string for fractions."""
    higher_is_better: bool | None
    """True if higher values are better, or None if the direction is not known.

    A metric without a direction is shown but never ranked.
    """
    read: Callable[[RunRecord], float | None]
    """Function that reads the value from the record of a successful run. The function returns None if the record does
    not contain a value."""
    group: Literal["score", "throughput", "latency", "memory", "energy", "model", "other"] = "other"
    part: str = ""
    """Name within the group, such as ``training`` or ``device, allocator``."""
    headline: str = ""
    """Title in summaries, which show only the most important metrics. Empty if summaries do not show this metric.
    """
    flag: str = ""
    """Name of the metric in the flags of a record."""
    in_table: bool = True
    """True if the comparison table has a column for the metric. If False, only the details of a run show the metric."""
    compared: Literal["by default", "on request"] = "on request"
    """Condition for including the metric in ``harness compare``."""
    never_compared: str = ""
    """Reason why the metric cannot be compared. Empty if the metric can be compared."""
    relative: bool = True
    """True if changes are relative to the base, and False if changes are absolute differences."""
    score: str = ""
    """Name of the score in the record, or an empty string for costs."""
    per_example: str = ""
    """Location of the function that computes the score of each example (`harness.Metric.per_example`), or an empty
    string."""
    requires: str = ""
    """Advice shown when no run has a value. May be empty."""
    is_count: bool = False
    """True if the values are integers. Integers are not rounded to significant digits."""
    in_hours: bool = False
    """True if `read` returns machine hours, which are multiplied by the hourly price."""
    price_per_hour: float | None = None
    """Hourly price of the machine. If None, metrics with `in_hours` have no value."""

    def value(self, record: RunRecord) -> float | None:
        """Return the value for this run. Return None if the run failed or its record has no finite value. For a
        quality-only run, all costs are None, even if the record contains a value, such as a duration.
        """
        if not isinstance(record.outcome, Success) or (self.in_hours and self.price_per_hour is None):
            return None
        if record.quality_only and self.is_cost:
            return None
        value = self.read(record)
        return finite(value * self.price_per_hour if value is not None and self.price_per_hour is not None else value)

    @property
    def is_cost(self) -> bool:
        """True for measured costs. False for scores and properties of the model."""
        return self.group not in ("score", "model")

    @property
    def advice(self) -> str:
        """Advice shown when no run has a value, preceded by a semicolon. May be empty."""
        known = self.in_hours and self.price_per_hour is not None
        return f"; {self.requires}" if self.requires and not known else ""

    @property
    def column(self) -> Column:
        """Column containing the metric's values."""
        return Column(self.name, self.title, self.unit, "number", better_value(self.higher_is_better))

    @property
    def ratio_column(self) -> Column:
        """Column containing the ratios of the metric's values to those of another row."""
        name = f"{self.title}_ratio"
        return dataclasses.replace(self.column, name=name, unit="×")


def better_value(higher_is_better: bool | None) -> Literal["higher", "lower", ""]:
    """Return ``higher`` or ``lower``, depending on which values are better. Return an empty string if the direction is
    unknown."""
    return "" if higher_is_better is None else "higher" if higher_is_better else "lower"


def finite(value: float | None) -> float | None:
    """Return `value`, or None if it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def success(record: RunRecord) -> Success:
    """Return the outcome of a successful run."""
    assert isinstance(record.outcome, Success)
    return record.outcome


def _at(path: str, scale: float = 1.0) -> Callable[[RunRecord], float | None]:
    """Return a function that reads the number at `path`, such as ``latency.p50_ms``, from the outcome of a run. The
    function multiplies the number by `scale`, and returns None if any attribute on the path is None.
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
    """Return True if each training step of a successful run fitted the model to the whole training split. The duration
    of a step that fits the model to the whole training split depends mainly on the solver, so the rate of these steps
    cannot be compared with the rate of mini-batch steps. Older records do not state how the model was trained. For an
    older record, the result is True if there was one step per epoch although the training split has several batches. If
    the training split has only one batch, the result is True if the model has no canonical weights.
    """
    outcome = success(record)
    if outcome.speed.by_steps is not None:
        return not outcome.speed.by_steps
    if not outcome.curves or outcome.curves[-1].step != outcome.curves[-1].epoch:
        return False
    several = outcome.examples.get("train", 0) >= 2 * record.spec.recipe.batch_size
    return several or outcome.model.parameters == 0


def _if_fitted(read: Callable[[RunRecord], float | None], *, in_one_call: bool) -> Callable[[RunRecord], float | None]:
    """Return a function that calls `read` only for runs whose model was fitted in one call. If `in_one_call` is False,
    the function calls `read` only for the other runs."""
    return lambda record: read(record) if fitted_in_one_call(record) == in_one_call else None


def _mfu_percent(record: RunRecord) -> float | None:
    """Return the model FLOPs utilization during training, as a percentage of the measured peak of all devices."""
    flops_per_s = success(record).speed.train_flops_per_s
    peak = record.roofline.matrix_flops_per_s * record.spec.devices if record.roofline else None
    return 100 * flops_per_s / peak if flops_per_s and peak else None


def _host_peak_mib(record: RunRecord) -> float:
    """Return the peak host memory of the worker, including the processes that it started."""
    memory = success(record).memory
    return max(memory.host_peak_bytes, memory.tree_peak_bytes or 0) / 2**20


def _rank_peak_mib(record: RunRecord) -> float | None:
    """Return the largest peak host memory of any process in a multi-device run."""
    return max((rank.host_peak_bytes / 2**20 for rank in success(record).memory.ranks), default=None)


def _device_peak_mib(field: str) -> Callable[[RunRecord], float | None]:
    """Return a function that reads the peak memory of a device, or the largest peak across several devices."""

    def read(record: RunRecord) -> float | None:
        memory = success(record).memory
        devices = [rank.device for rank in memory.ranks] or [memory.device]
        sizes = [getattr(device, field) for device in devices if device is not None]
        return None if None in sizes else max((size / 2**20 for size in sizes), default=None)

    return read


def _hours_per_million(throughput: RunMetric) -> Callable[[RunRecord], float | None]:
    """Return a function that reads the number of machine hours per million samples."""

    def read(record: RunRecord) -> float | None:
        samples_per_s = throughput.value(record)
        return 1e6 / samples_per_s / 3600 if samples_per_s else None

    return read


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


def _peak(kind: str, part: str, field: str, **more: Any) -> RunMetric:
    read = _device_peak_mib(field)
    return RunMetric(f"{kind}_peak_mib", f"{kind} peak", "MiB", False, read, "memory", part, **more)


def _energy(phase: str, title: str, chip: str) -> RunMetric:
    read = _at(f"energy.{chip}.{phase}_j_per_sample")
    if phase == "train":
        read = _if_fitted(read, in_one_call=False)
    return RunMetric(f"{phase}_{chip}_j_per_sample", f"{title} {chip}", "J/sample", False, read, "energy")


def _cost(phase: str, title: str, throughput: RunMetric) -> RunMetric:
    return RunMetric(
        f"{phase}_cost_per_million",
        f"{title} cost",
        "per 1M",
        False,
        _hours_per_million(throughput),
        requires="pass the price of the machine with --price-per-hour PRICE",
        in_hours=True,
    )


def _power(phase: str, chip: str) -> RunMetric:
    read = _at(f"energy.{chip}.{phase}_w")
    reason = "power depends on speed; compare the energy per sample instead"
    return RunMetric(f"{phase}_{chip}_w", f"{phase} {chip}", "W", None, read, in_table=False, never_compared=reason)


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
    headline="throughput when fitting in one call",
    compared="by default",
)
"""Training throughput of models that are fitted in one call.

This metric is separate because it cannot be compared with `TRAIN_THROUGHPUT`. Each run has a value for only one of
these two metrics.
"""
MFU = RunMetric(
    "mfu_percent",
    "MFU",
    "%",
    True,
    _if_fitted(_mfu_percent, in_one_call=False),
    requires="to measure the device's peak, run `harness doctor --roofline` before the runs",
)
TRAIN_FLOPS = RunMetric(
    "train_gflop_per_s",
    "training FLOP/s",
    "GFLOP/s",
    True,
    _if_fitted(_at("speed.train_flops_per_s", 1e-9), in_one_call=False),
    in_table=False,
)
FIRST_STEP = RunMetric("first_step_s", "first training step", "s", False, _at("speed.first_step_s"), in_table=False)
WALL = RunMetric("wall_s", "whole process", "s", False, lambda record: record.wall_s, in_table=False)
PARAMETERS = RunMetric(
    "parameters",
    "trainable parameters",
    "",
    None,
    _at("model.parameters"),
    group="model",
    in_table=False,
    is_count=True,
    never_compared="the value is a property of the model",
)
FORWARD_FLOPS = RunMetric(
    "forward_flop_per_sample",
    "forward pass",
    "FLOP/sample",
    None,
    _at("model.flops_per_sample"),
    group="model",
    in_table=False,
    is_count=True,
    never_compared="the value is a property of the model",
)
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
RANK_PEAK = RunMetric("rank_peak_mib", "process peak", "MiB", False, _rank_peak_mib)
"""Peak host memory of a process in a multi-device run, in which each process uses one device."""
WORKER_PEAK = RunMetric(
    "worker_peak_mib", "worker peak", "MiB", False, _at("memory.host_peak_bytes", 2**-20), in_table=False
)


def _tuning(name: str, unit: str, field: str) -> RunMetric:
    def read(record: RunRecord) -> float | None:
        return None if record.tuning is None else float(getattr(record.tuning, field))

    reason = "it describes a tuning study, not a single run"
    return RunMetric(name, "tuning", unit, None, read, never_compared=reason, is_count=unit != "s")


METRICS = (
    TRAIN_THROUGHPUT,
    FIT_THROUGHPUT,
    INFERENCE_THROUGHPUT,
    _cost("train", "train", TRAIN_THROUGHPUT),
    _cost("inference", "infer.", INFERENCE_THROUGHPUT),
    MFU,
    RunMetric(
        "time_to_target_s",
        "to target",
        "s",
        False,
        _at("time_to_target.train_s"),
        never_compared="runs that missed the target have no value, so the remaining runs are a biased sample",
    ),
    _latency(50, headline="median latency", compared="by default"),
    _latency(90),
    _latency(99, compared="by default"),
    HOST_PEAK,
    RANK_PEAK,
    _peak("device", "device, allocator", "allocator_peak_bytes", headline="peak device memory", compared="by default"),
    _peak("reserved", "device, reserved", "reserved_peak_bytes"),
    _peak("driver", "device, driver", "driver_peak_bytes"),
    _energy("train", "train", "cpu"),
    _energy("inference", "infer.", "cpu"),
    _energy("train", "train", "gpu"),
    _energy("inference", "infer.", "gpu"),
    _tuning("tuning_trials", "trials", "trials"),
    _tuning("tuning_steps", "steps", "steps"),
    _tuning("tuning_s", "s", "seconds"),
    TRAIN_FLOPS,
    FIRST_STEP,
    WALL,
    WORKER_PEAK,
    *(_power(phase, chip) for chip in ("cpu", "gpu") for phase in ("train", "inference")),
    PARAMETERS,
    FORWARD_FLOPS,
)
"""Costs of a run, in the order of the comparison table's columns."""
_SCORES: dict[str, Any] = {"higher_is_better": None, "group": "score", "relative": False}
QUALITY = RunMetric(
    "quality",
    "quality",
    "",
    read=lambda record: success(record).scores.test.get(success(record).scores.primary),
    **_SCORES,
)
"""Primary metric of the run's task. `available` fills in the title, unit and direction."""
REFERENCE = RunMetric(
    "reference",
    "closed form",
    "",
    read=lambda record: (success(record).scores.reference or {}).get(success(record).scores.primary),
    **_SCORES,
)
"""Primary metric of the model's closed-form solution."""

BY_NAME = {metric.name: metric for metric in METRICS}
BY_FLAG = {metric.flag: metric for metric in METRICS if metric.flag}
HEADLINES = tuple(metric for metric in METRICS if metric.headline)


def in_group(group: str) -> tuple[RunMetric, ...]:
    """Return the metrics in a group, in the order of `METRICS`."""
    return tuple(metric for metric in METRICS if metric.group == group)


def at_price(price_per_hour: float | None) -> tuple[RunMetric, ...]:
    """Return `METRICS`, with `price_per_hour` set in the metrics that depend on the price."""
    return tuple(
        dataclasses.replace(metric, price_per_hour=price_per_hour) if metric.in_hours else metric for metric in METRICS
    )


def meaning(name: str, records: Iterable[RunRecord], metrics: Mapping[str, Metric]) -> MetricInfo | None:
    """Look up the definition of a score in the records of successful runs. For older records, use the definition in
    `metrics`. Return None if no definition is found, or if the records disagree on the direction.
    """
    known = [info for record in records if (info := _declared(name, record, metrics)) is not None]
    return known[0] if len({info.higher_is_better for info in known}) == 1 else None


def _declared(name: str, record: RunRecord, metrics: Mapping[str, Metric]) -> MetricInfo | None:
    """Look up the definition of a score in a record. If the record does not contain a title, the title in `metrics` is
    used."""
    info = success(record).scores.metrics.get(name)
    plugin = info_of(metrics[name], record.provenance.data) if name in metrics else None
    if info is None or info.summary or plugin is None:
        return info or plugin
    return msgspec.structs.replace(info, title=plugin.title, summary=plugin.summary, in_tables=plugin.in_tables)


def score(name: str, info: MetricInfo | None) -> RunMetric:
    """Return a `RunMetric` for the test score `name`. `info` is the definition of the score, or None if it is not
    known."""
    return RunMetric(
        name,
        info.title if info is not None and info.summary else readable(name),
        info.unit if info else "",
        info.higher_is_better if info else None,
        lambda record: success(record).scores.test.get(name),
        group="score",
        relative=False,
        score=name,
    )


def rates(records: Iterable[RunRecord]) -> list[RunMetric]:
    """Return the training and inference throughput metrics of these successful runs in task-specific units, such as
    tokens per second."""
    data = (record.provenance.data for record in records)
    names = dict.fromkeys(info.counts for info in data if info is not None and info.counts)
    return [
        _rate(throughput, split, counts)
        for counts in names
        for throughput, split in ((TRAIN_THROUGHPUT, "train"), (INFERENCE_THROUGHPUT, "test"))
    ]


def _rate(throughput: RunMetric, split: str, counts: str) -> RunMetric:
    """Return a metric that multiplies throughput in samples per second by the mean count per example in a split.

    The counts exclude padding.
    """

    def read(record: RunRecord) -> float | None:
        info, samples_per_s = record.provenance.data, throughput.value(record)
        if info is None or info.counts != counts or samples_per_s is None:
            return None
        facts = info.splits[split]
        return samples_per_s * facts.counted / facts.examples

    name = f"{throughput.title}_{counts}_per_s"
    return RunMetric(name, throughput.title, f"{counts.replace('_', ' ')}/s", True, read)


def available(
    records: Sequence[RunRecord], metrics: Mapping[str, Metric], price_per_hour: float | None = None
) -> dict[str, RunMetric]:
    """Return all metrics that successful runs of one task may have, keyed by name. Scores come first. `metrics`
    contains the metrics from plugins, and is needed only for scores in older records.
    """
    primaries = {success(record).scores.primary for record in records}
    names = dict.fromkeys(name for record in records for name in success(record).scores.test)
    scores = [
        dataclasses.replace(
            score(name, meaning(name, records, metrics)),
            per_example=metrics[name].per_example if name in metrics else "",
        )
        for name in dict.fromkeys((*names, *primaries))
    ]
    primary = next((metric for metric in scores if {metric.name} == primaries), None)
    if primary is not None:
        unit, better = primary.unit, primary.higher_is_better
        scores += [
            dataclasses.replace(
                QUALITY,
                title=primary.title,
                unit=unit,
                higher_is_better=better,
                score=primary.name,
                per_example=primary.per_example,
            ),
            dataclasses.replace(REFERENCE, unit=unit, higher_is_better=better),
        ]
    return {metric.name: metric for metric in (*rates(records), *scores, *at_price(price_per_hour))}


def comparable(
    sides: Sequence[Sequence[RunRecord]], catalog: Catalog, price_per_hour: float | None = None
) -> dict[str, RunMetric]:
    """Return the metrics that have a value in each set of runs. All runs must be successful runs of one task.

    Scores are listed before costs.
    """
    records = [record for side in sides for record in side]
    if not records:
        return {}
    plugins = {name: provided.value for name, provided in catalog.metrics.items()}
    return {
        name: metric
        for name, metric in available(records, plugins, price_per_hour).items()
        if not metric.never_compared and all(any(metric.value(run) is not None for run in side) for side in sides)
    }


def unranked_note(names: Iterable[str]) -> str:
    """Return a note about metrics with an unknown direction, for use in reports."""
    return (
        f"{', '.join(names)}: not ranked, because it is unknown whether higher values are better. Either "
        "the records contradict each other, or neither the records nor the loaded plugins define the direction."
    )


def named_with_unit(name: str, unit: str) -> str:
    """Return the name of a metric, followed by its unit unless the name already ends with the unit."""
    return f"{name} ({unit})" if unit and name not in BY_NAME else name
