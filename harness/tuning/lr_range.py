"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3).

A model is trained with a learning rate that increases exponentially. The loss decreases while the learning rate is in
the useful range, and diverges at higher learning rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from harness.errors import CombinationError, HarnessError, RecordError, UsageError
from harness.execute.attempt import utc_now
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import opened_session, prepare, starting_weights
from harness.execute.teacher import provide_logits
from harness.execute.variables import child_environment
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import Failure, PluginRef, RunSpec
from harness.records.files import make_directory
from harness.records.store import write_json
from harness.tuning.study import FOLDER

STEPS = 100
"""Number of steps of a range test, as in the fastai library."""
SMOOTHING = 0.9
"""Decay rate of the moving average of the loss."""
DIVERGED = 4.0
"""The test ends when the moving average of the loss exceeds this multiple of its minimum, as in the fastai library."""
DECREASE = 0.1
"""The useful range begins where the loss has fallen by this fraction of its total decrease."""
DEFAULT = "1e-6:1"


class LrRange(Struct, frozen=True, kw_only=True):
    """Result of a learning-rate range test."""

    schema_version: int = 1
    spec: RunSpec
    started_at: str
    """Start time in UTC, in the format of `RunRecord.started_at`."""
    low: float
    """Learning rate of the first step."""
    high: float
    """Learning rate of the last planned step."""
    rates: list[float]
    """Learning rate of each step. The test ends early if the loss diverges."""
    losses: list[float]
    """Loss of each step."""
    smoothed: list[float]
    """Exponential moving average of the losses, with bias correction."""
    useful: tuple[float, float] | None
    """Range of learning rates in which the loss decreased, or None if the loss did not decrease."""


class RangeJob(Struct, frozen=True, kw_only=True):
    """Input of a child process that executes a range test."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    low: float
    high: float


class Measured(Struct, frozen=True, kw_only=True):
    """Result of the child process."""

    rates: list[float]
    losses: list[float]


def parse_range(text: str) -> tuple[float, float]:
    """Return the bounds of a learning-rate range such as ``1e-6:1``. Raises `harness.UsageError`."""
    low, colon, high = text.partition(":")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = math.nan, math.nan
    if not (colon and 0 < ends[0] < ends[1] < math.inf):
        raise UsageError(f"invalid range of learning rates {text!r}; write it as low:high, such as {DEFAULT}")
    return ends


def check(spec: RunSpec, catalog: Catalog) -> None:
    """Raise `harness.CombinationError` if the backend does not train in steps."""
    if not catalog.backend(spec.backend).trains_by_steps:
        raise CombinationError(
            f"backend {spec.backend!r} does not train in steps and has no learning rate; choose another backend"
        )


def range_test(spec: RunSpec, catalog: Catalog, low: float, high: float, *, timeout_s: float) -> LrRange:
    """Execute a range test in a child process. The validation and test splits are not used.

    Raises `harness.HarnessError` if the child process fails.
    """
    started_at = utc_now()
    provide_logits([spec], catalog)
    measured = call_in_child(
        measure,
        RangeJob(spec=spec, plugins=catalog.refs_for(spec), low=low, high=high),
        timeout_s=timeout_s,
        environment=child_environment(spec),
        limit_option="--timeout",
        interpreter=interpreter(spec.env),
    )
    if isinstance(measured, Failure):
        raise HarnessError(f"the learning-rate range test failed: {measured.kind}: {measured.message}")
    smoothed = moving_average(measured.losses)
    return LrRange(
        spec=spec,
        started_at=started_at,
        low=low,
        high=high,
        rates=measured.rates,
        losses=measured.losses,
        smoothed=smoothed,
        useful=useful_range(measured.rates, smoothed),
    )


def measure(job: RangeJob, context: ChildContext) -> Measured:
    """Train with an increasing learning rate until the loss diverges or all steps are completed."""
    from harness.data.batches import training_batches

    prepared = prepare(job.spec, job.plugins)
    data, recipe = prepared.data, job.spec.recipe
    weights, _ = starting_weights(prepared)
    rates: list[float] = []
    losses: list[float] = []
    with opened_session(prepared, weights) as session:
        batches = (
            batch
            for epoch in range(1, STEPS + 1)
            for batch in training_batches(data.train, recipe.batch_size, job.spec.seed, epoch, data.augment)
        )
        for step, batch in zip(range(STEPS), batches, strict=False):
            rate = job.low * (job.high / job.low) ** (step / (STEPS - 1))
            loss = float(session.fetch(session.train_step(batch, rate)))
            if not math.isfinite(loss):
                break
            rates.append(rate)
            losses.append(loss)
            smoothed = moving_average(losses)
            if smoothed[-1] > DIVERGED * min(smoothed):
                break
    return Measured(rates=rates, losses=losses)


def moving_average(losses: Sequence[float]) -> list[float]:
    """Return the exponential moving average of the losses. The average after t losses is divided by 1 - SMOOTHING^t to
    correct its bias."""
    average, averages = 0.0, []
    for number, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        averages.append(average / (1 - SMOOTHING**number))
    return averages


def useful_range(rates: Sequence[float], smoothed: Sequence[float]) -> tuple[float, float] | None:
    """Return the range of learning rates in which the loss decreased, or None if the loss did not decrease. The range
    begins where the moving average of the loss has fallen by the fraction `DECREASE` of its total decrease. The range
    ends where the moving average reaches its minimum.
    """
    if not smoothed:
        return None
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    start = max(smoothed[: lowest + 1])
    threshold = start - DECREASE * (start - smoothed[lowest])
    top = smoothed.index(start)
    first = next((place for place in range(top, lowest + 1) if smoothed[place] <= threshold), lowest)
    return (rates[first], rates[lowest]) if first < lowest else None


def save(result: LrRange, results: Path, plot: bytes) -> Path:
    """Write the result and its plot (SVG) to the results directory, and return the path of the plot.

    Raises `harness.RecordError` if the files cannot be written.
    """
    spec = result.spec
    stem = f"lr-range-{spec.stem}-s{spec.seed}-{spec.key[:8]}"
    folder = results / FOLDER
    try:
        results.mkdir(parents=True, exist_ok=True)
        make_directory(folder)
        write_json(folder / f"{stem}.json", result)
        path = folder / f"{stem}.svg"
        from harness.records.files import write_whole

        write_whole(path, plot)
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written: {error.strerror}") from None
    return path
