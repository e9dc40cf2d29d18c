"""Directories for unfinished runs.

A directory is locked while in use, and is removed after the process that owns it has exited. If the results directory
is not writable, the contents are copied to another directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".partial-"
RESERVE = ".reserve"
RESERVE_BYTES = 512 * 2**10
"""Size of the reserve file, in bytes. If the disk is full, the reserve file is deleted to make space for the record."""
RESCUED = "harness-rescued-"
"""Name prefix of the directories in which runs are saved if the results directory is not writable."""


@contextmanager
def scratch(results: Path) -> Iterator[Path]:
    """Create a hidden, locked directory in `results`, and remove it on exit if it still exists. Raises OSError.

    The lock (flock) is released when this process exits, and `sweep` then removes the directory.
    """
    results.mkdir(parents=True, exist_ok=True)
    path, lock = _create(results)
    try:
        _reserve(path / RESERVE)
        yield path
    finally:
        for left in (path, *spares(path)):
            shutil.rmtree(left, ignore_errors=True)
        os.close(lock)


def places() -> list[Path]:
    """Return the directories in which files are saved if the results directory cannot be written."""
    # `tempfile.gettempdir` is not used, because its result depends on which directories are full at the time of the
    # call.
    found = [Path(os.environ.get("TMPDIR") or "/tmp"), Path("/tmp"), Path("/var/tmp")]
    with contextlib.suppress(RuntimeError):
        found.append(Path.home())
    return list(dict.fromkeys(found))


def spares(scratch: Path) -> list[Path]:
    """Return the spare directories.

    If a process cannot save a file in `scratch`, it saves the file in a spare directory.
    """
    return [place / f"harness-spare{scratch.name}" for place in places()]


def save(directory: Path, name: str, write: Callable[[Path], object]) -> None:
    """Call ``write(directory / name)``.

    If the call raises an OSError, retry it with a spare directory. If all attempts fail, raise the first OSError.

    If a directory was removed, it is created again.
    """
    errors = []
    for place in (directory, *spares(directory)):
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if place != directory:
                _check_owner(place)
            write(place / name)
        except OSError as error:
            errors.append(error)
            with contextlib.suppress(OSError):
                (place / name).unlink(missing_ok=True)
        else:
            return
    raise errors[0]


def collect(scratch: Path) -> None:
    """Move the files in the spare directories to `scratch`, which is recreated if necessary. Raises OSError."""
    scratch.mkdir(parents=True, exist_ok=True)
    for file in _spared(scratch):
        _copy(file, scratch)
        file.unlink()


def rescue(scratch: Path, name: str, record: bytes) -> Path | None:
    """Save a run's record and all files that can be copied in a new directory outside the results directory.

    Return the new results directory, which contains the run in the subdirectory `name`. Return None if no directory is
    writable.
    """
    for place in places():
        made = None
        try:
            made = Path(tempfile.mkdtemp(prefix=RESCUED, dir=place)).absolute()
            run = made / name
            run.mkdir()
            (run / "record.json").write_bytes(record)
        except (OSError, RuntimeError):
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
            continue
        for file in (*_files(scratch), *_spared(scratch)):
            if file.name != "record.json":
                with contextlib.suppress(OSError):
                    _copy(file, run)
        return made
    return None


def sweep(results: Path) -> None:
    """Remove the scratch and spare directories in `results` if the process that owned them has exited."""
    with contextlib.suppress(OSError), os.scandir(results) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                _remove_unlocked(Path(entry.path))


def in_use(results: Path) -> int:
    """Return the number of scratch directories in `results` that are in use by a running process."""
    count = 0
    with contextlib.suppress(OSError), os.scandir(results) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    lock = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                    try:
                        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    except BlockingIOError:
                        count += 1
                    finally:
                        os.close(lock)
    return count


def _remove_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError):  # flock raises BlockingIOError if the owner is still running.
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in (path, *spares(path)):
                shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)


def _create(results: Path) -> tuple[Path, int]:
    """Create and lock a directory. Return the path and the descriptor that holds the lock."""
    while True:
        path = Path(tempfile.mkdtemp(dir=results, prefix=PREFIX))
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # raised if another process removed the directory before it was locked
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # as above
            os.close(lock)
            continue
        except OSError:  # If the file system does not support locks, `sweep` does not remove the directory.
            return path, lock
        if path.exists():
            return path, lock
        os.close(lock)


def _reserve(path: Path) -> None:
    """Create the reserve file, whose size is `RESERVE_BYTES`.

    Raises OSError if the disk is full. All other errors are ignored.
    """
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
            else:
                file.write(bytes(RESERVE_BYTES))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        path.unlink(missing_ok=True)


def _files(directory: Path) -> list[Path]:
    """Return the regular files in a directory, except the reserve file.

    Return an empty list if the directory cannot be read.
    """
    try:
        return [
            file for file in directory.iterdir() if file.is_file() and not file.is_symlink() and file.name != RESERVE
        ]
    except OSError:
        return []


def _spared(scratch: Path) -> list[Path]:
    """Return the regular files in the spare directories of `scratch`."""
    found = []
    for directory in spares(scratch):
        with contextlib.suppress(OSError):
            _check_owner(directory)
            found += _files(directory)
    return found


def _check_owner(directory: Path) -> None:
    """Raise PermissionError if this directory for temporary files was created by another user or is a link."""
    if directory.lstat().st_uid != os.geteuid() or directory.is_symlink():
        raise PermissionError(errno.EPERM, "this directory belongs to another user, or is a link", str(directory))


def _copy(file: Path, directory: Path) -> None:
    """Copy a file. If copying fails, the incomplete copy is removed. Raises OSError."""
    copy = directory / file.name
    try:
        shutil.copyfile(file, copy)
    except OSError:
        copy.unlink(missing_ok=True)
        raise
