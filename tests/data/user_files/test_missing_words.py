"""Words for missing values, which do not determine the kind of a column and never cause rows to be dropped silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_files import write_csv, write_jsonl

from harness import DataError, RawData
from harness.data.user_files.dataset import UserDataset

COUNT = 60
WORDS = [
    "NA",
    "N/A",
    "nan",
    "NaN",
    "null",
    "None",
    "-",
    "?",
    "<NA>",
    "#N/A",
    "n.a.",
    "NONE",
    "\\N",
    "(blank)",
    "(null)",
]


def loaded(path: Path, kind: str = "table", **options: Any) -> RawData:
    dataset = UserDataset(path, kind, "regression" if kind == "table" else "classification")
    default = {"target_column": "y"} if kind == "table" else {}
    return dataset.load(dataset.settle(dataset.Options(**{**default, **options}))[0])


def column(cells: list[Any]) -> dict[str, list[Any]]:
    noise = np.random.default_rng(0).uniform(size=COUNT)
    return {"c": [cells[n % len(cells)] for n in range(COUNT)], "y": noise.tolist()}


def together(data: RawData, name: str) -> list[Any]:
    return [cell for s in (data.train, data.validation, data.test) for cell in s.inputs[name][:, 0]]


@pytest.mark.parametrize("word", WORDS)
def test_load_category_column_keeps_words_as_categories(tmp_path: Path, word: str) -> None:
    path = write_csv(tmp_path / "t.csv", column([word, word, word, "Grvl", "Pave"]))
    data = loaded(path)
    assert sorted(set(together(data, "categories"))) == sorted({word, "Grvl", "Pave"})
    assert len(together(data, "categories")) == COUNT
    assert f"column 'c': 36 cells are {word!r}, which is kept as categories" in data.warnings
    same = loaded(path, categorical_columns=("c",))
    assert together(same, "categories") == together(data, "categories")


@pytest.mark.parametrize("word", WORDS)
def test_load_numeric_column_reads_words_as_missing(tmp_path: Path, word: str) -> None:
    data = loaded(write_csv(tmp_path / "t.csv", column([word, word, "7", "8.5"])))
    numbers = np.array(together(data, "features"))
    assert (np.isnan(numbers).sum(), set(numbers[~np.isnan(numbers)])) == (30, {7, 8.5})
    assert f"column 'c': 30 cells with {word!r} were read as missing values" in data.warnings


@pytest.mark.parametrize("word", WORDS)
def test_load_text_and_labels_keep_words_and_count_them(tmp_path: Path, word: str) -> None:
    texts = [word if n % 10 == 0 else f"text {n}" for n in range(COUNT)]
    labels = [word if n % 3 == 0 else "yes" for n in range(COUNT)]
    data = loaded(write_csv(tmp_path / "t.csv", {"text": texts, "label": labels}), "text")
    assert data.label_names == tuple(sorted((word, "yes")))
    assert f"column 'text': 6 cells are {word!r}, which is kept as text" in data.warnings
    assert f"column 'label': 20 cells are {word!r}, which is kept as labels" in data.warnings


@pytest.mark.parametrize(
    ("cells", "rest", "values"),
    [
        (["1", "2", "3", "unknown"], "numbers, except for 15 of 60 cells", "'unknown' (15)"),
        (["1", "2", "3", "<0.1"], "numbers", "'<0.1' (15)"),
        (["1", "2", "3", "inf.", "??", "n"], "numbers, except for 30", "'inf.' (10), '??' (10), 'n' (10)"),
        ([*map(str, range(19)), "1,2,3"], "numbers, except for 3", "'1,2,3' (3)"),
        (["A", "B", "7"], "text, except for 20", "'7' (20)"),
        (["A", "B", "C", "7", "8"], "text, except for 24", "'7' (12), '8' (12)"),
        (["5 kg", "6 kg", "unknown"], "numbers, except for 20", "'unknown' (20)"),
        (["3%", "5%", "7%", "low"], "numbers, except for 15", "'low' (15)"),
        (["#REF!", "5", "6"], "numbers, except for 20", "'#REF!' (20)"),
    ],
)
@pytest.mark.parametrize("policy", ["error", "skip"])
def test_load_category_among_numbers_is_never_dropped(
    tmp_path: Path, cells: list[str], rest: str, values: str, policy: str
) -> None:
    path = write_csv(tmp_path / "t.csv", column(cells))
    with pytest.raises(DataError) as raised:
        loaded(path, on_bad_row=policy)
    for text in (f"column 'c' contains {rest}", values, 'categorical_columns=["c"]'):
        assert text in str(raised.value)
    data = loaded(path, categorical_columns=("c",))
    assert len(set(together(data, "categories"))) == len(cells)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["A", "B", "NA", "-", "1", "2.5", "", "x y"]), min_size=COUNT, max_size=COUNT))
def test_load_skipped_rows_are_few(tmp_path: Path, cells: list[str]) -> None:
    path = write_csv(tmp_path / "t.csv", column(cells))
    try:
        data = loaded(path, on_bad_row="skip")
    except DataError:
        return
    skipped = int(data.details["skipped_rows"])
    assert skipped < 3
    assert sum(map(len, (data.train, data.validation, data.test))) == COUNT - skipped


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1", "2", "unknown"], ("unknown",)),
        (["1", "2", "-999"], ("-999",)),
        (["1", "2", "<0.1"], ("<0.1",)),
        (["1", "2", "Unknown", "MISSING"], ("unknown", "missing")),
        ([1, 2, -999], ("-999",)),
        ([1.5, 2.5, "n"], ("n",)),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_load_declared_words_are_missing_in_numeric_columns(
    tmp_path: Path, cells: list[Any], words: tuple[str, ...], suffix: str
) -> None:
    columns = column(cells)
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        write_csv(path, columns)
    else:
        write_jsonl(path, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    numbers = np.array(together(loaded(path, missing_values=words), "features"))
    assert np.isnan(numbers).sum() == sum(str(cell).lower() in words for cell in columns["c"])


@pytest.mark.parametrize("word", ["unknown", "NA", "other"])
def test_load_declared_words_are_missing_in_category_columns(tmp_path: Path, word: str) -> None:
    path = write_csv(tmp_path / "t.csv", column(["A", "B", word]))
    declared = loaded(path, missing_values=("unknown", "other"))
    assert (word in together(declared, "categories")) == (word == "NA")
    assert word in together(loaded(path), "categories")


@pytest.mark.parametrize("cells", [["NA", ""], ["", ""], ["-", "?", "None"], [None, None]])
def test_load_column_of_words_only_is_refused(tmp_path: Path, cells: list[Any]) -> None:
    with pytest.raises(DataError, match="column 'c' has no values"):
        loaded(write_csv(tmp_path / "t.csv", column(cells)))


@pytest.mark.parametrize("cell", [["a"], {"a": 1}, [], [[1, 2], [3]], "[1, 2]", '{"a": 1}', "['x', 'y']"])
def test_load_nested_values_are_refused(tmp_path: Path, cell: Any) -> None:
    columns = column([cell])
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    with pytest.raises(DataError, match=r"column 'c' contains nested values, such as .*--feature-columns"):
        loaded(write_jsonl(tmp_path / "t.jsonl", rows), on_bad_row="skip")


@pytest.mark.parametrize("word", ["#DIV/0!", "#REF!", "#VALUE!", "#NAME?", "#NUM!"])
def test_load_errors_of_spreadsheets_are_reported_in_categories_and_refused_in_numbers(
    tmp_path: Path, word: str
) -> None:
    data = loaded(write_csv(tmp_path / "t.csv", column([word, "red", "blue"])))
    assert f"column 'c': 20 cells are {word!r}, which is kept as categories" in data.warnings
    with pytest.raises(DataError, match=r"contains numbers, except for 20 of 60 cells"):
        loaded(write_csv(tmp_path / "t.csv", column([word, "7", "8.5"])))


@pytest.mark.parametrize("blank", ["", " ", "\u00a0", "\u200b", "\t"])
def test_load_blank_cells_are_missing_in_all_columns(tmp_path: Path, blank: str) -> None:
    noise = np.random.default_rng(0).uniform(size=(2, COUNT)).tolist()
    cells = [("red", "blue", blank)[n % 3] for n in range(COUNT)]
    path = write_csv(tmp_path / "t.csv", {"color": cells, "x": noise[0], "y": noise[1]})
    data = loaded(path)
    found = {cell for split in (data.train, data.validation, data.test) for cell in split.inputs["categories"][:, 0]}
    assert found == {"red", "blue", None}
    path = write_csv(tmp_path / "l.csv", {"text": [f"text {n}" for n in range(COUNT)], "label": cells})
    with pytest.raises(DataError, match=r"20 bad rows: row 3 .*the label in column 'label' is missing"):
        loaded(path, "text")


def test_load_category_named_missing_is_distinguished_from_missing_cells(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(size=(2, COUNT)).tolist()
    cells = [("red", "", "missing")[n % 3] for n in range(COUNT)]
    details = loaded(write_csv(tmp_path / "t.csv", {"color": cells, "x": noise[0], "y": noise[1]})).details
    assert "'missing' (" in str(details["categories of color"])
    assert " missing (" in f" {details['categories of color']}"


def test_load_declared_word_that_does_not_occur_is_reported(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(size=(2, COUNT)).tolist()
    path = write_csv(tmp_path / "t.csv", {"town": ["Ulm", "Bonn "] * (COUNT // 2), "x": noise[0], "y": noise[1]})
    warnings = loaded(path, missing_values=("bonn", "Paris")).warnings
    assert warnings == ("no cell contains 'Paris', declared in dataset.missing_values",)


@pytest.mark.parametrize(("word", "cell"), [("-99", "-99.0"), ("-99", "-99"), ("1e+30", "1e30"), ("999.0", "999")])
def test_load_declared_number_is_missing_in_every_notation(tmp_path: Path, word: str, cell: str) -> None:
    noise = np.random.default_rng(0).uniform(size=(2, COUNT)).tolist()
    cells = [cell if n % 6 == 0 else noise[0][n] for n in range(COUNT)]
    data = loaded(write_csv(tmp_path / "t.csv", {"x": cells, "y": noise[1]}), missing_values=(word,))
    features = np.concatenate([split.inputs["features"] for split in (data.train, data.validation, data.test)])
    assert np.isnan(features).sum() == 10
    assert data.warnings[0] == f"column 'x': 10 cells with {cell!r} were read as missing values"
