"""Tests of comparisons, their verdicts and the exit status of ``harness compare``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from sample_records import failure, record, success

from harness.analysis.compare.gates import parse
from harness.analysis.compare.judge import Comparison, compare, compare_all
from harness.analysis.compare.match import Match, find, match
from harness.analysis.metrics import available
from harness.errors import UnknownNameError, UsageError
from harness.interfaces import Metric
from harness.plugins import discover, load
from harness.plugins.catalog import Catalog, Provided
from harness.records import PluginRef, RunRecord, TrainedWeights
from harness.records.spec import ExportedModel
from harness.records.store import ARRAYS, Store, StoredRun

CATALOG = load([])


def keep(path: Path, records: list[RunRecord], outputs: list[Any] | None = None) -> Path:
    """Store the records, each with its predictions."""
    store = Store(path)
    store.prepare()
    for number, one in enumerate(records):
        with store.scratch() as scratch:
            if outputs is not None:
                targets = np.arange(100) % 2
                np.savez(scratch / ARRAYS, test_outputs=outputs[number], test_targets=targets)
            store.commit(scratch, one)
    return path


def speeds(values: list[float], *, minute: int = 0, every: int = 1, **changes: Any) -> list[RunRecord]:
    return [
        record(success(train=value), started_at=f"2026-01-01T00:{minute + every * number:02}:00Z", **changes)
        for number, value in enumerate(values)
    ]


def compared(base: Path, new: Path, *metrics: str, catalog: Catalog = CATALOG) -> dict[str, Comparison]:
    matches, _ = match(find(str(base), base, discover), find(str(new), new, discover))
    (pair,) = compare_all(matches, catalog, metrics)
    return {comparison.metric: comparison for comparison in pair.comparisons}


@pytest.fixture
def slower(tmp_path: Path) -> tuple[Path, Path]:
    return (
        keep(tmp_path / "base", speeds([100.0, 101.0, 99.5, 100.5, 100.2])),
        keep(tmp_path / "new", speeds([95.0, 94.5, 95.5, 95.2, 94.8], minute=30)),
    )


def test_compare_slower_runs_is_worse_by_the_right_amount(slower: tuple[Path, Path]) -> None:
    found = compared(*slower, "train_samples_per_s")["train_samples_per_s"]
    assert found.verdict == "worse"
    assert found.change == pytest.approx(-0.052, abs=0.002)
    assert found.low is not None
    assert found.high is not None
    assert found.low < -0.05 < found.high < 0
    assert found.evidence == "5 and 5 runs"


def test_compare_unchanged_metric_is_inconclusive(slower: tuple[Path, Path]) -> None:
    found = compared(*slower)
    assert found["inference_samples_per_s"].verdict == "inconclusive"
    assert found["accuracy"].verdict == "inconclusive"
    assert "run more seeds" in found["accuracy"].evidence


def in_order(tmp_path: Path, order: str, speeds: dict[str, list[float]], **values: float) -> tuple[Path, Path]:
    """Store runs of A and B that start one minute apart in the given order."""
    left = {letter: iter(numbers) for letter, numbers in speeds.items()}
    runs: dict[str, list[RunRecord]] = {"A": [], "B": []}
    for minute, letter in enumerate(order):
        outcome = success(train=next(left[letter]), **values)
        runs[letter].append(record(outcome, started_at=f"2026-01-01T00:{minute:02}:00Z"))
    return keep(tmp_path / "base", runs["A"]), keep(tmp_path / "new", runs["B"])


def test_compare_interleaved_runs_is_paired(tmp_path: Path) -> None:
    """The machine slows down by half, but the ratio stays the same."""
    drift = [100.0, 90.0, 80.0, 70.0, 60.0, 50.0]
    slower = [0.97 * speed + 0.02 * i for i, speed in enumerate(drift)]
    found = compared(*in_order(tmp_path, "ABBAABBAABBA", {"A": drift, "B": slower}), "train_samples_per_s")
    comparison = found["train_samples_per_s"]
    assert (comparison.verdict, comparison.evidence, comparison.interleaved) == ("worse", "6 pairs of runs", True)


def test_compare_runs_one_after_the_other_is_not_interleaved(slower: tuple[Path, Path]) -> None:
    found = compared(*slower)
    for name in ("train_samples_per_s", "inference_samples_per_s", "latency_p50_ms"):
        assert (found[name].interleaved, found[name].evidence) == (False, "5 and 5 runs")
    assert (found["host_peak_mib"].interleaved, found["accuracy"].interleaved) == (True, True)


def test_compare_runs_one_after_the_other_does_not_report_a_drift(tmp_path: Path) -> None:
    """The machine slows down by 1% per run. Welch's t-test would report a difference with a p-value of 0.001."""
    order = "A" * 5 + "B" * 5
    speeds = {"A": [100.0, 99.0, 98.0, 97.0, 96.0], "B": [95.0, 94.0, 93.0, 92.0, 91.0]}
    found = compared(*in_order(tmp_path, order, speeds), "train_samples_per_s")["train_samples_per_s"]
    assert (found.verdict, found.interleaved) == ("inconclusive", False)
    assert found.change == pytest.approx(-0.0515, abs=0.001)


