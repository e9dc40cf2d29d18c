"""Conversion of images of different sizes and color modes to a common shape."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from harness import DataError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from harness_vision.options import VisionOptions

Shape = tuple[int, int, int]


def common_shape(images: Collection[NDArray[Any]], options: VisionOptions, usual: int) -> Shape:
    """Return the common shape ``(H, W, C)`` of `images`.

    The size and the number of channels are taken from `options` if specified there. By default, the size is that of the
    images, or `usual` x `usual` pixels if the images differ in size. C is 3 if any image has color, and 1 otherwise.
    Raises `harness.DataError` if an array is not an image, or if the images differ in size, ``options.resize`` is
    ``none``, and no size is given.
    """
    check("training", images)
    sizes = {image.shape[:2] for image in images}
    if options.image_size is not None:
        size = options.image_size
        height, width = (size, size) if isinstance(size, int) else size
    elif len(sizes) == 1:
        height, width = next(iter(sizes))
    elif options.resize == "none":
        raise DataError(
            "the images differ in size and are not resized (task.resize=none); set task.image_size "
            "to crop them to a common size"
        )
    else:
        height = width = usual
    return height, width, options.channels or max((image.shape[2] for image in images), default=3)


def uniform(
    name: str, images: Collection[NDArray[Any]], shape: Shape, options: VisionOptions, pixel_max: float = 255
) -> NDArray[np.uint8]:
    """Resize, crop and convert each image according to `options`; return uint8 ``[N, *shape]``, 0 to 255.

    Images are resized with Pillow's filters, which avoid aliasing. Gray images are converted to 3 channels by repeating
    the gray channel, and color images are converted to gray with the ITU-R 601-2 formula. If `pixel_max` is not 255,
    pixels are first scaled to the range 0 to 255, so that filters can produce intermediate levels. Raises
    `harness.UnsupportedError` if Pillow is not installed.
    """
    import numpy as np

    try:
        from PIL import Image
    except ImportError:
        raise UnsupportedError(
            "resizing images needs Pillow, which is not installed; run: pip install pillow"
        ) from None

    check(name, images)
    pixels = np.empty((len(images), *shape), np.uint8)
    for place, image in zip(pixels, images, strict=True):
        if pixel_max != 255:
            check_range(name, image, pixel_max)
            image = np.round(image * (255 / pixel_max)).astype(np.uint8)
        if image.shape == shape and options.crop_share == 1:
            place[...] = image
            continue
        opened = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        fitted = _fitted(opened.convert("L" if shape[2] == 1 else "RGB"), shape[0], shape[1], options)
        place[...] = np.asarray(fitted).reshape(shape)
    return pixels


def _fitted(image: Image, height: int, width: int, options: VisionOptions) -> Image:
    """Return `image` scaled and center-cropped to ``height x width``."""
    from PIL import Image

    own_width, own_height = image.size
    if options.resize != "none":
        full_height, full_width = (round(side / options.crop_share) for side in (height, width))
        if options.resize == "cover":
            if own_width * full_height >= own_height * full_width:
                full_width = own_width * full_height // own_height
            else:
                full_height = own_height * full_width // own_width
        image = image.resize((full_width, full_height), Image.Resampling[options.resample.upper()])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))  # pixels outside the image are black


def check(name: str, images: Collection[NDArray[Any]]) -> None:
    """Raise `harness.DataError` unless each image is uint8 ``[H, W, 1]`` or ``[H, W, 3]``."""
    for number, image in enumerate(images):
        if (
            getattr(image, "dtype", None) != "uint8"
            or image.ndim != 3
            or image.shape[2] not in (1, 3)
            or not image.size
        ):
            form = f"{image.dtype} of shape {image.shape}" if hasattr(image, "dtype") else repr(image)
            raise DataError(f"{name} image {number} is {form}; expected uint8 [H, W, 1] or [H, W, 3]")


def check_range(name: str, images: NDArray[Any], pixel_max: float) -> None:
    """Raise `harness.DataError` if a pixel value exceeds `pixel_max`."""
    if images.max() > pixel_max:
        raise DataError(
            f"{name} images have pixel values up to {images.max()}, above the dataset's pixel_max of {pixel_max:g}"
        )
