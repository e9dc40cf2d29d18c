from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_records import ENVIRONMENT, comparison, failure, record, success

from harness.analysis.comparison_table import build_table
from harness.analysis.formatting import rounded
from harness.analysis.table import Row
from harness.records import Gpu, Protocol, RankMemory, Recipe, RunRecord, TuningCost
from harness.records.record import MAX_MESSAGE
from harness.report.csv_json import csv_text, json_text
from harness.report.latex import render as render_latex
from harness.report.markdown import render as render_markdown
from harness.report.progress import describe_result
from harness.report.text import render as render_text


def row(records: list[RunRecord], **identity: str) -> Row:
    rows = [r for r in build_table(records).rows if all(r.text(name) == value for name, value in identity.items())]
    assert len(rows) == 1
    return rows[0]


def test_repeats_of_a_seed_are_averaged_before_the_seeds() -> None:
    runs = [(0.6, 0), (0.8, 0), (0.7, 0), (0.9, 1)]
    found = row([record(success(quality), seed=seed) for quality, seed in runs])
    assert found.cells["quality"].value == pytest.approx(0.8)
    assert found.cells["quality"].ci95 == pytest.approx(12.7062 * 0.1, rel=1e-5)
    assert (found.text("seeds"), found.text("runs")) == ("2", "4")


def test_repeats_of_one_seed_have_no_interval() -> None:
    found = row([record(success(0.7)), record(success(0.8), repeat=2)])
    assert (found.cells["quality"].value, found.cells["quality"].ci95) == (pytest.approx(0.75), None)


@pytest.mark.parametrize(
    ("trials", "shown"), [((20, 20), "20"), ((12345678, 12345678), "12345678"), ((20, 21), "20.5")]
)
def test_numbers_of_tuning_trials_are_integers_if_all_runs_have_the_same(trials: tuple[int, int], shown: str) -> None:
    def tuned(count: int, seed: int) -> RunRecord:
        cost = TuningCost(study="s", trial=0, trials=count, pruned=0, failed=0, steps=count, seconds=20.0)
        return msgspec.structs.replace(record(seed=seed), tuning=cost)

    found = row([tuned(count, seed) for seed, count in enumerate(trials)])
    assert [found.text(name) for name in ("tuning_trials", "tuning_s")] == [shown, "20.00"]


def test_runs_of_different_plugin_code_are_flagged() -> None:
    def made_by(digest: str, seed: int) -> RunRecord:
        run = record(success(0.7), seed=seed)
        plugins = [msgspec.structs.replace(plugin, code_digest=digest) for plugin in run.provenance.plugins]
        provenance = msgspec.structs.replace(run.provenance, plugins=plugins)
        return msgspec.structs.replace(run, provenance=provenance)

    mixed = row([made_by("a", 0), made_by("b", 1), made_by("", 2)])
    assert mixed.cells["quality"].flagged
    assert mixed.text("flags") == "code: the runs used 2 versions of plugin nlp"
    same = row([made_by("a", 0), made_by("a", 1), made_by("", 2)])
    assert (same.cells["quality"].flagged, same.text("flags")) == (False, "")


def test_equal_values_over_seeds_have_no_half_width_in_any_format() -> None:
    table = build_table([record(success(0.75, train=900.0 + seed), seed=seed) for seed in (0, 1, 2)])
    (found,) = table.rows
    assert (found.cells["quality"].shown, found.cells["quality"].shown_ci95) == ("0.7500", "")
    assert found.cells["train_samples_per_s"].shown_ci95
    for text in (render_text(table), render_markdown(table), render_latex(table)):
        assert not re.search(r"(±|pm\$) ?0(?![.\d])", text)
        assert "from several seeds whose values agree to seven digits" in text
    assert next(csv.DictReader(io.StringIO(csv_text(table))))["quality_ci95"] == ""
    assert json.loads(json_text(table))["rows"][0]["quality_ci95"] is None
    assert table.frame()["quality_ci95"][0] == 0  # unrounded


def test_failed_run_counts_in_its_row() -> None:
    found = row(comparison(), task="nlp", backend="tensorflow")
    assert found.text("status") == "2/3 ok, oom"
    assert found.text("failures") == "seed 2: oom: killed: out of memory"
    assert (found.text("seeds"), found.text("runs")) == ("2", "3")


