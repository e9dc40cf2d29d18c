"""Tests of the text and the page of one run: targets, memory and fits in one call."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from sample_records import MIB, failure, record, success

from harness.records import ClassScore, Memory, ModelInfo, SplitInfo, TargetScore
from harness.records.store import StoredRun
from harness.report.run_text import MOST_ROWS, quality, render
from harness.report.site.run_page import context

replace = msgspec.structs.replace
TARGETS = [
    TargetScore(label="height", unit="m", scores={"rmse": 0.5, "r2": None}),
    TargetScore(label="weight", unit="", scores={"rmse": 12.25, "r2": 0.75}),
]


def test_each_target_has_a_row_in_the_text_and_on_the_page(tmp_path: Path) -> None:
    made = success(5.0, primary="rmse")
    run = record(replace(made, scores=replace(made.scores, per_target=TARGETS)))
    block = render(run, tmp_path).partition("per target, test split")[2].split("\n\n")[0]
    assert [line.split() for line in block.splitlines()[1:]] == [
        ["target", "unit", "rmse", "r2"],
        ["height", "m", "0.5", "not", "known"],
        ["weight", "not", "known", "12.25", "0.75"],
    ]
    views = {view.name: view for view in context(StoredRun(tmp_path, run), "", {})["tables"]}
    assert [row[0] for row in views["per-target"].rows] == ["height", "weight"]


def test_single_target_has_no_table_of_targets(tmp_path: Path) -> None:
    assert "per target" not in render(record(success(5.0, primary="rmse")), tmp_path)


def test_both_host_peaks_are_shown(tmp_path: Path) -> None:
    memory = Memory(
        host_peak_bytes=400 * MIB, host_peak_by_phase_bytes={}, host_counter="VmHWM", tree_peak_bytes=900 * MIB
    )
    text = " ".join(render(record(replace(success(), memory=memory)), tmp_path).split())
    assert "host, including child processes 900.0 MiB host, worker 400.0 MiB (VmHWM)" in text
    alone = " ".join(render(record(), tmp_path).split())
    assert "peak memory host, worker 500.0 MiB" in alone


def test_fit_in_one_call_is_labeled_and_has_no_flops(tmp_path: Path) -> None:
    made = success(train=50_000.0)
    run = record(replace(made, speed=replace(made.speed, by_steps=False)))
    text = " ".join(render(run, tmp_path).split())
    assert "speed (steady state) fit in one call 50000 samples/s" in text
    assert "GFLOP/s" not in text
    assert re.findall(r"recipe\.\w+", text) == ["recipe.batch_size"]
    names = [name for name, _, _ in context(StoredRun(tmp_path, run), "", {})["figures"]]
    assert "fit in one call" in names
    assert "training" not in names


def test_text_and_page_begin_with_the_data(tmp_path: Path) -> None:
    made = record(success())
    assert made.provenance.data is not None
    info = replace(
        made.provenance.data,
        details={"splits": "drawn at random"},
        warnings=("3 of 9 test texts <b> were truncated",),
        splits={
            "train": SplitInfo(examples=800, classes=(500, 300), repeated=2),
            "validation": SplitInfo(examples=100, classes=(60, 40), shared=1),
            "test": SplitInfo(examples=100, classes=(60, 40)),
        },
    )
    run = replace(made, provenance=replace(made.provenance, data=info))
    block = render(run, tmp_path).split("\n\n")[1]
    assert [" ".join(line.split()) for line in block.splitlines()] == [
        "data",
        "examples 800 train, 100 validation, 100 test",
        "2 classes de (500), fr (300); training examples in brackets",
        "input input_ids int32 [32]",
        "repeated in the same split 2 train, 0 validation, 0 test",
        "also in the training split 1 validation, 0 test",
        "splits drawn at random",
        "warning 3 of 9 test texts <b> were truncated",
    ]
    page = context(StoredRun(tmp_path, run), "", {})["data"]
    assert "<dt>2 classes</dt><dd>de (500), fr (300); training examples in brackets</dd>" in page
    assert "3 of 9 test texts &lt;b&gt; were truncated" in page


def test_data_of_older_and_failed_runs_are_shown_as_far_as_known(tmp_path: Path) -> None:
    old = " ".join(render(record(success()), tmp_path).split("\n\n")[1].split())
    assert old.startswith("data examples 800 train, 100 validation, 100 test 2 classes de, fr input")
    failed = record(failure())
    block = render(failed, tmp_path).split("\n\n")[3]
    assert block.startswith("data\n  2 classes")
    assert "examples" not in block
    without = replace(failed, provenance=replace(failed.provenance, data=None))
    assert "\ndata\n" not in render(without, tmp_path)
    assert context(StoredRun(tmp_path, without), "", {})["data"] == ""


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ("percentile bootstrap", "95% bootstrap interval over test examples"),  # records without the field
        ("Korn-Graubard; Student t of the logarithm", "95% interval over test examples"),
    ],
)
def test_quality_names_the_method_of_old_intervals(method: str, title: str) -> None:
    outcome = success()
    scores = msgspec.structs.replace(outcome.scores, intervals={"accuracy": (0.7, 0.8)}, interval_method=method)
    headers, rows = quality(msgspec.structs.replace(outcome, scores=scores))
    assert headers[-1] == title
    assert rows[0][-1] == "0.7 to 0.8"


def test_missing_intervals_are_listed_with_the_reason(tmp_path: Path) -> None:
    outcome = success()
    reasons = {
        "f1_macro": "a class has no examples",
        "roc_auc": "it is a mean",
        "recall_macro": "a class has no examples",
        "ks": "the metric does not define per_example, the values of the examples",
    }
    scores = msgspec.structs.replace(outcome.scores, no_interval=reasons)
    made = record(msgspec.structs.replace(outcome, scores=scores))
    expected = [
        "No interval for f1_macro, recall_macro: a class has no examples.",
        "No interval for roc_auc: it is a mean.",
        "No interval for ks: the metric does not define per_example, the values of the examples.",
    ]
    assert "\n".join(expected) in render(made, tmp_path)
    assert context(StoredRun(tmp_path, made), "", {})["without_interval"] == expected


@pytest.mark.parametrize("table", ["classes", "epochs", "settings", "log"])
def test_long_tables_are_cut_with_a_line_that_says_so(table: str, tmp_path: Path) -> None:
    outcome = success()
    count = 3 * MOST_ROWS
    if table == "classes":
        score = ClassScore(label="de", precision=0.7, recall=0.8, f1=0.747, roc_auc=0.8, support=40)
        scores = msgspec.structs.replace(outcome.scores, per_class=[score] * count)
        made = record(msgspec.structs.replace(outcome, scores=scores))
    elif table == "epochs":
        made = record(msgspec.structs.replace(outcome, curves=[outcome.curves[0]] * count))
    elif table == "settings":
        notes = {f"setting {number}": "x" for number in range(count)}
        made = record(outcome)
        made = msgspec.structs.replace(made, provenance=msgspec.structs.replace(made.provenance, notes=notes))
    else:
        made = record(msgspec.structs.replace(failure("error", "x"), log_tail="line\n" * count))
    lines = render(made, tmp_path).splitlines()
    assert MOST_ROWS <= len(lines) < MOST_ROWS + 200
    (omitted,) = [line for line in lines if line.startswith("  ... and ")]
    assert omitted.endswith("(see `harness show --format json`)")
    assert count - MOST_ROWS <= int(omitted.split()[2]) <= count - MOST_ROWS + 50


def test_confusion_matrix_is_shown_for_few_classes(tmp_path: Path) -> None:
    block = render(record(), tmp_path).partition("confusion matrix, test split")[2].split("\n\n")[0]
    lines = [line.split() for line in block.splitlines()[1:]]
    assert lines == [["de", "1"], ["de", "32", "8"], ["1", "10", "30"]]


def test_most_frequent_mistakes_are_shown_for_many_classes(tmp_path: Path) -> None:
    made = success()
    classes = [replace(made.scores.per_class[0], label=f"class {number}") for number in range(13)]
    confusion = [[4 if i == j else 0 for j in range(13)] for i in range(13)]
    confusion[2][5], confusion[7][1] = 1, 4
    run = record(replace(made, scores=replace(made.scores, per_class=classes, confusion=confusion)))
    text = render(run, tmp_path)
    assert "confusion matrix" not in text
    block = text.partition("most frequent mistakes, test split")[2].split("\n\n")[0]
    assert [line.split() for line in block.splitlines()[2:]] == [
        ["class", "7", "class", "1", "4", "50.0"],
        ["class", "2", "class", "5", "1", "20.0"],
    ]


def test_operations_of_the_forward_pass_are_not_rounded(tmp_path: Path) -> None:
    model = ModelInfo(parameters=86506, flops_per_sample=2993664.0)
    text = " ".join(render(record(replace(success(), model=model)), tmp_path).split())
    assert "trainable parameters 86,506 forward pass 2,993,664 FLOP/sample" in text


def test_settings_without_a_value_are_not_shown(tmp_path: Path) -> None:
    made = record()
    notes = {"traced": "", "intra_op_threads": "2"}
    text = render(replace(made, provenance=replace(made.provenance, notes=notes)), tmp_path)
    assert re.findall(r"backend setting: (\w+)", text) == ["intra_op_threads"]