def test_compare_runs_one_after_the_other_reports_a_large_difference_with_a_caveat(tmp_path: Path) -> None:
    speeds = {"A": [100.0, 101.0, 99.0, 100.0, 100.0], "B": [50.0, 50.5, 49.5, 50.0, 50.0]}
    base, new = in_order(tmp_path, "AAAAABBBBB", speeds)
    done = invoke(base, new, "--metric", "train_samples_per_s", "--fail-on", "train_samples_per_s:-5%")
    assert "worse, not interleaved" in done.stdout
    assert "at most 1%" not in done.stdout
    assert "the probability of a false difference is unknown" in done.stdout
    assert done.exit_code == 1


def test_bound_that_cannot_be_checked_without_interleaving_gives_a_warning(slower: tuple[Path, Path]) -> None:
    done = invoke(*slower, "--fail-on", "latency_p50_ms:+0.0001%")
    assert "latency_p50_ms:+0.0001%" not in done.stderr  # the latencies are equal, so any change would be detected
    done = invoke(*slower, "--fail-on", "train_samples_per_s:-1%")
    assert "train_samples_per_s:-1%: changes smaller than" in done.stderr
    assert "; interleave the runs (A B B A)" in done.stderr


def test_output_promises_1_percent_if_the_order_does_not_matter(slower: tuple[Path, Path]) -> None:
    assert "any of 1 comparisons is at most 1%" in invoke(*slower, "--metric", "host_peak_mib").stdout


def test_output_promises_nothing_for_comparisons_without_an_interval(slower: tuple[Path, Path]) -> None:
    both, one = (invoke(*slower, "--metric", names).stdout for names in ("accuracy,host_peak_mib", "accuracy"))
    assert "any of 1 comparisons is at most 1%" in both
    assert "at most 1%" not in one
    assert "No comparison has a confidence interval" in one


def test_compare_two_runs_per_side_has_no_interval(tmp_path: Path) -> None:
    base, new = (keep(tmp_path / name, speeds([100.0, 50.0])) for name in ("base", "new"))
    found = compared(base, new, "train_samples_per_s")["train_samples_per_s"]
    assert (found.verdict, found.low, found.change) == ("inconclusive", None, 0.0)
    assert found.evidence == "2 runs on each side; at least 3 are required (harness run --repeat 3)"


def test_compare_quality_over_equal_seeds_is_paired(tmp_path: Path) -> None:
    spread = [0.60, 0.70, 0.80, 0.90]
    for name, gain in (("base", 0.0), ("new", 0.05)):
        keep(tmp_path / name, [record(success(q + gain + 0.001 * i), seed=i) for i, q in enumerate(spread)])
    found = compared(tmp_path / "base", tmp_path / "new", "accuracy")["accuracy"]
    assert (found.verdict, found.evidence) == ("better", "4 pairs of seeds")
    assert found.change == pytest.approx(0.05)


