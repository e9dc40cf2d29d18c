"""Image of a confusion matrix."""

from __future__ import annotations

import io
from collections.abc import Sequence

_WIDTH = 480
"""Approximate width of the image in pixels."""
_MAX_LABELED = 16
"""Maximum number of classes for which the image shows a count in each cell."""


def draw(confusion: Sequence[Sequence[int]]) -> tuple[bytes, int]:
    """Return an image of a confusion matrix in PNG format, and the width of the square image in pixels.

    Rows are true classes and columns are predicted classes. The darkness of a cell represents the fraction of the row's
    examples that are in the cell.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    counts = np.array(confusion, np.float64)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = max(1, _WIDTH // len(counts))
    light, dark = np.array([247, 251, 255]), np.array([8, 48, 107])
    colors = light + fractions[..., None] * (dark - light)
    pixels = colors.round().astype(np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)
    image = Image.fromarray(pixels)
    if len(counts) <= _MAX_LABELED:
        drawing = ImageDraw.Draw(image)
        for row, column in np.ndindex(counts.shape):
            color = "white" if fractions[row, column] > 0.5 else "black"
            center = ((column + 0.5) * cell, (row + 0.5) * cell)
            drawing.text(center, f"{counts[row, column]:.0f}", fill=color, anchor="mm")
    png = io.BytesIO()
    image.save(png, format="PNG")
    return png.getvalue(), image.width
