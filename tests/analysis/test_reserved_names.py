"""Metrics of plugins cannot take the name of another figure."""

from __future__ import annotations

import pytest

from harness.analysis.comparison_table import COLUMNS
from harness.analysis.metrics import METRICS
from harness.errors import PluginError
from harness.interfaces import Metric
from harness.measure.quality.builtin import METRICS as QUALITY_METRICS
from harness.plugins.offers import RESERVED, check_offer


def test_reserved_names_are_those_of_the_columns_and_costs() -> None:
    names = {column.name for column in COLUMNS} | {metric.name for metric in METRICS}
    assert names - {metric.name for metric in QUALITY_METRICS} <= RESERVED
    assert not {metric.name for metric in QUALITY_METRICS} & RESERVED


@pytest.mark.parametrize("name", [*sorted(RESERVED), "train_tokens_per_s", "inference_audio_seconds_per_s"])
def test_metric_with_a_reserved_name_is_rejected(name: str) -> None:
    metric = Metric(name=name, objective="regression", function="m:f", higher_is_better=True, summary="x")
    with pytest.raises(PluginError, match=f"a metric cannot have the name '{name}'"):
        check_offer("harness_metrics", metric)
