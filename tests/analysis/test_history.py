from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from sample_records import ENVIRONMENT, failure, record, success
from sample_store import write

from harness.analysis.history import histories
from harness.errors import UnknownNameError, UsageError
from harness.plugins import load
from harness.records import Outcome, RunRecord
from harness.records.store import Store


def at(day: int, outcome: Outcome, *, commit: str = "a" * 40, torch: str = "2.9.0", **changes: object) -> RunRecord:
    environment = msgspec.structs.replace(ENVIRONMENT, git_commit=commit)
    made = record(outcome, environment=environment, started_at=f"2025-11-{day:02}T12:00:00Z", **changes)
    packages = made.environment.packages | {"torch": torch}
    return msgspec.structs.replace(made, environment=msgspec.structs.replace(made.environment, packages=packages))


def of(path: Path, records: list[RunRecord], *metrics: str):  # type: ignore[no-untyped-def]
    return histories(Store(write(path, records)).load().runs, load([]), metrics or ("quality", "train_samples_per_s"))


def test_each_commit_and_version_is_a_point(tmp_path: Path) -> None:
    speeds = {("a" * 40, "2.9.0"): 1000.0, ("b" * 40, "2.9.0"): 1001.0, ("b" * 40, "2.10.0"): 800.0}
    records = [
        at(day, success(0.7, train=speed + seed), commit=commit, torch=torch, seed=seed)
        for day, ((commit, torch), speed) in enumerate(speeds.items(), start=1)
        for seed in range(5)
    ]
    (history,) = of(tmp_path, records)
    assert history.name == "nlp · cldr-langid · bert-tiny · torch · cpu · fp32"
    assert [(point.commit[:1], point.runs, point.changed) for point in history.points] == [
        ("a", 5, []),
        ("b", 5, [("commit", "a" * 40, "b" * 40)]),
        ("b", 5, [("torch", "2.9.0", "2.10.0")]),
    ]
    throughput = [point.figures[1] for point in history.points]
    assert [figure.value for figure in throughput] == [1002.0, 1003.0, 802.0]
    assert [figure.since and figure.since.verdict for figure in throughput] == [None, "inconclusive", "worse"]


def test_point_without_successful_runs_is_skipped_in_comparisons(tmp_path: Path) -> None:
    good = [at(1, success(0.7, train=1000.0 + seed), seed=seed) for seed in range(3)]
    broken = [at(2, failure(), commit="b" * 40)]
    later = [at(3, success(0.7, train=500.0 + seed), commit="c" * 40, seed=seed) for seed in range(3)]
    (history,) = of(tmp_path, good + broken + later, "train_samples_per_s")
    assert [(point.runs, point.failed) for point in history.points] == [(3, 0), (1, 1), (3, 0)]
    assert history.points[1].figures[0].value is None
    since = history.points[2].figures[0].since
    assert since is not None
    assert since.verdict == "worse"


def test_machines_and_specs_have_separate_histories(tmp_path: Path) -> None:
    elsewhere = msgspec.structs.replace(at(2, success()), environment=msgspec.structs.replace(ENVIRONMENT, cpu="Other"))
    found = of(tmp_path, [at(1, success()), elsewhere, at(3, success(), model="lstm")])
    assert [len(history.points) for history in found] == [1, 1, 1]


def test_unknown_metric_suggests_a_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'train_samples_per_s'"):
        of(tmp_path, [at(1, success())], "train_samples_per_st")


def on_split(day: int, number: int, digest: str, commit: str = "a") -> RunRecord:
    made = at(day, success(0.7), commit=commit * 40, dataset_options={"split": number})
    return msgspec.structs.replace(
        made, provenance=msgspec.structs.replace(made.provenance, dataset_digest=digest * 64)
    )


def test_splits_of_a_dataset_make_one_point(tmp_path: Path) -> None:
    records = [on_split(1, 0, "0"), on_split(1, 1, "1"), on_split(2, 0, "0", "b"), on_split(2, 1, "1", "b")]
    (history,) = of(tmp_path, records)
    assert [(point.runs, [name for name, *_ in point.changed]) for point in history.points] == [
        (2, []),
        (2, ["commit"]),
    ]


