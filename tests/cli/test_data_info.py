"""Tests of ``harness data info`` with data that are loaded: the user's files, and datasets from plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from command_line import harness_cli
from own_files import houses, photos, reviews, write_csv, write_image, write_jsonl, write_sound

from harness.data.summary import DataSummary


def summary(*arguments: object) -> DataSummary:
    result = harness_cli("data", "info", *arguments, "--format", "json")
    return msgspec.json.decode(result.stdout, type=DataSummary)


def text(*arguments: object) -> str:
    """Return the output as text, with whitespace collapsed."""
    return " ".join(harness_cli("data", "info", *arguments).stdout.split())


def error(*arguments: object, status: int = 2) -> str:
    return " ".join(harness_cli("data", "info", *arguments, status=status).stderr.split())


@pytest.mark.plugins("nlp")
def test_texts_are_described_with_roles_lengths_and_shapes(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "reviews.csv", reviews(40))
    found = summary(path, "--task", "nlp")
    assert (found.path, found.task) == (str(path), "nlp")
    assert found.inferred == ("target_column", "text_column")
    assert [(c.name, c.roles, c.type, c.missing, c.distinct) for c in found.columns] == [
        ("review", ("text",), "text", 0, 40),
        ("label", ("target",), "text", 0, 2),
    ]
    assert {name: split.examples for name, split in found.info.splits.items()} == {
        "train": 28,
        "validation": 4,
        "test": 8,
    }
    assert found.info.splits["test"].classes == (4, 4)
    assert set(found.sizes) == {"characters", "tokens"}
    assert found.sizes["characters"]["train"].max == max(map(len, reviews(40)["review"]))
    assert found.info.inputs["input_ids"].shape == (16,)
    assert [example.target for example in found.examples] == ["pos", "neg", "neg"]
    shown = text(path, "--task", "nlp")
    for part in (
        "examples 28 train, 4 validation, 8 test",
        "2 classes neg (14), pos (14)",
        "input input_ids int32 [16]",
        "review text text 0 40",
        "inferred target_column, text_column",
    ):
        assert part in shown


@pytest.mark.plugins("regression")
def test_tables_are_described_with_missing_values_and_targets(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "houses.csv", houses())
    found = summary(path, "--task", "regression", "--target-column", "price", "--slice-columns", "town")
    assert [(c.name, c.roles, c.type, c.missing) for c in found.columns] == [
        ("rooms", ("numeric feature",), "number", 0),
        ("area", ("numeric feature",), "number", 4),
        ("town", ("slice",), "text", 1),
        ("price", ("target",), "number", 0),
    ]
    prices = found.targets["price"]
    assert min(spread.min for spread in prices.values()) == min(houses()["price"])
    assert max(spread.max for spread in prices.values()) == max(houses()["price"])
    assert found.info.splits["train"].classes == ()
    assert "price train" in text(path, "--task", "regression", "--target-column", "price")


@pytest.mark.plugins("vision")
def test_folders_of_images_are_described_with_sizes_and_options(tmp_path: Path) -> None:
    found = summary(photos(tmp_path / "photos", 10), "--task", "vision", "--set", "task.image_size=32")
    assert found.columns == ()
    assert (found.sizes["height"]["train"].min, found.sizes["height"]["train"].max) == (6, 8)
    assert found.info.inputs["pixel_values"].shape == (32, 32, 3)
    assert found.task_options["image_size"] == 32
    assert any("were enlarged at least 2-fold" in warning for warning in found.info.warnings)
    assert "warning: " in text(tmp_path / "photos", "--task", "vision", "--set", "task.image_size=32")


@pytest.mark.plugins("speech")
def test_folders_of_recordings_are_described_with_seconds(tmp_path: Path) -> None:
    for number in range(20):
        write_sound(tmp_path / "sounds" / "ab"[number % 2] / f"{number}.wav", 400 + 100 * number, seed=number)
    found = summary(tmp_path / "sounds", "--task", "speech", "--set", "task.seconds=0.05")
    assert found.sizes["seconds"]["train"].min >= 0.05
    assert found.info.inputs["input_values"].shape == (400,)
    assert any("were truncated to 0.05 s" in warning for warning in found.info.warnings)
    assert found.examples[0].target in "ab"
    assert found.examples[0].content["waveform"].startswith("float32 [")


@pytest.mark.plugins("nlp")
def test_duplicates_within_and_between_splits_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": f"text number {n}", "label": "ab"[n % 2], "split": ("train", "validation", "test")[n % 3]}
        for n in range(30)
    ]
    for row in (rows[1], rows[2]):
        row |= {"text": "text number 0", "label": rows[0]["label"]}
    rows[3] |= {"text": "text number 0", "label": rows[0]["label"]}
    found = summary(write_jsonl(tmp_path / "duplicates.jsonl", rows), "--task", "nlp")
    assert found.info.splits["train"].repeated == 1
    assert [found.info.splits[name].shared for name in ("train", "validation", "test")] == [0, 1, 1]
    shown = text(tmp_path / "duplicates.jsonl", "--task", "nlp")
    assert "repeated in the same split 1 train, 0 validation, 0 test" in shown
    assert "also in the training split 1 validation, 1 test" in shown


@pytest.mark.plugins("vision", "regression", "nlp", "speech")
@pytest.mark.parametrize(("name", "task"), [("digits", "vision"), ("diabetes", "regression")])
def test_embedded_datasets_are_described(name: str, task: str) -> None:
    found = summary(name, "--task", task)
    assert (found.path, found.dataset, found.columns) == (None, name, ())
    assert sum(split.examples for split in found.info.splits.values()) == {"digits": 1797, "diabetes": 442}[name]
    assert len(found.examples) == 3


@pytest.mark.plugins("nlp", "vision", "regression", "speech")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{file}"], "is a path; add --task TASK, where TASK is one of: "),
        (["{file}", "--set", "task.max_length=8"], "is a path; add --task"),
        (
            ["digits", "--set", "task.image_size=8"],
            "task.image_size=8 applies only when the data are loaded; add --task",
        ),
        (["{file}", "--task", "npl"], "unknown task 'npl'; did you mean 'nlp'?"),
        (["{file}", "--task", "vision"], "no such column"),
        (["{file}", "--task", "nlp", "--text-column", "revew"], "unknown column 'revew'; did you mean 'review'?"),
        (
            ["{file}", "--task", "nlp", "--set", "recipe.epochs=3"],
            "recipe.epochs: remove these settings; only dataset and task settings",
        ),
        (["{file}", "--task", "nlp", "--set", "task.max_lenght=8"], "did you mean 'task.max_length'?"),
        (["digits", "--task", "nlp"], "cannot be used with task 'nlp'"),
        (["{file}.csv", "--task", "nlp"], "no such file or folder"),
        (["sst2", "--task", "nlp"], "has not been downloaded; run: harness data fetch sst2"),
    ],
)
def test_wrong_requests_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    path = write_csv(tmp_path / "reviews.csv", reviews())
    words = [word.format(file=path) for word in arguments]
    if message == "no such column":
        message = "cannot infer the path column"
    assert message in error(*words)


@pytest.mark.plugins("nlp")
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": "x"}] * 9, "classification needs at least two classes"),
        ([{"text": "", "label": "xy"[n % 2]} for n in range(30)], "is empty"),
        ([{"text": f"{n}", "label": None} for n in range(30)], "the label in column 'label' is missing"),
        ([{"label": f"{n}"} for n in range(30)], "cannot infer the text column"),
    ],
)
def test_unusable_data_are_reported(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    assert message in error(write_jsonl(tmp_path / "rows.jsonl", rows), "--task", "nlp")


@pytest.mark.plugins("vision")
def test_unreadable_images_are_reported_and_can_be_skipped(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 10)
    image = write_image(tmp_path / "whole.png", (60, 60, 3))
    (root / "cat" / "cut.png").write_bytes(image.read_bytes()[:-2000])
    assert "cut.png" in error(root, "--task", "vision", status=1)
    found = summary(root, "--task", "vision", "--on-bad-row", "skip")
    assert found.info.details["skipped_rows"] == 1


@pytest.mark.plugins("nlp")
@pytest.mark.parametrize("content", ["=1+1", "<script>", "a\tb", "\x1b[31mred", "x" * 500, "ünïcödé", "日本語", "👍"])
def test_examples_of_any_content_are_one_line(tmp_path: Path, content: str) -> None:
    rows = [{"text": f"{content} {n}", "label": "ab"[n % 2]} for n in range(30)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    found = summary(path, "--task", "nlp")
    assert len(found.examples) == 3
    assert all(len(example.content["text"]) <= 103 for example in found.examples)
    lines = harness_cli("data", "info", path, "--task", "nlp").stdout.splitlines()
    start = lines.index("first training examples")
    assert lines[start + 5] == ""
    from harness.report.data_text import render

    assert "\x1b" not in render(found)  # the command line removes such codes only if it does not print to a terminal


@pytest.mark.plugins("regression")
def test_types_of_columns(tmp_path: Path) -> None:
    """Cover each type, and the ways in which values are missing."""
    cells: dict[str, list[Any]] = {
        "whole": [1, 2, 3, 4],
        "numeric text": ["1", " 2.5 ", "3e4", "-0"],
        "gaps": [1.0, None, "NA", ""],
        "words": ["a", "b", "a", None],
        "flags": [True, False, True, None],
        "mixed": ["a", 1, "b", 2],
        "empty": [None, "", "nan", None],
        "label": [1.5, 2.5, 3.5, 4.5],
    }
    from harness.data.user_files.column_info import of_table
    from harness.data.user_files.options import TableOptions
    from harness.data.user_files.tables import Table

    options = TableOptions(
        target_column=("label",), feature_columns=("whole", "words", "mixed"), slice_columns=("words",)
    )
    found = of_table(Table("t", cells, ["1", "2", "3", "4"]), options, ("words", "mixed"))
    assert [(c.name, c.roles, c.type, c.missing, c.distinct) for c in found] == [
        ("whole", ("numeric feature",), "number", 0, 4),
        ("numeric text", (), "number", 0, 4),
        ("gaps", (), "number", 3, 1),
        ("words", ("categorical feature", "slice"), "text", 1, 2),
        ("flags", (), "true or false", 1, 2),
        ("mixed", ("categorical feature",), "mixed", 0, 4),
        ("empty", (), "empty", 4, 0),
        ("label", ("target",), "number", 0, 4),
    ]


@pytest.mark.plugins("regression")
@pytest.mark.parametrize(
    ("cells", "options", "role", "type_"),
    [
        ([f"{n} kg" for n in range(30)], [], "numeric feature", "number"),
        ([f"{n / 2}%" for n in range(30)], [], "numeric feature", "number"),
        ([f"€{n}.50" for n in range(30)], [], "numeric feature", "number"),
        ([f"{n},5" for n in range(30)], ["--set", "dataset.decimal=,"], "numeric feature", "number"),
        ([f"2021-{n % 12 + 1:02}-{n % 27 + 1:02}" for n in range(30)], ["--set", 'dataset.date_columns=["v"]'],
         "date feature", "text"),
        ([str(n % 3) for n in range(30)], ["--set", 'dataset.categorical_columns=["v"]'],
         "categorical feature", "number"),
        (["red", "blue", "NA"] * 10, [], "categorical feature", "text"),
        ([str(n) for n in range(30)], ["--time-column", "v"], "time", "number"),
    ],
)  # fmt: skip
def test_roles_and_types_are_those_with_which_columns_are_read(
    tmp_path: Path, cells: list[str], options: list[str], role: str, type_: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 99, 30).tolist()
    path = write_csv(tmp_path / "t.csv", {"v": cells, "z": [n * n % 31 for n in range(30)], "y": noise})
    column = summary(path, "--task", "regression", "--target-column", "y", *options).columns[0]
    assert (column.roles, column.type) == ((role,), type_)


@pytest.mark.parametrize("classes", [2, 3, 12, 13, 50, 51, 200, 1000])
def test_classes_of_any_number_are_summarized(classes: int) -> None:
    from harness.data.suspicions import described
    from harness.interfaces import PreparedData, Split
    from harness.records import DataInfo, InputSpec
    from harness.report.data_text import CLASSES, data_section

    split = Split(
        inputs={"x": np.arange(2 * classes, dtype=np.float32)[:, None]}, targets=np.arange(2 * classes) % classes
    )
    info = DataInfo(
        kind="features",
        inputs={"x": InputSpec(shape=(1,), dtype="float32")},
        objective="classification",
        outputs=classes,
        label_names=tuple(f"c{number}" for number in range(classes)),
    )
    found = described(PreparedData(train=split, validation=split, test=split, info=info))
    assert found.splits["train"].classes == (2,) * classes
    assert found.splits["test"].shared == 2 * classes
    _, rows = data_section(found, {})
    shown = str(dict(rows)[f"{classes} classes"])
    assert shown.count("(2)") == min(classes, CLASSES)
    assert ("more" in shown) == (classes > CLASSES)
