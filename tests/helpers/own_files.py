"""Small files of user data."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def reviews(count: int = 30) -> dict[str, list[str]]:
    """Return columns ``review`` and ``label``, in which neg and pos alternate."""
    praise, blame = "great\nfun", 'dull, "very" dull'
    return {
        "review": [f"Film {n} was {blame if n % 2 else praise}" for n in range(count)],
        "label": ["neg" if n % 2 else "pos" for n in range(count)],
    }


def houses(count: int = 40) -> dict[str, list[Any]]:
    """Return four columns of houses: two numeric, the second with missing values, a categorical one, and the price."""
    rng = np.random.default_rng(0)
    towns = ["Ulm", "Bonn", "Kiel"]
    return {
        "rooms": rng.integers(1, 9, count).tolist(),
        "area": ["" if n % 11 == 0 else f"{value:.1f}" for n, value in enumerate(rng.uniform(20, 200, count))],
        "town": ["" if n == 5 else towns[n % 3] for n in range(count)],
        "price": rng.uniform(100, 900, count).round(2).tolist(),
    }


def write_image(path: Path, shape: tuple[int, ...] = (6, 8, 3), *, seed: int = 0, **settings: Any) -> Path:
    """Write an image of noise in the format of the suffix. `shape` is ``(H, W)`` for a gray image."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(path, **settings)
    return path


def write_sound(path: Path, samples: int = 400, rate_hz: int = 8000, *, channels: int = 1, seed: int = 0) -> Path:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.9, 0.9, (samples, channels)), rate_hz)
    return path


def photos(root: Path, count: int = 6) -> Path:
    """Write `count` images of several sizes to each of the folders ``cat`` and ``dog``, and return `root`."""
    for number, label in enumerate(("cat", "dog")):
        for n in range(count):
            write_image(root / label / f"{n}.png", (6 + n % 3, 8, 3), seed=n + 100 * number)
    return root
