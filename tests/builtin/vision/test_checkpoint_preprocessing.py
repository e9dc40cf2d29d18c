"""Tests of image preparation according to a checkpoint's ``preprocessor_config.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from harness_vision.options import VisionOptions
from harness_vision.task import VisionTask

from harness import DataError, PreparedData, RawData, Split, UsageError

pytest.importorskip("PIL", reason="images are resized by Pillow")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = ((60, 80, 3), (91, 47, 1), (33, 200, 3), (32, 32, 1), (20, 17, 3), (256, 300, 3))
RESNET = {  # as in the published ResNet checkpoints
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "resample": 3,
    "size": 224,
}


def images(shapes: tuple[tuple[int, int, int], ...], top: int = 255) -> list[np.ndarray]:
    """Return noise on a gradient, which makes an offset by one pixel or another filter visible."""
    rng = np.random.default_rng(0)
    noisy = []
    for height, width, channels in shapes:
        slope = np.linspace(0, 0.6, height * width * channels).reshape(height, width, channels)
        noisy.append((top * (slope + 0.4 * rng.random(slope.shape))).astype(np.uint8))
    return noisy


def raw(pixels: list[np.ndarray], **details: int) -> RawData:
    column = np.empty(len(pixels), object)
    column[:] = pixels
    if len({image.shape for image in pixels}) == 1:
        column = np.stack(pixels)
    split = Split(inputs={"image": column}, targets=np.arange(len(pixels)) % 2)
    return RawData(train=split, validation=split, test=split, label_names=("cat", "dog"), details=details)


def written(folder: Path, preprocessor: dict[str, Any] | None, channels: int = 3) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet", "num_channels": channels}))
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def options(folder: Path, **changes: Any) -> VisionOptions:
    return msgspec.convert({**VisionTask().checkpoint_options(folder), **changes}, VisionOptions)


def prepared(folder: Path, data: RawData, **changes: Any) -> PreparedData:
    return VisionTask().prepare(data, options(folder, **changes))


CASES: dict[str, tuple[str, dict[str, Any], tuple[tuple[int, int, int], ...]]] = {
    "resnet": ("ConvNext", {"size": {"shortest_edge": 224}, "image_mean": MEAN, "image_std": STD}, SHAPES),
    "a share that does not divide": ("ConvNext", {"size": {"shortest_edge": 40}, "crop_pct": 0.95}, SHAPES),
    "no crop": ("ConvNext", {"size": {"shortest_edge": 40}, "crop_pct": 1.0, "resample": 2}, SHAPES),
    "warped": ("ConvNext", {"size": {"shortest_edge": 384}}, SHAPES),
    "square": ("ViT", {"size": {"height": 40, "width": 40}, "image_mean": MEAN, "image_std": STD}, SHAPES),
    "oblong": ("ViT", {"size": {"height": 24, "width": 36}, "resample": 1}, SHAPES),
    "square, cropped": (
        "ViT",
        {"size": {"height": 50, "width": 50}, "do_center_crop": True, "crop_size": {"height": 33, "width": 33}},
        SHAPES,
    ),
    "shorter side, cropped": ("CLIP", {"size": {"shortest_edge": 37}, "crop_size": 32}, SHAPES),
    "not normalized": ("ConvNext", {"size": {"shortest_edge": 32}, "do_normalize": False}, SHAPES),
    "to [-1, 1]": ("ViT", {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, SHAPES),
    "not rescaled": ("ViT", {"do_rescale": False, "image_mean": [127.0] * 3, "image_std": [60.0] * 3}, SHAPES),
    "cropped only": ("Bit", {"do_resize": False, "crop_size": 48}, SHAPES),
    "neither": ("ViT", {"do_resize": False}, ((20, 30, 1), (20, 30, 3))),
}


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_pixels_agree_with_the_image_processor(case: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    name, settings, shapes = CASES[case]
    processor = getattr(transformers, f"{name}ImageProcessorPil")(**settings)
    written(tmp_path, None)
    processor.save_pretrained(tmp_path)
    pixels = images(shapes)
    color = [np.repeat(image, 3 // image.shape[2], axis=2) for image in pixels]
    expected = processor(color, input_data_format="channels_last", return_tensors="np")["pixel_values"]
    found = prepared(tmp_path, raw(pixels))
    assert found.info.inputs["pixel_values"].shape == (*expected.shape[2:], 3)
    # Both round to integer pixels at the same step, so only float32 rounding differs.
    np.testing.assert_allclose(
        found.train.inputs["pixel_values"], expected.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5, err_msg=case
    )


def test_a_published_resnet_is_scaled_to_256_and_cropped_to_224(tmp_path: Path) -> None:
    from PIL import Image

    found = prepared(written(tmp_path, RESNET), raw(images(((300, 400, 3),))))
    (image,) = images(((300, 400, 3),))
    scaled = np.asarray(Image.fromarray(image).resize((341, 256), Image.Resampling.BICUBIC))
    expected = (scaled[16:240, 58:282] / 255 - MEAN) / STD
    np.testing.assert_allclose(found.train.inputs["pixel_values"][0], expected, rtol=1e-5, atol=1e-5)
    assert found.info.details["channel_1_mean"] == pytest.approx(0.456)
    assert found.info.details["channel_1_std"] == pytest.approx(0.224)


def test_another_size_keeps_the_crop_and_statistics_of_the_checkpoint(tmp_path: Path) -> None:
    assert options(written(tmp_path, RESNET), image_size=64) == VisionOptions(
        image_size=64, channels=3, resize="cover", crop_share=0.875, resample="bicubic", mean=MEAN, std=STD
    )


def test_a_checkpoint_without_preprocessor_sets_the_channels(tmp_path: Path) -> None:
    gray = raw(images(((8, 9, 1), (8, 9, 1))))
    assert VisionTask().checkpoint_options(written(tmp_path, None)) == {"channels": 3}
    found = prepared(tmp_path, gray)
    pixels = found.train.inputs["pixel_values"]
    assert pixels.shape == (2, 8, 9, 3)
    assert found.info.inputs["pixel_values"].shape == (8, 9, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
    own = VisionTask().prepare(gray, VisionOptions())
    np.testing.assert_allclose(pixels[..., :1], own.train.inputs["pixel_values"], rtol=1e-5, atol=1e-5)
    assert prepared(written(tmp_path, None, channels=1), raw(images(SHAPES))).info.inputs["pixel_values"].shape[2] == 1


def test_images_of_few_gray_levels_are_resized_with_more_levels() -> None:
    data = raw(images(((8, 8, 1), (8, 8, 1)), top=16), pixel_max=16)
    found = VisionTask().prepare(data, VisionOptions(image_size=32, resample="bicubic", mean=(0.0,), std=(1.0,)))
    pixels = found.train.inputs["pixel_values"]
    assert len(np.unique(pixels)) > 17
    assert 0 <= pixels.min() < pixels.max() <= 1
    own = VisionTask().prepare(data, VisionOptions(mean=(0.0,), std=(1.0,))).train.inputs["pixel_values"]
    assert pixels.mean() == pytest.approx(own.mean(), abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": None}, "size is missing: specify the height and the width"),
        ({"size": "large"}, "got `str` - at `size`"),
        ({"size": {"longest_edge": 224}}, "unknown field `longest_edge` - at `size`"),
        ({"size": {"shortest_edge": 0}}, "size.shortest_edge is 0: the value must be between 1 and 4096 pixels"),
        ({"size": {"height": 224}}, "size is .*: specify the height and the width"),
        ({"crop_pct": 1.5}, "crop_pct is 1.5: the value must be between 0.1 and 1"),
        ({"resample": 9}, "resample is 9: use the number of a Pillow filter, from 0 to 5"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is .*: specify one number, or one for each of the 3 channels"),
        ({"image_mean": None}, "image_mean is missing"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is .*: specify one positive number, or one for each"),
        ({"image_std": "half"}, "at `image_std`"),
        ({"rescale_factor": 0.0}, "rescale_factor is 0.0: the value must be positive"),
        ({"do_pad": True}, "do_pad is True: the task does not pad images"),
        (
            {"do_center_crop": True, "crop_size": 32},
            "do_center_crop is True: ConvNext's processor crops images by crop_pct",
        ),
        (
            {"feature_extractor_type": "OwlViTFeatureExtractor"},
            "feature_extractor_type is 'OwlViT.*not supported; use one of ConvNext",
        ),
        ({"image_processor_type": "BitImageProcessor"}, "crop_size is missing"),
        (
            {"image_processor_type": "BitImageProcessor", "do_center_crop": False},
            "size.shortest_edge is 224: the images would differ in size; set do_center_crop and crop_size",
        ),
        (
            {"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 9, "width": 8}},
            "crop_size is .*must be a square",
        ),
        (
            {"image_processor_type": "CLIPImageProcessor", "crop_size": 300},
            "crop_size is .*must have the same aspect ratio",
        ),
    ],
)
def test_unsupported_preprocessing_is_rejected(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    written(tmp_path, {**RESNET, **changes})
    with pytest.raises(UsageError, match=f"preprocessor_config.json: .*{message}"):
        VisionTask().checkpoint_options(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff"])
def test_an_unreadable_file_is_named(content: bytes, tmp_path: Path) -> None:
    written(tmp_path, None)
    (tmp_path / "preprocessor_config.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"preprocessor_config\.json: cannot be read"):
        VisionTask().checkpoint_options(tmp_path)


def test_networks_with_other_numbers_of_channels_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json: num_channels is 4: images must have 1 or 3 channels"):
        VisionTask().checkpoint_options(written(tmp_path, RESNET, channels=4))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crop_share": 0.0}, "crop_share"),
        ({"crop_share": 1.1}, "crop_share"),
        ({"image_size": (4, 0)}, "image_size"),
        ({"mean": (0.5,)}, "only one of mean and std is set"),
        ({"mean": (), "std": ()}, "1 or 3 numbers"),
        ({"mean": (0.5, 0.5), "std": (1.0,)}, "1 or 3 numbers"),
        ({"mean": (float("nan"),), "std": (1.0,)}, "finite"),
        ({"mean": (0.5,), "std": (0.0,)}, "positive"),
    ],
)
def test_invalid_options_are_rejected(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VisionOptions(**wrong)


def test_options_that_do_not_match_the_images_are_rejected() -> None:
    with pytest.raises(DataError, match=r"mean and std have 3 numbers, but the images have 1 .*task.channels=3"):
        VisionTask().prepare(raw(images(((8, 8, 1),))), VisionOptions(mean=MEAN, std=STD))
    with pytest.raises(
        DataError, match=r"differ in size and are not resized \(task\.resize=none\); set task\.image_size"
    ):
        VisionTask().prepare(raw(images(SHAPES)), VisionOptions(resize="none"))
