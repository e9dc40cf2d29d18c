"""Incomplete and invisible characters in the user's data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from own_files import write_csv

from harness import DataError, RawData
from harness.data.user_files.dataset import UserDataset

LONE = "a\ud800"


def load(path: Path, **options: Any) -> RawData:
    dataset = UserDataset(path, "table", "classification")
    return dataset.load(dataset.settle(dataset.Options(target_column="label", **options))[0])


def table(tmp_path: Path, **changed: list[Any]) -> Path:
    """Return a JSONL file, in which incomplete characters are written as escape sequences."""
    columns = {
        "x": [n / 7 for n in range(40)],
        "town": ["Rome", "Oslo"] * 20,
        "site": [f"s{n // 4}" for n in range(40)],
        "label": ["yes", "no"] * 20,
        **changed,
    }
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("column", "what"), [("label", "label"), ("site", "group"), ("town", "category")])
def test_load_incomplete_character_is_a_bad_row(tmp_path: Path, column: str, what: str) -> None:
    cells = {"label": ["yes", "no"] * 20, "site": [f"s{n // 4}" for n in range(40)], "town": ["Rome", "Oslo"] * 20}
    path = table(tmp_path, **{column: [LONE, *cells[column][1:]]})
    message = rf"row 1 \(line 1\): the {what} in column '{column}' contains an incomplete character \(a lone surrogate"
    with pytest.raises(DataError, match=message):
        load(path, group_column="site")
    assert load(path, group_column="site", on_bad_row="skip").details["skipped_rows"] == 1


def test_load_incomplete_character_in_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the key 'a\\ud800' contains an incomplete character .*; rename the key"):
        load(table(tmp_path, **{LONE: ["p", "q"] * 20}))


def test_load_incomplete_character_in_a_slice_is_escaped(tmp_path: Path) -> None:
    data = load(table(tmp_path, part=[LONE, "b"] * 20), slice_columns=("part",))
    assert set(data.test.groups["part"].tolist()) == {"a\\ud800", "b"}


def test_load_incomplete_character_in_an_unused_column_is_ignored(tmp_path: Path) -> None:
    data = load(table(tmp_path, part=[LONE, "b"] * 20), feature_columns=("x", "town"))
    assert data.details["skipped_rows"] == 0


@pytest.mark.parametrize("cell", ["\u200b", "\ufeff", " \u2060 "])
def test_load_invisible_cell_is_a_missing_value_in_every_column(tmp_path: Path, cell: str) -> None:
    columns: dict[str, list[Any]] = {
        "x": [str(n / 7) for n in range(40)],
        "day": [f"2021-01-{1 + n % 28:02d}" for n in range(40)],
        "town": ["Rome", "Oslo"] * 20,
        "label": ["yes", "no"] * 20,
        "split": ["train"] * 20 + ["validation"] * 10 + ["test"] * 10,
    }
    for name in ("x", "day", "town"):
        columns[name][0] = cell
    data = load(write_csv(tmp_path / "t.csv", columns), date_columns=("day",))
    first = data.train.inputs["features"][0]
    assert pd.isna(first).all()
    assert data.train.inputs["categories"][0].tolist() == [None]


def test_load_long_slices_that_start_alike_are_different(tmp_path: Path) -> None:
    start = "z" * 60
    data = load(table(tmp_path, part=[f"{start}b", f"{start}a", "y" * 61, "x"] * 10), slice_columns=("part",))
    parts = dict(zip(data.test.rows.tolist(), data.test.groups["part"].tolist(), strict=True))
    names = [f"{start}... (2)", f"{start}... (1)", f"{'y' * 60}...", "x"]
    assert parts == {row: names[(row - 1) % 4] for row in parts}
