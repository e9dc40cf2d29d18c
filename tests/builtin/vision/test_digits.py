"""Tests of the dataset ``digits``: sizes, splits and contents of the arrays."""

from __future__ import annotations

import numpy as np
import pytest
from harness_vision.digits import Digits, split_indices
from sklearn.datasets import load_digits

from harness import RawData, SeededSplit


@pytest.fixture(scope="module")
def data() -> RawData:
    return Digits().load(SeededSplit())


def test_splits_have_the_documented_sizes_shapes_and_dtypes(data: RawData) -> None:
    splits = (data.train, data.validation, data.test)
    assert [len(split) for split in splits] == [1257, 180, 360]
    for split in splits:
        assert split.inputs["image"].shape == (len(split), 8, 8, 1)
        assert (split.inputs["image"].dtype, split.targets.dtype) == (np.uint8, np.int64)
    assert max(split.inputs["image"].max() for split in splits) == data.details["pixel_max"] == 16
    assert data.label_names == tuple("0123456789")


def test_images_are_the_published_ones_with_their_labels(data: RawData) -> None:
    source = load_digits()
    train, validation, test = split_indices(source.target, 0)
    for split, index in ((data.train, train), (data.validation, validation), (data.test, test)):
        np.testing.assert_array_equal(split.inputs["image"][..., 0], source.images[index])
        np.testing.assert_array_equal(split.targets, source.target[index])


def test_every_image_is_in_one_split_only() -> None:
    index = np.concatenate(split_indices(load_digits().target, 0))
    np.testing.assert_array_equal(np.sort(index), np.arange(1797))


def test_class_fractions_are_equal_in_every_split(data: RawData) -> None:
    counts = np.bincount(load_digits().target)
    # From optdigits.names in the UCI repository.
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    whole = counts / 1797
    for split in (data.train, data.validation, data.test):
        np.testing.assert_allclose(np.bincount(split.targets, minlength=10) / len(split), whole, atol=1 / len(split))


def test_the_split_depends_on_split_seed_only(data: RawData) -> None:
    np.testing.assert_array_equal(Digits().load(SeededSplit()).test.inputs["image"], data.test.inputs["image"])
    other = Digits().load(SeededSplit(split_seed=1)).test
    assert len(other) == 360
    assert not np.array_equal(other.inputs["image"], data.test.inputs["image"])
