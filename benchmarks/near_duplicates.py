"""Measure the fraction of near-duplicates that are found, the number of false matches, and the CPU time of the search.

Run ``python -m benchmarks.near_duplicates`` with the datasets ``mnist``, ``fashion-mnist`` and ``fsdd`` in the cache or
in a mirror. The photographs are the sample images of scikit-learn.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.fingerprints import describe_images
from harness.data.near_duplicates import find
from harness.plugins import discover

Array = NDArray[Any]


def encoded(pixels: Array, form: str, quality: int) -> Array:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, form, quality=quality)
    found = np.asarray(Image.open(buffer).convert("L" if pixels.shape[2] == 1 else "RGB"))
    return found.reshape(*found.shape[:2], -1)


def resized(pixels: Array, factor: float, method: Image.Resampling) -> Array:
    size = round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)
    found = np.asarray(Image.fromarray(pixels.squeeze()).resize(size, method))
    return found.reshape(*found.shape[:2], -1)


CHANGES: dict[str, Callable[[Array], Array]] = {
    "JPEG, quality 95": lambda pixels: encoded(pixels, "JPEG", 95),
    "JPEG, quality 75": lambda pixels: encoded(pixels, "JPEG", 75),
    "JPEG, quality 50": lambda pixels: encoded(pixels, "JPEG", 50),
    "JPEG, quality 30": lambda pixels: encoded(pixels, "JPEG", 30),
    "WebP, quality 80": lambda pixels: encoded(pixels, "WEBP", 80),
    "resized to 90%, bicubic": lambda pixels: resized(pixels, 0.9, Image.Resampling.BICUBIC),
    "resized to 90%, bilinear": lambda pixels: resized(pixels, 0.9, Image.Resampling.BILINEAR),
    "resized to 120%, bicubic": lambda pixels: resized(pixels, 1.2, Image.Resampling.BICUBIC),
}


def everything(name: str) -> tuple[str, list[Array], list[int]]:
    """Return the type of a dataset, all its images or recordings, and the sample rates of the recordings."""
    dataset = discover().dataset(name)
    raw = dataset.load(dataset.Options())
    key = "image" if dataset.kind == "image" else "waveform"
    contents = [content for split in (raw.train, raw.validation, raw.test) for content in split.inputs[key]]
    return dataset.kind, contents, [int(raw.details.get("sample_rate_hz", 0))] * len(contents)


def crops(side: int, count: int) -> list[Array]:
    """Return random parts of two photographs. Parts whose pixel values have a standard deviation below 8 are
    excluded."""
    from sklearn.datasets import load_sample_image

    photographs = [np.asarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)
    found: list[Array] = []
    while len(found) < count:
        photograph = photographs[rng.integers(2)]
        top, left = (int(rng.integers(extent - side)) for extent in photograph.shape[:2])
        part = photograph[top : top + side, left : left + side]
        if part.std() >= 8:
            found.append(part)
    return found


def main() -> None:
    sources: dict[str, list[Array]] = {}
    for name in ("mnist", "fashion-mnist", "fsdd"):
        kind, contents, rates_hz = everything(name)
        start = time.process_time()
        duplicates = find(kind, contents, rates_hz, np.arange(len(contents)))
        seconds = time.process_time() - start
        sizes = np.zeros(0) if duplicates is None else np.unique(duplicates.groups, return_counts=True)[1]
        print(
            f"{name}: {len(contents):,} examples, {int((sizes > 1).sum())} groups of near-duplicates with "
            f"{int(sizes[sizes > 1].sum())} examples, {seconds:.1f} s of CPU time"
        )
        if kind == "image":
            chosen = np.random.default_rng(0).choice(len(contents), 1000, replace=False)
            sources[name] = [contents[number] for number in chosen]
    sources |= {f"photographs, {side} pixels": crops(side, 100) for side in (32, 64, 256)}
    for name, originals in sources.items():
        print(f"{name}: {len(originals) - len(describe_images(originals)[1])} of {len(originals):,} are nearly blank")
    for change, apply in CHANGES.items():
        for name, originals in sources.items():
            count = len(originals)
            duplicates = find("image", originals + [apply(pixels) for pixels in originals], (), np.arange(2 * count))
            groups = np.arange(2 * count) if duplicates is None else duplicates.groups
            same = groups[:count] == groups[count:]
            joined = 2 * count - len(np.unique(groups)) - int(same.sum())
            print(f"{change}, {name}: {same.mean():.1%} found, {joined} false matches")


if __name__ == "__main__":
    main()