def test_compare_quality_of_one_seed_uses_examples(tmp_path: Path) -> None:
    targets = np.arange(100) % 2
    right = np.eye(2)[targets]
    half = right.copy()
    half[:50] = half[:50, ::-1]
    base = keep(tmp_path / "base", [record(success(0.5))], [half])
    new = keep(tmp_path / "new", [record(success(1.0))], [right])
    found = compared(base, new, "accuracy")["accuracy"]
    assert (found.verdict, found.evidence) == ("better", "100 examples from seed 0")
    same = compared(base, base, "accuracy")["accuracy"]
    assert same.verdict == "inconclusive"


def own_hits(targets: Any, outputs: Any, info: Any) -> Any:
    assert outputs.dtype == np.float32
    return outputs.argmax(axis=1) == targets


def own_margins(targets: Any, outputs: Any, info: Any) -> Any:
    return np.take_along_axis(outputs, targets[:, None], axis=1)[:, 0]


def own_errors(targets: Any, outputs: Any, info: Any) -> Any:
    return outputs.argmax(axis=1) != targets


def own_failing(targets: Any, outputs: Any, info: Any) -> Any:
    raise KeyError("label")


def with_metric(per_example: str) -> Catalog:
    metric = Metric(
        name="own",
        objective="classification",
        function=f"{__name__}:own",
        per_example=per_example and f"{__name__}:{per_example}",
        higher_is_better=True,
        summary="a metric from a plugin",
    )
    catalog = load([])
    catalog.metrics["own"] = Provided(metric, PluginRef(name="own", value=__name__, distribution="own", version="1.0"))
    return catalog


def test_compare_metric_of_a_plugin_uses_its_values_per_example(tmp_path: Path) -> None:
    right = np.eye(2)[np.arange(100) % 2]
    half = np.where(np.arange(100)[:, None] < 50, right[:, ::-1], right)
    base, new = (
        keep(tmp_path / name, [record(success(score, test={"accuracy": score, "own": score}))], [outputs])
        for name, score, outputs in (("base", 0.5, half), ("new", 1.0, right))
    )
    by_hits = compared(base, new, "own", catalog=with_metric("own_hits"))["own"]
    assert (by_hits.verdict, by_hits.evidence) == ("better", "100 examples from seed 0")
    accuracy = compared(base, new, "accuracy")["accuracy"]
    assert (by_hits.low, by_hits.high) == (accuracy.low, accuracy.high)
    by_margins = compared(base, new, "own", catalog=with_metric("own_margins"))["own"]
    assert (by_margins.verdict, by_margins.change) == ("better", 0.5)
    without = compared(base, new, "own", catalog=with_metric(""))["own"]
    assert (without.verdict, without.low) == ("inconclusive", None)
    assert "cannot be compared example by example" in without.evidence


@pytest.mark.parametrize(
    ("per_example", "reason"),
    [
        ("own_errors", "cannot be compared example by example: .* mean 0.75, but the metric is 0.25"),
        ("own_failing", "cannot be compared example by example: .* metric 'own' failed: KeyError"),
        ("own_missing", "cannot be compared example by example: .*own_missing"),
    ],
)
def test_compare_metric_whose_definition_changed_or_fails_gives_the_reason(
    tmp_path: Path, per_example: str, reason: str
) -> None:
    outputs = np.eye(2)[np.arange(100) % 2]
    outputs[:75] = outputs[:75, ::-1]
    base = keep(tmp_path / "base", [record(success(0.25, test={"accuracy": 0.25, "own": 0.25}))], [outputs])
    found = compared(base, base, "own", "accuracy", catalog=with_metric(per_example))
    assert re.search(reason, found["own"].evidence)
    assert (found["own"].verdict, found["own"].low) == ("inconclusive", None)
    assert found["accuracy"].evidence == "100 examples from seed 0"


def test_compare_more_metrics_widens_each_interval(slower: tuple[Path, Path]) -> None:
    one = compared(*slower, "train_samples_per_s")["train_samples_per_s"]
    among = compared(*slower)["train_samples_per_s"]
    assert one.low is not None
    assert among.low is not None
    assert among.low < one.low