def test_split_with_changed_data_makes_another_point(tmp_path: Path) -> None:
    (history,) = of(tmp_path, [on_split(1, 0, "0"), on_split(2, 0, "1")])
    assert [point.changed for point in history.points] == [[], [("data", "0" * 8, "1" * 8)]]


def test_significant_change_of_speed_is_marked_because_points_are_not_interleaved(tmp_path: Path) -> None:
    from harness.cli.history import render

    speeds = {"a" * 40: [1000.0, 1001.0, 999.0], "b" * 40: [100.0, 101.0, 99.0]}
    records = [
        at(day + 10 * index, success(train=speed), commit=commit, seed=day)
        for index, (commit, values) in enumerate(speeds.items())
        for day, speed in enumerate(values, start=1)
    ]
    text = render(of(tmp_path / "speed", records, "train_samples_per_s", "host_peak_mib"))
    assert "-90.0% worse?" in text
    assert "?: the runs of the two rows were not interleaved" in text
    assert "not interleaved" not in render(of(tmp_path / "memory", records, "host_peak_mib"))


def test_cost_needs_a_price(tmp_path: Path) -> None:
    records = [at(day, success(train=1000.0 * day), commit=str(day) * 40) for day in (1, 2)]
    runs = Store(write(tmp_path, records)).load().runs
    with pytest.raises(UsageError, match="no history, because none of the runs has a value for it; pass the price"):
        histories(runs, load([]), ["train_cost_per_million"])
    (history,) = histories(runs, load([]), ["train_cost_per_million"], price_per_hour=7.2)
    assert [point.figures[0].value for point in history.points] == pytest.approx([2.0, 1.0])


def test_rows_of_other_seeds_and_uncommitted_changes_are_told_apart(tmp_path: Path) -> None:
    from harness.cli.history import render

    records = [at(1, success(0.7)), at(2, success(0.6), commit="a" * 40 + "+dirty", seed=1)]
    (history,) = of(tmp_path, records, "quality")
    assert ("seeds", "0", "1") in history.points[1].changed
    _, first, second = [line for line in render([history]).splitlines() if "2025-11" in line or "commit" in line]
    assert first.split()[2:4] == ["a" * 12, "1"]
    assert second.split()[2] == "a" * 12 + "+dirty"
    assert second.rstrip().endswith("seeds 0 -> 1")


def test_long_versions_are_not_cut(tmp_path: Path) -> None:
    from harness.cli.history import render

    versions = ("2.10.0.dev20250101", "2.10.0.dev20250102")
    found = of(tmp_path, [at(day, success(), torch=version) for day, version in enumerate(versions, 1)], "quality")
    assert "torch 2.10.0.dev20250101 -> 2.10.0.dev20250102" in render(found)


def test_change_over_some_of_the_runs_names_them(tmp_path: Path) -> None:
    from harness.cli.history import render

    before = [at(1, success(0.5 + 0.1 * seed), seed=seed) for seed in range(5)]
    after = [at(2, success(0.55 + 0.1 * seed), seed=seed, commit="b" * 40) for seed in range(3)]
    text = render(of(tmp_path / "some", before + after, "quality"))
    assert "+0.05 (3 pairs of seeds)" in text
    assert "(...): the runs from which the change was computed" in text
    assert "(3 pairs" not in render(of(tmp_path / "all", before[:3] + after, "quality"))


def test_repeats_of_a_seed_are_averaged_as_in_the_comparison(tmp_path: Path) -> None:
    before = [at(1, success(quality), seed=seed) for quality, seed in [(0.5, 0), (0.5, 0), (0.7, 1), (0.9, 2)]]
    after = [at(2, success(0.8), seed=seed, commit="b" * 40) for seed in range(3)]
    (history,) = of(tmp_path, before + after, "quality")
    since = history.points[1].figures[0].since
    assert since is not None
    assert since.change == pytest.approx(0.1)
    assert (history.points[0].figures[0].value, since.base) == (pytest.approx(0.7), pytest.approx(0.7))