def test_long_reason_of_a_failure_is_shown_in_full() -> None:
    message = "x" * (MAX_MESSAGE - 10) + " remedy"
    run = record(failure("error", message))
    assert row([run]).text("failures").endswith(" remedy")
    assert describe_result(run).endswith(" remedy")


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([success(), success()], "ok"),
        ([failure("oom")], "failed: oom"),
        ([failure("oom"), failure("crash"), failure("oom")], "failed: crash, 2 oom"),
        ([success(), failure("timeout"), failure("timeout")], "1/3 ok, 2 timeout"),
    ],
)
def test_status_counts_failures_by_kind(outcomes: list[Any], status: str) -> None:
    assert row([record(outcome, seed=seed) for seed, outcome in enumerate(outcomes)]).text("status") == status


def test_run_that_failed_early_joins_runs_of_the_same_setting() -> None:
    early = record(failure(), seed=1, device="auto", environment=msgspec.structs.replace(ENVIRONMENT, packages={}))
    early = msgspec.structs.replace(early, environment=msgspec.structs.replace(early.environment, packages={}))
    assert row([early, record()]).text("status") == "1/2 ok, oom"
    two_devices = [early, record(), record(device="cuda:0")]
    assert [r.text("device") for r in build_table(two_devices).rows] == ["auto", "cpu", "cuda:0"]


def test_ratios_are_to_the_first_backend() -> None:
    torch = [record(success(train=100.0, inference=50.0), seed=0)]
    tensorflow = [record(success(train=80.0, inference=100.0), backend="tensorflow", seed=0)]
    first, second = build_table(torch + tensorflow).rows
    assert (first.cells["train_ratio"].value, second.cells["train_ratio"].value) == (1.0, 0.8)
    assert (second.cells["inference_ratio"].value, second.cells["inference_ratio"].ci95) == (2.0, None)
    first, second = build_table(tensorflow + torch).rows
    assert (first.text("backend"), second.cells["train_ratio"].value) == ("tensorflow", 1.25)


def test_scaling_efficiency_is_relative_to_one_device_with_the_same_settings() -> None:
    alone = record(success(train=100.0))
    peaks = [RankMemory(host_peak_bytes=size * 2**20) for size in (300, 310)]
    outcome = success(train=150.0)
    outcome = msgspec.structs.replace(outcome, memory=msgspec.structs.replace(outcome.memory, ranks=peaks))
    pair = record(outcome, devices=2)
    others = [record(success(train=90.0), threads=7), record(success(train=150.0), devices=2, threads=3)]
    rows = build_table([alone, pair, *others]).rows
    assert [row.cells["scaling_efficiency"].value for row in rows] == [None, 0.75, None, None]
    assert [row.cells["rank_peak_mib"].value for row in rows] == [None, 310.0, None, None]
    text = render_text(build_table([alone, pair]))
    assert "devices=2" in text
    assert re.search(r"scaling: training throughput relative to the row with one device", text)
    assert "devices=2" in render_text(build_table([pair]))
    assert "scaling" not in render_text(build_table([pair]))


def ratio_of(torch: dict[int, list[float]], tensorflow: dict[int, list[float]]) -> Any:
    """Return the cell with the training ratio of tensorflow. The arguments map seeds to the speeds of the repeats."""
    records = [
        record(success(train=speed), backend=backend, seed=seed, repeat=repeat, started_at=f"2026-01-01T00:0{repeat}Z")
        for backend, seeds in (("torch", torch), ("tensorflow", tensorflow))
        for seed, speeds in seeds.items()
        for repeat, speed in enumerate(speeds, start=1)
    ]
    first, second = build_table(records).rows
    assert first.cells["train_ratio"].ci95 is None
    return second.cells["train_ratio"]


def test_interval_of_a_ratio_is_computed_over_seeds_by_pairs() -> None:
    """50/53 - 100/105 = -0.0089847 and 56/53 - 110/105 = 0.0089847; t(0.975, 1) = 12.7062."""
    found = ratio_of({0: [100.0], 1: [110.0]}, {0: [50.0], 1: [56.0]})
    assert found.value == pytest.approx(53 / 105)
    assert found.ci95 == pytest.approx(53 / 105 * 12.7062 * 0.0089847, rel=1e-4)


