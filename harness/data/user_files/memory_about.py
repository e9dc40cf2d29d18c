"""Recognition of files with data saved from memory, and properties of the data that are stored outside such a file."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from harness.errors import RecordError, UsageError
from harness.records.reading import MAX_JSON_BYTES, decode, read_stored

FOLDER = "data-from-memory"
"""Name of the cache folder that contains one folder for each saved object."""
ABOUT = "about.json"


class About(Struct, frozen=True, kw_only=True):
    """Properties of an object in memory that its file does not contain."""

    origin: str
    """Name of the object's type, such as ``DataFrame``."""
    categorical: tuple[str, ...] = ()
    """Columns that have a categorical type."""
    warnings: tuple[str, ...] = ()
    """Messages about parts of the object that were ignored."""


def about(path: Path) -> About | None:
    """Return the properties of the object in memory that was saved at `path`, or None for other files.

    Raises `harness.UsageError` if the properties are missing or damaged, because the data would be read differently
    without them.
    """
    if not is_from_memory(path):
        return None
    file = path.parent / ABOUT
    try:
        return decode(read_stored(file, MAX_JSON_BYTES), About, file)
    except RecordError as error:
        raise UsageError(
            f"{error}; the file belongs to data that were saved from memory; pass the same data to harness.run or "
            "harness.save_data again"
        ) from None


def is_from_memory(path: Path) -> bool:
    """Return whether `path` was returned by `harness.save_data`. The file at `path` may no longer exist."""
    return path.parent.parent.name == FOLDER
