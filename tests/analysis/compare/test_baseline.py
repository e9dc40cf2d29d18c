"""Tests of baseline files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from sample_records import failure, record, success

from harness.analysis.compare import baseline
from harness.analysis.compare.match import find
from harness.analysis.compare.sides import flag_counts
from harness.errors import RecordError, UsageError
from harness.plugins import discover
from harness.records import Flag
from harness.records.store import Store, StoredRun


def kept(tmp_path: Path) -> list[StoredRun]:
    records = [record(success(0.7 + seed / 100), seed=seed) for seed in range(3)]
    return [StoredRun(tmp_path / r.run_id, r) for r in (*records, record(failure(), seed=3))]


def test_save_and_load_round_trip_successful_runs(tmp_path: Path) -> None:
    runs = kept(tmp_path)
    file = tmp_path / "baseline.json"
    assert baseline.save(file, runs) == 3
    assert [run.record for run in find(str(file), tmp_path / "results", discover)] == [run.record for run in runs[:3]]
    assert [path.name for path in tmp_path.iterdir()] == ["baseline.json"]


def test_load_record_of_newer_schema_version_raises(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    baseline.save(file, kept(tmp_path))
    content = msgspec.json.decode(file.read_bytes())
    content["records"][0]["schema_version"] = 99
    file.write_bytes(msgspec.json.encode(content))
    with pytest.raises(RecordError, match=r"baseline\.json: .* but the record has version 99"):
        baseline.load(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a baseline file"),
        ("[]", "not a baseline file"),
        ('{"baseline_version": 2, "records": []}', "written by a newer version of harness"),
        ('{"baseline_version": 1, "records": [{}]}', "not a valid record"),
    ],
)
def test_load_invalid_baseline_names_the_file(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(RecordError, match=f"b.json: .*{words}"):
        baseline.load(tmp_path / "b.json")


def test_save_failed_runs_only_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of these runs succeeded"):
        baseline.save(tmp_path / "b.json", kept(tmp_path)[3:])
    assert list(tmp_path.iterdir()) == []


def test_save_to_missing_directory_raises(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written"):
        baseline.save(tmp_path / "no" / "b.json", kept(tmp_path))


def test_find_in_empty_directory_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains no runs"):
        find(str(tmp_path), tmp_path, discover)
    assert Store(tmp_path).load().runs == []


def test_flags_of_a_side_are_counted_by_metric() -> None:
    drift = Flag(metric="train_throughput", kind="drift", detail="x")
    load = Flag(metric="train_throughput", kind="other_load", detail="x")
    runs = [StoredRun(Path(), record(success(flags=flags))) for flags in ([drift, drift], [drift, load], [])]
    assert flag_counts(runs) == [
        "train_samples_per_s is flagged for drift in 2 of 3 runs",
        "train_samples_per_s is flagged for other load in 1 of 3 runs",
    ]
