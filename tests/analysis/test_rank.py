from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sample_records import ENVIRONMENT, failure, record, success

from harness.analysis.rank import Placement, Ranking, rank
from harness.analysis.standings import Standing
from harness.errors import UnknownNameError, UsageError
from harness.records import MetricInfo, Outcome, Recipe, RunRecord
from harness.records.store import StoredRun

ACCURACY = {"accuracy": MetricInfo(higher_is_better=True)}
RMSE = {"rmse": MetricInfo(higher_is_better=False, unit="score")}


def scored(value: float | None, *, primary: str = "accuracy", **more: Any) -> Outcome:
    outcome = success(0.0, primary=primary, test={primary: value}, **more)
    metrics = ACCURACY if primary == "accuracy" else RMSE
    return msgspec.structs.replace(outcome, scores=msgspec.structs.replace(outcome.scores, metrics=metrics))


def seeded(value: float, seeds: int = 3, *, primary: str = "accuracy", **changes: Any) -> list[RunRecord]:
    """Return runs of several seeds whose values are close to `value`."""
    return [
        record(scored(value + 0.001 * seed, primary=primary), seed=seed, task="regression", **changes)
        for seed in range(seeds)
    ]


def table(values: dict[str, dict[str, float]], seeds: int = 3, **changes: Any) -> list[RunRecord]:
    """Return runs with these values by dataset and backend."""
    return [
        one
        for dataset, by_backend in values.items()
        for backend, value in by_backend.items()
        for one in seeded(value, seeds, dataset=dataset, backend=backend, **changes)
    ]


def of(records: Sequence[RunRecord], metric: str = "quality", by: str = "backend", **more: Any) -> Ranking:
    runs = [StoredRun(Path(str(number)), one) for number, one in enumerate(records)]
    return rank(runs, {}, metric, by.split(","), **more)


def standing(placement: Placement, name: str) -> Standing:
    assert placement.standings is not None
    return next(one for one in placement.standings.contenders if one.name == name)


def mean_ranks(placement: Placement) -> dict[str, float]:
    assert placement.standings is not None
    return {one.name: one.mean_rank for one in placement.standings.contenders}


CLEAR = {"x": {"a": 0.9, "b": 0.8}, "y": {"a": 0.7, "b": 0.6}, "z": {"a": 0.5, "b": 0.6}}


def test_each_dataset_is_decided_by_the_comparison() -> None:
    ranking = of(table(CLEAR))
    excluded, imputed = ranking.placements
    assert mean_ranks(excluded) == {"a": pytest.approx(4 / 3), "b": pytest.approx(5 / 3)}
    assert excluded.standings == imputed.standings
    assert (standing(excluded, "a").wins, standing(excluded, "a").losses) == (2, 1)
    assert standing(excluded, "a").mean_rank_low is not None
    assert excluded.undecided == 0


def test_single_seeds_tie_unless_equal_means_are_asked_for() -> None:
    ranking = of(table(CLEAR, seeds=1))
    assert mean_ranks(ranking.placements[0]) == {"a": 1.5, "b": 1.5}
    assert ranking.placements[0].undecided == ranking.placements[0].comparisons == 3
    assert mean_ranks(of(table(CLEAR, seeds=1), ties="exact").placements[0])["a"] == pytest.approx(4 / 3)


def test_lower_is_better_scores() -> None:
    ranking = of(table(CLEAR, primary="rmse"))
    assert mean_ranks(ranking.placements[0]) == {"a": pytest.approx(5 / 3), "b": pytest.approx(4 / 3)}
    ratio = standing(ranking.placements[0], "b").ratio
    assert ratio is not None
    assert ratio > 1


def test_costs_without_interleaving_tie() -> None:
    records = [
        record(scored(0.5, train=speed + seed), dataset=dataset, backend=backend, seed=seed)
        for dataset in "xyz"
        for backend, speed in (("a", 1000.0), ("b", 10.0))
        for seed in range(3)
    ]
    ranking = of(records, "train_samples_per_s")
    assert standing(ranking.placements[0], "a").ties == 3
    assert ranking.placements[0].undecided == 3
    assert standing(ranking.placements[0], "b").ratio == pytest.approx(0.011, abs=0.001)