def test_interval_of_a_ratio_is_zero_if_the_runs_vary_in_proportion() -> None:
    found = ratio_of({0: [100.0, 80.0], 1: [90.0, 60.0]}, {0: [50.0, 40.0], 1: [45.0, 30.0]})
    assert (found.value, found.ci95) == (0.5, pytest.approx(0.0, abs=1e-12))


def test_interval_of_a_ratio_is_computed_over_repeats_of_one_seed() -> None:
    """The terms are -1/30, 0 and 1/30, with standard deviation 1/30; t(0.975, 2) = 4.302653."""
    found = ratio_of({0: [110.0, 100.0, 90.0]}, {0: [160.0, 150.0, 140.0]})
    assert found.value == pytest.approx(1.5)
    assert found.ci95 == pytest.approx(1.5 * 4.302653 / 30 / math.sqrt(3), rel=1e-5)


@pytest.mark.parametrize("seeds", [(2, 3), (0, 1, 2)])
def test_interval_of_a_ratio_of_unpaired_runs_comes_from_both_means(seeds: tuple[int, ...]) -> None:
    """Both means are 105 and 53; the half-widths of two runs are 12.7062 times half of their difference."""
    speeds = (50.0, 56.0) if len(seeds) == 2 else (50.0, 53.0, 56.0)
    found = ratio_of({0: [100.0], 1: [110.0]}, {seed: [speed] for seed, speed in zip(seeds, speeds, strict=True)})
    own = 12.7062 * 3 if len(seeds) == 2 else 4.302653 * 3 / math.sqrt(3)
    assert found.ci95 == pytest.approx(53 / 105 * math.hypot(own / 53, 12.7062 * 5 / 105), rel=1e-4)


def test_ratio_to_failed_backend_or_other_settings_is_missing() -> None:
    records = [record(failure()), record(backend="tensorflow"), record(backend="tensorflow", threads=2)]
    assert [r.cells["train_ratio"].value for r in build_table(records).rows] == [None, None, 1.0]


def test_options_list_the_settings_that_differ_between_rows() -> None:
    records = [
        record(recipe=Recipe(epochs=2)),
        record(recipe=Recipe(epochs=3), compile=True),
        record(recipe=Recipe(epochs=2), backend="tensorflow"),
        record(model="lstm"),
    ]
    assert [r.text("options") for r in build_table(records).rows] == [
        "recipe.epochs=2",
        "recipe.epochs=2",
        "compile, recipe.epochs=3",
        "",
    ]


def test_different_machines_versions_or_data_make_separate_rows() -> None:
    other_cpu = elsewhere(cpu="Other CPU")
    newer = elsewhere(packages={"numpy": "2.5.0"})
    gpu = elsewhere(gpus=[Gpu(name="H", memory_bytes=1, driver="1")] * 2)
    changed = record()
    changed = msgspec.structs.replace(
        changed, provenance=msgspec.structs.replace(changed.provenance, dataset_digest="e" * 64)
    )
    records = [record(), changed, *(record(environment=one) for one in (other_cpu, newer, gpu))]
    found = build_table(records).rows
    assert len(found) == 5
    assert len({r.text("options") for r in found}) == 5
    assert any("gpu=2 x H" in r.text("options") for r in found)


def elsewhere(**changes: Any) -> Any:
    return msgspec.structs.replace(ENVIRONMENT, **changes)


def test_values_that_are_not_finite_are_missing() -> None:
    found = row([record(success(float("nan"), test={"accuracy": float("nan"), "f1_macro": None}))])
    assert found.cells["quality"].value is None
    assert found.cells["f1_macro"].value is None


def test_frame_has_numbers_and_their_intervals() -> None:
    frame = build_table(comparison()).frame()
    assert list(frame["backend"]) == ["torch", "tensorflow"] * 3
    assert frame["seeds"].dtype == "int64"
    assert frame["quality"].dtype == frame["quality_ci95"].dtype == "float64"
    assert frame["quality"][0] == pytest.approx((0.7123 + 0.7188 + 0.7154) / 3)
    assert build_table([]).frame().columns.tolist() == frame.columns.tolist()


