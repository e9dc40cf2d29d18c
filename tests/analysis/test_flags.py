"""Tests of the flags of runs and rows, including those that are derived from the record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import MIB, record, success
from strategies import records as any_records

from harness.analysis.comparison_table import build_table
from harness.analysis.contradictions import FACTOR, Batches, of_values
from harness.analysis.flags import run_flags
from harness.analysis.table import Row
from harness.records import (
    DataInfo,
    DeviceMemory,
    EpochEnded,
    Flag,
    Memory,
    MetricInfo,
    Roofline,
    RunRecord,
    Success,
    TimeToTarget,
)

replace = msgspec.structs.replace


def kinds(run: RunRecord) -> list[tuple[str, str]]:
    return [(flag.columns[0], flag.kind) for flag in run_flags(run)]


def row(runs: list[RunRecord]) -> Row:
    (found,) = build_table(runs).rows
    return found


def test_sample_record_has_no_flags() -> None:
    assert kinds(record()) == []


@pytest.mark.parametrize(("batch_size", "p50_ms"), [(64, 16.0), (64, 8.0), (10, 2.5), (1, 0.25)])
@pytest.mark.parametrize(
    ("factor", "contradicts"), [(0.4, True), (0.49, True), (0.51, False), (1.9, False), (2.1, True)]
)
def test_throughput_and_latency_apart_by_more_than_two_contradict(
    batch_size: int, p50_ms: float, factor: float, contradicts: bool
) -> None:
    made = success(inference=factor * 1e3 * batch_size / p50_ms, p50_ms=p50_ms, p90_ms=20.0)
    made = replace(made, latency=replace(made.latency, batch_size=batch_size))
    found = [flag for flag in run_flags(record(made)) if "latency_p50_ms" in flag.columns]
    assert [(flag.columns, flag.kind) for flag in found] == [
        (("inference_samples_per_s", "latency_p50_ms"), "contradiction with latency_p50_ms")
    ] * contradicts
    if contradicts:
        assert f"a batch of {batch_size} examples" in found[0].detail
        assert f"{p50_ms:.4g} ms according to the median latency" in found[0].detail


def test_latency_without_a_median_contradicts_nothing() -> None:
    assert kinds(record(success(inference=1e9, p50_ms=None, p90_ms=None))) == []


def test_old_record_is_flagged_too() -> None:
    # A record without any field that was added with this flag.
    values = msgspec.to_builtins(record(success(inference=100.0)))
    del values["outcome"]["speed"]["by_steps"]
    old = msgspec.convert(values, RunRecord)
    assert ("inference_samples_per_s", "contradiction with latency_p50_ms") in kinds(old)


def test_contradiction_marks_both_columns_and_counts_runs() -> None:
    runs = [record(success(inference=rate), seed=seed) for seed, rate in enumerate((5000.0, 5100.0, 1000.0))]
    found = row(runs)
    assert found.text("flags") == "inference_samples_per_s: contradiction with latency_p50_ms (1 of 3 runs)"
    marked = {name for name, cell in found.cells.items() if cell.flagged}
    assert marked == {"inference_samples_per_s", "latency_p50_ms"}


def test_means_of_a_row_contradict_although_no_run_does() -> None:
    # Only the slow run has enough samples for a median.
    runs = [
        record(success(inference=3000.0, p50_ms=40.0, p90_ms=41.0)),
        record(success(inference=90000.0, p50_ms=None, p90_ms=None), seed=1),
    ]
    assert [kinds(run) for run in runs] == [[], []]
    assert "inference_samples_per_s: contradiction with latency_p50_ms (according to the means in this row)" in row(
        runs
    ).text("flags")


def peaks(allocator: int | None, reserved: int | None, driver: int | None) -> Success:
    memory = DeviceMemory(allocator_peak_bytes=allocator, reserved_peak_bytes=reserved, driver_peak_bytes=driver)
    return success(device=memory)


THROUGHPUT_AND_LATENCY = ("inference_samples_per_s", "contradiction with latency_p50_ms")
TRAINING_AND_INFERENCE = ("train_samples_per_s", "contradiction with inference_samples_per_s")


def with_speed(**changes: Any) -> Success:
    made = success()
    return replace(made, speed=replace(made.speed, **changes))


def scored(accuracy: float) -> Success:
    made = success(accuracy)
    meaning = {"accuracy": MetricInfo(higher_is_better=True, bounds=(0.0, 1.0))}
    return replace(made, scores=replace(made.scores, metrics=meaning))


def reached(train_s: float) -> Success:
    """Return an outcome with 100 steps of 64 examples at 1000 examples per second, which should take 6.4 s."""
    epochs = [
        EpochEnded(epoch=n, epochs=2, step=50 * n + 1, train_s=train_s * n / 2, train_loss=1, validation={})
        for n in (1, 2)
    ]
    target = TimeToTarget(metric="accuracy", target=0.5, train_s=train_s, epoch=2)
    return replace(success(), curves=epochs, time_to_target=target)


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (success(p50_ms=12.0, p90_ms=11.0), [("latency_p50_ms", "value above latency_p90_ms")]),
        (success(p50_ms=12.0, p90_ms=14.0, p99_ms=13.0), [("latency_p90_ms", "value above latency_p99_ms")]),
        (success(p50_ms=12.0, p90_ms=12.0, p99_ms=12.0), []),
        (peaks(21, 32, 460), []),
        (peaks(32, 32, 32), []),
        (peaks(33 * MIB, 32 * MIB, None), [("device_peak_mib", "value above reserved_peak_mib")]),
        (peaks(21 * MIB, None, 20 * MIB), [("device_peak_mib", "value above driver_peak_mib")]),
        (peaks(None, 21 * MIB, 20 * MIB), [("reserved_peak_mib", "value above driver_peak_mib")]),
        (success(train=8100.0), [("train_samples_per_s", "contradiction with inference_samples_per_s")]),
        (success(train=7900.0), []),
        (with_speed(first_step_s=0.031), [("train_samples_per_s", "contradiction with the first step")]),
        (with_speed(first_step_s=0.033), []),
        (with_speed(first_step_s=0.0), []),
        (reached(0.5 + 3.1), [("time_to_target_s", "contradiction with train_samples_per_s")]),
        (reached(0.5 + 3.3), []),
        (reached(0.5 + 12.7), []),
        (reached(0.5 + 12.9), [("time_to_target_s", "contradiction with train_samples_per_s")]),
        (reached(0.5 + 0.9), []),  # too short for a comparison
        (success(host_mib=8 * 2**10 + 1), [("host_peak_mib", "value above the machine's memory")]),
        (success(host_mib=8 * 2**10), []),
        (success(inference=0.0), [("inference_samples_per_s", "value of zero")]),
        (success(p50_ms=-3.0), [("latency_p50_ms", "negative value"), THROUGHPUT_AND_LATENCY]),
        (success(train=-1.0), [("train_samples_per_s", "negative value"), TRAINING_AND_INFERENCE]),
        (scored(1.0), []),
        (scored(1.5), [("quality", "accuracy outside its bounds")]),
        (scored(-0.1), [("quality", "accuracy outside its bounds")]),
    ],
)
def test_impossible_figures_are_flagged(outcome: Success, found: list[tuple[str, str]]) -> None:
    assert kinds(record(outcome)) == found


@pytest.mark.parametrize(("flops_per_s", "found"), [(0.9e9, []), (1.1e9, [("mfu_percent", "value above 100%")])])
def test_more_flops_than_the_roofline_are_flagged(flops_per_s: float, found: list[tuple[str, str]]) -> None:
    peak = Roofline(
        backend="torch",
        device="cpu",
        precision="fp32",
        threads=1,
        hardware="CPU",
        versions={},
        matrix_flops_per_s=1e9,
        copy_bytes_per_s=1e9,
        measured_at="2026-01-01T00:00:00Z",
    )
    run = replace(record(with_speed(train_flops_per_s=flops_per_s)), roofline=peak)
    assert kinds(run) == found


@given(any_records)
def test_flags_of_any_record_have_columns(run: RunRecord) -> None:
    if isinstance(run.outcome, Success):
        names = {column.name for column in build_table([run]).columns}
        for flag in run_flags(run):
            assert set(flag.columns) <= names


positive = st.floats(1e-6, 1e9)


@given(positive, positive, st.integers(1, 10_000))
def test_contradiction_does_not_depend_on_the_unit_of_time(rate: float, p50_ms: float, batch_size: int) -> None:
    def found(speedup: float) -> list[str]:
        values: Mapping[str, float] = {"inference_samples_per_s": rate * speedup, "latency_p50_ms": p50_ms / speedup}
        return [flag.kind for flag in of_values(values, Batches(batch_size, batch_size))]

    ratio = rate * p50_ms / (1e3 * batch_size)
    if min(abs(ratio - FACTOR), abs(ratio - 1 / FACTOR)) > 1e-9 * ratio:
        assert found(1) == found(8) == ["contradiction with latency_p50_ms"] * (not 1 / FACTOR <= ratio <= FACTOR)


# ---- host memory --------------------------------------------------------------------------------------------


def with_children(own_mib: int, tree_mib: int | None) -> Success:
    memory = Memory(
        host_peak_bytes=own_mib * MIB,
        host_peak_by_phase_bytes={"train": own_mib * MIB},
        host_counter="VmHWM",
        tree_peak_bytes=None if tree_mib is None else tree_mib * MIB,
    )
    return replace(success(), memory=memory)


@pytest.mark.parametrize(
    ("tree_mib", "shown", "flags"),
    [
        (None, 400.0, ""),
        (350, 400.0, ""),  # the phase with the largest peak had no child processes
        (1000, 1000.0, "host_peak_mib: child processes, 400.0 MiB for the worker alone"),
    ],
)
def test_host_peak_includes_child_processes(tree_mib: int | None, shown: float, flags: str) -> None:
    found = row([record(with_children(400, tree_mib))])
    assert (found.cells["host_peak_mib"].value, found.text("flags")) == (shown, flags)
    assert found.cells["host_peak_mib"].flagged == bool(flags)


def test_both_figures_of_host_memory_are_shown_for_a_run() -> None:
    (flag,) = run_flags(record(with_children(400, 1000)))
    assert "1000.0 MiB is an upper bound" in flag.detail
    assert "the worker alone used 400.0 MiB" in flag.detail


# ---- incomplete rows ----------------------------------------------------------------------------------------


def hit(train_s: float | None) -> Success:
    target = TimeToTarget(metric="accuracy", target=0.5, train_s=train_s, epoch=None if train_s is None else 1)
    return replace(success(), time_to_target=target)


@pytest.mark.parametrize(
    ("times", "mean", "flags"),
    [
        ([1.0, 1.25], 1.125, ""),
        ([1.0, None], None, "time_to_target_s: the target was reached in 1 of 2 runs"),
        ([None, None], None, "time_to_target_s: the target was reached in 0 of 2 runs"),
    ],
)
def test_time_to_target_that_a_run_missed_has_no_mean(
    times: list[float | None], mean: float | None, flags: str
) -> None:
    found = row([record(hit(time), seed=seed) for seed, time in enumerate(times)])
    assert (found.cells["time_to_target_s"].value, found.text("flags")) == (mean, flags)
    assert not found.cells["time_to_target_s"].flagged


def test_mean_over_some_of_the_runs_is_flagged() -> None:
    runs = [record(success(p99_ms=p99), seed=seed) for seed, p99 in enumerate((15.0, None, 17.0))]
    found = row(runs)
    assert found.text("flags") == "latency_p99_ms: mean over 2 of 3 runs; the others have no value"
    assert (found.cells["latency_p99_ms"].value, found.cells["latency_p99_ms"].flagged) == (16.0, True)
    assert not row(runs[1:2]).cells["latency_p99_ms"].flagged


# ---- several targets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "flags", "unit"),
    [
        ("m, kg", "rmse: mean over 2 targets of different units", ""),
        ("", "rmse: mean over 2 targets whose units are not known", ""),
        ("m", "", "m"),
    ],
)
def test_mean_over_targets_of_different_units_is_flagged(stated: str, flags: str, unit: str) -> None:
    info = DataInfo(kind="features", inputs={}, objective="regression", outputs=2, details={"target_unit": stated})
    run = record(success(5.0, primary="rmse", reference={"rmse": 4.0}))
    found = row([replace(run, provenance=replace(run.provenance, data=info))])
    assert (found.text("flags"), found.text("metric_unit")) == (flags, unit)
    assert found.cells["quality"].flagged == found.cells["reference"].flagged == bool(flags)
    assert not found.cells["r2"].flagged


# ---- models fitted in one call ------------------------------------------------------------------------------


def test_recorded_flag_of_a_fit_is_listed_under_its_rate() -> None:
    drift = Flag(metric="train_throughput", kind="other_load", detail="x")
    made = success(flags=[drift])
    assert kinds(record(made)) == [("train_samples_per_s", "other load")]
    fitted = replace(made, speed=replace(made.speed, by_steps=False, first_step_s=5.0))
    assert kinds(record(fitted)) == [("fit_samples_per_s", "other load")]


def test_first_fit_is_compared_with_later_ones() -> None:
    # 800 examples at 1000 per second: a fit takes 0.8 s.
    def fit(first_step_s: float) -> RunRecord:
        return record(with_speed(by_steps=False, first_step_s=first_step_s))

    assert kinds(fit(0.3)) == [("fit_samples_per_s", "contradiction with the first step")]
    assert kinds(fit(0.5)) == []


def test_row_of_quality_only_runs_has_scores_but_no_costs() -> None:
    timed, quality = record(), replace(record(seed=1), quality_only=True)
    only, mixed = row([quality]), row([timed, quality])
    assert only.text("quality")
    assert not any(only.text(name) for name in ("train_samples_per_s", "latency_p50_ms", "host_peak_mib"))
    assert only.text("flags") == "quality only: speed and memory were not measured"
    assert mixed.cells["train_samples_per_s"].value == 1000.0
    assert mixed.text("flags") == "quality only: 1 of 2 runs: speed and memory were not measured"