def test_failed_runs_are_excluded_or_imputed_by_the_baseline() -> None:
    values = {name: {"a": 0.9, "b": 0.8, "c": 0.95} for name in "wxyz"}
    records = [one for one in table(values) if (one.spec.dataset, one.spec.backend) != ("z", "c")]
    records += [record(failure(), task="regression", dataset="z", backend="c", seed=seed) for seed in range(3)]
    ranking = of(records, baseline="b")
    excluded, imputed = ranking.placements
    assert ranking.failed == {"a": 0, "b": 0, "c": 3}
    assert mean_ranks(excluded) == {"c": 1.0, "a": 2.0, "b": 3.0}
    assert [(one.case, one.reason) for one in excluded.left_out] == [("regression · z", "failed: c (oom)")]
    assert mean_ranks(imputed) == {"c": 1.375, "a": 1.75, "b": 2.875}
    assert imputed.left_out == []


def test_one_failed_seed_is_imputed_by_the_same_seed() -> None:
    records = table({name: {"a": 0.5, "b": 0.8} for name in "xyz"})
    records = [one for one in records if (one.spec.backend, one.spec.dataset, one.spec.seed) != ("b", "x", 2)]
    records.append(record(failure(), task="regression", dataset="x", backend="b", seed=2))
    excluded, imputed = of(records, ties="exact").placements
    ratio, lower = (standing(placement, "b").ratio for placement in (excluded, imputed))
    assert ratio is not None
    assert lower is not None
    assert 1.4 < lower < ratio


def test_a_failed_run_that_was_repeated_successfully_does_not_count() -> None:
    records = [*table(CLEAR), record(failure(), task="regression", dataset="x", backend="a", seed=0)]
    assert of(records).failed == {"a": 0, "b": 0}


def test_failure_of_the_baseline_leaves_the_dataset_out_under_both_policies() -> None:
    records = [one for one in table(CLEAR) if (one.spec.dataset, one.spec.backend) != ("z", "a")]
    records.append(record(failure("crash"), task="regression", dataset="z", backend="a"))
    ranking = of(records, baseline="a")
    assert [[one.reason for one in placement.left_out] for placement in ranking.placements] == [
        ["failed: a (crash)"]
    ] * 2


def test_all_runs_failed() -> None:
    records = [record(failure(), dataset=d, backend=b) for d in "xyz" for b in "ab"]
    with pytest.raises(UsageError):
        of(records)


def test_all_runs_of_one_contender_failed() -> None:
    records = [one for one in table(CLEAR) if one.spec.backend == "a"]
    records += [record(failure(), task="regression", dataset=d, backend="b") for d in "xyz"]
    excluded, imputed = of(records).placements
    assert excluded.standings is None
    assert len(excluded.left_out) == 3
    assert mean_ranks(imputed) == {"a": 1.5, "b": 1.5}


def test_interrupted_runs_count_as_not_run() -> None:
    records = [one for one in table(CLEAR) if (one.spec.dataset, one.spec.backend) != ("z", "b")]
    records.append(record(failure("interrupted"), task="regression", dataset="z", backend="b"))
    ranking = of(records)
    assert ranking.failed == {"a": 0, "b": 0}
    assert [one.reason for one in ranking.placements[1].left_out] == ["not run: b"]
    found = ranking.placements[1].standings
    assert found is not None
    assert found.datasets == 2


def test_a_contender_with_few_common_datasets_is_not_ranked() -> None:
    values = {name: {"a": 0.9, "b": 0.8} for name in "wxyz"}
    values["w"]["c"] = 0.99
    ranking = of(table(values))
    assert ranking.contenders == ["a", "b"]
    assert ranking.notes == ["c is not ranked, because it shares too few datasets with the other candidates"]
    kept = of(table(values), baseline="c")
    assert "c" in kept.contenders


