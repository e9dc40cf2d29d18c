"""Functions that write files and directories atomically."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from harness.errors import HarnessError, PluginError, UsageError

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}")
MARK = ".harness-site"
"""Name of a marker file. `write_directory` creates it in every directory that it writes, and replaces only directories
that contain it."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path`. When the block ends, flush it to disk and move it to `path`.

    If the block raises an exception, `path` is left unchanged. Symbolic links are followed. Only regular files are
    replaced; pipes and devices, such as ``/dev/stdout``, are written to directly. Raises `OSError`.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as file:  # raises if path is a directory
            yield file
        return
    scratch = _sibling(path)
    try:
        with scratch.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically; see `replacing`. Raises `harness.HarnessError`."""
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None


def write_directory(path: Path, files: Iterable[tuple[str, bytes]]) -> int:
    """Write files into a new directory, move it to `path`, and return the number of files.

    An existing directory is replaced if this function created it. Raises `harness.UsageError` if `path` is any other
    existing file or directory, and `harness.PluginError` if a file name points outside the directory.
    """
    path = path.resolve()
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).exists():
        raise UsageError(
            f"{path}: the directory contains other files, which a report would delete; choose an empty directory"
        )
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: this is a file; pass the path of a directory")
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = _sibling(path)
        scratch.mkdir()
        count, made = 0, {scratch}
        for name, content in files:
            parts = PurePosixPath(name).parts
            if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
                raise PluginError(
                    f"the report writes {name!r}, which is not a path inside its directory; use a relative path "
                    "without .."
                )
            place = scratch.joinpath(*parts)
            if place.parent not in made:
                place.parent.mkdir(parents=True, exist_ok=True)
                made.add(place.parent)
            place.write_bytes(content)
            count += 1
        (scratch / MARK).touch()
        if path.exists():
            shutil.rmtree(path)
        scratch.rename(path)
    except OSError as error:
        raise HarnessError(f"{error.filename or path}: cannot be written: {error.strerror}") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return count


def safe_name(name: str) -> str:
    """Convert any string to a valid file name. Different strings give different file names."""
    if _SAFE.fullmatch(name) and not name.endswith("."):
        return name
    kept = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return f"{kept}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:12]}"


def _sibling(path: Path) -> Path:
    """Return an unused hidden path in the same directory. A file created at this path has the default mode."""
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}")