@pytest.mark.parametrize(
    ("value", "ci95", "shown"),
    [
        (0.71553, 0.00808, ("0.7155", "0.0081")),
        (1893.4, 145.2, ("1890", "150")),
        (0.5, 0.0996, ("0.50", "0.10")),
        (12.3456, None, ("12.35", "")),
        (98765.4, None, ("98770", "")),
        (0.9999999, None, ("1.000", "")),
        (0.0, None, ("0", "")),
        (12.0, 0.0, ("12.00", "")),
        (0.0, 0.0, ("0", "")),
        (1234.5, 1e-9, ("1234", "")),
        (58.73086, 4.9e-6, ("58.73", "")),
        (58.73086, 5.1e-6, ("58.73086", "0.00001")),
        (1.2344e-9, 1e-16, ("1.234e-09", "")),
        (3.2e12, None, ("3.200e+12", "")),
        (2.5e-7, 1.3e-8, ("2.50e-07", "1.3e-08")),
        (-4.56, 1.2, ("-4.6", "1.2")),
    ],
)
def test_rounded_matches_expected_text(value: float, ci95: float | None, shown: tuple[str, str]) -> None:
    assert rounded(value, ci95) == shown


@given(st.floats(-1e15, 1e15), st.none() | st.floats(0, 1e15))
def test_rounded_is_within_half_of_the_last_digit(value: float, ci95: float | None) -> None:
    shown, shown_ci95 = rounded(value, ci95)
    step = max(0.05 * ci95, max(abs(value), ci95) * 1e-6) if ci95 and shown_ci95 else abs(value) * 0.5e-3
    assert abs(float(shown) - value) <= step * 1.001
    if not ci95:
        assert shown_ci95 == ""
    elif not shown_ci95:
        assert ci95 <= max(abs(value), ci95) * 1e-6
    else:
        assert float(shown_ci95) > 0
        assert abs(float(shown_ci95) - ci95) <= max(0.05 * ci95, max(abs(value), ci95) * 1e-6) * 1.001


some_runs = st.lists(
    st.builds(
        lambda outcome, **changes: record(outcome, **changes),
        st.sampled_from([failure("oom"), failure("crash")]) | st.floats(0, 1).map(success),
        task=st.sampled_from(["nlp", "vision"]),
        backend=st.sampled_from(["torch", "tensorflow", "jax"]),
        device=st.sampled_from(["cpu", "cuda:0"]),
        seed=st.integers(0, 2),
        recipe=st.sampled_from([Recipe(epochs=1), Recipe(epochs=2)]),
    ),
    max_size=12,
)
CONTENT = ("quality", "train_samples_per_s", "host_peak_mib", "seeds", "runs", "status", "options")


@given(some_runs)
@settings(deadline=None)
def test_every_run_counts_in_exactly_one_row(records: list[RunRecord]) -> None:
    table = build_table(records)
    assert sum(r.cells["runs"].value for r in table.rows) == len(records)
    identities = [tuple(r.text(n) for n in ("task", "backend", "device", "options")) for r in table.rows]
    assert len(set(identities)) == len(identities)