def test_missing_combinations_leave_the_dataset_out() -> None:
    values = {name: {"a": 0.9, "b": 0.8, "c": 0.7} for name in "wxyz"}
    del values["w"]["c"]
    ranking = of(table(values))
    assert ranking.contenders == ["a", "b", "c"]
    assert [one.reason for one in ranking.placements[0].left_out] == ["not run: c"]


def test_models_are_ranked_within_each_backend() -> None:
    records = [
        one
        for model, value in (("m1", 0.9), ("m2", 0.7))
        for one in table({d: {"a": value, "b": value} for d in "xyz"}, model=model)
    ]
    found = of(records, by="model").placements[0].standings
    assert found is not None
    assert (found.datasets, found.cases) == (3, 6)
    both = of(records, by="model,backend")
    assert both.contenders == ["m1 · a", "m1 · b", "m2 · a", "m2 · b"]


def test_recipes_of_models_differ_without_dividing_a_case() -> None:
    records = [
        one
        for model, epochs in (("m1", 2), ("m2", 5))
        for one in table({d: {"a": 0.1 * epochs} for d in "xyz"}, model=model, recipe=Recipe(epochs=epochs))
    ]
    assert mean_ranks(of(records, by="model").placements[0]) == {"m2": 1.0, "m1": 2.0}


def test_swept_settings_divide_a_case_or_are_ranked() -> None:
    records = [
        one
        for epochs in (2, 5)
        for one in table({d: {"a": 0.1 * epochs, "b": 0.05} for d in "xyz"}, recipe=Recipe(epochs=epochs))
    ]
    found = of(records).placements[0].standings
    assert found is not None
    assert (found.datasets, found.cases) == (3, 6)
    assert mean_ranks(of(records, by="recipe.epochs").placements[0]) == {
        "recipe.epochs=5": 1.25,
        "recipe.epochs=2": 1.75,
    }


def test_settings_tuned_for_each_split_do_not_divide_a_case() -> None:
    records = [
        record(scored(value), dataset=d, backend=b, dataset_options={"split": split}, recipe=Recipe(epochs=split + 1))
        for d in "xyz"
        for b, value in (("a", 0.9), ("b", 0.8))
        for split in range(3)
    ]
    ranking = of(records)
    found = ranking.placements[0].standings
    assert found is not None
    assert found.cases == 3
    assert ranking.notes == ["runs of different seeds or splits are averaged although they differ in recipe.epochs"]


def test_older_package_versions_are_ignored() -> None:
    old = msgspec.structs.replace(ENVIRONMENT, packages={"numpy": "1.0"})
    records = [*table({"x": {"a": 0.1}}, environment=old), *table(CLEAR)]
    ranking = of(
        [msgspec.structs.replace(one, started_at=f"2025-11-22T12:{n:02}:00Z") for n, one in enumerate(records)]
    )
    assert ranking.notes == ["runs with older package versions or other data are ignored: 3"]
    assert mean_ranks(ranking.placements[0])["a"] == pytest.approx(4 / 3)


def test_many_seeds_on_one_side() -> None:
    records = [*table({d: {"a": 0.9} for d in "xyz"}, seeds=40), *table({d: {"b": 0.5} for d in "xyz"})]
    assert mean_ranks(of(records).placements[0]) == {"a": 1.0, "b": 2.0}


def test_tasks_with_scores_of_opposite_directions_are_ranked_together() -> None:
    records = [*table({d: {"a": 0.9, "b": 0.5} for d in "xy"}), *table({"z": {"a": 5.0, "b": 9.0}}, primary="rmse")]
    assert mean_ranks(of(records).placements[0]) == {"a": 1.0, "b": 2.0}


def test_one_dataset_has_no_interval() -> None:
    placement = of(table({"x": {"a": 0.9, "b": 0.5}})).placements[0]
    assert standing(placement, "a").mean_rank_low is None
    assert placement.notes == ["too few datasets for confidence intervals (1): at least 3 are required"]
    assert placement.standings is not None
    assert placement.standings.critical_difference is None


