"""Numbers in other notations, which are read as declared or rejected with a hint on the options that read them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_files import write_csv

from harness import DataError, RawData
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.notations import PLAIN, Notation, examined, separated

COUNT = 40


def loaded(path: Path, **options: Any) -> RawData:
    dataset = UserDataset(path, "table", "regression")
    return dataset.load(dataset.settle(dataset.Options(**{"target_column": "y", **options}))[0])


def table(path: Path, cells: list[str], name: str = "x") -> Path:
    """Write a table with a column of these cells, repeated, and a column y (or x) of noise."""
    other = "y" if name == "x" else "x"
    noise = np.random.default_rng(0).permutation(10 * COUNT)[:COUNT].tolist()
    return write_csv(path / "t.csv", {name: [cells[n % len(cells)] for n in range(COUNT)], other: noise})


def values(data: RawData) -> set[float]:
    return {value for split in (data.train, data.validation, data.test) for value in split.inputs["features"][:, 0]}


UNDECLARED: list[tuple[list[str], dict[str, str], set[float]]] = [
    (["0,5", "1,25", "3"], {"decimal": ","}, {0.5, 1.25, 3}),
    (["1,250", "900", "3,000"], {"thousands": ","}, {1250, 900, 3000}),
    (["1,250", "900", "3,000"], {"decimal": ","}, {1.25, 900, 3}),
    (["1,250.5", "3.25"], {"thousands": ","}, {1250.5, 3.25}),
    (["1.250,5", "3,25"], {"decimal": ",", "thousands": "."}, {1250.5, 3.25}),
    (["1.250.000", "3"], {"decimal": ",", "thousands": "."}, {1250000, 3}),
    (["1 250", "30"], {"thousands": " "}, {1250, 30}),
    (["1\u00a0250", "30"], {"thousands": " "}, {1250, 30}),
    (["1\u202f250,5", "30"], {"thousands": " ", "decimal": ","}, {1250.5, 30}),
    (["1'250", "30"], {"thousands": "'"}, {1250, 30}),
    (["1\u2019250", "30"], {"thousands": "'"}, {1250, 30}),
    (["1_000", "30"], {"thousands": "_"}, {1000, 30}),
    (["12,50,000", "30"], {"thousands": ","}, {1250000, 30}),
    (["1,5e3", "2,5E-1"], {"decimal": ","}, {1500, 0.25}),
    (["-0,5", "+1,5"], {"decimal": ","}, {-0.5, 1.5}),
    ([",5", "1,5"], {"decimal": ","}, {0.5, 1.5}),
    (["12,5%", "3,0%"], {"decimal": ","}, {12.5, 3}),
    (["\u20ac 1.200,50", "\u20ac 3,00"], {"decimal": ",", "thousands": "."}, {1200.5, 3}),
    (["(1,250)", "(2,000)", "7"], {"thousands": ","}, {-1250, -2000, 7}),
]


@pytest.mark.parametrize(("cells", "options", "expected"), UNDECLARED)
def test_load_numbers_with_undeclared_separators_are_refused_with_the_option_that_reads_them(
    tmp_path: Path, cells: list[str], options: dict[str, str], expected: set[float]
) -> None:
    path = table(tmp_path, cells)
    with pytest.raises(DataError, match=r"t\.csv: column 'x' contains numbers with decimal or") as raised:
        loaded(path)
    for name, value in options.items():
        shown = '" "' if value == " " else value
        setting = f"dataset.{name}={shown}"
        quoted = shlex.quote(setting) if value == "'" else f"'{setting}'"
        assert f"--set {quoted}" in str(raised.value)
        assert shlex.split(f"--set {quoted}") == ["--set", setting]
    assert any(repr(cell) in str(raised.value) for cell in cells)
    assert "dataset.categorical_columns" in str(raised.value)
    assert values(loaded(path, **options)) == expected
    assert loaded(path, categorical_columns=("x",)).train.inputs["features"].shape[1] == 0


@pytest.mark.parametrize(("cells", "options", "expected"), UNDECLARED)
def test_load_targets_with_undeclared_separators_are_refused_too(
    tmp_path: Path, cells: list[str], options: dict[str, str], expected: set[float]
) -> None:
    path = table(tmp_path, cells, "y")
    with pytest.raises(DataError, match=r"t\.csv: target column 'y' contains numbers with decimal or") as raised:
        loaded(path, on_bad_row="skip")
    assert "categorical_columns" not in str(raised.value)
    data = loaded(path, **options)
    assert {value for split in (data.train, data.validation, data.test) for value in split.targets[:, 0]} == expected


@pytest.mark.parametrize("cells", [["1,250", "900"], ["1,250"], ["(1,250)", "3"], ["1,250%"], ["$1,250"]])
def test_load_ambiguous_separators_name_both_readings(tmp_path: Path, cells: list[str]) -> None:
    with pytest.raises(DataError, match="their meaning is unclear") as raised:
        loaded(table(tmp_path, cells))
    assert re.search(r"dataset\.thousands=,' to read -?1250\.0", str(raised.value))
    assert re.search(r"dataset\.decimal=,' to read -?1\.250", str(raised.value))


READ: list[tuple[list[str], set[float], str]] = [
    (["3%", "12.5%"], {3, 12.5}, "without '%', such as '3%' as 3"),
    (["3 %", "12 %"], {3, 12}, "without '%', such as '3 %' as 3"),
    (["3 kg", "4.5 kg"], {3, 4.5}, "without 'kg', such as '3 kg' as 3"),
    (["20m\u00b2", "35m\u00b2"], {20, 35}, "without 'm\u00b2'"),
    (["60 km/h", "80 km/h"], {60, 80}, "without 'km/h'"),
    (["21\u00b0C", "-3\u00b0C"], {21, -3}, "without '\u00b0C'"),
    (["$5.00", "-$6"], {5, -6}, "without '$', such as '$5.00' as 5"),
    (["5 \u20ac", "7.5 \u20ac"], {5, 7.5}, "without '\u20ac'"),
    (["USD 5", "USD 6"], {5, 6}, "without 'USD'"),
    (["(5)", "7"], {-5, 7}, "were read with another notation for negative numbers, such as '(5)' as -5"),
    (["5-", "7"], {-5, 7}, "such as '5-' as -5"),
    (["\u22125", "7"], {-5, 7}, "as -5"),
    (["\u20135", "7"], {-5, 7}, "as -5"),
    (["\u20105", "\uff0d7"], {-5, -7}, "as -5"),
    (["($5)", "$7"], {-5, 7}, "without '$', such as '($5)' as -5"),
    (["1e3%", "2%"], {1000, 2}, "without '%'"),
]


@pytest.mark.parametrize(("cells", "expected", "warning"), READ)
def test_load_numbers_with_one_meaning_are_read_and_reported(
    tmp_path: Path, cells: list[str], expected: set[float], warning: str
) -> None:
    data = loaded(table(tmp_path, cells))
    assert values(data) == expected
    (found,) = [text for text in data.warnings if warning in text]
    odd = sum(PLAIN.number(cells[n % len(cells)]) is None for n in range(COUNT))
    assert found.startswith(f"column 'x': {odd} cells were read")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["3 kg", "400 g"], "has different units ('kg', 'g'), such as in '3 kg'"),
        (["$5", "5 \u20ac"], "has different units"),
        (["5k", "3M", "12k"], "has different units ('k', 'M')"),
        (["20 cm", "1 m"], "has different units"),
        (["3 kg", "4"], "has 'kg' in 20 of 40 cells"),
        (["12%", "0.12"], "has '%' in 20 of 40 cells"),
        (["12%", "5 \u2030"], "has different units"),
        (["0,5", "1.5"], "contains numbers with different separators"),
        (["1,250.5", "0,5"], "contains numbers with different separators"),
    ],
)
def test_load_numbers_without_a_common_notation_are_refused(tmp_path: Path, cells: list[str], message: str) -> None:
    path = table(tmp_path, cells)
    for policy in ("error", "skip"):
        with pytest.raises(DataError) as raised:
            loaded(path, on_bad_row=policy)
        assert f"column 'x' {message}" in str(raised.value)


@pytest.mark.parametrize("cells", [["1.5", "2,5"], ["1.250", "2.5"]])
def test_load_decimal_points_are_refused_if_the_comma_is_declared(tmp_path: Path, cells: list[str]) -> None:
    with pytest.raises(DataError, match="separators"):
        loaded(table(tmp_path, cells), decimal=",")


@pytest.mark.parametrize(
    "cells",
    [
        ["1st", "2nd"],
        ["5a", "6b"],
        ["A1", "B2"],
        ["1-5", "6-9"],
        ["1.2.3", "1.2.4"],
        ["10.0.0.1", "10.0.0.2"],
        ["1/2", "3/4"],
        ["v1", "v2"],
        ["red", "blue"],
        ["12,", "a,b"],
        ["<5", ">5"],
        ["2x4", "2x6"],
        ["true", "false"],
    ],
)
def test_load_texts_with_digits_are_categories(tmp_path: Path, cells: list[str]) -> None:
    data = loaded(table(tmp_path, cells))
    assert set(data.train.inputs["categories"][:, 0]) == set(cells)


def test_load_points_that_may_separate_thousands_are_reported(tmp_path: Path) -> None:
    data = loaded(table(tmp_path, ["1.250", "900", "3.500"]))
    assert "column 'x': '1.250' was read with a decimal point" in "; ".join(data.warnings)
    assert values(loaded(table(tmp_path, ["1.250", "900"]), decimal=",", thousands=".")) == {1250, 900}
    assert not any("decimal point" in w for w in loaded(table(tmp_path, ["1.250", "0.900"])).warnings)


@pytest.mark.parametrize("cells", [["01234", "90210"], ["007", "123"], ["00501"]])
def test_load_numbers_that_start_with_zeros_are_reported(tmp_path: Path, cells: list[str]) -> None:
    path = table(tmp_path, cells)
    count = sum(cells[n % len(cells)].startswith("0") for n in range(COUNT))
    message = f"column 'x': {count} cells that start with a zero, such as {cells[0]!r}, were read as numbers"
    assert any(message in warning for warning in loaded(path).warnings)
    assert not any("zero" in warning for warning in loaded(path, categorical_columns=("x",)).warnings)


def test_load_single_cells_in_another_notation_are_bad_rows(tmp_path: Path) -> None:
    columns = {"x": [f"{n}.5" for n in range(COUNT)], "y": np.random.default_rng(0).uniform(size=COUNT).tolist()}
    columns["x"][3] = "1,250.5"
    path = write_csv(tmp_path / "t.csv", columns)
    with pytest.raises(DataError, match=r"1 bad row: row 4 \(line 5\): .*contains '1,250\.5', which is not a number"):
        loaded(path)


DIGITS = st.decimals(-(10**9), 10**9, places=2)
SEPARATORS = [(".", ","), (",", "."), (",", " "), (".", "'"), (".", ""), (",", ""), (".", "_")]


@given(DIGITS, st.sampled_from(SEPARATORS), st.sampled_from(["", "%", "kg", "$"]), st.booleans())
def test_number_is_read_as_it_was_written(number: Any, marks: tuple[str, str], unit: str, blank: bool) -> None:
    decimal, thousands = marks
    text = f"{abs(number):,.2f}".replace(",", "T").replace(".", decimal).replace("T", thousands)
    sign = "-" if number < 0 else ""
    written = f"{sign}{unit}{text}" if unit == "$" else f"{sign}{text}{' ' * blank}{unit}"
    notation = Notation(decimal, thousands, affix=unit)
    assert notation.number(written) == float(number)


@given(st.text("0123456789.,' _%$()-+eE", max_size=8))
def test_separated_numbers_are_plain_numbers_or_none(text: str) -> None:
    for decimal, thousands in SEPARATORS:
        found = separated(text, decimal, thousands)
        if found is not None:
            assert float(found) >= 0
    PLAIN.number(text)
    examined([text, "1"], PLAIN)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=9))
def test_plain_numbers_need_no_notation(numbers: list[float]) -> None:
    assert examined(map(repr, numbers), PLAIN) is None
    assert [PLAIN.number(repr(value)) for value in numbers] == numbers


@pytest.mark.parametrize(
    "options",
    [
        {"decimal": ";"},
        {"thousands": "."},
        {"thousands": ",,"},
        {"thousands": "-"},
        {"thousands": "3"},
        {"encoding": "utf-99"},
        {"encoding": "base64"},
        {"separator": ",,"},
        {"separator": '"'},
        {"date_format": "dd.mm.yyyy"},
        {"date_format": "%d"},
        {"date_format": "%Q"},
        {"time_column": "t", "group_column": "g"},
        {"time_column": "t", "split_column": "s"},
    ],
)
def test_settle_invalid_options_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    from harness.errors import HarnessError
    from harness.plan.overrides import merge

    dataset = UserDataset(tmp_path / "t.csv", "table", "regression")
    with pytest.raises(HarnessError, match=next(iter(options))):
        merge(dataset.Options, "dataset", options)


QUANTITIES = [
    ["18-24", "25-34", "35-44", "45+"],
    ["10\u201320", "20\u201330"],
    ["1/2", "3/4", "1 1/2"],
    ["26:00:00", "100:00:01"],
    ["1h 30m", "2h 5m", "45m 1s"],
    ["PT1H30M", "PT45M", "P3D"],
    ["0x1F", "0x2A"],
    ["<5", ">10", "5-10"],
    ["1.5\u00b10.1", "2.5\u00b10.1"],
    ["1st", "2nd", "3rd"],
    ["5\u00bd", "6\u00bc"],
    ["18\u00b2", "19\u00b2"],
    ["5\u201310", "10\u201320"],
    ["48\u00b051'N", "51\u00b030'N"],
    ["1. M\u00e4rz 2021", "2. M\u00e4rz 2021"],
]


@pytest.mark.parametrize("cells", QUANTITIES)
def test_load_quantities_that_are_not_numbers_are_reported_as_categories(tmp_path: Path, cells: list[str]) -> None:
    data = loaded(table(tmp_path, cells), copies="independent")
    (warning,) = [text for text in data.warnings if "contain numbers" in text]
    assert f"were read as {len(cells)} categories" in warning
    declared = loaded(table(tmp_path, cells), categorical_columns=("x",))
    assert not any("contain numbers" in text for text in declared.warnings)


@pytest.mark.parametrize("cells", [["red", "green"], ["A1", "B2"], ["PS5", "PC"], ["one", "two"], ["-", "x"]])
def test_load_categories_without_quantities_are_not_reported(tmp_path: Path, cells: list[str]) -> None:
    assert not any("contain numbers" in text for text in loaded(table(tmp_path, cells)).warnings)


@pytest.mark.parametrize(
    ("cells", "value"),
    [(["-6,22e-02", "1,5e3"], "-6.22e-02"), (["(1,5)", "2,5"], "-1.5"), (["-0,5"], "-0.5"), (["2,5E+3"], "2.5E+3")],
)
def test_load_undeclared_separators_are_explained_with_the_value_of_the_example(
    tmp_path: Path, cells: list[str], value: str
) -> None:
    with pytest.raises(DataError, match=re.escape(f"--set 'dataset.decimal=,' to read {value},")):
        loaded(table(tmp_path, cells))


@pytest.mark.parametrize(
    ("one", "other", "options"),
    [
        ("0,5", "0.5", {"decimal": ","}),
        ("1.250,5", "1,250.5", {"decimal": ",", "thousands": "."}),
        ("1,250.5", "1.250,5", {"thousands": ","}),
        ("1 250,5", "1,250.5", {"decimal": ",", "thousands": " "}),
    ],
)
def test_load_columns_with_different_separators_are_refused_with_the_declared_ones(
    tmp_path: Path, one: str, other: str, options: dict[str, str]
) -> None:
    path = write_csv(tmp_path / "t.csv", {"a": [one] * COUNT, "b": [other] * COUNT, "y": [*range(COUNT)]})
    with pytest.raises(DataError, match=r"column 'b' contains numbers with separators other than those declared"):
        loaded(path, **options)


@pytest.mark.parametrize("first", [2**53 + 1, 10**18, 2**64])
def test_load_integers_beyond_double_precision_are_reported(tmp_path: Path, first: int) -> None:
    data = loaded(table(tmp_path, [str(first + n) for n in range(COUNT)]))
    assert any("are too large to be represented exactly as floats" in text for text in data.warnings)
    exact = loaded(table(tmp_path, [str(2**52 + n) for n in range(COUNT)]))
    assert not any("too large" in text for text in exact.warnings)


def test_load_several_columns_in_another_notation_name_the_option_that_reads_them(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {"a": ["0,5", "1,5"] * 20, "b": ["2,5", "3,5"] * 20, "y": [*range(COUNT)]})
    with pytest.raises(DataError, match=r"2 columns cannot be used as features: column 'a' .*column 'b' ") as raised:
        loaded(path)
    assert "pass --set 'dataset.decimal=,' to read 0.5" in str(raised.value)


def test_load_too_many_quantities_for_categories_are_explained(tmp_path: Path) -> None:
    path = table(tmp_path, [f"{n}-{n + 10}" for n in range(COUNT)])
    with pytest.raises(
        DataError, match=r"too many for a categorical feature; convert cells such as '0-10' to plain numbers, or"
    ):
        loaded(path)
    path = table(tmp_path, [f"{n:02}ab{n}cd-{n}ef-{n}" * 2 for n in range(COUNT)])
    with pytest.raises(DataError, match="too many for a categorical feature; select the features"):
        loaded(path)
