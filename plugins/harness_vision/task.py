"""The task `vision`: which class an image belongs to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import DataError, DataInfo, InputSpec, PreparedData, RawData, Recipe, Split, Task
from harness_vision.images import check_range, common_shape, uniform
from harness_vision.options import VisionOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


SIDE = 64
"""Of images that come in several sizes, unless ``image_size`` says otherwise."""


class VisionTask(Task[VisionOptions]):
    """Image classification.

    Takes ``image`` uint8 ``[N, H, W, C]``, or an object array of uint8 ``[H, W, C]`` of several sizes with 1 (gray) or
    3 channels, between 0 and ``details["pixel_max"]`` (255 unless told). Images of another size are scaled until they
    cover it and cropped in the middle; gray and color become what the training split has, color if it has both.
    Gives ``pixel_values`` float32 ``[N, H, W, C]`` in which each channel of the training split has mean 0 and std 1,
    unless the options tell the mean and the std.
    """

    name = "vision"
    kind = "image"
    produces = "image"
    objective = "classification"
    summary = "image classification"
    default_dataset = "digits"
    default_model = "resnet-20"
    metric = "accuracy"
    metrics = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "roc_auc")
    recipe = Recipe(
        epochs=20,
        batch_size=64,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=0.01,
        schedule="cosine",
        warmup_fraction=0.1,
    )
    Options = VisionOptions

    def prepare(self, data: RawData, options: VisionOptions) -> PreparedData:
        """Bring to one size, scale to [0, 1] and normalize by channel.

        ``info.details`` holds ``channel_<c>_mean`` and ``channel_<c>_std``, by which the scaled images were normalized.
        Raises `harness.DataError` for images of another form, or of other channels than the mean has.
        """
        pixel_max = float(data.details.get("pixel_max", 255))
        named = {"training": data.train, "validation": data.validation, "test": data.test}
        several = any(split.inputs["image"].dtype == object for split in named.values())
        if several or options.image_size or options.channels or options.crop_share < 1:
            shape = common_shape(data.train.inputs["image"], options, SIDE)
            named = {
                name: dataclasses.replace(
                    split, inputs={"image": uniform(name, split.inputs["image"], shape, options, pixel_max)}
                )
                for name, split in named.items()
            }
            pixel_max = 255.0
        train = named["training"]
        shape = train.inputs["image"].shape[1:]
        for name, split in named.items():
            check_images(name, split, shape, pixel_max)
        if options.mean is None or options.std is None:
            mean, std = channel_statistics(train.inputs["image"], pixel_max)
        else:
            mean, std = (told(numbers, shape[2]) for numbers in (options.mean, options.std))

        def prepared(split: Split) -> Split:
            pixels = scale(split.inputs["image"], pixel_max)
            pixels -= mean  # in place: there may be gigabytes of them
            pixels /= std
            return Split(inputs={"pixel_values": pixels}, targets=split.targets, groups=split.groups)

        details: dict[str, bool | int | float | str] = {}
        for channel in range(len(mean)):
            details[f"channel_{channel}_mean"] = float(mean[channel])
            details[f"channel_{channel}_std"] = float(std[channel])
        return PreparedData(
            train=prepared(train),
            validation=prepared(named["validation"]),
            test=prepared(named["test"]),
            info=DataInfo(
                kind=self.produces,
                inputs={"pixel_values": InputSpec(shape=shape, dtype="float32")},
                objective=self.objective,
                outputs=len(data.label_names),
                label_names=data.label_names,
                details=details,
            ),
        )

    def checkpoint_options(self, folder: Path) -> Mapping[str, Any]:
        """What the checkpoint's ``preprocessor_config.json`` says, and the channels that its network takes."""
        from harness_vision.checkpoints import options_of

        return options_of(folder)

    def augment(
        self, inputs: dict[str, Any], info: DataInfo, options: VisionOptions, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Shifted by ``options.crop`` and mirrored by ``options.flip``."""
        images = inputs["pixel_values"]
        if options.crop:
            images = shifted(images, rng.integers(0, 2 * options.crop + 1, (len(images), 2)), options.crop)
        if options.flip:
            mirrored = rng.random(len(images)) < 0.5
            images[mirrored] = images[mirrored, :, ::-1]
        return {"pixel_values": images}


def check_images(name: str, split: Split, shape: tuple[int, ...], pixel_max: float) -> None:
    """Raise `harness.DataError` unless the images are uint8 of `shape` (``[H, W, C]``) and at most `pixel_max`."""
    images = split.inputs["image"]
    if images.ndim != 4 or images.dtype != "uint8":
        raise DataError(f"{name} images are {images.dtype} of shape {images.shape}; needed: uint8 [N, H, W, C]")
    if images.shape[1:] != shape:
        raise DataError(f"{name} images have shape {images.shape[1:]}, those of the training split {shape}")
    check_range(name, images, pixel_max)


def scale(images: NDArray[np.uint8], pixel_max: float) -> NDArray[np.float32]:
    """Pixels from 0..`pixel_max` to [0, 1]."""
    import numpy as np

    return images.astype(np.float32) / np.float32(pixel_max)


def channel_statistics(images: NDArray[np.uint8], pixel_max: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation ``[C]`` of all pixels of ``[N, H, W, C]``, scaled to [0, 1]; a constant channel has
    std 1."""
    import numpy as np

    levels = np.arange(256) / pixel_max
    shares = np.stack([np.bincount(images[..., c].reshape(-1), minlength=256) for c in range(images.shape[3])])
    shares = shares / shares.sum(axis=1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt(np.sum(shares * (levels - mean[:, None]) ** 2, axis=1))
    # Rounding leaves a constant channel a deviation of about 1e-8; real images in [0, 1] have far more.
    return mean.astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32)


def told(numbers: tuple[float, ...], channels: int) -> NDArray[np.float32]:
    """`numbers`, one for all or one for each, as float32 ``[channels]``. Raises `harness.DataError`."""
    import numpy as np

    if len(numbers) not in (1, channels):
        raise DataError(
            f"mean and std have {len(numbers)} numbers, the images {channels} channels; "
            f"give as many, or make them alike (--set task.channels={len(numbers)})"
        )
    return np.full(channels, numbers, np.float32)


def shifted(images: NDArray[np.float32], corners: NDArray[np.int64], margin: int) -> NDArray[np.float32]:
    """Of each image ``[H, W, C]``, framed by `margin` zeros, the part of its old size whose upper left corner lies at
    `corners` ``[N, 2]`` (row, column, 0 to twice the margin)."""
    import numpy as np

    height, width = images.shape[1:3]
    framed = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    parts = np.empty_like(images)
    for part, image, (row, column) in zip(parts, framed, corners.tolist(), strict=True):
        part[:] = image[row : row + height, column : column + width]
    return parts
