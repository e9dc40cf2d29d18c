"""The explanations on a run page: the permutation importance, and attributions as colored tokens and heat maps."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from harness.deploy.explanations import Arrays, Attribution, Attributions, stored_attributions, stored_importance
from harness.errors import RecordError
from harness.records.store import StoredRun
from harness.report.explanations import attributions_note, heading, importance_note, importance_table
from harness.report.site.tables import View, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

PICTURE_SIDE = 160
"""Minimum length of the longer side of a picture on a page, in pixels."""


def importance_views(run: StoredRun) -> tuple[list[View], list[str]]:
    """Return the table of the permutation importance, if it was computed, and a note about it."""
    try:
        found = stored_importance(run)
    except RecordError as error:
        return [], [str(error)]
    if found is None:
        return [], []
    headers, rows = importance_table(found)
    view = plain("importance", "Permutation importance", headers, rows, controls=len(rows) > 20)
    return [view], [importance_note(found)]


def attribution_parts(run: StoredRun) -> tuple[list[Markup], list[str]]:
    """Return the HTML of the attributions, if they were computed, and a note about them."""
    try:
        stored = stored_attributions(run)
    except RecordError as error:
        return [], [str(error)]
    return ([], []) if stored is None else ([*attributions_html(*stored)], [attributions_note(stored[0])])


def attributions_html(found: Attributions, arrays: Arrays) -> Iterator[Markup]:
    """Yield the HTML of each attribution: colored tokens with numbers, or the picture next to its heat map."""
    for number, each in enumerate(found.found):
        parts = [f"<h3>{escape(heading(each))}</h3>"]
        if each.tokens:
            parts.append(_tokens(each))
        for name in each.inputs:
            values = arrays[f"{number}/values/{name}"]
            if values.ndim == 3 and values.size and values.shape[2] in (1, 3):
                parts.append(_pictures(each, arrays[f"{number}/inputs/{name}"], values))
        yield Markup("".join(parts))


def _tokens(each: Attribution) -> str:
    """Return the tokens, with a green background for positive and a red background for negative attributions."""
    most = max(map(abs, each.scores), default=0.0) or 1.0
    spans = []
    for token, score in zip(each.tokens, each.scores, strict=True):
        color = "46,160,67" if score > 0 else "218,54,51"
        style = f"background:rgba({color},{0.6 * abs(score) / most:.3f})"
        spans.append(f'<span class="token" style="{style}">{escape(token)}<sub>{score:+.3f}</sub></span>')
    return f'<p class="tokens">{" ".join(spans)}</p>'


def _pictures(each: Attribution, image: NDArray[Any], values: NDArray[Any]) -> str:
    """Return the picture and its heat map. In the heat map, positive attributions are green and negative ones red. The
    picture's pixel values are scaled to the full range from 0 to 255."""
    low, high = float(image.min()), float(image.max())
    pixels = np.broadcast_to(255 * (image - low) / ((high - low) or 1.0), (*image.shape[:2], 3))
    by_pixel = values.sum(axis=2)
    share = np.clip(by_pixel / (float(np.abs(by_pixel).max()) or 1.0), -1, 1)[..., None]
    colors = np.where(share > 0, np.array([46, 160, 67]), np.array([218, 54, 51]))
    heat = 255 + np.abs(share) * (colors - 255)
    largest, smallest = float(by_pixel.max()), float(by_pixel.min())
    caption = f"Attributions of {escape(each.target)}: {smallest:+.4f} (red) to {largest:+.4f} (green)"
    return (
        f'<div class="pictures"><figure>{_image(pixels, "prepared image")}<figcaption>Prepared image</figcaption>'
        f"</figure><figure>{_image(heat, 'heat map of the attributions')}<figcaption>{caption}</figcaption></figure>"
        "</div>"
    )


def _image(pixels: NDArray[Any], text: str) -> str:
    height, width = pixels.shape[:2]
    scale = max(1, -(-PICTURE_SIDE // max(height, width)))
    source = base64.b64encode(png(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))).decode()
    size = f'width="{width * scale}" height="{height * scale}"'
    return f'<img src="data:image/png;base64,{source}" {size} alt="{escape(text)}">'


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels ``[H, W, 3]`` as a PNG file, without Pillow, which is an optional dependency."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
