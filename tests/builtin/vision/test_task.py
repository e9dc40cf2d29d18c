"""Tests of the task ``vision``: scaling, normalization, and rejection of invalid data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness_vision.digits import Digits
from harness_vision.options import VisionOptions
from harness_vision.task import VisionTask

from harness import DataError, InputSpec, PreparedData, RawData, SeededSplit, Split


def images(count: int, *, seed: int = 0, shape: tuple[int, ...] = (4, 5, 3), top: int = 255) -> Split:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, top + 1, (count, *shape)).astype(np.uint8)
    return Split(inputs={"image": pixels}, targets=np.arange(count, dtype=np.int64) % 2)


def raw(**changes: object) -> RawData:
    data = RawData(train=images(20), validation=images(4, seed=1), test=images(6, seed=2), label_names=("cat", "dog"))
    return replace(data, **changes)


def prepare(data: RawData) -> PreparedData:
    return VisionTask().prepare(data, VisionOptions())


def test_digits_become_normalized_pixels() -> None:
    prepared = prepare(Digits().load(SeededSplit()))
    pixels = prepared.train.inputs["pixel_values"]
    assert (pixels.dtype, pixels.shape) == (np.float32, (1257, 8, 8, 1))
    assert pixels.mean() == pytest.approx(0, abs=1e-5)
    assert pixels.std() == pytest.approx(1, abs=1e-5)
    assert prepared.info.inputs == {"pixel_values": InputSpec(shape=(8, 8, 1), dtype="float32")}
    assert (prepared.info.kind, prepared.info.objective, prepared.info.outputs) == ("image", "classification", 10)
    # Over all images, the mean pixel is 4.884 of 16, or 0.305 after scaling.
    assert prepared.info.details["channel_0_mean"] == pytest.approx(0.305, abs=0.002)


def test_each_channel_is_normalized_separately() -> None:
    train = images(50)
    train.inputs["image"][..., 1] //= 4
    data = raw(train=train)
    prepared = prepare(data)
    np.testing.assert_allclose(prepared.train.inputs["pixel_values"].mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(prepared.train.inputs["pixel_values"].std(axis=(0, 1, 2)), 1, atol=1e-5)
    details = prepared.info.details
    expected = train.inputs["image"][..., 1].mean() / 255
    assert details["channel_1_mean"] == pytest.approx(expected, rel=1e-5)
    scaled = data.test.inputs["image"] / 255
    mean = np.array([details[f"channel_{c}_mean"] for c in range(3)])
    std = np.array([details[f"channel_{c}_std"] for c in range(3)])
    np.testing.assert_allclose(prepared.test.inputs["pixel_values"], (scaled - mean) / std, atol=1e-5)


def test_statistics_do_not_depend_on_validation_and_test() -> None:
    before = prepare(raw())
    after = prepare(raw(validation=images(4, seed=8, top=9), test=images(6, seed=9, top=9)))
    assert after.info == before.info
    np.testing.assert_array_equal(after.train.inputs["pixel_values"], before.train.inputs["pixel_values"])
    assert not np.array_equal(after.test.inputs["pixel_values"], before.test.inputs["pixel_values"])


def test_statistics_depend_on_the_training_images() -> None:
    assert prepare(raw(train=images(20, top=99))).info.details != prepare(raw()).info.details


def test_a_constant_channel_stays_finite() -> None:
    train = images(20)
    train.inputs["image"][..., 2] = 77
    prepared = prepare(raw(train=train))
    assert prepared.info.details["channel_2_std"] == 1
    np.testing.assert_allclose(prepared.train.inputs["pixel_values"][..., 2], 0, atol=1e-6)
    assert np.isfinite(prepared.test.inputs["pixel_values"]).all()


def test_groups_and_raw_images_are_unchanged() -> None:
    groups = {"writer": np.arange(20)}
    data = raw(train=replace(images(20), groups=groups))
    copy = data.train.inputs["image"].copy()
    prepared = prepare(data)
    np.testing.assert_array_equal(prepared.train.groups["writer"], groups["writer"])
    np.testing.assert_array_equal(data.train.inputs["image"], copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"test": images(3, shape=(8, 8))},
            r"test images are uint8 of shape \(3, 8, 8\); expected uint8 \[N, H, W, C\]",
        ),
        (
            {"validation": images(3, shape=(4, 4, 3))},
            r"validation images have shape \(4, 4, 3\), but the training images have",
        ),
        ({"details": {"pixel_max": 16}}, r"training images have pixel values up to \d+, above the .* pixel_max of 16"),
        (
            {"train": Split(inputs={"image": np.zeros((2, 4, 5, 3))}, targets=np.zeros(2, np.int64))},
            "training images are float64",
        ),
    ],
)
def test_arrays_of_a_wrong_shape_or_dtype_are_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(raw(**changes))


def several(*shapes: tuple[int, int, int], value: int | None = None) -> Split:
    """Return one image per shape, with noise or a constant value."""
    rng = np.random.default_rng(0)
    pixels = np.empty(len(shapes), object)
    for number, shape in enumerate(shapes):
        noise = rng.integers(0, 256, shape).astype(np.uint8)
        pixels[number] = noise if value is None else np.full(shape, value, np.uint8)
    return Split(inputs={"image": pixels}, targets=np.arange(len(shapes), dtype=np.int64) % 2)


@pytest.mark.parametrize(
    ("shapes", "side", "expected"),
    [
        ([(8, 9, 3), (8, 9, 3)], None, (8, 9, 3)),
        ([(8, 9, 3), (20, 6, 3)], None, (64, 64, 3)),
        ([(8, 9, 3), (20, 6, 1)], 16, (16, 16, 3)),
        ([(8, 9, 1), (20, 6, 1)], 16, (16, 16, 1)),
    ],
)
def test_images_of_different_sizes_get_a_common_size(
    shapes: list[tuple[int, int, int]], side: int | None, expected: tuple[int, int, int]
) -> None:
    pytest.importorskip("PIL", reason="images are resized by Pillow")
    data = raw(train=several(*shapes), validation=several((99, 3, 1), (5, 5, 3)), test=several((1, 1, 3), (8, 9, 1)))
    prepared = VisionTask().prepare(data, VisionOptions(image_size=side))
    for split in (prepared.train, prepared.validation, prepared.test):
        assert split.inputs["pixel_values"].shape == (2, *expected)
    assert prepared.info.inputs["pixel_values"].shape == expected


def test_resizing_keeps_the_center() -> None:
    pytest.importorskip("PIL", reason="images are resized by Pillow")
    from harness_vision.images import uniform

    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = (200, 100, 50)
    (square,) = uniform("training", [wide], (5, 5, 3), VisionOptions())
    assert (square[:, 1:-1] == (200, 100, 50)).all()  # in the outer columns, the filter includes neighbors
    (gray,) = uniform("training", [wide[:, 10:20]], (10, 10, 1), VisionOptions())
    assert set(gray.ravel()) == {round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)}


def test_images_of_one_size_are_resized_on_request_only() -> None:
    pytest.importorskip("PIL", reason="images are resized by Pillow")
    same = VisionTask().prepare(raw(), VisionOptions())
    objects = raw(train=several(*[(4, 5, 3)] * 20))
    objects.train.inputs["image"][:] = list(raw().train.inputs["image"])
    np.testing.assert_array_equal(
        VisionTask().prepare(objects, VisionOptions()).train.inputs["pixel_values"], same.train.inputs["pixel_values"]
    )
    assert VisionTask().prepare(raw(), VisionOptions(image_size=7)).info.inputs["pixel_values"].shape == (7, 7, 3)


def test_arrays_that_are_not_images_are_rejected() -> None:
    data = raw(validation=several((4, 5, 3), (4, 5, 2)))
    with pytest.raises(DataError, match=r"validation image 1 is uint8 of shape \(4, 5, 2\)"):
        prepare(data)
