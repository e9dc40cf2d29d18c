"""Tests that metrics from plugins cannot have the name of another metric or column."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.comparison_table import COLUMNS
from harness.analysis.metrics import METRICS
from harness.errors import PluginError
from harness.interfaces import Metric, Task
from harness.measure.quality.builtin import METRICS as QUALITY_METRICS
from harness.plugins.offers import RESERVED, check_offer


def test_reserved_names_are_those_of_the_columns_and_costs() -> None:
    names = {column.name for column in COLUMNS} | {metric.name for metric in METRICS}
    assert names - {metric.name for metric in QUALITY_METRICS} <= RESERVED
    assert not {metric.name for metric in QUALITY_METRICS} & RESERVED


@pytest.mark.parametrize("counts", ["samples", "gflop"])
def test_task_that_counts_what_a_column_contains_is_rejected(counts: str) -> None:
    class Counting(Task):
        name, metric, metrics = "counting", "accuracy", ("accuracy",)
        summary = kind = produces = consumes = default_dataset = default_model = "x"
        objective = "regression"

        def prepare(self, data: Any, options: Any) -> Any:
            raise AssertionError

    check_offer("harness_tasks", Counting())
    Counting.counts = counts
    with pytest.raises(PluginError, match=f"task 'counting' cannot count '{counts}'"):
        check_offer("harness_tasks", Counting())


@pytest.mark.parametrize("name", [*sorted(RESERVED), "train_tokens_per_s", "inference_audio_seconds_per_s"])
def test_metric_with_a_reserved_name_is_rejected(name: str) -> None:
    metric = Metric(name=name, objective="regression", function="m:f", higher_is_better=True, summary="x")
    with pytest.raises(PluginError, match=f"a metric cannot have the name '{name}'"):
        check_offer("harness_metrics", metric)