@pytest.mark.parametrize(
    ("metric", "by", "more", "expected"),
    [
        ("accurcy", "backend", {}, UnknownNameError),
        ("quality", "bakend", {}, UnknownNameError),
        ("quality", "dataset", {}, UnknownNameError),
        ("quality", "backend", {"baseline": "c"}, UnknownNameError),
        ("quality", "model", {}, UsageError),
        ("time_to_target_s", "backend", {}, UsageError),
        ("parameters", "backend", {}, UsageError),
        ("train_cost_per_million", "backend", {}, UsageError),
        ("latency_p99_ms", "backend", {}, UsageError),
    ],
)
def test_requests_that_cannot_be_ranked(metric: str, by: str, more: dict[str, Any], expected: type[Exception]) -> None:
    with pytest.raises(expected):
        of(table(CLEAR), metric, by, **more)


def test_metric_without_a_direction_is_not_ranked() -> None:
    records = [
        record(success(value, primary="own", test={"own": value}), dataset=d, backend=b)
        for d in "xyz"
        for b, value in (("a", 0.9), ("b", 0.8))
    ]
    with pytest.raises(UsageError, match="it is unknown whether higher values are better"):
        of(records)


def test_no_runs() -> None:
    with pytest.raises(UsageError, match="there are no runs"):
        of([])


def test_runs_that_failed_before_selecting_a_device_count_as_failed() -> None:
    records = [one for one in table(CLEAR) if (one.spec.dataset, one.spec.backend) != ("z", "b")]
    early = msgspec.structs.replace(ENVIRONMENT, packages={})
    records.append(record(failure(), task="regression", dataset="z", backend="b", device="auto", environment=early))
    ranking = of(records)
    assert ranking.failed == {"a": 0, "b": 1}
    assert [one.reason for one in ranking.placements[0].left_out] == ["failed: b (oom)"]


def test_names_with_the_same_cleaned_text_stay_apart() -> None:
    names = ("a", "a ", "a\n", "\x1b[31ma")
    ranking = of(table({d: {name: 0.9 - 0.1 * place for place, name in enumerate(names)} for d in "xyz"}))
    assert list(mean_ranks(ranking.placements[0])) == list(names)


def test_extreme_values_do_not_raise() -> None:
    for value in (0.0, -0.0, 1e300, 1e-300, -1e300):
        found = of(table({d: {"a": 0.5, "b": value} for d in "vwxyz"}, primary="rmse"), ties="exact").placements[0]
        msgspec.json.encode(found)
        assert standing(found, "b").wins + standing(found, "b").losses == 5


def test_quality_only_runs_are_not_ranked_by_speed() -> None:
    runs = [msgspec.structs.replace(one, quality_only=one.spec.backend == "a") for one in table(CLEAR)]
    with pytest.raises(UsageError, match=r"no value of train_samples_per_s \(quality-only runs\): a"):
        of(runs, "train_samples_per_s")
    assert mean_ranks(of(runs).placements[0]) == mean_ranks(of(table(CLEAR)).placements[0])


def test_seeds_of_one_fold_are_averaged_before_resampling() -> None:
    """Repeating every fold with the same score for each seed does not change the intervals."""

    def of_seeds(seeds: int) -> Standing:
        records = []
        for dataset, (backend, step), fold, seed in itertools.product(
            "abcdef", (("x", 2), ("y", 3)), range(1, 6), range(seeds)
        ):
            score = 0.6 + 0.05 * (fold * step % 5) + (0.08 if backend == "x" else 0.0)
            done = msgspec.structs.replace(scored(score), examples={"train": 80, "test": 20})
            options = {"folds": 5, "split": fold}
            records.append(record(done, seed=seed, dataset=dataset, backend=backend, dataset_options=options))
        return standing(of(records, ties="exact").placements[0], "x")

    found = of_seeds(1)
    assert found.mean_rank_high is not None
    assert found.mean_rank_high > found.mean_rank == 1.0
    assert of_seeds(4) == found
