"""Atomic writing of files and directories."""

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
"""File in every directory written by `write_directory`, which replaces only directories that have it."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling of `path` that replaces it when the block ends, flushed to the disk.

    If the block raises, `path` stays as it was. A symbolic link is followed. Only a regular file is ever replaced: a
    pipe or device, such as ``/dev/stdout``, is written to directly. Raises OSError.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as file:  # a directory raises here
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

    A directory that was written by this function before is replaced. Raises `harness.UsageError` if `path` is anything
    else, and `harness.PluginError` for a name that leads out of the directory.
    """
    path = path.resolve()
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).exists():
        raise UsageError(
            f"{path}: contains other files, and a report replaces the whole directory; choose an empty one"
        )
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; choose a directory")
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = _sibling(path)
        scratch.mkdir()
        count, made = 0, {scratch}
        for name, content in files:
            parts = PurePosixPath(name).parts
            if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
                raise PluginError(f"the report writes {name!r}, which is not a path inside its directory")
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
    """Return a file name for any text; different texts get different names."""
    if _SAFE.fullmatch(name) and not name.endswith("."):
        return name
    kept = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return f"{kept}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:12]}"


def _sibling(path: Path) -> Path:
    """Return an unused hidden name in the same directory. A file created there gets the default mode."""
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}")
