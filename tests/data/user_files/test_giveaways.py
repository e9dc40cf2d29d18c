"""Features that reveal the target or contain row numbers, and features without information in the training split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_files import write_csv

from harness import DataError, RawData
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.leaks import giveaways, row_numbers

COUNT = 60
NOISE = np.random.default_rng(0).normal(size=(6, COUNT))


def loaded(path: Path, objective: Any = "regression", **options: Any) -> RawData:
    dataset = UserDataset(path, "table", objective)
    return dataset.load(dataset.settle(dataset.Options(**{"target_column": "y", **options}))[0])


def table(path: Path, **columns: Any) -> Path:
    return write_csv(path / "t.csv", {name: list(cells) for name, cells in columns.items()})


# ---- row numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("Unnamed: 0", range(COUNT)),
        ("index", NOISE[2]),
        ("id", np.random.default_rng(1).permutation(COUNT)),
        ("ID", [n // 2 for n in range(COUNT)]),
        ("row", range(1, COUNT + 1)),
        ("n", range(COUNT)),
        ("n", range(1, COUNT + 1)),
        ("n", range(COUNT, 0, -1)),
        ("n", range(1000, 1000 + COUNT)),
        ("n", [float(n) for n in range(COUNT)]),
    ],
)
def test_load_row_numbers_are_reported(tmp_path: Path, name: str, cells: Any) -> None:
    path = table(tmp_path, **{name: cells, "x": NOISE[0], "y": NOISE[1]})
    assert any(f"feature column {name!r} seems to contain row numbers" in warning for warning in loaded(path).warnings)
    assert not any("number the rows" in warning for warning in loaded(path, feature_columns=("x",)).warnings)


def test_row_numbers_with_gaps_are_reported() -> None:
    numbers = np.delete(np.arange(2 * COUNT), slice(0, 60, 4)).astype(float)
    (warning,) = row_numbers({"n": numbers})
    assert "(its values increase from row to row)" in warning
    (warning,) = row_numbers({"n": numbers[::-1]})
    assert "(its values decrease from row to row)" in warning
    assert row_numbers({"n": np.random.default_rng(0).permutation(numbers)}) == []
    assert row_numbers({"n": numbers + 0.5}) == []
    assert row_numbers({"n": numbers**2}) == []


@pytest.mark.parametrize(
    "cells", [[n % 50 for n in range(COUNT)], [2 * n for n in range(COUNT)], NOISE[2], [n // 2 for n in range(COUNT)]]
)
def test_row_numbers_other_columns_are_not_reported(cells: Any) -> None:
    assert row_numbers({"n": np.array(cells, float)}) == []


# ---- features that determine the target -------------------------------------------------------------------

A, B, C, D, E, Y = NOISE
LINEAR = [
    ({"a": Y}, ["a"]),
    ({"a": 2 * Y + 3, "b": B}, ["a"]),
    ({"a": -1e6 * Y}, ["a"]),
    ({"a": A, "b": Y - A}, ["a", "b"]),
    ({"a": Y + 1e-6 * A}, ["a"]),
    ({"a": np.round(Y, 3), "b": B}, ["a"]),
    ({"a": np.round(Y, 1), "b": B}, ["a"]),
    ({"a": A, "b": np.where(np.arange(COUNT) % 9 == 0, np.nan, Y - A), "d": D}, ["a", "b"]),
    ({"a": A, "b": B, "c": (Y - A - B) / 7 + 1, "d": D}, ["a", "b", "c"]),
    ({"a": A, "b": 1e6 * (Y - A), "d": D}, ["a", "b"]),
    ({"a": A, "b": A * 1.0, "c": Y + A}, ["a", "b", "c"]),
    ({"a": np.where(np.arange(COUNT) % 7 == 0, np.nan, Y), "b": B}, ["a"]),
]


@pytest.mark.parametrize(("features", "names"), LINEAR)
def test_load_linear_combination_equal_to_the_target_is_reported(
    tmp_path: Path, features: dict[str, Any], names: list[str]
) -> None:
    columns = {name: ["" if np.isnan(v) else repr(float(v)) for v in cells] for name, cells in features.items()}
    found = [w for w in loaded(table(tmp_path, **columns, y=Y)).warnings if "target 'y' is a linear" in w]
    assert len(found) == 1
    assert ", ".join(map(repr, names)) in found[0]


def test_giveaways_sums_of_products_and_offsets_are_found() -> None:
    rng = np.random.default_rng(0)
    price, amount, other = (
        rng.uniform(1, 50, 200).round(2),
        rng.integers(1, 40, 200).astype(float),
        rng.normal(size=200),
    )
    kind = rng.choice(["post", "train", "air"], 200).astype(object)
    fee = np.array([{"post": 4.99, "train": 2.5, "air": 12.0}[each] for each in kind])
    features = {"price": price, "amount": amount, "other": other}
    for total, names in (
        ((price * amount * 1.19 + 4.99).round(2), "'amount', 'price'"),
        ((price + fee).round(2), "'kind', 'price'"),
        ((price * amount + fee).round(2), "'amount', 'kind', 'price'"),
    ):
        (warning,) = giveaways(features, {"kind": kind}, {"total": total})
        assert warning.startswith(f"target 'total' is a combination of the features {names} (a sum of their multiples")
    assert giveaways(features, {"kind": kind}, {"total": price * amount + fee + other**2}) == []
    assert giveaways({"other": other}, {"kind": kind}, {"total": fee + rng.normal(size=200)}) == []


@pytest.mark.parametrize(
    "features",
    [
        {"a": A, "b": B},
        {"a": Y + 0.01 * A},
        {"a": np.round(Y + 0.1 * A, 1), "b": B},
        {f"x{n}": np.random.default_rng(n + 10).normal(size=COUNT) for n in range(COUNT)},
        {"a": np.ones(COUNT)},
        {"a": np.full(COUNT, np.nan)},
    ],
)
def test_giveaways_other_features_are_not_reported(features: dict[str, Any]) -> None:
    assert [w for w in giveaways(features, {}, {"y": Y}) if "linear" in w] == []


ORDINAL = np.arange(COUNT) % 7
ONE_TO_ONE = [
    ([f"k{n}" for n in ORDINAL], ORDINAL**2),
    (ORDINAL, np.exp(ORDINAL)),
    ([(5, 3, 6, 1, 2, 0, 4)[n] for n in ORDINAL], ORDINAL),
    (np.exp(Y), Y),
    (-np.exp(Y), Y),
    (Y**3, Y),
    (np.argsort(np.argsort(Y)), Y),
    (["low" if n < 3 else f"h{n}" for n in ORDINAL], np.maximum(ORDINAL, 2)),
]


@pytest.mark.parametrize(("cells", "target"), ONE_TO_ONE)
def test_load_one_to_one_function_of_the_target_is_reported(tmp_path: Path, cells: Any, target: Any) -> None:
    warnings = loaded(table(tmp_path, c=cells, x=A, y=target)).warnings
    assert (
        "target 'y' is a one-to-one function of the feature 'c'; check that it is known at prediction time" in warnings
    )


@pytest.mark.parametrize(
    ("cells", "target"),
    [
        ([f"k{n}" for n in ORDINAL], ORDINAL // 2),
        ([f"k{n // 2}" for n in ORDINAL], ORDINAL),
        (np.abs(Y), Y),
        (A, Y),
        ([f"k{n % 5}" for n in range(COUNT)], Y),
    ],
)
def test_load_other_functions_are_not_reported(tmp_path: Path, cells: Any, target: Any) -> None:
    warnings = loaded(table(tmp_path, c=cells, x=A, y=target), copies="independent").warnings
    assert not any("one-to-one" in warning for warning in warnings)


def test_load_one_to_one_function_of_a_label_is_reported(tmp_path: Path) -> None:
    labels = ["abcdefg"[n] for n in ORDINAL]
    data = loaded(table(tmp_path, c=ORDINAL + 1, x=A, y=labels), "classification")
    assert (
        "the label is a one-to-one function of the feature 'c'; check that it is known at prediction time"
        in data.warnings
    )


# ---- features that the training split lacks ---------------------------------------------------------------

SPLIT = ["train"] * 30 + ["validation"] * 10 + ["test"] * 20


@pytest.mark.parametrize("given_splits", [True, False])
@pytest.mark.parametrize("words", ["", "NA", "?", "null"])
def test_settle_column_without_a_number_in_training_is_refused_by_name(
    tmp_path: Path, given_splits: bool, words: str
) -> None:
    if given_splits:
        path = table(tmp_path, x=A, gappy=[words] * 30 + ["5"] * 30, y=Y, split=SPLIT)
        options: dict[str, Any] = {}
    else:
        path = table(tmp_path, x=A, gappy=[words] * 42 + ["5"] * 18, y=Y, t=range(COUNT))
        options = {"time_column": "t"}
    dataset = UserDataset(path, "table", "regression")
    with pytest.raises(
        DataError, match=r"t\.csv: column 'gappy' has no numbers in the training split; .*--feature-col"
    ):
        dataset.settle(dataset.Options(target_column="y", **options))


def test_settle_several_columns_without_a_number_are_all_named(tmp_path: Path) -> None:
    late = [""] * 30 + ["5"] * 30
    path = table(tmp_path, x=A, one=late, two=late, y=Y, split=SPLIT)
    with pytest.raises(DataError, match="columns 'one', 'two' have no numbers in the training split"):
        loaded(path)


@pytest.mark.parametrize(
    ("cells", "reported"),
    [
        (["7"] * COUNT, True),
        (["7"] * 30 + [str(n) for n in range(30)], True),
        (["red"] * COUNT, True),
        (["red"] * 30 + ["blue"] * 30, True),
        ([""] * 15 + ["red"] * 45, False),
        ([""] * 15 + ["7"] * 45, False),
        ([str(n % 2) for n in range(COUNT)], False),
        (["7"] + ["8"] * 59, False),
    ],
)
def test_load_constant_columns_are_reported_by_name(tmp_path: Path, cells: list[str], reported: bool) -> None:
    warnings = loaded(table(tmp_path, x=A, flat=cells, y=Y, split=SPLIT)).warnings
    message = "column 'flat' is constant in the training split, so a model cannot learn from it"
    assert (message in warnings) == reported


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["red", "blue"] * 20 + ["violet"] * 20, {"test": (20, "'violet'")}),
        (["red", "blue"] * 15 + ["violet"] * 10 + ["red"] * 20, {"validation": (10, "'violet'")}),
        (["red", "blue"] * 15 + ["v"] * 10 + ["w"] * 20, {"validation": (10, "'v'"), "test": (20, "'w'")}),
        (["red", "blue"] * 29 + ["", "x"], {"test": (2, "missing, 'x'")}),
        (["red", "blue"] * 30, {}),
        (["a", "b", "c"] * 20, {}),
        (["a"] * 15 + ["b"] * 30 + ["c"] * 15, {"test": (15, "'c'")}),
        (["a"] * 15 + ["b"] * 25 + [f"c{n}" for n in range(20)], {"test": (20, "'c0', 'c1', 'c2' and 17 more")}),
    ],
)
def test_load_categories_outside_training_are_counted(
    tmp_path: Path, cells: list[str], expected: dict[str, tuple[int, str]]
) -> None:
    warnings = loaded(table(tmp_path, x=A, colour=cells, y=Y, split=SPLIT)).warnings
    found = [warning for warning in warnings if "do not occur in the training split" in warning]
    assert found == [
        f"column 'colour': the categories of {count} {part} rows do not occur in the training split ({shown}); "
        f"they are encoded as all zeros"
        for part, (count, shown) in expected.items()
    ]


def test_load_missing_values_outside_training_are_counted(tmp_path: Path) -> None:
    splits = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    gappy = ["" if n in (45, 50, 51) else n % 7 for n in range(COUNT)]
    path = table(tmp_path, gappy=gappy, x=NOISE[0], y=NOISE[1], split=splits)
    message = "column 'gappy': 3 validation and test rows have no value, but all training rows have one"
    assert message in loaded(path).warnings
    gappy[0] = ""
    path = table(tmp_path, gappy=gappy, x=NOISE[0], y=NOISE[1], split=splits)
    assert not any("rows have no value" in text for text in loaded(path).warnings)


@pytest.mark.parametrize("part", ["training", "test"])
def test_load_constant_target_is_reported(tmp_path: Path, part: str) -> None:
    cells = [3.0] * 30 + Y[30:].tolist() if part == "training" else Y[:40].tolist() + [3.0] * 20
    warnings = loaded(table(tmp_path, x=A, y=cells, split=SPLIT)).warnings
    assert f"target 'y' has the same value in all rows of the {part} split" in warnings


# ---- names of columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("height, m", ("height", "m")),
        ("height,m", ("height", "m")),
        ("a , b,c", ("a", "b", "c")),
        ("2", ("2",)),
        ("3.5", ("3.5",)),
        ("two words", ("two words",)),
        ("X", ("X",)),
        ("50%", ("50%",)),
        ('say "x"', ('say "x"',)),
        ("a=b", ("a=b",)),
    ],
)
def test_load_columns_with_unusual_names_can_be_chosen(tmp_path: Path, name: str, listed: tuple[str, ...]) -> None:
    path = table(tmp_path, **{name: A, "x": B, "other": C, "y": Y})
    dataset = UserDataset(path, "table", "regression")
    settled, *_ = dataset.settle(dataset.Options(target_column="y", feature_columns=("other", *listed)))
    assert settled.feature_columns == ("other", name)  # type: ignore[attr-defined]
    settled, *_ = dataset.settle(dataset.Options(target_column=listed, slice_columns=("other", *listed)))
    assert (settled.target_column, settled.slice_columns) == ((name,), ("other", name))


def test_load_columns_that_exist_are_not_joined(tmp_path: Path) -> None:
    path = table(tmp_path, **{"a": A, "b": B, "a,b": C, "y": Y})
    dataset = UserDataset(path, "table", "regression")
    settled, *_ = dataset.settle(dataset.Options(target_column="y", feature_columns=("a", "b")))
    assert settled.feature_columns == ("a", "b")  # type: ignore[attr-defined]
    path = table(tmp_path, **{"a": A, "a,b": C, "c": B, "y": Y})
    settled, *_ = dataset.settle(dataset.Options(target_column="y", feature_columns=("c", "a", "b")))
    assert settled.feature_columns == ("c", "a,b")  # type: ignore[attr-defined]


# ---- identifiers, outliers and columns that define splits -------------------------------------------------------

SHUFFLED = np.random.default_rng(4).permutation(COUNT)


@pytest.mark.parametrize("first", [0, 1, 1000])
def test_load_shuffled_row_numbers_are_reported(tmp_path: Path, first: int) -> None:
    warnings = loaded(table(tmp_path, a=SHUFFLED + first, y=Y)).warnings
    assert any("(its values are consecutive numbers in another order)" in text for text in warnings)
    others = loaded(table(tmp_path, a=SHUFFLED * 3, y=Y)).warnings
    assert not any("row numbers" in text for text in others)


@pytest.mark.parametrize("name", ["customer_id", "Order ID", "userId", "row_no", "house.nr", "UUID", "key", "orderKey"])
def test_load_different_integers_in_a_column_named_like_an_identifier_are_reported(tmp_path: Path, name: str) -> None:
    warnings = loaded(table(tmp_path, **{name: SHUFFLED * 3, "y": Y})).warnings
    assert any(f"column {name!r} seems to contain row numbers (because of its name)" in text for text in warnings)


@pytest.mark.parametrize("name", ["paid", "grid", "liquid", "piano", "monkey", "width"])
def test_load_other_column_names_are_not_identifiers(tmp_path: Path, name: str) -> None:
    warnings = loaded(table(tmp_path, **{name: SHUFFLED * 3, "y": Y})).warnings
    assert not any("row numbers" in text for text in warnings)


@pytest.mark.parametrize("value", [-999, -9999, 999, 9999, 99999, -1e6])
def test_load_repeated_values_far_from_all_others_are_reported(tmp_path: Path, value: float) -> None:
    cells = np.where(np.arange(COUNT) % 7 == 0, value, np.round(A, 3))
    path = table(tmp_path, a=cells.tolist(), b=B, y=Y)
    (warning,) = [text for text in loaded(path).warnings if "far from all other values" in text]
    assert f"cells are {value:g}, far from all other values" in warning
    fixed = loaded(path, missing_values=(f"{value:g}", f"{float(value)}"))
    assert not any("far from all other values" in text for text in fixed.warnings)
    assert np.isnan(fixed.train.inputs["features"][:, 0]).any()


def test_load_single_outlier_that_makes_all_others_equal_is_reported(tmp_path: Path) -> None:
    warnings = loaded(table(tmp_path, a=[1e30, *A[1:].tolist()], y=Y)).warnings
    assert any("the value 1e+30 is so far from all other values" in text for text in warnings)


@pytest.mark.parametrize("column", ["a", "y"])
def test_settle_numbers_whose_squares_vanish_are_refused(tmp_path: Path, column: str) -> None:
    columns = {"a": A, "y": Y}
    columns[column] = columns[column] * 1e-300
    with pytest.raises(DataError, match=f"all values of column '{column}' are below 1e-100"):
        loaded(table(tmp_path, **columns))


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("part", ["train", "test"], "contains only the names of splits (test, train)"),
        ("Set", ["dev", "training"], "contains only the names of splits (dev, training)"),
        ("fold", ["1", "2", "3"], "column 'fold' was not used to split the rows"),
        ("split", ["0", "1"], "column 'split' was not used to split the rows"),
        ("partition", ["a", "b"], "column 'partition' was not used to split the rows"),
    ],
)
def test_load_columns_that_seem_to_define_splits_are_reported(
    tmp_path: Path, name: str, cells: list[str], expected: str
) -> None:
    path = table(tmp_path, a=A, **{name: [cells[n % len(cells)] for n in range(COUNT)]}, y=Y)
    assert any(expected in text for text in loaded(path).warnings)


@pytest.mark.parametrize("other", ["holdout", "extra", "", "0"])
def test_settle_column_named_split_with_other_names_is_refused(tmp_path: Path, other: str) -> None:
    path = table(tmp_path, a=A, split=[other if n % 4 else "train" for n in range(COUNT)], y=Y)
    with pytest.raises(DataError, match=f"column 'split' contains {other!r}; expected one of train"):
        loaded(path)


def test_settle_target_column_named_y_is_inferred(tmp_path: Path) -> None:
    dataset = UserDataset(table(tmp_path, x=A, y=Y), "table", "regression")
    options, source, _ = dataset.settle(dataset.Options())
    assert options.target_column == ("y",)
    assert "target_column" in source.guessed
