"""Recognize paths, tables, images and recordings by name."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
MEDIA = {
    "image": (
        *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    ),
    "audio": (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"),
}
"""Lower-case file name suffixes for each kind of raw input."""
_CONVERT = "convert the recordings, for example with: ffmpeg -i in.m4a out.flac"
REMEDIES = dict.fromkeys((".m4a", ".aac", ".mp4", ".wma", ".amr", ".webm", ".mka", ".3gp"), _CONVERT)
"""Advice on files that the required packages cannot read, keyed by suffix."""


def is_path(name: str, known: Container[str]) -> bool:
    """Return whether a dataset name is a path.

    A name in `known` is never treated as a path. Any other name is a path if it contains a path separator, has the
    suffix of a table, or exists in the file system.
    """
    if name in known:
        return False
    return os.sep in name or "/" in name or Path(name).suffix.lower() in TABLES or os.path.exists(name)  # noqa: PTH110 - Path.exists() may raise for names that cannot be paths


def is_table(path: Path) -> bool:
    """Return whether the file has the suffix of a supported table format."""
    return path.suffix.lower() in TABLES


def is_metadata(path: Path) -> bool:
    """Return whether a file is a table that lists a folder's files."""
    return path.stem.lower() == "metadata" and is_table(path)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, like those created by file managers and notebooks. Hidden files and
    folders are ignored.
    """
    return name.startswith((".", "__MACOSX"))


def placeholder(content: bytes) -> str | None:
    """Return a description and advice if a file is a placeholder or an error page. Return None otherwise."""
    start = content[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; download its content with: git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, such as the error page of a server; download the file again"
    return None
