from __future__ import annotations

import dataclasses
import math
from typing import get_args, get_type_hints

import msgspec
import pytest
from sample_records import comparison, failure, record, success

from harness.analysis.comparison_table import COLUMNS
from harness.analysis.metrics import BY_NAME, METRICS, at_price, available, comparable, score
from harness.interfaces import Metric
from harness.measure.quality.builtin import METRICS as QUALITY_METRICS
from harness.measure.quality.metrics import info_of
from harness.plugins import load
from harness.records import Flag, MetricInfo, TimeToTarget


def test_names_are_unique_and_end_in_their_unit() -> None:
    endings = {"samples/s": "_samples_per_s", "%": "_percent", "J/sample": "_j_per_sample", "per 1M": "_per_million"}
    endings |= {"GFLOP/s": "_gflop_per_s", "FLOP/sample": "_flop_per_sample", "": ""}
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert metric.name.endswith(endings.get(metric.unit, f"_{metric.unit.lower()}"))


def test_every_metric_of_the_table_has_a_column() -> None:
    assert [metric.column for metric in METRICS if metric.in_table] == [c for c in COLUMNS if c.name in BY_NAME]


def test_cost_is_hours_per_million_samples_times_the_price() -> None:
    run = record(success(train=1000.0, inference=4000.0))
    costs = {metric.name: metric.value(run) for metric in at_price(7.2) if metric.in_hours}
    assert costs == pytest.approx({"train_cost_per_million": 2.0, "inference_cost_per_million": 0.5})
    assert [metric.value(run) for metric in METRICS if metric.in_hours] == [None, None]


def test_quality_is_the_primary_metric_of_the_task() -> None:
    run = record(success(5.0, primary="rmse", reference={"rmse": 4.0}), target_unit="kg")
    metrics = available([run], {metric.name: metric for metric in QUALITY_METRICS})
    quality, reference, rmse = (metrics[name] for name in ("quality", "reference", "rmse"))
    assert (quality.value(run), reference.value(run)) == (5.0, 4.0)
    for metric in (quality, reference):
        assert (metric.unit, metric.higher_is_better) == (rmse.unit, rmse.higher_is_better) == ("kg", False)
    assert quality.title == rmse.title == "RMSE"


@pytest.mark.parametrize(
    ("info", "title"),
    [
        (MetricInfo(higher_is_better=True, title="T", summary="a number"), "T"),
        (MetricInfo(higher_is_better=True, title="a number, as in older records"), "mean reciprocal rank"),
        (None, "mean reciprocal rank"),
    ],
)
def test_title_of_a_score_is_declared_or_its_name(info: MetricInfo | None, title: str) -> None:
    assert score("mean_reciprocal_rank", info).title == title


def test_title_is_stored_with_the_direction_and_unit() -> None:
    declared = Metric(name="top_5", objective="classification", function="m:f", higher_is_better=True, summary="s")
    assert info_of(declared, None).title == "top 5"
    titled = dataclasses.replace(declared, title="top-5 accuracy", in_tables=True)
    assert msgspec.to_builtins(info_of(titled, None)) == {
        "higher_is_better": True,
        "title": "top-5 accuracy",
        "unit": "",
        "bounds": (None, None),
        "summary": "s",
        "in_tables": True,
    }


def test_every_flag_of_a_record_belongs_to_one_metric() -> None:
    flags = [metric.flag for metric in METRICS if metric.flag]
    assert sorted(flags) == sorted(get_args(get_type_hints(Flag)["metric"]))


def test_value_missing_from_the_record_is_none() -> None:
    run = record(success(device=None))
    assert BY_NAME["device_peak_mib"].value(run) is None
    assert BY_NAME["train_gpu_j_per_sample"].value(run) is None
    assert BY_NAME["mfu_percent"].value(run) is None
    assert BY_NAME["time_to_target_s"].value(run) is None
    assert [metric.value(record(failure())) for metric in METRICS] == [None] * len(METRICS)


def test_value_that_is_not_finite_is_none() -> None:
    assert BY_NAME["train_samples_per_s"].value(record(success(train=math.inf))) is None


def test_values_are_in_the_unit_of_the_metric() -> None:
    run = next(run for run in comparison() if BY_NAME["device_peak_mib"].value(run) is not None)
    assert msgspec.to_builtins(run.outcome)["memory"]["device"]["allocator_peak_bytes"] == 21 * 2**20
    assert [BY_NAME[f"{kind}_peak_mib"].value(run) for kind in ("device", "reserved", "driver")] == [21.0, 32.0, 460.0]
    assert [BY_NAME[f"{phase}_gpu_j_per_sample"].value(run) for phase in ("train", "inference")] == [0.0123, 0.00456]


def test_score_reads_the_test_split_and_compares_by_difference() -> None:
    rmse = next(metric for metric in QUALITY_METRICS if metric.name == "rmse")
    error, run = score("rmse", info_of(rmse, None)), record(success(5.0, primary="rmse"))
    assert (error.value(run), error.higher_is_better, error.relative) == (5.0, False, False)


def test_comparable_omits_metrics_that_one_side_lacks() -> None:
    with_p99, without = record(success(p99_ms=15.0)), record(success(p99_ms=None))
    both = comparable([[with_p99], [without]], load([]))
    assert "latency_p99_ms" not in both
    assert "latency_p99_ms" in comparable([[with_p99, without], [with_p99]], load([]))
    assert next(iter(both)) == "accuracy"
    assert comparable([[]], load([])) == {}


def test_comparable_omits_time_to_target() -> None:
    reached = TimeToTarget(metric="accuracy", target=0.4, train_s=1.5, epoch=1)
    run = record(msgspec.structs.replace(success(), time_to_target=reached))
    assert BY_NAME["time_to_target_s"].value(run) == 1.5
    assert "time_to_target_s" not in comparable([[run], [run]], load([]))
