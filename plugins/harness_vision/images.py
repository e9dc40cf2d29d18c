"""Images of several sizes and colours brought to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness import DataError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Shape = tuple[int, int, int]


def common_shape(images: Sequence[NDArray[Any]], side: int | None, usual: int) -> Shape:
    """``(H, W, C)`` for these images: `side` squared, else their own, else `usual` squared where they have several;
    colour if one of them has it. Raises `harness.DataError` for what is no image."""
    check("training", images)
    sizes = {image.shape[:2] for image in images}
    height, width = (side, side) if side else next(iter(sizes)) if len(sizes) == 1 else (usual, usual)
    return height, width, max((image.shape[2] for image in images), default=3)


def uniform(name: str, images: Sequence[NDArray[Any]], shape: Shape) -> NDArray[np.uint8]:
    """Uint8 ``[N, *shape]``: each image scaled until it covers ``shape``, by Pillow's bilinear filter, which does not
    alias, and cropped in the middle; grey repeated, or colour made grey by ITU-R 601-2.

    Raises `harness.UnsupportedError` where Pillow is not installed.
    """
    import numpy as np

    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise UnsupportedError(
            "images are resized by Pillow, which is not installed; run: pip install pillow"
        ) from None

    check(name, images)
    height, width, channels = shape
    pixels = np.empty((len(images), *shape), np.uint8)
    for place, image in zip(pixels, images, strict=True):
        if image.shape == shape:
            place[...] = image
            continue
        opened = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        fitted = ImageOps.fit(
            opened.convert("L" if channels == 1 else "RGB"), (width, height), Image.Resampling.BILINEAR
        )
        place[...] = np.asarray(fitted).reshape(shape)
    return pixels


def check(name: str, images: Sequence[NDArray[Any]]) -> None:
    """Raise `harness.DataError` unless each image is uint8 ``[H, W, 1]`` or ``[H, W, 3]``."""
    for number, image in enumerate(images):
        if (
            getattr(image, "dtype", None) != "uint8"
            or image.ndim != 3
            or image.shape[2] not in (1, 3)
            or not image.size
        ):
            form = f"{image.dtype} of shape {image.shape}" if hasattr(image, "dtype") else repr(image)
            raise DataError(f"{name} image {number} is {form}; needed: uint8 [H, W, 1] or [H, W, 3]")
