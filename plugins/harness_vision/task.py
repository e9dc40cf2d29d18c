"""The ``vision`` task: image classification."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import CLASSIFICATION_METRICS, DataError, DataInfo, InputSpec, PreparedData, RawData, Recipe, Split, Task
from harness_vision.images import check_range, common_shape, uniform
from harness_vision.options import VisionOptions
from harness_vision.sizes import blank_warnings, channel_warnings, original_sizes, size_warnings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


SIDE = 64
"""Side length in pixels of prepared images if the training images differ in size and ``image_size`` is not set."""


class VisionTask(Task[VisionOptions]):
    """Image classification.

    Raw inputs: ``image``, uint8 ``[N, H, W, C]``, or an object array of uint8 ``[H, W, C]`` if the images differ in
    size or channels. Images have 1 (gray) or 3 channels and values from 0 to ``details["pixel_max"]`` (default 255).
    Images that differ in size are scaled to cover a common size and cropped at the center. All images are converted to
    color if any training image has color, and to gray otherwise.

    Prepared inputs: ``pixel_values``, float32 ``[N, H, W, C]``. By default, each channel is standardized to mean 0 and
    standard deviation 1 on the training split. The options can specify other statistics.
    """

    name = "vision"
    kind = "image"
    produces = "image"
    objective = "classification"
    summary = "image classification"
    default_dataset = "digits"
    default_model = "resnet-20"
    min_steps = 1000  # see docs/explanation/defaults.md
    metric = "accuracy"
    metrics = CLASSIFICATION_METRICS
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
        """Resize images to a common size, scale pixels to [0, 1] and normalize each channel.

        ``info.details`` contains the mean and standard deviation used for each channel (``channel_<c>_mean``,
        ``channel_<c>_std``). If images were resized, ``info.details`` also contains the median height and width of the
        original training images (``original_height``, ``original_width``). Raises `harness.DataError` if the images
        have the wrong dtype or shape, or if the number of channels does not match the given mean.
        """
        import numpy as np

        pixel_max = float(data.details.get("pixel_max", 255))
        named = {"training": data.train, "validation": data.validation, "test": data.test}
        several = any(split.inputs["image"].dtype == object for split in named.values())
        details: dict[str, bool | int | float | str] = {}
        warnings: list[str] = []
        resized = bool(several or options.image_size or options.channels or options.crop_share < 1)
        if resized:
            shape = common_shape(data.train.inputs["image"], options, SIDE)
            named = {
                name: dataclasses.replace(
                    split, inputs={"image": uniform(name, split.inputs["image"], shape, options, pixel_max)}
                )
                for name, split in named.items()
            }
            pixel_max = 255.0
            for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
                sizes = original_sizes(split.inputs["image"])
                warnings += [*size_warnings(name, sizes, shape, options), *channel_warnings(name, sizes, shape[2])]
                if name == "training":
                    height, width, _ = np.median(sizes, axis=0).tolist()
                    details |= {"original_height": height, "original_width": width}
        train = named["training"]
        shape = train.inputs["image"].shape[1:]
        for name, split in named.items():
            check_images(name, split.inputs["image"], shape, pixel_max)
            warnings += blank_warnings(name, split.inputs["image"], pixel_max)
        if options.mean is None or options.std is None:
            mean, std = channel_statistics(train.inputs["image"], pixel_max)
        else:
            mean, std = (per_channel(numbers, shape[2]) for numbers in (options.mean, options.std))

        def prepared(split: Split) -> Split:
            pixels = normalized(split.inputs["image"], pixel_max, mean, std)
            return Split(inputs={"pixel_values": pixels}, targets=split.targets, groups=split.groups)

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
                warnings=tuple(warnings),
            ),
            fitted={"resized": resized, "mean": mean.tolist(), "std": std.tolist()},
        )

    def transform(
        self,
        inputs: Mapping[str, Any],
        details: Mapping[str, Any],
        fitted: Mapping[str, Any],
        info: DataInfo,
        options: VisionOptions,
    ) -> dict[str, Any]:
        """Resize new images to the size of the training images and normalize them with the same statistics.

        ``fitted`` contains the ``mean`` and ``std`` of each channel for pixels in [0, 1]. The ``resized`` entry of
        ``fitted`` is true if the training images were resized.
        """
        import numpy as np

        images, pixel_max = inputs["image"], float(details.get("pixel_max", 255))
        height, width, channels = info.inputs["pixel_values"].shape
        shape = (height, width, channels)
        if fitted["resized"] or images.dtype == object or images.shape[1:] != shape:
            images, pixel_max = uniform("new", images, shape, options, pixel_max), 255.0
        check_images("new", images, shape, pixel_max)
        mean, std = (np.array(fitted[name], np.float32) for name in ("mean", "std"))
        return {"pixel_values": normalized(images, pixel_max, mean, std)}

    def checkpoint_options(self, folder: Path) -> Mapping[str, Any]:
        """Return the options that reproduce the checkpoint's preprocessing, including the number of channels."""
        from harness_vision.checkpoints import options_of

        return options_of(folder)

    def augment(
        self, inputs: dict[str, Any], info: DataInfo, options: VisionOptions, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Shift images by up to ``options.crop`` pixels. If ``options.flip`` is set, also flip each image with
        probability 0.5."""
        images = inputs["pixel_values"]
        if options.crop:
            images = shifted(images, rng.integers(0, 2 * options.crop + 1, (len(images), 2)), options.crop)
        if options.flip:
            mirrored = rng.random(len(images)) < 0.5
            images[mirrored] = images[mirrored, :, ::-1]
        return {"pixel_values": images}


def check_images(name: str, images: NDArray[Any], shape: tuple[int, ...], pixel_max: float) -> None:
    """Raise `harness.DataError` unless the images are uint8 arrays with the given shape ``[H, W, C]`` and values up to
    `pixel_max`."""
    if images.ndim != 4 or images.dtype != "uint8":
        raise DataError(f"{name} images are {images.dtype} of shape {images.shape}; expected uint8 [N, H, W, C]")
    if images.shape[1:] != shape:
        raise DataError(f"{name} images have shape {images.shape[1:]}, but the training images have {shape}")
    check_range(name, images, pixel_max)


def scale(images: NDArray[np.uint8], pixel_max: float) -> NDArray[np.float32]:
    """Scale pixels from [0, `pixel_max`] to [0, 1]."""
    import numpy as np

    return images.astype(np.float32) / np.float32(pixel_max)


def normalized(
    images: NDArray[np.uint8], pixel_max: float, mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scale pixels from [0, `pixel_max`] to [0, 1], subtract `mean` and divide by `std` (``[C]``)."""
    pixels = scale(images, pixel_max)
    pixels -= mean  # modify the array in place, because it may occupy gigabytes
    pixels /= std
    return pixels


def channel_statistics(images: NDArray[np.uint8], pixel_max: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and standard deviation ``[C]`` of `images` ``[N, H, W, C]`` after scaling to [0, 1].

    The standard deviation of a constant channel is set to 1.
    """
    import numpy as np

    levels = np.arange(256) / pixel_max
    shares = np.stack([np.bincount(images[..., c].reshape(-1), minlength=256) for c in range(images.shape[3])])
    shares = shares / shares.sum(axis=1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt(np.sum(shares * (levels - mean[:, None]) ** 2, axis=1))
    # Because of rounding errors, the standard deviation of a constant channel is about 1e-8, far below that of real
    # images.
    return mean.astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32)


def per_channel(numbers: tuple[float, ...], channels: int) -> NDArray[np.float32]:
    """Return `numbers` as float32 ``[channels]``. A single number is used for all channels.

    Raises `harness.DataError` unless `numbers` contains 1 or `channels` values.
    """
    import numpy as np

    if len(numbers) not in (1, channels):
        raise DataError(
            f"mean and std have {len(numbers)} numbers, but the images have {channels} channels; "
            f"give one number per channel, or convert the images with --set task.channels={len(numbers)}"
        )
    return np.full(channels, numbers, np.float32)


def shifted(images: NDArray[np.float32], corners: NDArray[np.int64], margin: int) -> NDArray[np.float32]:
    """Pad each image ``[H, W, C]`` with `margin` zeros on each side, and crop it to the original size at `corners`.

    `corners` ``[N, 2]`` contains the row and column of each crop's upper-left corner, from 0 to twice the margin.
    """
    import numpy as np

    height, width = images.shape[1:3]
    framed = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    parts = np.empty_like(images)
    for part, image, (row, column) in zip(parts, framed, corners.tolist(), strict=True):
        part[:] = image[row : row + height, column : column + width]
    return parts
