"""Writing what users asked for: whole, or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from harness.errors import HarnessError, PluginError, UsageError

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}")
MARK = ".harness-site"
"""In every directory that `write_directory` made, so that it replaces no other."""


def write_whole(path: Path, content: bytes) -> None:
    """A file that is there already survives a full disk. A pipe or device is written to as is."""
    path, scratch = path.resolve(), None
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            scratch = Path(file.name)
            file.write(content)
        scratch.chmod(0o666 & ~_umask())
        scratch.replace(path)
    except OSError as error:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
        raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None


def write_directory(path: Path, files: Iterable[tuple[str, bytes]]) -> int:
    """Write the files into a new directory and move it to `path`, in place of one that was written so before; returns
    their number.

    Raises `harness.UsageError` where something else is there, and `harness.PluginError` for a path that leads out.
    """
    path = path.resolve()
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).exists():
        raise UsageError(f"{path}: holds other files, and a report replaces the whole directory; name an empty one")
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; name a directory")
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        scratch.chmod(0o777 & ~_umask())
        count, made = 0, {scratch}
        for name, content in files:
            parts = PurePosixPath(name).parts
            if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
                raise PluginError(f"the report wants to write {name!r}, which is no path inside its directory")
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
    """A file name for any text; different ones for different texts."""
    if _SAFE.fullmatch(name) and not name.endswith("."):
        return name
    kept = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return f"{kept}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:12]}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
