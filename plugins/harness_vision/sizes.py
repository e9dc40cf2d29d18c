"""Warnings about images that lose much of their content when they are converted to a common size."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness_vision.options import VisionOptions

REDUCED = 4.0
"""An image counts as reduced if both sides are reduced by at least this factor."""
ENLARGED = 2.0
"""An image counts as enlarged if both sides are enlarged by at least this factor."""
CROPPED = 0.25
"""An image counts as cropped if more than this fraction of its area is lost."""
STRETCHED = 1.5
"""An image counts as stretched if its aspect ratio changes by more than this factor."""
LIMIT = 0.2
"""A warning is issued if more than this fraction of a split's images is affected."""
FAINT = 8
"""An image is considered nearly blank if its largest and smallest pixel values differ by less than this value, on a
scale of 0 to 255."""


def original_sizes(images: Collection[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the height, width and number of channels of each image, int64 ``[N, 3]``."""
    import numpy as np

    return np.array([image.shape for image in images], np.int64)


def size_warnings(name: str, sizes: NDArray[np.int64], shape: tuple[int, ...], options: VisionOptions) -> Iterator[str]:
    """Yield a warning for each kind of change that affects many images in a split. The warning names the option to set.

    `sizes` contains the shapes before preparation, and `shape` is the common shape.
    """
    import numpy as np

    own, total = sizes[:, :2].astype(np.float64), len(sizes)
    target = np.array(shape[:2], np.float64)
    common, typical = "x".join(map(str, shape[:2])), "x".join(f"{side:.0f}" for side in np.median(own, axis=0))
    scaled = np.ones((total, 2)) if options.resize == "none" else target / options.crop_share / own
    if options.resize == "cover":
        scaled = np.repeat(scaled.max(axis=1, keepdims=True), 2, axis=1)

    def share(found: Any) -> str:
        return f"{int(found.sum()):,} of {total:,} {name} images ({found.mean():.1%})"

    reduced, enlarged = (scaled <= 1 / REDUCED).all(axis=1), (scaled >= ENLARGED).all(axis=1)
    for found, what, factor in ((reduced, "reduced", REDUCED), (enlarged, "enlarged", ENLARGED)):
        if found.mean() > LIMIT:
            yield (
                f"{share(found)} were {what} at least {factor:g}-fold to {common} pixels (median size {typical}); set "
                "task.image_size to change the size"
            )
    if options.resize == "stretch":
        ratio = scaled[:, 0] / scaled[:, 1]
        found = np.maximum(ratio, 1 / ratio) > STRETCHED
        if found.mean() > LIMIT:
            yield (
                f"the aspect ratio of {share(found)} was changed by a factor of more than {STRETCHED:g}; set "
                "task.resize=cover to preserve it, or set task.image_size to a size with the images' proportions"
            )
        return
    full = target if options.resize == "none" else target / options.crop_share
    area = own * scaled
    cropped = 1 - np.minimum(full, area).prod(axis=1) / area.prod(axis=1)
    found = cropped > CROPPED
    if found.mean() > LIMIT:
        yield (
            f"{share(found)} lost more than {CROPPED:.0%} of their area when cropped to {common} pixels (on "
            f"average, {cropped.mean():.1%} of the area is lost); set task.image_size to a size with the "
            "images' proportions, or set task.resize=stretch"
        )
    if options.resize == "none":
        empty = 1 - np.minimum(full, own).prod(axis=1) / full.prod()
        found = empty > CROPPED
        if found.mean() > LIMIT:
            yield (
                f"{share(found)} are smaller than {common} pixels, so more than {CROPPED:.0%} of the prepared "
                "image is black; set task.image_size to change the size, or task.resize=cover to enlarge them"
            )


def channel_warnings(name: str, sizes: NDArray[np.int64], channels: int) -> Iterator[str]:
    """Yield a warning if images with and without color are mixed, or if colors are dropped."""
    gray, total = int((sizes[:, 2] == 1).sum()), len(sizes)
    if channels == 1 and gray < total:
        yield f"{total - gray:,} of {total:,} {name} images were converted to gray, because task.channels is 1"
    elif channels == 3 and 0 < gray < total:
        yield (
            f"{gray:,} of {total:,} {name} images are gray and the others are in color, which may reveal their class; "
            "set task.channels=1 to convert all of them to gray"
        )


def blank_warnings(name: str, images: NDArray[np.uint8], pixel_max: float) -> Iterator[str]:
    """Yield a warning if prepared images ``[N, H, W, C]`` are nearly, but not entirely, blank."""
    flat = images.reshape(len(images), -1)
    ranges = flat.max(axis=1).astype(int) - flat.min(axis=1)
    count = int(((ranges > 0) & (ranges < FAINT * pixel_max / 255)).sum())
    if count:
        yield (
            f"{count:,} of {len(images):,} {name} images ({count / len(images):.1%}) are nearly blank: their pixels "
            f"differ by less than {FAINT} out of 255 levels; check these files, or set task.image_size if a crop "
            "removes their content"
        )