def test_match_uses_settings_then_names_then_ignores_the_backend(tmp_path: Path) -> None:
    both = [record(), record(backend="tensorflow")]
    base, new = keep(tmp_path / "base", both), keep(tmp_path / "new", both)
    matches, left = match(find(str(base), base, discover), find(str(new), new, discover))
    assert {(m.base[0].record.spec.backend, m.new[0].record.spec.backend) for m in matches} == {
        ("torch", "torch"),
        ("tensorflow", "tensorflow"),
    }
    assert left == []
    (pair,), left = match(
        find("nlp-cldr-langid-bert-tiny-torch", base, discover),
        find("nlp-cldr-langid-bert-tiny-tensorflow", base, discover),
    )
    assert pair.name == "nlp · cldr-langid · bert-tiny · torch -> tensorflow · cpu · fp32"
    assert ("torch", "2.9.0", "none") in pair.differences
    assert left == []
    matches, left = match(find(str(base), base, discover), find("nlp-cldr-langid-bert-tiny-torch", new, discover))
    assert len(matches) == 1
    assert left == ["nlp · cldr-langid · bert-tiny · tensorflow · cpu · fp32 (base)"]


def test_compare_unknown_metric_suggests_a_name(slower: tuple[Path, Path]) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'train_samples_per_s'"):
        compared(*slower, "train_samples_per_ss")


INVALID = ["five", "0", "-0", "nan%", "-inf", "5%", "0.01", "-1e400", "-5e-324%", "-5 %", "- 5%", "-5%%", "-1_0%"]


@pytest.mark.parametrize(
    "text",
    [
        "accuracy",
        "accuracy:",
        ":-5%",
        *(f"accuracy:{bound}" for bound in (*INVALID, "\u22125%", "-\u0665%", "-\uff15%")),
    ],
)
def test_parse_invalid_bound_raises(text: str) -> None:
    with pytest.raises(UsageError, match="invalid bound"):
        parse([text])


def invoke(*arguments: object) -> Result:
    from harness.cli.root import cli

    return CliRunner().invoke(cli, ["compare", *map(str, arguments)], prog_name="harness")


def test_bound_is_broken_only_by_the_whole_interval(slower: tuple[Path, Path]) -> None:
    broken = invoke(*slower, "--fail-on", "train_samples_per_s:-2%")
    assert broken.exit_code == 1
    assert "Failed: train_samples_per_s:-2%" in broken.stderr
    partly = invoke(*slower, "--fail-on", "train_samples_per_s:-5%")
    assert partly.exit_code == 0
    wrong_way = invoke(*slower, "--fail-on", "train_samples_per_s:+2%")
    assert wrong_way.exit_code == 0
    absolute = invoke(*slower, "--fail-on", "train_samples_per_s:-2")
    assert absolute.exit_code == 1
    assert "Failed: train_samples_per_s:-2:" in absolute.stderr


def test_bound_without_an_interval_fails(tmp_path: Path) -> None:
    base, new = (keep(tmp_path / name, speeds(values)) for name, values in (("b", [1.0, 2.0]), ("n", [0.1, 0.2])))
    done = invoke(base, new, "--fail-on", "train_samples_per_s:-5%")
    assert done.exit_code == 1
    assert "not checked: there is no confidence interval: 2 runs on each side" in done.stderr


def test_output_has_units(slower: tuple[Path, Path]) -> None:
    done = invoke(*slower)
    assert "train_samples_per_s " in done.output
    assert "latency_p50_ms  " in done.output
    memory = compared(*slower, "host_peak_mib")["host_peak_mib"]
    assert (memory.base, memory.unit) == (pytest.approx(500.0), "MiB")


def test_output_has_the_unit_of_the_target(tmp_path: Path) -> None:
    base, new = (
        keep(tmp_path / str(rmse), [record(success(rmse, primary="rmse"), seed=n, target_unit="kcal") for n in (0, 1)])
        for rmse in (1.0, 1.1)
    )
    assert "rmse (kcal) " in invoke(base, new).output


