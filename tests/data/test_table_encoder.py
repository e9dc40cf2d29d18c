"""Tests of `harness.TableEncoder`: imputation, standardization, categories, and rejection of invalid columns."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness import DataError, RawData, Split, TableColumns, TableEncoder, TableEncoderOptions

STRICT = TableEncoderOptions(missing="error")


def table(rows: int, *, seed: int = 0, scale: float = 1.0, columns: int = 3) -> Split:
    rng = np.random.default_rng(seed)
    features = scale * (rng.normal(size=(rows, columns)) * 10.0 ** np.arange(columns) + 5)
    return Split(inputs={"features": features}, targets=np.zeros(rows, np.int64))


def raw(**changes: Any) -> RawData:
    return replace(
        RawData(train=table(30), validation=table(5, seed=1), test=table(7, seed=2)),
        **changes,
    )


def encoded(data: RawData, options: TableEncoderOptions | None = None) -> list[np.ndarray]:
    """Return the encoded features of the training, validation and test splits."""
    encoder = TableEncoder.fit(data, options)
    return [encoder.encode(split.inputs)["features"] for split in (data.train, data.validation, data.test)]


def with_column(split: Split, column: int, value: float) -> Split:
    features = split.inputs["features"].copy()
    features[:, column] = value
    return replace(split, inputs={"features": features})


def named(split: Split, *names: str | None) -> Split:
    """Return the split with one categorical column, in which the names are repeated."""
    categories = np.array([names[n % len(names)] for n in range(len(split))], object)[:, None]
    return replace(split, inputs={**split.inputs, "categories": categories})


def test_encode_training_columns_have_mean_0_and_std_1() -> None:
    features = encoded(raw())[0]
    assert features.dtype == np.float32
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-6)


def test_fit_ignores_validation_and_test() -> None:
    other = raw(validation=table(5, seed=8, scale=1e4), test=table(7, seed=9, scale=1e4))
    assert TableEncoder.fit(other) == TableEncoder.fit(raw())
    # Columns that are ten thousand times as large stay large when divided by the deviations of the training split.
    assert abs(encoded(other)[2]).max() > 1e3


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_encode_a_constant_column_returns_0_in_every_split(value: float) -> None:
    data = raw(train=with_column(table(30), 1, value))
    for features in encoded(data):
        assert not features[:, 1].any()
        assert features[:, 0].all()
    assert TableEncoder.fit(data).details(data.train.inputs) == {"constant_features": 1}


def test_fit_and_encode_do_not_change_the_raw_arrays() -> None:
    data = raw(train=with_column(table(30), 1, 7.0))
    copy = data.train.inputs["features"].copy()
    encoded(data)
    np.testing.assert_array_equal(data.train.inputs["features"], copy)


def test_encode_missing_numbers_imputes_the_training_mean_and_marks_them() -> None:
    train, test = table(30), table(7, seed=2)
    train.inputs["features"][4, 1] = np.nan
    test.inputs["features"][[0, 3], [1, 2]] = np.nan  # column 2 is complete in training: no indicator
    data = raw(train=train, test=test)
    features, _, tested = encoded(data)
    assert features.shape == (30, 4)
    np.testing.assert_allclose(features[:, :3].mean(axis=0), 0, atol=1e-6)
    assert features[4, 1] == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(features[:, 3]), [4])
    np.testing.assert_array_equal(np.flatnonzero(tested[:, 3]), [0])
    assert tested[3, 2] == pytest.approx(0, abs=1e-6)
    encoder = TableEncoder.fit(data)
    assert encoder.columns == TableColumns(numbers=3, indicators=(1,))
    assert encoder.details(train.inputs) == {"constant_features": 0, "missing_share": pytest.approx(1 / 90)}


def test_encode_categories_uses_those_of_the_training_split() -> None:
    data = raw(
        train=named(table(30), "b", None, "a"), validation=named(table(5), "a"), test=named(table(7), "new", "b", None)
    )
    features, _, tested = encoded(data)
    np.testing.assert_array_equal(features[:3, 3:], [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(tested[:3, 3:], [[0, 0, 0], [0, 0, 1], [1, 0, 0]])
    assert TableEncoder.fit(data).columns == TableColumns(numbers=3, categories=(3,))


def test_fit_sorts_categories_that_are_whole_numbers_by_value() -> None:
    split = named(table(30), "10", None, "2", "1")
    data = RawData(train=split, validation=split, test=split)
    assert TableEncoder.fit(data).categories == (("", "1", "2", "10"),)


def test_encode_a_table_with_categories_only() -> None:
    def split(rows: int) -> Split:
        return named(
            Split(inputs={"features": np.empty((rows, 0))}, targets=np.zeros(rows, np.int64)),
            "a",
            "b",
        )

    features = encoded(RawData(train=split(8), validation=split(3), test=split(3)))[0]
    np.testing.assert_array_equal(features, [[1, 0], [0, 1]] * 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": with_column(table(30), 2, np.nan)},
            r"training features: 30 missing .* row 0 of the split, column 2",
        ),
        (
            {"test": with_column(table(7), 0, np.nan), "feature_names": ("age", "b", "c")},
            r"test features: 7 missing .* row 0 of the split, column 'age'",
        ),
        ({"validation": table(5, columns=4)}, "validation features have 4 columns, but the training split has 3"),
        (
            {"train": Split(inputs={"features": np.array([["a"], ["b"]], object)}, targets=np.zeros(2))},
            r"training features are object of shape \(2, 1\); expected float \[N, columns\]",
        ),
        ({"test": named(table(7), "a")}, "test categories have 1 columns, but the training split has 0"),
    ],
)
def test_fit_on_invalid_arrays_raises(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TableEncoder.fit(raw(**changes), STRICT)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_fit_on_infinite_numbers_raises_even_if_missing_numbers_are_imputed(value: float) -> None:
    with pytest.raises(DataError, match="missing or infinite numbers"):
        TableEncoder.fit(raw(train=with_column(table(30), 2, value)))


def test_fit_on_a_column_without_numbers_raises() -> None:
    with pytest.raises(DataError, match="no numbers in column 2"):
        TableEncoder.fit(raw(train=with_column(table(30), 2, np.nan)))


def test_encode_new_rows_with_other_columns_raises() -> None:
    encoder = TableEncoder.fit(
        raw(train=named(table(30), "a"), validation=named(table(5), "a"), test=named(table(7), "a"))
    )
    with pytest.raises(DataError, match="new features have 4 columns, but the training split has 3"):
        encoder.encode(named(table(5, columns=4), "a").inputs)
    with pytest.raises(DataError, match="new categories have 0 columns, but the training split has 1"):
        encoder.encode(table(5).inputs)


def test_encode_missing_numbers_raises_if_they_are_errors() -> None:
    encoder = TableEncoder.fit(raw(), STRICT)
    with pytest.raises(DataError, match="new features: 5 missing or infinite numbers"):
        encoder.encode(with_column(table(5), 1, np.nan).inputs, STRICT)


@given(
    arrays(np.float64, (6, 2), elements=st.one_of(st.just(np.nan), st.floats(-1e100, 1e100))),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=6, max_size=6),
)
def test_from_json_restores_the_encoder(features: np.ndarray, cells: list[str | None]) -> None:
    features[0] = 1.0  # a column must contain a number
    categories = np.array(cells, object)[:, None]
    split = Split(inputs={"features": features, "categories": categories}, targets=np.zeros(6, np.int64))
    encoder = TableEncoder.fit(RawData(train=split, validation=split, test=split))
    restored = TableEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert restored == encoder
    np.testing.assert_array_equal(
        restored.encode(split.inputs)["features"], encoder.encode(split.inputs)["features"], strict=True
    )


def test_from_json_reads_the_values_of_earlier_versions() -> None:
    """The keys are those of the files preprocessing.json that the regression task wrote before version 0.2."""
    values = {
        "fillers": [2.0], "mean": [2.0], "scale": [0.5], "constant": [], "indicators": [0],
        "categories": [["", "a"]],
    }  # fmt: skip
    inputs = {"features": np.array([[3.0], [np.nan]]), "categories": np.array([["a"], [None]], object)}
    encoder = TableEncoder.from_json(values)
    np.testing.assert_array_equal(encoder.encode(inputs)["features"], [[2, 0, 0, 1], [0, 1, 1, 0]])
    assert encoder.to_json() == values


@pytest.mark.parametrize("change", [{"mean": "x"}, {"more": 1}, {"categories": [[1]]}])
def test_from_json_of_other_values_raises(change: dict[str, Any]) -> None:
    values = TableEncoder.fit(raw()).to_json() | change
    with pytest.raises(DataError, match="the fitted values of the table encoder are damaged"):
        TableEncoder.from_json(values)
