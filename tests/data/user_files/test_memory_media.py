"""Tests of images and recordings in memory."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from list_dataset import ListDataset
from numpy.testing import assert_array_equal
from own_files import write_image

from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.media import read_image
from harness.data.user_files.memory import from_memory
from harness.data.user_files.memory_about import About, about
from harness.data.user_files.memory_files import save_data
from harness.data.user_files.options import AudioOptions, ImageOptions
from harness.errors import UsageError


def test_images_in_memory_are_read_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3)).astype(np.uint8)
    path = save_data({"image": pixels, "label": ["cat", "dog"] * 20}, "pets")
    raw = UserDataset(path, "image", "classification").load(ImageOptions())
    for split in (raw.train, raw.validation, raw.test):
        assert split.rows is not None
        for file, image in zip(split.rows, split.inputs["image"], strict=True):
            assert_array_equal(image, pixels[int(str(file).partition(".")[0]) - 1])
    gray = save_data({"image": list(pixels[..., 0]), "label": ["cat", "dog"] * 20})
    raw = UserDataset(gray, "image", "classification").load(ImageOptions())
    assert {image.shape for image in raw.train.inputs["image"]} == {(5, 4, 1)}


def test_recordings_in_memory_are_read_exactly() -> None:
    rng = np.random.default_rng(0)
    sounds = [rng.uniform(-1, 1, size).astype(np.float32) for size in rng.integers(200, 400, 40)]
    path = save_data({"audio": sounds, "sample_rate": 8000, "label": ["yes", "no"] * 20})
    raw = UserDataset(path, "audio", "classification").load(AudioOptions())
    assert raw.train.rows is not None
    for file, waveform, rate_hz in zip(
        raw.train.rows, raw.train.inputs["waveform"], raw.train.inputs["sample_rate_hz"], strict=True
    ):
        assert_array_equal(waveform, sounds[int(str(file).partition(".")[0]) - 1])
        assert rate_hz == 8000


def test_media_of_a_dataset_are_decoded() -> None:
    from PIL import Image

    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    images = from_memory(ListDataset({"image": [Image.fromarray(pixels), None], "label": [0, 1]}))
    assert images.media is not None
    assert images.media.names() == ["000001.ppm", None]
    assert_array_equal(images.media.items[0], pixels)
    sound = {"array": np.zeros(4), "sampling_rate": 16000, "path": None}
    sounds = from_memory(ListDataset({"audio": [sound], "label": [0]}))
    assert sounds.media is not None
    assert (sounds.media.names(), list(sounds.media.rates_hz)) == (["000001.wav"], [16000])


def test_pictures_in_memory_are_read_like_image_files(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3)).astype(np.uint8)
    color = Image.fromarray(pixels)
    turned = color.copy()
    turned.getexif()[0x0112] = 6  # orientation: rotate by 90 degrees
    clear = color.copy()
    clear.putalpha(Image.fromarray(pixels[..., 0]))
    animation = tmp_path / "two.gif"
    color.save(animation, save_all=True, append_images=[Image.new("RGB", color.size, "red")])
    pictures = [turned, clear, Image.open(animation)]
    pictures += [color.convert(mode) for mode in ("1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "RGBX")]
    found = from_memory({"image": pictures, "label": list(range(len(pictures)))})
    assert found.media is not None
    notes: Counter[str] = Counter()
    for number, (picture, item) in enumerate(zip(pictures, found.media.items, strict=True)):
        file = tmp_path / f"{number}.tif"
        exact = picture.convert("RGB") if picture.mode == "HSV" else picture  # TIFF has no HSV
        exact.save(file, exif=picture.getexif(), save_all=number == 2)
        assert_array_equal(item, read_image(file, 100, notes))
    assert found.media.notes == notes
    assert found.all_warnings() == [
        "1 image has transparent parts, which became white",
        "1 image has more than one frame, but only the first is used",
    ]
    split = from_memory({"train": {"image": [clear], "label": [1]}, "test": {"image": [clear], "label": [1]}})
    assert split.all_warnings() == ["2 images have transparent parts, which became white"]
    assert about(save_data({"image": [clear], "label": [1]})) == About(
        origin="dict", warnings=("1 image has transparent parts, which became white",)
    )


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([math.nan, 8000.0, 16000], [1, 8000, 16000]),
        ([pd.NA, 8000, None], [1, 8000, 16000]),
        (["unknown", 8000, math.nan], [1, 8000, 16000]),
        (None, [1, 16000, 16000]),
    ],
)
@pytest.mark.parametrize("missing", [None, math.nan, pd.NA])
def test_missing_recordings_need_no_sample_rate(missing: Any, rates: Any, expected: list[int]) -> None:
    sound = {"array": np.zeros(4), "sampling_rate": 16000}
    columns = {"audio": [missing, sound if rates is None else np.zeros(4), sound]}
    media = from_memory(columns if rates is None else {**columns, "sample_rate": rates}).media
    assert media is not None
    assert (media.names(), media.rates_hz) == ([None, "000002.wav", "000003.wav"], expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image": np.zeros((2, 4, 4, 3))}, r"the image in row 1 is float64 \[4, 4, 3\], expected a uint8"),
        ({"image": np.zeros((2, 4, 4, 4), np.uint8)}, r"has the shape \[4, 4, 4\], expected .* 1 .* or 3"),
        ({"image": np.zeros((2, 0, 4), np.uint8)}, r"shape \[0, 4, 1\]"),
        ({"image": [np.zeros((4, 4), np.uint8), "x.png"]}, "the image in row 2 is str"),
        ({"image": np.zeros((1, 2, 2), np.uint8), "more": np.zeros((1, 2, 2), np.uint8)}, "'image' and 'more'"),
        ({"image": np.zeros((1, 2, 2), np.uint8), "file_name": ["a"]}, "'file_name' is reserved"),
        ({"audio": [np.zeros(4)]}, "sample rate in row 1 is unknown; add 'sample_rate'"),
        ({"audio": [np.zeros(4)], "sample_rate": [math.nan]}, "sample rate in row 1 is unknown"),
        (
            {"audio": [None, {"array": np.zeros(4), "sampling_rate": 16000}], "sample_rate": 8000},
            "'sample_rate' in row 2 is 8000 Hz, but the recording specifies 16000 Hz; remove 'sample_rate'",
        ),
        ({"audio": [{"array": np.zeros(4), "sampling_rate": "x"}]}, "'sample_rate' in row 1 is 'x'"),
        ({"audio": [np.zeros(4), {"path": "a.wav"}], "sample_rate": 8000}, "the recording in row 2 is object"),
        ({"audio": [np.zeros(4)], "sample_rate": 0.5}, "'sample_rate' in row 1 is 0.5"),
        ({"audio": [np.array([0, 2.0])], "sample_rate": 8000}, "outside the range -1 to 1"),
        ({"audio": [np.zeros((2, 4)), np.zeros(4)], "sample_rate": 8000}, "expected a uint8"),
        ({"audio": [np.zeros(4), np.zeros((2, 4))], "sample_rate": 8000}, "the recording in row 2 .*1-dimensional"),
        ({"audio": [np.zeros(4, np.int32)], "sample_rate": 8000}, "int32"),
    ],
)
def test_save_data_media_of_another_form_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        save_data(data)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("F", r"the image in row 1 is float32 \[2, 2\], expected a uint8"),
        ("I;16", r"the image in row 1 is uint16 \[2, 2\], expected a uint8"),
        ("La", r"the image in row 1 \(mode La\) cannot be used: conversion"),
        ("RGBA", r"the image in row 1 \(mode RGBA\) cannot be used: nothing is visible"),
    ],
)
def test_save_data_pictures_that_cannot_be_converted_are_refused(mode: str, message: str) -> None:
    from PIL import Image

    with pytest.raises(UsageError, match=message):
        save_data({"image": [Image.new(mode, (2, 2))]})


def test_save_data_truncated_picture_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    file = write_image(tmp_path / "a.png", (40, 40))
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(UsageError, match=r"the image in row 1 \(mode L\) cannot be used: .*truncated"):
        save_data({"image": [Image.open(file)]})