def test_failed_runs_give_a_warning(slower: tuple[Path, Path]) -> None:
    keep(slower[1], [record(failure(), seed=9)])
    done = invoke(*slower)
    assert done.exit_code == 0
    assert "Warning: NEW: failed runs are excluded: nlp-cldr-langid-bert-tiny-torch-s9" in done.stderr


def test_output_of_interleaved_runs_promises_1_percent(tmp_path: Path) -> None:
    speeds = {"A": [100.0, 101.0, 99.0], "B": [100.0, 99.0, 101.0]}
    done = invoke(*in_order(tmp_path, "ABBAAB", speeds))
    assert "any of 4 comparisons is at most 1% (Bonferroni correction)" in done.stdout
    assert "interleaved" not in done.stdout


def test_output_has_name_and_note_and_json_has_verdicts(slower: tuple[Path, Path]) -> None:
    done = invoke(*slower)
    assert done.exit_code == 0
    assert "nlp · cldr-langid · bert-tiny · torch · cpu · fp32" in done.stdout
    assert "not interleaved: the runs of BASE and NEW did not alternate (A B B A)" in done.stdout
    plain = msgspec.json.decode(invoke(*slower, "--format", "json").stdout)
    assert {comparison["verdict"] for comparison in plain[0]["comparisons"]} >= {"worse", "inconclusive"}


@pytest.mark.parametrize("side", ["nowhere", "no/where"])
def test_missing_side_is_a_usage_error(slower: tuple[Path, Path], side: str) -> None:
    done = invoke(slower[0], side, "--results", slower[1])
    assert done.exit_code == 2
    assert (
        "is neither a directory nor a run in" in done.stderr
        or "there is no results directory, run or baseline" in done.stderr
    )


def folds(qualities: list[float], *, seed: int = 0, minute: int = 0, **changes: Any) -> list[RunRecord]:
    """Return one run for each fold, with 300 training and validation and 100 test examples."""
    examples = {"train": 250, "validation": 50, "test": 100}
    return [
        record(
            msgspec.structs.replace(success(quality), examples=examples),
            seed=seed,
            dataset_options={"folds": len(qualities), "split": number},
            started_at=f"2026-01-01T00:{minute + number:02}:00Z",
            **changes,
        )
        for number, quality in enumerate(qualities, 1)
    ]


def test_compare_over_folds_is_a_corrected_paired_test(tmp_path: Path) -> None:
    base = [0.80, 0.82, 0.78, 0.81]
    keep(tmp_path / "base", [*folds(base), *folds(base, seed=1, minute=10)])
    keep(tmp_path / "new", [*folds([each + 0.02 for each in base], minute=20), *folds(base, seed=1, minute=30)])
    found = compared(tmp_path / "base", tmp_path / "new", "accuracy")["accuracy"]
    assert (found.change, found.evidence, found.verdict) == (pytest.approx(0.01), "4 pairs of folds", "inconclusive")
    reach = 5.840909 * 0.01 * (1 / 4 + 1 / 3) ** 0.5  # t(0.995, 3), and the resolution of one in 100 test examples
    assert (found.low, found.high) == (pytest.approx(0.01 - reach), pytest.approx(0.01 + reach))


def test_compare_over_folds_with_different_seeds_pairs_the_folds(tmp_path: Path) -> None:
    keep(tmp_path / "base", folds([0.5, 0.6, 0.7]))
    keep(tmp_path / "new", folds([0.6, 0.7, 0.8], seed=1, minute=10))
    found = compared(tmp_path / "base", tmp_path / "new", "accuracy")["accuracy"]
    assert (found.change, found.evidence) == (pytest.approx(0.1), "3 pairs of folds")


def test_compare_two_folds_is_not_a_comparison_over_seeds(tmp_path: Path) -> None:
    keep(tmp_path / "base", [*folds([0.5, 0.6]), *folds([0.5, 0.6], seed=1, minute=10)])
    keep(tmp_path / "new", [*folds([0.6, 0.7], minute=20), *folds([0.6, 0.7], seed=1, minute=30)])
    found = compared(tmp_path / "base", tmp_path / "new", "accuracy")["accuracy"]
    assert (found.low, found.verdict) == (None, "inconclusive")


