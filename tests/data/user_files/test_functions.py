"""Tests of the search for targets that are a function of a single column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from own_files import write_csv

from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.functions import relation
from harness.data.user_files.leaks import giveaways, label_giveaways

Array = NDArray[Any]
RNG = np.random.default_rng(0)
X = RNG.normal(size=200)
AGE = RNG.integers(0, 90, 300).astype(float)
CITY = np.array([f"city {n}" for n in RNG.integers(0, 12, 200)], object)


def warnings(path: Path, objective: Any = "regression", **columns: Any) -> list[str]:
    table = write_csv(path / "t.csv", {name: list(cells) for name, cells in columns.items()})
    dataset = UserDataset(table, "table", objective)
    raw = dataset.load(dataset.settle(dataset.Options(target_column="y"))[0])  # type: ignore[arg-type]
    return [text for text in raw.warnings if "known at prediction time" in text]


@pytest.mark.parametrize(
    ("column", "target", "found"),
    [
        (X, X**2, "a piecewise monotone function (2 pieces)"),
        (X, np.abs(X - 1), "a piecewise monotone function (2 pieces)"),
        (X, X**3 - X, "a piecewise monotone function (3 pieces)"),
        (X, np.log(np.abs(X)), "a piecewise monotone function (2 pieces)"),
        (X, np.exp(X), "a one-to-one function"),
        (X, -np.exp(X), "a one-to-one function"),
        (X, np.tanh(X), "a one-to-one function"),
        (np.exp(X), np.log1p(np.exp(X)), "a one-to-one function"),
        (X, np.round(X, 1), "a monotone function"),
        (X, np.floor(20 * X), "a monotone function"),
        (X, np.maximum(X, 0), "a monotone function"),
        (X, np.round(X**2, 1), "a piecewise monotone function (2 pieces)"),
        (np.repeat(X, 2), np.repeat(np.exp(X), 2), "a one-to-one function"),
        (np.where(np.arange(200) % 5, X, np.nan), X**2, "a piecewise monotone function (2 pieces)"),
        (X, np.round(X), "a step function (5 ranges)"),
        (X, (X > 0.3) * 1.0, "a step function (2 ranges)"),
        (X, np.digitize(X, [-0.5, 0.5]) * 10.0, "a step function (3 ranges)"),
        (X, (np.abs(X) > 1) * 1.0, "a step function (3 ranges)"),
        (AGE, np.digitize(AGE, [18, 40, 65]) * 1.0, "a step function (4 ranges)"),
        (AGE, np.array(["child", "adult"], object)[(AGE >= 18) * 1], "a step function (2 ranges)"),
        (AGE % 7, (AGE % 7) % 2, "a function"),
        (CITY, np.array(["north", "south"], object)[[len(name) % 2 for name in CITY]], "a function"),
        (CITY, np.array([float(int(name[5:]) // 3) for name in CITY]), "a function"),
        (CITY, np.array([float(name[5:]) ** 2 for name in CITY]), "a one-to-one function"),
    ],
)
def test_relation_target_that_is_a_function_of_a_column_is_found(column: Array, target: Array, found: str) -> None:
    assert relation(column, target) == found


@pytest.mark.parametrize(
    ("column", "target"),
    [
        (X, X**2 + 0.01 * RNG.normal(size=200)),
        (X, np.sin(20 * X)),
        (X, RNG.normal(size=200)),
        (X, np.where(RNG.random(200) < 0.02, 1 - (X > 0), X > 0) * 1.0),
        (AGE, AGE % 7),
        (np.round(X), X),
        (np.round(X), np.exp(X)),
        (X, np.ones(200)),
        (np.full(200, np.nan), X),
        (np.array([f"id {n}" for n in range(200)], object), X),
        (np.array([f"id {n // 2}" for n in range(200)], object), np.repeat(X[:100], 2)),
        (np.repeat(X[:66], 3), np.repeat(RNG.normal(size=66), 3)),  # a table in which each row occurs three times
        (RNG.choice([1.0, 2.0, 3.0], 12), np.tile([0.0, 1.0], 6)),
        (np.repeat([1.0, 2.0, 3.0, 4.0], 3), np.repeat([0.0, 1.0], 6)),  # few rows, which chance explains
        (np.array(["f", "m"] * 5, object), np.array(["no", "yes"] * 5, object)),
        (np.concatenate([X, X + 12]), np.repeat([0.0, 1.0], 200)),  # clusters that are far apart
    ],
)
def test_relation_other_targets_are_not_found(column: Array, target: Array) -> None:
    assert relation(column, target) is None


COLUMNS: list[Callable[[np.random.Generator, int], Array]] = [
    lambda rng, rows: rng.normal(size=rows),
    lambda rng, rows: rng.integers(0, 3, rows).astype(float),
    lambda rng, rows: rng.integers(0, rows // 3 + 1, rows).astype(float),
    lambda rng, rows: rng.choice(["a", "b", "c"], rows).astype(object),
    lambda rng, rows: np.array([f"k{value}" for value in rng.integers(0, rows // 2 + 1, rows)], object),
]
TARGETS: list[Callable[[np.random.Generator, int], Array]] = [
    lambda rng, rows: rng.normal(size=rows),
    lambda rng, rows: np.round(rng.normal(size=rows), 1),
    lambda rng, rows: rng.integers(0, 2, rows).astype(float),
    lambda rng, rows: (rng.random(rows) < 0.05) * 1.0,
    lambda rng, rows: rng.choice(["x", "y", "z", "w"], rows).astype(object),
]


@pytest.mark.parametrize("rows", [12, 20, 50, 100, 500])
def test_relation_independent_columns_are_never_found(rows: int) -> None:
    """Draw 2,500 tables: with the stated rate, a finding has a probability of at most 0.0025."""
    rng = np.random.default_rng(rows)
    for _ in range(20):
        for column in COLUMNS:
            for target in TARGETS:
                assert relation(column(rng, rows), target(rng, rows)) is None


@pytest.mark.parametrize(
    ("rows", "draw", "limit"),
    [
        (100, lambda rng, y: rng.normal(size=len(y)) + 4 * y, 0.35),  # 2% of the rows would be misclassified
        (200, lambda rng, y: rng.normal(size=len(y)) + 4 * y, 0.1),
        (1000, lambda rng, y: rng.normal(size=len(y)) + 4 * y, 0.01),
        (100, lambda rng, y: rng.normal(size=len(y)) + 8 * y, 0.01),
        (100, lambda rng, y: np.where(rng.random(len(y)) < 0.9, y, 1 - y), 0.01),
        (200, lambda rng, y: np.where(rng.random(len(y)) < 0.97, y, 1 - y), 0.01),
    ],
)
def test_relation_columns_that_predict_well_are_rarely_found(
    rows: int, draw: Callable[[np.random.Generator, Array], Array], limit: float
) -> None:
    rng = np.random.default_rng(rows)
    targets = [rng.integers(0, 2, rows).astype(float) for _ in range(150)]
    assert np.mean([relation(draw(rng, target), target) is not None for target in targets]) <= limit


@given(st.lists(st.integers(-1000, 1000), min_size=40, max_size=60, unique=True))
def test_relation_holds_for_monotone_functions_of_any_numbers(values: list[int]) -> None:
    column = np.array(values, float)
    assert relation(column, column**3) == relation(column, -column) == "a one-to-one function"
    squares = relation(column, (column - np.median(column)) ** 2)
    assert squares is None or "function" in squares


@pytest.mark.parametrize(
    ("column", "target"),
    [
        (np.round(20 + 8 * X, 1), np.round(1.8 * np.round(20 + 8 * X, 3) + 32, 1)),  # Celsius and Fahrenheit
        (np.round(20 + 8 * X, 1), 1.8 * (20 + 8 * X) + 32),
        (np.round(70 + 10 * X), np.round((70 + 10 * X) * 2.2046, 1)),  # kilograms and pounds
        (np.round(170 + 10 * X, 1), np.round((170 + 10 * X) / 2.54, 1)),
        (np.round(100 + 30 * X, 2), np.round((100 + 30 * X) * 1.09, 2)),
        (np.round(50 + 20 * X) * 1000, np.round((50 + 20 * X) * 1000)),
        (np.round(50 + 20 * X, 1), -np.round(50 + 20 * X)),
        (np.round(1e5 + 3e4 * X), np.round((1e5 + 3e4 * X) / 60, 1)),
    ],
)
def test_giveaways_rounded_values_in_another_unit_are_found(column: Array, target: Array) -> None:
    (warning,) = giveaways({"x": column, "other": AGE[:200]}, {}, {"y": target})
    assert warning.startswith("target 'y' is a linear function of the feature 'x'")


def test_load_functions_of_a_column_are_reported(tmp_path: Path) -> None:
    noise = RNG.normal(size=200)
    assert warnings(tmp_path, x=X, other=noise, y=X**2) == [
        "target 'y' is a piecewise monotone function (2 pieces) of the feature 'x'; check that it is known at "
        "prediction time"
    ]
    labels = np.where(X > 0, "high", np.where(X < -1, "low", "middle"))
    assert warnings(tmp_path, "classification", x=X, other=noise, y=labels) == [
        "the label is a step function (3 ranges) of the feature 'x'; check that it is known at prediction time"
    ]
    assert warnings(tmp_path, town=CITY, other=noise, y=[int(name[5:]) // 4 for name in CITY]) == [
        "target 'y' is a function of the feature 'town'; check that it is known at prediction time"
    ]
    assert warnings(tmp_path, x=X, other=noise, y=(X > 0) * 1) == [
        "target 'y' is a step function (2 ranges) of the feature 'x'; check that it is known at prediction time"
    ]


A, B = RNG.uniform(1, 5, (2, 200))
COUNTS = np.arange(200) % 4 * 1.0
KILOGRAMS, METERS = np.round(60 + 8 * A, 1), np.round(1.5 + 0.1 * B, 2)


@pytest.mark.parametrize(
    ("features", "target", "names"),
    [
        ({"a": A, "b": B}, A * B, ["a", "b"]),
        ({"a": A, "b": B}, A / B, ["a", "b"]),
        ({"a": A, "b": B, "c": X}, A * B**2, ["a", "b"]),
        ({"a": A, "b": B, "c": A[::-1]}, A * B * A[::-1] / 6, ["a", "b", "c"]),
        ({"a": np.round(10 * A), "b": np.round(B, 2)}, np.round(np.round(10 * A) * np.round(B, 2), 2), ["a", "b"]),
        ({"a": X, "b": B}, X * B, ["a", "b"]),
        ({"a": COUNTS, "b": np.round(B, 2), "c": X}, np.round(COUNTS * np.round(B, 2), 2), ["a", "b"]),
        ({"a": KILOGRAMS, "b": METERS, "c": X}, np.round(KILOGRAMS / METERS**2, 1), ["a", "b"]),  # body mass index
        ({"a": A, "b": B}, np.where(COUNTS == 0, 0, A * B), []),  # the features do not explain the zeros
        ({"a": KILOGRAMS, "b": METERS}, np.round(KILOGRAMS / METERS**2 + 0.1 * X, 1), []),
        ({"a": A, "b": B}, A * B + 0.1 * X, []),
        ({"a": A, "b": B}, RNG.uniform(1, 5, 200), []),
        ({"a": A}, RNG.uniform(1, 5, 200), []),
    ],
)
def test_giveaways_products_of_features_are_found(features: dict[str, Array], target: Array, names: list[str]) -> None:
    found = [text for text in giveaways(features, {}, {"y": target}) if "product of powers" in text]
    shown = ", ".join(map(repr, names))
    assert [f"of the features {shown};" in text for text in found] == [True] * bool(names)


@pytest.mark.parametrize("rows", [8, 60, 200])
@pytest.mark.parametrize("objective", ["regression", "classification"])
def test_giveaways_missing_values_that_determine_the_target_are_found(rows: int, objective: str) -> None:
    known = COUNTS[:rows] > 1
    gaps = np.random.default_rng(rows).random(rows) < 0.3
    columns = {"end": np.where(known, A[:rows], np.nan), "gaps": np.where(gaps, np.nan, B[:rows])}
    if objective == "regression":
        what, found = "target 'y'", giveaways(columns, {}, {"y": known * 1.0})
    else:
        what, found = "the label", label_giveaways(columns, np.array(["active", "ended"], object)[known * 1])
    message = f"{what} is determined by whether the feature 'end' is missing; check that it is known at "
    assert [text.startswith(message) for text in found] == [True] * (rows > 8)


@pytest.mark.parametrize("exceptions", [1, 5])
def test_giveaways_missing_values_with_exceptions_are_not_found(exceptions: int) -> None:
    target = (COUNTS > 1) * 1.0
    missing = target.astype(bool)
    missing[:exceptions] = ~missing[:exceptions]
    assert giveaways({"x": np.where(missing, np.nan, X)}, {}, {"y": target}) == []


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (np.array(["low", "middle", "high"], object)[np.digitize(X, [-0.5, 0.5])], "a step function (3 ranges)"),
        (np.round(np.sqrt(X + 5), 2), "a monotone function"),
        (np.digitize(X, np.linspace(-2, 2, 40)) * 1.0, "a monotone function"),
        (np.digitize(X, [-1, 0, 1]) * 1.0, "a step function (4 ranges)"),
        ((X > 0.2) * 1.0, "a step function (2 ranges)"),
        (np.array(["low", "middle", "high"], object)[np.digitize(X + 0.2 * A, [0, 1])], None),
        (AGE[:200], None),
        (CITY, None),
    ],
)
def test_giveaways_rounded_and_binned_functions_of_the_target_are_found(column: Array, found: str | None) -> None:
    numeric = column.dtype != object
    warnings = giveaways({"x": column} if numeric else {}, {} if numeric else {"x": column}, {"y": X})
    message = f"feature 'x' is {found} of the target 'y'; check that it is known at prediction time"
    assert warnings == ([message] if found else [])


def test_relation_with_a_category_that_the_sample_lacks_is_found() -> None:
    cities = np.array(["alone", *(f"city {n}" for n in np.random.default_rng(1).integers(0, 50, 5_000))], object)
    regions = np.array([f"region {hash_ % 3}" for hash_ in (sum(map(ord, name)) for name in cities)], object)
    order = np.r_[1, 0, 2 : len(cities)]  # not among the rows that are examined first
    assert relation(cities[order], regions[order]) == "a function"
