from __future__ import annotations

from collections.abc import Sequence

from sample_records import comparison, record, success

from harness.analysis.comparison_table import COLUMNS, build_table
from harness.records import RunRecord
from harness.report.best import best

BY_NAME = {column.name: column for column in COLUMNS}


def winners(records: Sequence[RunRecord], name: str) -> list[str]:
    rows = build_table(records).rows
    return [rows[index].text("backend") for index in sorted(best(rows, BY_NAME[name]))]


def seeds(backend: str, values: Sequence[float], **figures: float) -> list[RunRecord]:
    return [record(success(value, **figures), backend=backend, seed=seed) for seed, value in enumerate(values)]


def test_best_clear_winner_is_the_only_one() -> None:
    records = seeds("torch", [0.70, 0.71, 0.70]) + seeds("tensorflow", [0.80, 0.81, 0.80])
    assert winners(records, "quality") == ["tensorflow"]


def test_best_overlapping_intervals_are_a_tie() -> None:
    records = seeds("torch", [0.70, 0.80, 0.75]) + seeds("tensorflow", [0.72, 0.79, 0.77])
    assert winners(records, "quality") == ["torch", "tensorflow"]


def test_best_is_lowest_latency_and_highest_throughput() -> None:
    records = seeds("torch", [0.7], p50_ms=3.0, train=10.0) + seeds("tensorflow", [0.7], p50_ms=2.0, train=9.0)
    assert winners(records, "latency_p50_ms") == ["tensorflow"]
    assert winners(records, "train_samples_per_s") == ["torch"]


def test_best_quality_follows_the_direction_of_the_metric() -> None:
    records = [record(success(53.0, primary="rmse")), record(success(50.0, primary="rmse"), backend="tensorflow")]
    assert winners(records, "quality") == ["tensorflow"]


def test_best_is_empty_for_different_data_or_unknown_metric() -> None:
    assert winners([record(dataset="a"), record(success(0.9), dataset="b")], "quality") == []
    unknown = {"primary": "unknown_metric", "test": {"unknown_metric": 0.5}}
    assert winners([record(success(0.5, **unknown)), record(success(0.6, **unknown), backend="x")], "quality") == []


def test_best_of_one_row_is_empty() -> None:
    assert winners([record()], "quality") == []
    assert winners(comparison(), "device_peak_mib") == []
