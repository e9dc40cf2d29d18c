"""Tests that the rate of a fit in one call is never compared with the rate of training steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sample_records import record, success
from sample_store import report_of, write

from harness.analysis.compare.judge import compare_all
from harness.analysis.compare.match import match
from harness.analysis.comparison_table import build_table
from harness.analysis.history import histories
from harness.analysis.metrics import FIT_THROUGHPUT, MFU, TRAIN_THROUGHPUT, fitted_in_one_call
from harness.plugins import load
from harness.records import EnergyUse, EpochEnded, Recipe, Roofline, RunRecord, Success
from harness.records.store import Store
from harness.report.best import best
from harness.report.plots.points import panels, pareto, ratios
from harness.report.pytest_benchmark import render
from harness.report.site.overview import contests

replace = msgspec.structs.replace
CATALOG = load([])
RATES = ("train_samples_per_s", "fit_samples_per_s", "inference_samples_per_s")


def fit(rate: float = 50_000.0, *, by_steps: bool | None = False, **changes: Any) -> RunRecord:
    """Return the record of a model that was fitted to 800 examples in one call."""
    made = success(train=rate)
    curve = EpochEnded(epoch=1, epochs=1, step=1, train_s=0.02, train_loss=1.0, validation={"accuracy": 0.5})
    speed = replace(made.speed, by_steps=by_steps, first_step_s=0.02, train_flops_per_s=None)
    return record(replace(made, curves=[curve], speed=speed), **{"recipe": Recipe(epochs=1), **changes})


def stepwise(rate: float = 1000.0, **changes: Any) -> RunRecord:
    made = success(train=rate)
    return record(replace(made, speed=replace(made.speed, by_steps=True)), **{"recipe": Recipe(epochs=1), **changes})


@pytest.mark.parametrize(
    ("by_steps", "steps_per_epoch", "epochs", "batch_size", "parameters", "expected"),
    [
        (True, 1, 1, 64, 0, False),  # recorded
        (False, 12, 2, 64, 9, True),
        (None, 1, 1, 64, 0, True),  # 12 batches, but one step
        (None, 1, 3, 64, 9, True),
        (None, 12, 1, 64, 0, False),
        (None, 12, 2, 64, 0, False),
        (
            None,
            1,
            2,
            401,
            9,
            False,
        ),  # a single batch of 401 examples: only models without weights were fitted in one call
        (None, 1, 2, 401, 0, True),
        (None, 1, 1, 5000, 9, False),
    ],
)
def test_kind_of_training_is_recorded_or_follows_from_the_number_of_steps(
    by_steps: bool | None, steps_per_epoch: int, epochs: int, batch_size: int, parameters: int, expected: bool
) -> None:
    made = success()
    curves = [
        EpochEnded(epoch=n, epochs=epochs, step=n * steps_per_epoch, train_s=n, train_loss=1, validation={})
        for n in range(1, epochs + 1)
    ]
    outcome = replace(
        made,
        curves=curves,
        speed=replace(made.speed, by_steps=by_steps),
        model=replace(made.model, parameters=parameters),
    )
    run = record(outcome, recipe=Recipe(epochs=epochs, batch_size=batch_size))
    assert fitted_in_one_call(run) == expected
    assert (TRAIN_THROUGHPUT.value(run) is None) == expected
    assert (FIT_THROUGHPUT.value(run) is None) == (not expected)


def test_reference_baselines_are_the_runs_fitted_in_one_call() -> None:
    loaded = Store(Path(__file__).parents[2] / "results" / "reference" / "defaults").load()
    found = {
        run.record.spec.backend: fitted_in_one_call(run.record)
        for run in loaded.runs
        if isinstance(run.record.outcome, Success)
    }
    assert found == {"torch": False, "tensorflow": False, "baseline": True}


def test_fit_and_steps_share_no_column_ratio_cost_or_mark() -> None:
    runs = [stepwise(backend="torch"), stepwise(900.0, backend="tensorflow"), fit(backend="baseline")]
    table = build_table(runs, price_per_hour=1.0)
    by_name = {column.name: column for column in table.columns}
    last = table.rows[-1].cells
    assert last["fit_samples_per_s"].value == 50_000.0
    assert [last[name].value for name in ("train_samples_per_s", "train_ratio", "train_cost_per_million")] == [None] * 3
    assert last["inference_ratio"].value == 1.0
    assert best(table.rows, by_name["train_samples_per_s"]) == {0}
    assert best(table.rows, by_name["fit_samples_per_s"]) == frozenset()  # nothing to compare it with


def test_fits_are_compared_with_each_other() -> None:
    table = build_table([fit(50_000.0, model="a"), fit(60_000.0, model="b")])
    column = next(column for column in table.columns if column.name == "fit_samples_per_s")
    assert best(table.rows, column) == {1}


def compared(tmp_path: Path, base: list[RunRecord], new: list[RunRecord]) -> set[str]:
    sides = [Store(write(tmp_path / name, runs)).load().runs for name, runs in (("base", base), ("new", new))]
    matches, _ = match(*sides)
    (pair,) = compare_all(matches, CATALOG)
    return {comparison.metric for comparison in pair.comparisons}


def test_compare_of_both_kinds_has_no_training_rate(tmp_path: Path) -> None:
    names = compared(tmp_path, [stepwise(backend="torch")], [fit(backend="baseline")])
    assert "inference_samples_per_s" in names
    assert not names & {"train_samples_per_s", "fit_samples_per_s"}


def test_compare_of_two_fits_has_their_rate(tmp_path: Path) -> None:
    names = compared(tmp_path, [fit(model="a")], [fit(model="b")])
    assert "fit_samples_per_s" in names
    assert "train_samples_per_s" not in names


def test_history_shows_the_rate_that_the_runs_have(tmp_path: Path) -> None:
    runs = Store(write(tmp_path / "both", [stepwise(), fit(backend="baseline")])).load().runs
    shown = [[figure.metric for figure in history.points[0].figures] for history in histories(runs, CATALOG, RATES)]
    assert shown == [
        ["train_samples_per_s", "inference_samples_per_s"],
        ["fit_samples_per_s", "inference_samples_per_s"],
    ]
    only = Store(write(tmp_path / "only", [fit(backend="baseline")])).load().runs
    (history,) = histories(only, CATALOG)
    names = [figure.metric for figure in history.points[0].figures]
    assert names == ["quality", "fit_samples_per_s", "inference_samples_per_s"]


def test_plots_do_not_rank_a_fit_among_steps(tmp_path: Path) -> None:
    runs = [stepwise(backend="torch"), stepwise(900.0, backend="tensorflow"), fit(backend="baseline")]
    (panel,) = panels(report_of(write(tmp_path, runs)))
    assert [point["backend"] for point in pareto(panel, "train_samples_per_s")] == ["torch", "tensorflow"]
    assert [point["backend"] for point in pareto(panel, "inference_samples_per_s")] == [
        "torch",
        "tensorflow",
        "baseline",
    ]
    shown = ratios(panel)
    assert [(point["backend"], point["phase"]) for point in shown] == [("tensorflow", "training")]


def test_site_has_no_lead_in_training_throughput_across_kinds(tmp_path: Path) -> None:
    runs = [one for seed in range(3) for one in (stepwise(seed=seed), fit(backend="baseline", seed=seed))]
    (contest,) = contests(report_of(write(tmp_path, runs)))
    assert "inference_samples_per_s" in contest.leads
    assert not contest.leads.keys() & {"train_samples_per_s", "fit_samples_per_s"}


def test_pytest_benchmark_puts_fits_in_a_separate_group(tmp_path: Path) -> None:
    report = report_of(write(tmp_path, [stepwise(), fit(backend="baseline")]))
    groups = {(one["params"]["backend"], one["group"].split()[-1]) for one in json.loads(render(report))["benchmarks"]}
    assert groups == {
        (backend, name)
        for backend, training in (("torch", "train"), ("baseline", "fit"))
        for name in (training, "inference", "latency")
    }


def test_fit_has_no_mfu_and_no_energy_per_trained_sample() -> None:
    peak = Roofline(
        backend="baseline",
        device="cpu",
        precision="fp32",
        threads=1,
        hardware="CPU",
        versions={},
        matrix_flops_per_s=1e9,
        copy_bytes_per_s=1e9,
        measured_at="2026-01-01T00:00:00Z",
    )
    use = EnergyUse(train_j_per_sample=1.0, train_w=2.0, inference_j_per_sample=3.0, inference_w=4.0)
    old = fit(by_steps=None)
    assert isinstance(old.outcome, Success)
    outcome = replace(
        old.outcome,
        speed=replace(old.outcome.speed, train_flops_per_s=1e8),
        energy=replace(old.outcome.energy, cpu=use),
    )
    run = replace(old, outcome=outcome, roofline=peak)
    (row,) = build_table([run]).rows
    assert MFU.value(run) is None
    assert row.cells["train_cpu_j_per_sample"].value is None
    assert row.cells["inference_cpu_j_per_sample"].value == 3.0
