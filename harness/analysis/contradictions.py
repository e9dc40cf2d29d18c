"""Detection of impossible or contradictory values in runs and in rows of tables.

The rules use the values shown in the tables, and therefore also apply to records from older versions. Two durations
that should be equal may differ by a factor of up to `FACTOR`, because they were measured at different times and the
speed of a machine varies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.analysis.metrics import BY_NAME, fitted_in_one_call, success
from harness.measure.quality.call import ROUNDING, shown_bounds
from harness.records import RunRecord

FACTOR = 2.0
"""Maximum ratio between two measured durations of the same work. For example, the duration of a batch is derived from
both the throughput and the latency."""
MIN_TRAINING_S = 1.0
"""Minimum training duration, in seconds. The training time is compared with the throughput only if training took at
least this long."""
_ORDERED = (
    ("latency_p50_ms", "latency_p90_ms"),
    ("latency_p50_ms", "latency_p99_ms"),
    ("latency_p90_ms", "latency_p99_ms"),
    ("device_peak_mib", "reserved_peak_mib"),
    ("device_peak_mib", "driver_peak_mib"),
    ("reserved_peak_mib", "driver_peak_mib"),
)
"""Pairs of columns. A value in the first column cannot be larger than the value in the second column."""

Values = Mapping[str, float | None]
"""Values by column. A missing value may be None or absent."""


class RunFlag(NamedTuple):
    """A reason why values of a run or a row may be unreliable."""

    columns: tuple[str, ...]
    """Columns of the comparison table that contain the unreliable values. The flag is listed under the first column."""
    kind: str
    """Short description, such as ``drift`` or ``contradiction with latency_p50_ms``."""
    detail: str
    """Detailed description, including the values."""


class Batches(NamedTuple):
    """Number of examples in a training step, and number of examples in a timed inference batch."""

    train: int
    inference: int


def of_run(record: RunRecord) -> Iterator[RunFlag]:
    """Yield the contradictions in the values of a successful run."""
    values = {name: metric.value(record) for name, metric in BY_NAME.items()}
    batches = batches_of(record)
    yield from _outside_bounds(record, values)
    yield from of_values(values, batches)
    yield from _first_step(record, values, batches)
    yield from _training_time(record, values, batches)
    yield from _host_memory(record)


def _outside_bounds(record: RunRecord, values: Values) -> Iterator[RunFlag]:
    """Yield a flag for each impossible value: a negative cost, a rate or duration of zero, or a score outside its
    recorded bounds."""
    for name, value in values.items():
        if not BY_NAME[name].in_table:  # a flag refers to a column
            continue
        never_zero = name.endswith("_samples_per_s") or name.startswith("latency_")
        if value is not None and (value < 0 or (value == 0 and never_zero)):
            kind = "negative value" if value < 0 else "value of zero"
            yield RunFlag((name,), kind, f"{value:.4g} {BY_NAME[name].unit} is not a possible measurement")
    scores = success(record).scores
    for name, info in scores.metrics.items():
        value, (low, high) = scores.test.get(name), info.bounds
        if value is not None and (
            (low is not None and value < low - ROUNDING) or (high is not None and value > high + ROUNDING)
        ):
            detail = f"{name} is {value:.4g}, but it must be {shown_bounds(info.bounds)}"
            yield RunFlag(("quality",), f"{name} outside its bounds", detail)


def batches_of(record: RunRecord) -> Batches:
    """Return the batch sizes of a successful run. If a model is fitted in one call, the whole training split is treated
    as one batch."""
    outcome, examples = success(record), success(record).examples.get("train", record.spec.recipe.batch_size)
    train = examples if fitted_in_one_call(record) else min(record.spec.recipe.batch_size, examples)
    return Batches(train, outcome.latency.batch_size)


def of_values(values: Values, batches: Batches) -> Iterator[RunFlag]:
    """Yield the contradictions between values in different columns. The values may be means over the runs of a row."""
    train_s = _seconds(values.get("train_samples_per_s"), batches.train)
    inference_s = _seconds(values.get("inference_samples_per_s"), batches.inference)
    p50_ms = values.get("latency_p50_ms")
    if inference_s and p50_ms and not 1 / FACTOR <= 1e3 * inference_s / p50_ms <= FACTOR:
        yield RunFlag(
            ("inference_samples_per_s", "latency_p50_ms"),
            "contradiction with latency_p50_ms",
            f"a batch of {batches.inference} examples takes {1e3 * inference_s:.4g} ms according to the throughput, "
            f"but {p50_ms:.4g} ms according to the median latency"
            + ("" if 1e3 * inference_s > p50_ms else ", which includes the transfer of all outputs"),
        )
    if train_s and inference_s and batches.train >= batches.inference and FACTOR * train_s < inference_s:
        yield RunFlag(
            ("train_samples_per_s", "inference_samples_per_s"),
            "contradiction with inference_samples_per_s",
            f"a training step on {batches.train} examples takes {1e3 * train_s:.4g} ms, but inference on "
            f"{batches.inference} examples takes {1e3 * inference_s:.4g} ms, although a training step "
            "includes inference",
        )
    for lower, upper in _ORDERED:
        low, high = values.get(lower), values.get(upper)
        if low is not None and high is not None and low > high:
            unit = BY_NAME[lower].unit
            yield RunFlag(
                (lower, upper),
                f"value above {upper}",
                f"{low:.4g} {unit} exceeds {upper} ({high:.4g} {unit}), which is an upper bound",
            )
    mfu = values.get("mfu_percent")
    if mfu is not None and mfu > 100:
        yield RunFlag(
            ("mfu_percent",),
            "value above 100%",
            f"{mfu:.4g}% of the peak measured by `harness doctor --roofline`; either the peak was measured "
            "under different conditions, or the model overestimates its FLOPs",
        )


def _seconds(samples_per_s: float | None, batch_size: int) -> float | None:
    """Return the batch duration implied by a throughput value."""
    return batch_size / samples_per_s if samples_per_s else None


def _first_step(record: RunRecord, values: Values, batches: Batches) -> Iterator[RunFlag]:
    """Yield a contradiction if later steps took longer than the first step, although the first step includes one-time
    costs."""
    first_s = success(record).speed.first_step_s
    for name in ("train_samples_per_s", "fit_samples_per_s"):
        step_s = _seconds(values[name], batches.train)
        if step_s and first_s and first_s > 0 and step_s > FACTOR * first_s:
            yield RunFlag(
                (name,),
                "contradiction with the first step",
                f"a training step takes {step_s:.4g} s in steady state, but the first step took only "
                f"{first_s:.4g} s, although it includes compilation and allocation",
            )


def _training_time(record: RunRecord, values: Values, batches: Batches) -> Iterator[RunFlag]:
    """Yield a contradiction if the time to target does not match the number of steps and the measured throughput."""
    outcome = success(record)
    step_s = _seconds(values["train_samples_per_s"], batches.train)
    reached_s, reached = values["time_to_target_s"], outcome.time_to_target
    first_s = outcome.speed.first_step_s
    if not step_s or reached_s is None or reached is None or first_s is None:
        return
    steps = next((epoch.step for epoch in outcome.curves if epoch.epoch == reached.epoch), 0) - 1
    actual_s, expected_s = reached_s - first_s, steps * step_s
    if steps > 0 and actual_s >= MIN_TRAINING_S and not 1 / FACTOR <= actual_s / expected_s <= FACTOR:
        yield RunFlag(
            ("time_to_target_s", "train_samples_per_s"),
            "contradiction with train_samples_per_s",
            f"the {steps} steps after the first one took {actual_s:.4g} s, but should have taken "
            f"{expected_s:.4g} s at the measured throughput",
        )


def _host_memory(record: RunRecord) -> Iterator[RunFlag]:
    """Yield a contradiction if the process used more memory than the machine has."""
    peak, total = success(record).memory.host_peak_bytes, record.environment.memory_bytes
    if 0 < total < peak:
        yield RunFlag(
            ("host_peak_mib",),
            "value above the machine's memory",
            f"{peak / 2**20:.4g} MiB is more than the {total / 2**20:.4g} MiB of the machine",
        )