@pytest.mark.parametrize(
    ("base", "new", "evidence"),
    [
        ({"folds": 5, "split": 1}, {"folds": 5, "split": 1}, "3 pairs of seeds"),
        ({"folds": 5, "split": 1}, {"folds": 10, "split": 1}, "1 fold on each side; at least 3 are required"),
        (
            {"folds": 5, "split": 1},
            {"folds": 5, "split": 1, "split_seed": 1},
            "1 fold on each side; at least 3 are required",
        ),
        ({"folds": 5, "split": 1}, {"folds": 5, "split": 2}, "1 fold on each side; at least 3 are required"),
        ({"random_splits": 5, "split": 1}, {}, "1 random split on each side; at least 3 are required"),
        ({}, {"random_splits": 5, "split": 1}, "1 random split on each side; at least 3 are required"),
        ({"split": 1}, {"split": 1}, "3 pairs of seeds"),
    ],
)
def test_compare_over_seeds_of_one_fold_requires_the_same_test_examples(
    base: dict[str, int], new: dict[str, int], evidence: str
) -> None:
    sides = [
        [
            StoredRun(Path(f"{number}-{seed}"), record(success(0.5 + 0.1 * number), seed=seed, dataset_options=options))
            for seed in range(3)
        ]
        for number, options in enumerate((base, new))
    ]
    metric = available([run.record for side in sides for run in side], {})["accuracy"]
    found = compare(Match(*sides), metric, 0.95, by_example=False)
    assert found.evidence.startswith(evidence)
    assert (found.low is None) == ("required" in evidence)


def test_compare_single_runs_on_different_folds_is_not_by_example(tmp_path: Path) -> None:
    for name, count in (("base", 5), ("new", 10)):
        keep(tmp_path / name, [record(success(0.5), dataset_options={"folds": count, "split": 1})])
    found = compared(tmp_path / "base", tmp_path / "new", "accuracy")["accuracy"]
    assert found.evidence == "1 fold on each side; at least 3 are required"


def test_compare_different_folds_is_not_paired(tmp_path: Path) -> None:
    keep(tmp_path / "base", folds([0.5, 0.6, 0.7]))
    keep(tmp_path / "new", folds([0.6, 0.7, 0.8, 0.9], minute=10))
    found = compared(tmp_path / "base", tmp_path / "new", "accuracy")["accuracy"]
    assert (found.evidence, found.verdict) == ("3 and 4 folds", "inconclusive")


def adds_up(found: Comparison) -> bool:
    assert found.base is not None
    assert found.new is not None
    expected = found.new / found.base - 1 if found.relative else found.new - found.base
    return found.change == pytest.approx(expected, abs=1e-12)


def test_change_by_example_is_the_difference_of_the_values_of_its_seed(tmp_path: Path) -> None:
    right = np.eye(2)[np.arange(100) % 2]
    half = np.where(np.arange(100)[:, None] < 50, right[:, ::-1], right)
    base = keep(tmp_path / "base", [record(success(0.5)), record(success(0.9), seed=1)], [half, right])
    new = keep(tmp_path / "new", [record(success(1.0))], [right])
    found = compared(base, new, "accuracy")["accuracy"]
    assert (found.base, found.new, found.change) == (0.5, 1.0, 0.5)
    assert (found.evidence, found.all_runs) == ("100 examples from seed 0", False)


def test_change_over_pairs_of_seeds_is_the_difference_of_the_values_of_these_seeds(tmp_path: Path) -> None:
    keep(tmp_path / "base", [record(success(0.5 + 0.1 * seed), seed=seed) for seed in range(5)])
    keep(tmp_path / "new", [record(success(0.55 + 0.1 * seed), seed=seed) for seed in range(3)])
    found = compared(tmp_path / "base", tmp_path / "new", "accuracy")["accuracy"]
    assert (found.base, found.new) == (pytest.approx(0.6), pytest.approx(0.65))
    assert adds_up(found)
    assert (found.evidence, found.all_runs) == ("3 pairs of seeds", False)
    all_seeds = compared(tmp_path / "base", tmp_path / "base", "accuracy")["accuracy"]
    assert (all_seeds.base, all_seeds.all_runs) == (pytest.approx(0.7), True)


