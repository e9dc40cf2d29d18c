"""Tests of the warnings about images that lose much of their content."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness_vision.options import VisionOptions
from harness_vision.sizes import size_warnings
from harness_vision.task import VisionTask
from hypothesis import given
from hypothesis import strategies as st

from harness import DataInfo, RawData, Split

Size = tuple[int, int]


def split(sizes: list[Size], channels: list[int] | None = None, spread: int = 256) -> Split:
    rng = np.random.default_rng(0)
    images = np.empty(len(sizes), object)
    for number, size in enumerate(sizes):
        depth = channels[number] if channels else 3
        images[number] = (100 + rng.integers(0, spread, (*size, depth)) % 156).astype(np.uint8)
    return Split(inputs={"image": images}, targets=np.arange(len(sizes)) % 2)


def described(data: Split, train: Split | None = None, **options: Any) -> DataInfo:
    raw = RawData(train=train or data, validation=train or data, test=data, label_names=("cat", "dog"))
    return VisionTask().prepare(raw, VisionOptions(**options)).info


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((32, 32), {}, []),
        ((64, 64), {"image_size": 64}, []),
        ((90, 90), {"image_size": 32}, []),
        ((96, 64), {"image_size": 64}, ["cropped"]),
        ((64, 80), {"image_size": 64}, []),
        ((64, 86), {"image_size": 64}, ["cropped"]),
        ((640, 64), {"image_size": 64}, ["cropped"]),
        ((256, 256), {"image_size": 64}, ["reduced"]),
        ((255, 255), {"image_size": 64}, []),
        ((1000, 300), {"image_size": 50}, ["reduced", "cropped"]),
        ((32, 32), {"image_size": 64}, ["enlarged"]),
        ((33, 33), {"image_size": 64}, []),
        ((4, 4), {"image_size": 64}, ["enlarged"]),
        ((1, 1), {"image_size": 64}, ["enlarged"]),
        ((64, 640), {"image_size": 64, "resize": "stretch"}, ["ratio"]),
        ((64, 95), {"image_size": 64, "resize": "stretch"}, []),
        ((64, 97), {"image_size": 64, "resize": "stretch"}, ["ratio"]),
        ((97, 64), {"image_size": 64, "resize": "stretch"}, ["ratio"]),
        ((300, 200), {"image_size": (60, 40)}, ["reduced"]),
        ((100, 100), {"image_size": 64, "resize": "none"}, ["cropped"]),
        ((70, 70), {"image_size": 64, "resize": "none"}, []),
        ((50, 50), {"image_size": 64, "resize": "none"}, ["black"]),
        ((10, 200), {"image_size": 64, "resize": "none"}, ["cropped", "black"]),
        ((224, 224), {"image_size": 224, "crop_share": 0.875}, []),
        ((64, 64), {"image_size": 64, "crop_share": 0.3}, ["enlarged"]),
    ],
)
def test_strong_changes_of_all_images_are_counted(size: Size, options: dict[str, Any], expected: list[str]) -> None:
    found = [each for each in described(split([size] * 4), **options).warnings if " test images" in each]
    assert all("4 of 4 test images (100.0%)" in each and "task." in each for each in found)
    assert len(found) == len(expected)
    for each, word in zip(found, expected, strict=True):
        assert word in each


@pytest.mark.parametrize(("wide", "warned"), [(0, False), (1, False), (2, False), (3, True), (10, True)])
def test_a_fifth_of_the_images_may_be_cropped(wide: int, warned: bool) -> None:
    sizes = [(64, 640)] * wide + [(64, 64)] * (10 - wide)
    info = described(split(sizes), image_size=64)
    found = [each for each in info.warnings if "test images" in each]
    assert bool(found) == warned
    if warned:
        assert f"{wide} of 10 test images" in found[0]
        assert f"on average, {wide * 0.09:.1%} of the area is lost" in found[0]


def test_images_of_one_size_have_no_warnings_and_no_original_size() -> None:
    info = described(
        Split(inputs={"image": np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)}, targets=np.zeros(1, int))
    )
    assert info.warnings == ()
    assert "original_height" not in info.details


def test_median_size_of_the_training_images_is_recorded() -> None:
    info = described(split([(9, 9)]), split([(10, 40), (20, 50), (400, 60)]))
    assert (info.details["original_height"], info.details["original_width"]) == (20, 50)
    assert info.inputs["pixel_values"].shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("channels", "option", "expected"),
    [
        ([3, 3, 3, 3], None, ""),
        ([1, 1, 1, 1], None, ""),
        ([1, 3, 3, 3], None, "1 of 4 test images are gray and the others are in color"),
        ([1, 1, 1, 3], None, "3 of 4 test images are gray and the others are in color"),
        ([3, 3, 3, 3], 1, "4 of 4 test images were converted to gray"),
        ([1, 3, 1, 1], 1, "1 of 4 test images were converted to gray"),
        ([1, 1, 1, 1], 3, ""),
        ([1, 1, 1, 1], 1, ""),
    ],
)
def test_changes_of_color_are_counted(channels: list[int], option: int | None, expected: str) -> None:
    info = described(split([(8, 8)] * 4, channels), channels=option)
    assert [each.startswith(expected) for each in info.warnings if "test" in each] == ([True] if expected else [])


@pytest.mark.parametrize(("spread", "blank"), [(1, False), (2, True), (4, True), (8, True), (9, False), (50, False)])
def test_nearly_blank_images_are_counted(spread: int, blank: bool) -> None:
    info = described(split([(16, 16)] * 3, spread=spread), split([(16, 16)] * 3))
    found = [each for each in info.warnings if "nearly blank" in each]
    assert len(found) == blank
    if blank:
        assert found[0].startswith("3 of 3 test images (100.0%) are nearly blank")


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=10),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["cover", "stretch", "none"]),
    st.floats(0.1, 1),
)
def test_fractions_are_between_0_and_1(sizes: list[Size], target: Size, resize: str, crop_share: float) -> None:
    options = VisionOptions(image_size=target, resize=resize, crop_share=crop_share)  # type: ignore[arg-type]
    array = np.array([(*size, 3) for size in sizes])
    for sentence in size_warnings("test", array, (*target, 3), options):
        for share in (float(part.split("%")[0].split("(")[-1]) for part in sentence.split(" ") if part.endswith("%)")):
            assert 20 < share <= 100
