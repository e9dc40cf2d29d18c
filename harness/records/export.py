"""`Export`, the description of an exported model, which is stored next to the exported files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import RecordError
from harness.records.reading import MAX_JSON_BYTES, decode, is_stored, read_stored
from harness.records.store import EXPORT, PREPROCESSING

DESCRIPTION = EXPORT
"""Name of the file that describes an export."""
EXPORT_VERSION = 2


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of ``export.json``, the description of the exported files."""

    version: int = EXPORT_VERSION
    run: str
    """Id of the run that trained the model."""
    format: str
    """Format, such as ``onnx``."""
    files: list[str]
    """Exported files, relative to the folder."""
    digest: str
    """SHA-256 (hex) of the names and contents of the files."""
    weights_digest: str
    """SHA-256 (hex) of the canonical weights."""
    preprocessing_digest: str = ""
    """SHA-256 (hex) of ``preprocessing.json``. The digest is an empty string for models in the cache and for models
    exported by earlier versions."""
    exporter: str
    """Backend that exported the model."""
    packages: dict[str, str]
    """Versions of the packages used for the export."""
    inputs: dict[str, Any]
    """Shape (for one example) and dtype of each input. The batch axis comes first and can have any size."""
    outputs: str
    """Meaning of the outputs."""
    examples: int
    """Number of test examples whose outputs were compared."""
    same_labels: int | None
    """Number of the compared test examples for which the exported model and the run predict the same label. None for
    regression."""
    error: float
    """Norm-wise relative difference between the outputs of the exported model and those of the run."""


def files_digest(folder: Path, files: Iterable[str]) -> str:
    """Return the SHA-256 (hex) of the names and contents of files in a folder.

    Raises `harness.RecordError` if a file cannot be read or is outside the folder.
    """
    whole = hashlib.sha256()
    for name in sorted(files):
        path = folder / name
        try:
            if not path.resolve().is_relative_to(folder.resolve()):
                raise RecordError(f"{folder / DESCRIPTION}: the file {name!r} is not in the folder")
            with path.open("rb") as file:
                whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        except OSError as error:
            raise RecordError(f"{path}: cannot be read: {error.strerror}; export the model again") from None
    return whole.hexdigest()


def is_export(folder: Path) -> bool:
    """Return whether a folder contains an exported model."""
    return is_stored(folder / DESCRIPTION)


def read_export(folder: Path) -> Export:
    """Read the description of an exported model and verify the files.

    Raises `harness.RecordError` if the description cannot be read or was written by a newer version of harness, or if a
    file has changed.
    """
    path = folder / DESCRIPTION
    made = decode(read_stored(path, MAX_JSON_BYTES), Export, path)
    if made.version > EXPORT_VERSION:
        raise RecordError(
            f"{path}: version {made.version} cannot be read; this version of harness reads versions up to "
            f"{EXPORT_VERSION}"
        )
    if files_digest(folder, made.files) != made.digest:
        raise RecordError(f"{folder}: the files of the exported model have changed; export the model again")
    if made.preprocessing_digest:
        content = read_stored(folder / PREPROCESSING, MAX_JSON_BYTES)
        if hashlib.sha256(content).hexdigest() != made.preprocessing_digest:
            raise RecordError(f"{folder / PREPROCESSING}: the file has changed; export the model again")
    return made