def test_change_averages_the_repeats_of_a_seed_as_its_values_do(tmp_path: Path) -> None:
    qualities = [(0.5, 0), (0.5, 0), (0.5, 0), (0.7, 1), (0.9, 2)]
    keep(tmp_path / "base", [record(success(quality), seed=seed) for quality, seed in qualities])
    keep(tmp_path / "new", [record(success(0.8), seed=seed) for seed in range(3)])
    found = compared(tmp_path / "base", tmp_path / "new", "accuracy")["accuracy"]
    assert (found.base, found.change) == (pytest.approx(0.7), pytest.approx(0.1))


def test_change_of_speed_over_pairs_of_runs_is_the_ratio_of_their_values(tmp_path: Path) -> None:
    in_turns = zip((0, 3, 4, 7), (1, 2, 5, 6), strict=True)
    base, new = (
        [run for minute in side for run in speeds([100.0 + minute], minute=minute)]
        for side in zip(*in_turns, strict=True)
    )
    keep(tmp_path / "base", [*base, *speeds([10.0], minute=50), *speeds([10.0], minute=51)])
    keep(tmp_path / "new", new)
    found = compared(tmp_path / "base", tmp_path / "new", "train_samples_per_s")["train_samples_per_s"]
    assert (found.evidence, found.all_runs) == ("4 pairs of runs", False)
    assert found.base == pytest.approx(103.5, rel=1e-3)
    assert adds_up(found)


@pytest.mark.parametrize(
    ("base", "new", "reason"),
    [
        (
            {"seed": 0},
            {"seed": 1},
            "fewer than 3 seeds, and no runs of BASE and NEW have the same seed; run more seeds",
        ),
        (
            {"dataset_options": {"folds": 5, "split": 1}},
            {"dataset_options": {"folds": 5, "split": 2}},
            "fewer than 3 folds, and no runs of BASE and NEW have the same seed and split; run more folds",
        ),
    ],
)
def test_score_of_different_draws_is_not_said_to_be_incomparable(
    base: dict[str, Any], new: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    outputs = np.eye(2)[np.arange(100) % 2]
    sides = [keep(tmp_path / name, [record(**each)], [outputs]) for name, each in (("base", base), ("new", new))]
    assert compared(*sides, "accuracy")["accuracy"].evidence == reason


def test_score_on_different_data_gives_the_reason(tmp_path: Path) -> None:
    made = record()
    other = msgspec.structs.replace(made, provenance=msgspec.structs.replace(made.provenance, dataset_digest="e" * 64))
    outputs = np.eye(2)[np.arange(100) % 2]
    base, new = keep(tmp_path / "base", [made], [outputs]), keep(tmp_path / "new", [other], [outputs])
    assert "the runs with the same seed used different data" in compared(base, new, "accuracy")["accuracy"].evidence


def test_runs_with_weights_are_matched_to_runs_that_execute_the_exported_model() -> None:
    trained = TrainedWeights(run="a", backend="torch", digest="b" * 64, dataset_digest="d" * 64, path="")
    exported = msgspec.structs.replace(trained, exported=ExportedModel(exporter="torch"))
    base = [StoredRun(Path("a"), record()), StoredRun(Path("b"), record(weights=trained))]
    new = [
        StoredRun(Path(precision), record(backend="onnxruntime", weights=exported, precision=precision))
        for precision in ("fp32", "int8")
    ]
    (found,), left = match(base, new)
    assert ([run.path.name for run in found.base], [run.path.name for run in found.new]) == (["b"], ["fp32"])
    assert len(left) == 2


def test_commits_with_and_without_uncommitted_changes_differ() -> None:
    made = record()
    dirty, clean = (
        msgspec.structs.replace(made, environment=msgspec.structs.replace(made.environment, git_commit=commit))
        for commit in ("a" * 40 + "+dirty", "a" * 40)
    )
    found = Match([StoredRun(Path("a"), clean)], [StoredRun(Path("b"), dirty)]).differences
    assert found == [("commit", "a" * 12, "a" * 12 + "+dirty")]
