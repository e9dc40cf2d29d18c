"""Tests of the dataset ``diabetes``: sizes, splits, units and determinism."""

from __future__ import annotations

import numpy as np
import pytest
from harness_regression.diabetes import Diabetes, split_indices
from sklearn.datasets import load_diabetes

from harness import RawData, SeededSplit


@pytest.fixture(scope="module")
def data() -> RawData:
    return Diabetes().load(SeededSplit())


def test_splits_have_the_documented_sizes_shapes_and_dtypes(data: RawData) -> None:
    splits = (data.train, data.validation, data.test)
    assert [len(split) for split in splits] == [308, 45, 89]
    for split in splits:
        assert (split.inputs["features"].shape, split.targets.shape) == ((len(split), 10), (len(split), 1))
        assert split.inputs["features"].dtype == split.targets.dtype == np.float64


def test_values_are_not_standardized(data: RawData) -> None:
    age, sex = data.train.inputs["features"][:, 0], data.train.inputs["features"][:, 1]
    assert 18 <= age.min() < age.max() <= 80
    assert set(sex) == {1.0, 2.0}
    targets = np.concatenate([data.train.targets, data.validation.targets, data.test.targets])
    assert (targets.min(), targets.max()) == (25, 346)
    assert data.details == {"target_unit": "points"}


def test_rows_are_the_published_ones_with_their_targets(data: RawData) -> None:
    source = load_diabetes(scaled=False)
    for split, index in zip((data.train, data.validation, data.test), split_indices(442, 0), strict=True):
        np.testing.assert_array_equal(split.inputs["features"], source.data[index])
        np.testing.assert_array_equal(split.targets[:, 0], source.target[index])


def test_every_patient_is_in_one_split_only() -> None:
    np.testing.assert_array_equal(np.sort(np.concatenate(split_indices(442, 0))), np.arange(442))


def test_the_split_depends_on_split_seed_only(data: RawData) -> None:
    np.testing.assert_array_equal(Diabetes().load(SeededSplit()).test.targets, data.test.targets)
    assert not np.array_equal(Diabetes().load(SeededSplit(split_seed=1)).test.targets, data.test.targets)
