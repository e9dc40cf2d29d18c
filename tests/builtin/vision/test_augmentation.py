"""Tests of random crops and flips, which apply to training batches only and do not depend on the backend."""

from __future__ import annotations

import numpy as np
import pytest
from harness_vision.options import VisionOptions
from harness_vision.task import VisionTask, shifted

from harness import DataInfo, InputSpec, PluginError, Split
from harness.data.batches import training_batches

TASK = VisionTask()
INFO = DataInfo(
    kind="image",
    inputs={"pixel_values": InputSpec(shape=(6, 6, 3), dtype="float32")},
    objective="classification",
    outputs=2,
)


def numbered(count: int, side: int = 6) -> np.ndarray:
    """Return images whose pixels are distinct and not zero."""
    return np.arange(1, count * side * side * 3 + 1, dtype=np.float32).reshape(count, side, side, 3)


def augmented(images: np.ndarray, seed: int = 0, **options: object) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return TASK.augment({"pixel_values": images.copy()}, INFO, VisionOptions(**options), rng)["pixel_values"]


def test_augmentation_is_off_by_default() -> None:
    images = numbered(4)
    assert np.array_equal(augmented(images), images)


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    images = numbered(400)
    flipped = augmented(images, flip=True)
    mirrored = np.array([np.array_equal(new, old[:, ::-1]) for new, old in zip(flipped, images, strict=True)])
    untouched = np.array([np.array_equal(new, old) for new, old in zip(flipped, images, strict=True)])
    assert (mirrored ^ untouched).all()
    assert 160 < mirrored.sum() < 240


def test_a_crop_shifts_each_image_and_fills_with_the_mean() -> None:
    images = numbered(200)
    seen = set()
    for new, old in zip(augmented(images, crop=2), images, strict=True):
        down, right = next((r, c) for r in range(-2, 3) for c in range(-2, 3) if agrees(new, old, r, c))
        seen.add((down, right))
    assert len(seen) == 25


def agrees(new: np.ndarray, old: np.ndarray, down: int, right: int) -> bool:
    expected = np.zeros_like(old)
    rows, columns = range(6), range(6)
    for row in rows:
        for column in columns:
            if row + down in rows and column + right in columns:
                expected[row, column] = old[row + down, column + right]
    return np.array_equal(new, expected)


def test_a_centered_crop_leaves_an_image_unchanged() -> None:
    images = numbered(3)
    assert np.array_equal(shifted(images, np.full((3, 2), 2), 2), images)


def test_an_epochs_batches_depend_on_seed_and_epoch_only() -> None:
    split = Split(inputs={"pixel_values": numbered(20)}, targets=np.arange(20))
    options = VisionOptions(crop=2, flip=True)

    def epoch(seed: int, number: int) -> list[np.ndarray]:
        batches = training_batches(split, 8, seed, number, lambda inputs, rng: TASK.augment(inputs, INFO, options, rng))
        return [batch.inputs["pixel_values"] for batch in batches]

    first, again, later, other = epoch(0, 1), epoch(0, 1), epoch(0, 2), epoch(1, 1)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], later[0])
    assert not np.array_equal(first[0], other[0])
    assert all(batch.flags.c_contiguous for batch in first)
    assert np.array_equal(split.inputs["pixel_values"], numbered(20))  # the split is unchanged


def test_the_order_of_examples_does_not_depend_on_augmentation() -> None:
    split = Split(inputs={"pixel_values": numbered(20)}, targets=np.arange(20))
    plain = [batch.targets.tolist() for batch in training_batches(split, 8, 0, 1)]
    flipped = [batch.targets.tolist() for batch in training_batches(split, 8, 0, 1, lambda inputs, rng: inputs)]
    assert plain == flipped


def test_an_augmentation_that_changes_a_shape_raises() -> None:
    split = Split(inputs={"pixel_values": numbered(20)}, targets=np.arange(20))
    with pytest.raises(PluginError, match="it must keep all shapes and dtypes"):
        next(training_batches(split, 8, 0, 1, lambda inputs, rng: {"pixel_values": inputs["pixel_values"][:, :4]}))
