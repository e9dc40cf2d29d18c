"""Which names are paths, and which files are tables, images or recordings."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
MEDIA = {
    "image": (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    "audio": (".flac", ".ogg", ".wav"),
}
"""Kind of raw input -> suffixes of its files, in lower case."""


def is_path(name: str, known: Container[str]) -> bool:
    """Whether a dataset's name means a file or a folder: it has a path separator or a table's suffix, or is one that
    exists, and no dataset is called so."""
    if name in known:
        return False
    return os.sep in name or "/" in name or Path(name).suffix.lower() in TABLES or os.path.exists(name)  # noqa: PTH110 - false for what cannot be a path


def is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES


def is_hidden(name: str) -> bool:
    """What file managers and notebooks leave behind."""
    return name.startswith((".", "__MACOSX"))