@given(some_runs, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_runs_changes_only_the_order_of_rows_and_ratios(records: list[RunRecord], random: Any) -> None:
    shuffled = records[:]
    random.shuffle(shuffled)

    def content(runs: list[RunRecord]) -> dict[tuple[str, ...], list[str]]:
        names = ("task", "backend", "device", "options")
        rows = build_table(runs).rows
        return {
            tuple(r.text(n) for n in names): [r.text(c) + "±" + r.cells[c].shown_ci95 for c in CONTENT] for r in rows
        }

    assert content(shuffled) == content(records)


def test_table_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        build_table([]).rows = ()  # type: ignore[misc]


def on_split(number: int, quality: float | None, *, seed: int = 0, digest: str = "") -> RunRecord:
    made = record(failure("oom") if quality is None else success(quality), seed=seed, dataset_options={"split": number})
    digest = digest or f"digest of {number}"
    return msgspec.structs.replace(made, provenance=msgspec.structs.replace(made.provenance, dataset_digest=digest))


def test_options_use_the_names_of_the_command_line() -> None:
    shorter = Protocol(min_steady_s=1.0)
    rows = build_table([record(), record(protocol=shorter)]).rows
    assert [row.text("options") for row in rows] == ["protocol.min_steady_s=2.5", "protocol.min_steady_s=1.0"]


def test_splits_make_one_row_with_an_interval_over_splits() -> None:
    found = row([on_split(0, 0.5), on_split(0, 0.7, seed=1), on_split(1, 0.8), on_split(2, None)])
    assert found.cells["quality"].value == pytest.approx(0.7)  # mean of 0.6 and 0.8
    assert found.cells["quality"].ci95 == pytest.approx(12.7062 * 0.1, rel=1e-5)
    assert (found.text("options"), found.text("seeds"), found.text("runs")) == ("3 splits", "2", "4")
    assert found.text("failures") == "split 2, seed 0: oom: killed: out of memory"


def test_single_split_is_named_and_has_an_interval_over_seeds() -> None:
    found = row([on_split(3, 0.6), on_split(3, 0.8, seed=1)])
    assert found.cells["quality"].ci95 == pytest.approx(12.7062 * 0.1, rel=1e-5)
    assert found.text("options") == "split 3"


def test_split_with_changed_data_makes_a_separate_row() -> None:
    records = [on_split(0, 0.5), on_split(0, 0.9, digest="another")]
    assert [found.text("runs") for found in build_table(records).rows] == ["1", "1"]


def on_fold(number: int, quality: float, *, seed: int = 0, count: int = 5, **options: int) -> RunRecord:
    """Return a run with 1,000 training, 125 validation and 375 test examples, a ratio of 1/3."""
    examples = {"train": 1000, "validation": 125, "test": 375}
    done = msgspec.structs.replace(success(quality, train=100.0 + number), examples=examples)
    made = record(done, seed=seed, dataset_options={**(options or {"folds": count}), "split": number})
    return msgspec.structs.replace(
        made, provenance=msgspec.structs.replace(made.provenance, dataset_digest=f"digest of {number}")
    )


def test_interval_over_folds_is_corrected_for_scores_only() -> None:
    qualities = [(1, 0, 0.6), (1, 1, 0.8), (2, 0, 0.8), (3, 0, 0.9)]
    found = row([on_fold(split, quality, seed=seed, count=3) for split, seed, quality in qualities])
    deviation = 0.1  # of 0.7, 0.8 and 0.9
    assert found.cells["quality"].value == pytest.approx(0.8)
    assert found.cells["quality"].ci95 == pytest.approx(4.302653 * deviation * math.sqrt(1 / 3 + 1 / 3), rel=1e-6)
    assert found.cells["train_samples_per_s"].ci95 == pytest.approx(4.302653 * math.sqrt(1 / 3), rel=1e-6)
    assert found.text("options") == "3 folds"
    shown = render_text(build_table([on_fold(split, 0.8) for split in (1, 2, 3)]))
    assert "3 of 5 folds" in shown
    assert "corrected for overlapping training splits (Nadeau and Bengio 2003)" in " ".join(shown.split())


def test_random_splits_and_folds_are_named_and_are_separate_rows() -> None:
    records = [on_fold(split, 0.8, random_splits=2) for split in (1, 2)] + [on_fold(2, 0.8)]
    assert [found.text("options") for found in build_table(records).rows] == [
        "2 random splits",
        "fold 2/5",
    ]


def test_interval_over_seeds_of_one_fold_is_not_corrected() -> None:
    found = row([on_fold(2, 0.6), on_fold(2, 0.8, seed=1)])
    assert found.cells["quality"].ci95 == pytest.approx(12.7062 * 0.1, rel=1e-5)


def test_interrupted_run_counts_until_the_run_succeeds() -> None:
    stopped = record(failure("interrupted"), started_at="2025-11-22T12:00:00Z")
    assert row([stopped]).text("status") == "failed: interrupted"
    completed = record(success(0.7), repeat=2, started_at="2025-11-22T13:00:00Z")
    found = row([stopped, completed])
    assert [found.text(name) for name in ("runs", "status", "failures")] == ["1", "ok", ""]
    assert found.run_ids == (stopped.run_id, completed.run_id)
    again = record(failure("interrupted"), repeat=3, started_at="2025-11-22T14:00:00Z")
    assert row([stopped, completed, again]).text("status") == "1/2 ok, interrupted"
