"""Functions that write files and directories atomically."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from harness.errors import HarnessError, PluginError, UsageError

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}")
MARK = ".harness-site"
"""Name of the marker file in every directory that `write_directory` writes. Only directories that contain a marker file
are replaced."""


@contextmanager
def replacing(path: Path, *, linked_folder: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path`. When the block ends, the file is flushed to disk and moved to `path`.

    If the block raises an exception, `path` is left unchanged. Only regular files are replaced, because a directory
    from an untrusted source may contain a link to a file that must not be overwritten. The directory is opened only
    once, so that it cannot be replaced with a link while the file is being written. Raises `OSError` if the file cannot
    be written, or if `path` is a link, a pipe, a device or a directory. Also raises `OSError` if `linked_folder` is
    false and the directory of `path` is a link.
    """
    folder = _open_folder(path.parent, linked_folder)
    scratch = _sibling(path).name
    try:
        _check_replaceable(path, folder)
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
        except OSError as error:
            error.filename = str(path)
            raise
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _check_replaceable(path, folder)
        os.replace(scratch, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with contextlib.suppress(OSError):  # Usually, the temporary file was moved and no longer exists.
            os.unlink(scratch, dir_fd=folder)
        os.close(folder)


def _open_folder(folder: Path, linked: bool) -> int:
    """Open a directory for use as ``dir_fd``.

    Raises `OSError` if the directory cannot be opened, or if it is a link and `linked` is false.
    """
    # O_PATH (Linux) does not require the permission to list the directory.
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC | (0 if linked else os.O_NOFOLLOW)
    try:
        return os.open(folder, flags)
    except NotADirectoryError:
        if linked or not folder.is_symlink():
            raise
        raise OSError(errno.ELOOP, "this is a symbolic link, which is not followed", str(folder)) from None


def _check_replaceable(path: Path, folder: int) -> None:
    """Raise `OSError` if `path` exists and is not a regular file.

    `folder` is a file descriptor of the directory that contains `path`.
    """
    try:
        mode = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "this is a symbolic link, which is not followed; choose another path", str(path))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "this is a pipe or a device; choose another path", str(path))


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path. Links are resolved, and ``~`` is replaced by a home directory.

    Unlike `Path.resolve` and `Path.expanduser`, this function accepts symbolic-link loops and unknown users. In these
    cases, opening the path raises an exception. Raises `harness.UsageError` if `path` contains a null character.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise UsageError(f"{text!r} is not a path: it contains a null character")
    return Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111


def make_directory(path: Path) -> None:
    """Create a subdirectory of a run's directory or of a results directory, unless it already exists.

    Raises `OSError` if the path is a link, or if the directory cannot be created.
    """
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise OSError(errno.ELOOP, "this is a symbolic link, which is not followed", str(path))


def write_new(path: Path, content: bytes) -> None:
    """Write a new file. Raises `OSError` if the file already exists or cannot be written."""
    with path.open("xb") as file:
        file.write(content)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically; see `replacing`. Raises `harness.HarnessError`."""
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None


def write_directory(path: Path, files: Iterable[tuple[str, bytes]]) -> int:
    """Write files into a new directory, move the directory to `path`, and return the number of files.

    An existing directory is replaced if it is empty or was created by this function. Raises `harness.UsageError` if
    `path` is a file, a link or a directory that must not be replaced. Raises `harness.PluginError` if a file name
    points outside the directory.
    """
    path = path.absolute()
    if path.is_symlink():
        raise UsageError(f"{path}: this is a symbolic link, which is not followed; pass the path of a directory")
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
            if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
                raise PluginError(
                    f"the report writes {name!r}, which is not a path inside its directory; use a relative path "
                    "without .."
                )
            place = scratch.joinpath(*parts)
            if place.parent not in made:
                place.parent.mkdir(parents=True, exist_ok=True)
                made.add(place.parent)
            write_new(place, content)
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
    """Convert any string to a valid file name. Different strings are converted to different file names."""
    if _SAFE.fullmatch(name) and not name.endswith("."):
        return name
    kept = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return f"{kept}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:12]}"


def _sibling(path: Path) -> Path:
    """Return an unused hidden path in the same directory.

    A file that is created at this path has the default permissions.
    """
    return path.with_name(f".{path.name[:40]}-{secrets.token_hex(4)}")
