"""Conversion of raw measurements into the medians, percentiles and flags in a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.records import (
    CheckpointUse,
    DeviceMemory,
    Energy,
    EpochEnded,
    Flag,
    Latency,
    Memory,
    ModelInfo,
    Protocol,
    Speed,
    Steady,
    TimeToTarget,
)

if TYPE_CHECKING:
    from harness.measure.inference import Inference
    from harness.measure.machine import Machine, Reading
    from harness.measure.memory import PhaseMemory
    from harness.measure.timed import Timed


class MeasuredThroughput(NamedTuple):
    """A throughput measurement, with the changes in the machine's counters during the measurement."""

    samples_per_s: float
    steady: Steady
    flags: list[Flag]
    passed: Reading
    """Changes in the machine's counters during the steady state."""
    samples: int
    """Number of samples in the steady state."""


def throughput(
    metric: Literal["train_throughput", "inference_throughput"],
    timed: Timed,
    batch_size: int,
    protocol: Protocol,
    machine: Machine,
) -> MeasuredThroughput:
    """Return the median throughput in the steady state.

    Flags indicate conditions that make the throughput unreliable.
    """
    from harness.measure.steady import summary, suspicions

    rate, steady = summary(timed.windows, batch_size, protocol)
    passed = timed.passed(steady.warmup_windows)
    suspected = [*suspicions(timed.windows, protocol), *machine.suspicions(passed)]
    flags = [Flag(metric=metric, kind=kind, detail=detail) for kind, detail in suspected]
    count = sum(window.batches for window in timed.windows[steady.warmup_windows :])
    return MeasuredThroughput(rate, steady, flags, passed, count * batch_size)


def interruptions(checkpoints: CheckpointUse | None) -> list[Flag]:
    """Return a flag for the training throughput if training was interrupted."""
    if checkpoints is None or not checkpoints.resumed_at:
        return []
    times = len(checkpoints.resumed_at)
    detail = (
        f"training was interrupted {'once' if times == 1 else f'{times} times'} and resumed after "
        f"{', '.join(map(str, checkpoints.resumed_at))} steps; the peak memory is that of the last process"
    )
    return [Flag(metric="train_throughput", kind="resumed", detail=detail)]


def energy(train: MeasuredThroughput | None, inference: MeasuredThroughput, machine: Machine) -> Energy:
    from harness.measure.machine import Reading

    passed, samples = (Reading(), 0) if train is None else (train.passed, train.samples)
    return machine.energy(passed, samples, inference.passed, inference.samples)


def speed(
    first_step_s: float | None,
    train: MeasuredThroughput | None,
    inference: MeasuredThroughput,
    info: ModelInfo,
    *,
    by_steps: bool | None,
) -> Speed:
    """Return the speed of a run.

    If `by_steps` is false, the model has no backward pass, and its training FLOPs are not counted. `first_step_s`,
    `train` and `by_steps` are None if the run did not train.
    """
    return Speed(
        train_samples_per_s=None if train is None else train.samples_per_s,
        inference_samples_per_s=inference.samples_per_s,
        first_step_s=first_step_s,
        train=None if train is None else train.steady,
        inference=inference.steady,
        train_flops_per_s=train.samples_per_s * 3 * info.flops_per_sample if train is not None and by_steps else None,
        by_steps=by_steps,
    )


def no_speed(*, by_steps: bool | None) -> Speed:
    """Return the speed of a quality-only run, with all measurements set to None."""
    return Speed(
        train_samples_per_s=None,
        inference_samples_per_s=None,
        first_step_s=None,
        train=None,
        inference=None,
        by_steps=by_steps,
    )


def latency(timed: Inference) -> Latency:
    from harness.measure.stats import percentile

    samples_ms = [1e3 * seconds for seconds in timed.latencies_s]
    return Latency(
        batch_size=timed.batch_size,
        samples=len(samples_ms),
        p50_ms=percentile(samples_ms, 50),
        p90_ms=percentile(samples_ms, 90),
        p99_ms=percentile(samples_ms, 99),
    )


NOT_COUNTED = ("prepare", "checkpoint")
"""Phases excluded from a run's peak memory, because not all runs have these phases."""


def memory(phases: PhaseMemory, device: DeviceMemory | None) -> Memory:
    tree = phases.by_phase_bytes | phases.tree_by_phase_bytes if phases.tree_by_phase_bytes else {}

    def largest(peaks: dict[str, int]) -> int | None:
        return max((peak for name, peak in peaks.items() if name not in NOT_COUNTED), default=None)

    return Memory(
        host_peak_bytes=largest(phases.by_phase_bytes) or 0,
        host_peak_by_phase_bytes=phases.by_phase_bytes,
        host_counter=phases.counter,
        tree_peak_bytes=largest(tree),
        device=device,
    )


def time_to_target(curves: Sequence[EpochEnded], metric: str, target: float, *, higher_is_better: bool) -> TimeToTarget:
    """Return the training time until the end of the first epoch whose validation score reaches the target."""
    for epoch in curves:
        score = epoch.validation.get(metric)
        if score is not None and (score >= target if higher_is_better else score <= target):
            return TimeToTarget(metric=metric, target=target, train_s=epoch.train_s, epoch=epoch.epoch)
    return TimeToTarget(metric=metric, target=target, train_s=None, epoch=None)
