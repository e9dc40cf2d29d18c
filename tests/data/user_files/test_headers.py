"""Files without a header."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.user_files.headers import header_warnings
from harness.data.user_files.problems import Problems
from harness.data.user_files.tables import read_table

LONG = [f"text number {number}" for number in range(9)]
LABELS = ["pos", "neg", "pos", "pos", "neg", "neg", "pos", "neg", "neg"]
NUMBERS = ["1", "2.5", "3", "4", "5", "6", "7", "8", "9"]


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["some text", "0"], [LONG, ["0", "1"] * 4 + ["0"]]),
        (["some text", "neg"], [LONG, LABELS]),
        (["5.1", "3.5", "1.4", "setosa"], [NUMBERS, NUMBERS, NUMBERS, ["setosa", "virginica", "setosa"] * 3]),
        (["2.5", "1.5"], [NUMBERS, NUMBERS]),
        (["0.5"], [NUMBERS]),
    ],
)
def test_header_that_seems_to_be_a_row_is_reported(names: list[str], columns: list[list[str]]) -> None:
    (warning,) = header_warnings(dict(zip(names, columns, strict=True)))
    assert warning.startswith("the first line was read as the header, but seems to be a row of data (")


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["text", "label"], [LONG, LABELS]),
        (["a", "x"], [["a", "b", "c"] * 3, NUMBERS]),
        (["male", "sex"], [["male", "female", "male"] * 3, LABELS]),
        (["2019", "2020"], [NUMBERS, NUMBERS]),
        (["2019", "2020", "town"], [NUMBERS, NUMBERS, LABELS]),
        (["400.5", "401.2", "402.1"], [NUMBERS, NUMBERS, NUMBERS]),
        (["0", "1", "2", "label"], [NUMBERS, NUMBERS, NUMBERS, LABELS]),
        (["x", "y"], [NUMBERS, NUMBERS]),
        (["text"], [LONG]),
    ],
)
def test_header_of_names_is_not_reported(names: list[str], columns: list[list[str]]) -> None:
    assert header_warnings(dict(zip(names, columns, strict=True))) == []


def test_read_table_without_a_header_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(f"{text},{label}" for text, label in zip(LONG, LABELS, strict=True)))
    table = read_table(path, Problems("t.csv", "error"))
    assert [
        "seems to be a row of data (its cell 'pos' also occurs in other rows)" in text for text in table.warnings
    ] == [True]
