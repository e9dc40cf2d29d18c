"""Columns of the table that are not shown by default: requested metrics, and throughput in a task's own unit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sample_records import record, success

from harness.analysis.comparison_table import COLUMNS, build_table
from harness.analysis.metrics import available
from harness.errors import UnknownNameError
from harness.records import DataInfo, ModelInfo, RunRecord, SplitInfo

replace = msgspec.structs.replace


def counting(counts: str, per_example: float, **changes: Any) -> RunRecord:
    made = record(success(train=1000.0), **changes)
    splits = {
        "train": SplitInfo(examples=800, counted=800 * per_example if counts else 0.0),
        "test": SplitInfo(examples=100, counted=200 * per_example if counts else 0.0),
    }
    info = DataInfo(kind="tokens", inputs={}, objective="classification", outputs=2, counts=counts, splits=splits)
    return replace(made, provenance=replace(made.provenance, data=info))


def test_rates_are_throughput_times_the_mean_count_of_the_split() -> None:
    run = counting("tokens", 12.5)
    table = build_table([run])
    (row,) = table.rows
    assert row.cells["train_tokens_per_s"].value == pytest.approx(12.5 * 1000.0)
    samples_per_s = row.cells["inference_samples_per_s"].value
    assert isinstance(samples_per_s, float)
    assert row.cells["inference_tokens_per_s"].value == pytest.approx(25.0 * samples_per_s)
    headers = [column.header for column in table.columns]
    position = headers.index("inference (samples/s)")
    assert headers[position + 1 : position + 3] == ["train (tokens/s)", "inference (tokens/s)"]


def test_rows_of_tasks_that_count_different_things_have_separate_columns() -> None:
    runs = [counting("tokens", 10.0), counting("audio_seconds", 0.5, task="speech"), counting("", 0.0, task="vision")]
    rows = build_table(runs).rows
    shown = [[row.cells[f"train_{counts}_per_s"].value for counts in ("tokens", "audio_seconds")] for row in rows]
    assert shown == [[pytest.approx(10_000.0), None], [None, pytest.approx(500.0)], [None, None]]


def test_task_that_counts_only_examples_has_the_default_columns() -> None:
    assert build_table([record(success())]).columns == COLUMNS


def test_rates_can_be_compared() -> None:
    run = counting("tokens", 10.0)
    metric = available([run], {})["train_tokens_per_s"]
    assert (metric.value(run), metric.higher_is_better, metric.relative) == (pytest.approx(10_000.0), True, True)


def test_requested_metrics_have_columns() -> None:
    run = record(success())
    table = build_table([run], shown=("first_step_s", "accuracy", "f1_macro", "first_step_s"))
    names = [column.name for column in table.columns]
    assert names.count("first_step_s") == names.count("f1_macro") == 1
    assert set(names) - {column.name for column in COLUMNS} == {"first_step_s", "accuracy"}


@pytest.mark.parametrize("name", ["accuracy", "f1_macro"])
def test_requested_primary_metric_has_a_value(name: str) -> None:
    """The built-in column `f1_macro` is also filled, although it is shown by default."""
    outcome = success(0.75, test={"accuracy": 0.75, "f1_macro": 0.5})
    run = record(replace(outcome, scores=replace(outcome.scores, primary=name)))
    value = outcome.scores.test[name]
    (row,) = build_table([run], shown=(name,)).rows
    assert (row.cells[name].value, row.cells["quality"].value) == (value, value)
    (row,) = build_table([run]).rows
    assert name not in row.cells or row.cells[name].value is None


def test_requested_metric_that_no_run_has_raises() -> None:
    with pytest.raises(UnknownNameError, match="unknown metric 'accurracy'; did you mean 'accuracy'"):
        build_table([record(success())], shown=("accurracy",))


def test_default_column_can_be_requested() -> None:
    runs = [record(success()), record(success(), task="other")]
    assert build_table(runs, shown=("quality", "host_peak_mib")).columns == COLUMNS


def test_counts_of_the_model_are_not_rounded() -> None:
    made = success()
    model = ModelInfo(parameters=86506, flops_per_sample=2993664.0)
    records = [record(replace(made, model=model), seed=seed) for seed in range(2)]
    (row,) = build_table(records, shown=["parameters", "forward_flop_per_sample"]).rows
    assert [row.text(name) for name in ("parameters", "forward_flop_per_sample")] == ["86506", "2993664"]
