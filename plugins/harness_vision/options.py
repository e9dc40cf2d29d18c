"""Options of the task `vision`."""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct


class VisionOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    image_size: int | tuple[int, int] | None = None
    """Height and width in pixels: one number for both, or both. None: as the training images are, or 64 where these
    have several sizes."""
    channels: Literal[1, 3] | None = None
    """1: gray, 3: color. None: as the training images are, color where they are both."""
    resize: Literal["cover", "stretch", "none"] = "cover"
    """How an image of another size is scaled before `image_size` is cropped from its middle: until it covers that size;
    to that size, whatever its proportions; or not at all, what it lacks being black."""
    crop_share: float = 1.0
    """Sides of the crop divided by those that images are scaled to, 0.1 to 1. 0.875 is usual for ImageNet: 224 pixels
    from the middle of 256."""
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    """Pillow's filter that scales."""
    mean: tuple[float, ...] | None = None
    """Subtracted from pixels between 0 and 1: a number for each channel, or one for all. None: mean and standard
    deviation of the training split."""
    std: tuple[float, ...] | None = None
    """What is left is divided by it; as `mean`, and given with it."""
    crop: int = 0
    """In training, each image is shifted at random by up to so many pixels in both directions; what comes in from
    outside has the value 0, the mean. 4 is usual for 32x32 images (He et al. 2016)."""
    flip: bool = False
    """In training, every other image, at random, is mirrored left to right. Not for digits and letters."""

    def __post_init__(self) -> None:
        if not 0 <= self.crop <= 1024:
            raise ValueError(f"crop must lie between 0 and 1024 pixels, got {self.crop}")
        sides = (self.image_size,) if isinstance(self.image_size, int) else self.image_size or ()
        if not all(1 <= side <= 4096 for side in sides):
            raise ValueError(f"image_size must lie between 1 and 4096 pixels, got {self.image_size}")
        if not 0.1 <= self.crop_share <= 1:
            raise ValueError(f"crop_share must lie between 0.1 and 1, got {self.crop_share}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both, or neither")
        if self.mean is not None and self.std is not None:
            if len(self.mean) not in (1, 3) or len(self.std) not in (1, 3):
                raise ValueError(f"mean and std need 1 or 3 numbers each, got {self.mean} and {self.std}")
            if not all(map(math.isfinite, self.mean + self.std)) or min(self.std) <= 0:
                raise ValueError(f"mean must be finite and std positive, got {self.mean} and {self.std}")
