"""Options for the ``vision`` task."""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct


class VisionOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``vision`` task."""

    image_size: int | tuple[int, int] | None = None
    """Height and width in pixels (1 to 4096), as one number for both or as a pair. If None, use the size of the
    training images, or 64 x 64 if the images differ in size."""
    channels: Literal[1, 3] | None = None
    """Number of channels: 1 for gray, 3 for color. If None, use the training images' number of channels, or 3 if the
    images have different numbers of channels."""
    resize: Literal["cover", "stretch", "none"] = "cover"
    """Method for scaling an image before cropping its center to `image_size`. ``cover``: scale to cover the size,
    preserving the aspect ratio. ``stretch``: scale to exactly this size, without preserving the aspect ratio. ``none``:
    do not scale, and fill missing pixels with black."""
    crop_share: float = 1.0
    """Side length of the crop divided by the side length of the scaled image, 0.1 to 1. A common value for ImageNet is
    0.875, for example 224 of 256 pixels."""
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    """Pillow filter for scaling."""
    mean: tuple[float, ...] | None = None
    """Mean to subtract from pixels in [0, 1]: one number per channel, or one for all channels. If None, use the mean of
    each channel in the training split."""
    std: tuple[float, ...] | None = None
    """Standard deviation to divide by after subtracting `mean`: one number per channel, or one for all channels. Set
    this option if and only if `mean` is set. If None, use the standard deviation of each channel in the training
    split."""
    crop: int = 0
    """Maximum random shift of training images in each direction, in pixels (0 to 1024). The resulting gap is filled
    with 0, which is the mean after normalization. A common value for 32x32 images is 4 (He et al. 2016).
    """
    flip: bool = False
    """True to flip training images horizontally with probability 0.5. Do not use this option for digits and letters."""

    def __post_init__(self) -> None:
        if not 0 <= self.crop <= 1024:
            raise ValueError(f"crop must be between 0 and 1024 pixels, got {self.crop}")
        sides = (self.image_size,) if isinstance(self.image_size, int) else self.image_size or ()
        if not all(1 <= side <= 4096 for side in sides):
            raise ValueError(f"image_size must be between 1 and 4096 pixels, got {self.image_size}")
        if not 0.1 <= self.crop_share <= 1:
            raise ValueError(f"crop_share must be between 0.1 and 1, got {self.crop_share}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("only one of mean and std is set; set both or neither")
        if self.mean is not None and self.std is not None:
            if len(self.mean) not in (1, 3) or len(self.std) not in (1, 3):
                raise ValueError(f"mean and std must each contain 1 or 3 numbers, got {self.mean} and {self.std}")
            if not all(map(math.isfinite, self.mean + self.std)) or min(self.std) <= 0:
                raise ValueError(f"mean must be finite and std positive, got {self.mean} and {self.std}")
