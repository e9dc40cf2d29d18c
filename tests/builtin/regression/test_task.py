"""Tests of the task ``regression``: encoded features and standardized targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness_regression.diabetes import Diabetes
from harness_regression.task import RegressionTask

from harness import InputSpec, PreparedData, RawData, SeededSplit, Split, TableColumns, TableEncoderOptions


def table(rows: int, *, seed: int = 0, scale: float = 1.0, columns: int = 3, targets: int = 2) -> Split:
    rng = np.random.default_rng(seed)
    features = scale * (rng.normal(size=(rows, columns)) * 10.0 ** np.arange(columns) + 5)
    return Split(inputs={"features": features}, targets=rng.normal(3, 4, (rows, targets)))


def raw(**changes: object) -> RawData:
    data = RawData(train=table(30), validation=table(5, seed=1), test=table(7, seed=2), details={"target_unit": "m"})
    return replace(data, **changes)


def prepare(data: RawData) -> PreparedData:
    return RegressionTask().prepare(data, TableEncoderOptions(missing="error"))


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
    assert info.columns == TableColumns(numbers=10)


def test_target_statistics_revert_the_standardization() -> None:
    data = raw()
    prepared = prepare(data)
    for before, after in ((data.train, prepared.train), (data.test, prepared.test)):
        restored = after.targets * np.array(prepared.info.target_scale) + np.array(prepared.info.target_mean)
        np.testing.assert_allclose(restored, before.targets, rtol=1e-5, atol=1e-5)


def test_a_constant_target_is_centered_but_not_scaled() -> None:
    train = replace(table(30), targets=np.full((30, 2), 0.1))
    info = prepare(raw(train=train)).info
    assert info.target_mean == pytest.approx((0.1, 0.1))
    assert info.target_scale == (1.0, 1.0)
