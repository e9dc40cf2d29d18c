"""Tests of the task ``regression``: standardization, and rejection of invalid data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness_regression.diabetes import Diabetes
from harness_regression.task import RegressionOptions, RegressionTask

from harness import DataError, InputSpec, PreparedData, RawData, SeededSplit, Split


def table(rows: int, *, seed: int = 0, scale: float = 1.0, columns: int = 3, targets: int = 2) -> Split:
    rng = np.random.default_rng(seed)
    features = scale * (rng.normal(size=(rows, columns)) * 10.0 ** np.arange(columns) + 5)
    return Split(inputs={"features": features}, targets=rng.normal(3, 4, (rows, targets)))


def raw(**changes: object) -> RawData:
    data = RawData(train=table(30), validation=table(5, seed=1), test=table(7, seed=2), details={"target_unit": "m"})
    return replace(data, **changes)


def prepare(data: RawData) -> PreparedData:
    return RegressionTask().prepare(data, RegressionOptions(missing="error"))


def with_column(split: Split, column: int, value: float) -> Split:
    features = split.inputs["features"].copy()
    features[:, column] = value
    return replace(split, inputs={"features": features})


def test_training_columns_have_mean_0_and_std_1() -> None:
    prepared = prepare(Diabetes().load(SeededSplit()))
    for array in (prepared.train.inputs["features"], prepared.train.targets):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(array.std(axis=0), 1, atol=1e-6)
    info = prepared.info
    assert info.inputs == {"features": InputSpec(shape=(10,), dtype="float32")}
    assert (info.kind, info.objective, info.outputs) == ("features", "regression", 1)
    assert info.details == {"target_unit": "points", "constant_features": 0}


def test_target_statistics_revert_the_standardization() -> None:
    data = raw()
    prepared = prepare(data)
    for before, after in ((data.train, prepared.train), (data.test, prepared.test)):
        restored = after.targets * np.array(prepared.info.target_scale) + np.array(prepared.info.target_mean)
        np.testing.assert_allclose(restored, before.targets, rtol=1e-5, atol=1e-5)


def test_statistics_do_not_depend_on_validation_and_test() -> None:
    before = prepare(raw())
    after = prepare(raw(validation=table(5, seed=8, scale=1e4), test=table(7, seed=9, scale=1e4)))
    assert after.info == before.info
    np.testing.assert_array_equal(after.train.inputs["features"], before.train.inputs["features"])
    np.testing.assert_array_equal(after.train.targets, before.train.targets)
    # Columns that are ten thousand times as large stay large when divided by the deviations of the training split.
    assert abs(after.test.inputs["features"]).max() > 1e3


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_a_constant_feature_is_0_in_every_split(value: float) -> None:
    prepared = prepare(raw(train=with_column(table(30), 1, value)))
    for split in (prepared.train, prepared.validation, prepared.test):
        assert not split.inputs["features"][:, 1].any()
        assert split.inputs["features"][:, 0].all()
    assert prepared.info.details["constant_features"] == 1


def test_a_constant_target_is_centered_but_not_scaled() -> None:
    train = replace(table(30), targets=np.full((30, 2), 0.1))
    info = prepare(raw(train=train)).info
    assert info.target_mean == pytest.approx((0.1, 0.1))
    assert info.target_scale == (1.0, 1.0)


def test_raw_arrays_are_unchanged() -> None:
    data = raw(train=with_column(table(30), 1, 7.0))
    copy = data.train.inputs["features"].copy()
    prepare(data)
    np.testing.assert_array_equal(data.train.inputs["features"], copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": with_column(table(30), 2, np.nan)},
            r"training features: 30 missing .* row 0 of the split, column 2",
        ),
        ({"validation": table(5, columns=4)}, "validation features have 4 columns, but the training split has 3"),
        (
            {"train": Split(inputs={"features": np.array([["a"], ["b"]], object)}, targets=np.zeros((2, 1)))},
            r"training features are object of shape \(2, 1\); expected float \[N, columns\]",
        ),
    ],
)
def test_arrays_of_a_wrong_shape_or_dtype_are_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(raw(**changes))


def test_missing_numbers_are_imputed_by_the_training_mean_and_marked() -> None:
    train, test = table(30), table(7, seed=2)
    train.inputs["features"][4, 1] = np.nan
    test.inputs["features"][[0, 3], [1, 2]] = np.nan  # column 2 is complete in training: no indicator
    prepared = RegressionTask().prepare(raw(train=train, test=test), RegressionOptions())
    features = prepared.train.inputs["features"]
    assert prepared.info.inputs["features"].shape == (4,)
    np.testing.assert_allclose(features[:, :3].mean(axis=0), 0, atol=1e-6)
    assert features[4, 1] == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(features[:, 3]), [4])
    np.testing.assert_array_equal(np.flatnonzero(prepared.test.inputs["features"][:, 3]), [0])
    assert prepared.test.inputs["features"][3, 2] == pytest.approx(0, abs=1e-6)
    assert prepared.info.details["missing_share"] == pytest.approx(1 / 90)


def test_categories_are_one_hot_encoded_by_the_training_split() -> None:
    def named(split: Split, *names: str | None) -> Split:
        categories = np.array([names[n % len(names)] for n in range(len(split))], object)[:, None]
        return replace(split, inputs={**split.inputs, "categories": categories})

    data = raw(
        train=named(table(30), "b", None, "a"), validation=named(table(5), "a"), test=named(table(7), "new", "b", None)
    )
    prepared = prepare(data)
    np.testing.assert_array_equal(prepared.train.inputs["features"][:3, 3:], [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(prepared.test.inputs["features"][:3, 3:], [[0, 0, 0], [0, 0, 1], [1, 0, 0]])
    assert prepared.info.inputs["features"].shape == (6,)


def test_a_table_can_have_categories_only() -> None:
    def split(rows: int) -> Split:
        categories = np.array([["a"], ["b"]] * rows, object)[:rows]
        return Split(
            inputs={"features": np.empty((rows, 0)), "categories": categories}, targets=np.arange(rows)[:, None] / 7
        )

    prepared = prepare(RawData(train=split(8), validation=split(3), test=split(3)))
    assert prepared.train.inputs["features"].shape == (8, 2)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_features_are_rejected_with_imputation(value: float) -> None:
    with pytest.raises(DataError, match="missing or infinite numbers"):
        RegressionTask().prepare(raw(train=with_column(table(30), 2, value)), RegressionOptions())


def test_a_column_without_any_number_is_rejected() -> None:
    with pytest.raises(DataError, match="no number in column 2"):
        RegressionTask().prepare(raw(train=with_column(table(30), 2, np.nan)), RegressionOptions())
