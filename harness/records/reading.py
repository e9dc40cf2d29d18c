"""Read files that may come from untrusted sources, such as an archive of results created by another person.

Links are not followed, because the content of another file could be published in a report through a link. Only regular
files of limited size are opened. A named pipe, a device or a huge file could otherwise block a command.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.errors import RecordError

T = TypeVar("T")

MAX_JSON_BYTES = 64 * 2**20
"""Maximum size of a JSON file. The record of a task with a thousand classes takes about 10 MiB."""
MAX_ARRAYS_BYTES = 2 * 2**30
"""Maximum size of a run's raw samples, on disk and in memory."""
MAX_LOG_BYTES = 256 * 2**20
"""Maximum size of a log."""
_NO_LINK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def open_stored(path: Path, limit: int) -> io.BufferedReader:
    """Open a file in a run's directory, or in another directory within a results directory.

    The file and its directory must not be symbolic links. Raises `harness.RecordError` if the path is a link, or if the
    file is not a regular file, is larger than `limit` bytes or cannot be opened. If the file or directory does not
    exist, the ``__cause__`` of the exception is a FileNotFoundError or a NotADirectoryError.
    """
    try:
        folder = os.open(path.parent, _NO_LINK | os.O_DIRECTORY)
        try:
            file = os.open(path.name, _NO_LINK | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        for place, kind in ((path.parent, "directory"), (path, "file")):
            if place.is_symlink():
                raise RecordError(
                    f"{place}: this is a symbolic link, which is not followed within a results directory; replace it "
                    f"with the {kind} it points to"
                ) from None
        raise RecordError(f"{path}: cannot be read: {_reason(error)}") from error
    except ValueError as error:  # raised if the path contains a null character
        raise RecordError(f"{str(path)!r}: cannot be read: {error}") from None
    return _checked(file, path, limit)


def open_named(path: Path, limit: int) -> io.BufferedReader:
    """Open a file that the user specified. The file may be a symbolic link.

    Raises `harness.RecordError` if the file is not a regular file, is larger than `limit` bytes or cannot be opened.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {_reason(error)}") from error
    except ValueError as error:
        raise RecordError(f"{str(path)!r}: cannot be read: {error}") from None
    return _checked(file, path, limit)


def read_stored(path: Path, limit: int) -> bytes:
    """Return the content of a file in a results directory; see `open_stored`."""
    return _read(open_stored(path, limit), path, limit)


def read_stored_state(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """Return the content and the `os.stat_result` of a file in a results directory; see `open_stored`.

    The `os.stat_result` is determined before the content is read.
    """
    file = open_stored(path, limit)
    state = os.fstat(file.fileno())
    return _read(file, path, limit), state


def read_named(path: Path, limit: int) -> bytes:
    """Return the content of a file that the user specified; see `open_named`."""
    return _read(open_named(path, limit), path, limit)


def load_named(path: Path, kind: type[T]) -> T:
    """Return the value in a JSON file that was specified by the user or is in the cache.

    Raises `harness.RecordError` if the file cannot be read or does not contain a value of type `kind`.
    """
    return decode(read_named(path, MAX_JSON_BYTES), kind, path)


def decode(data: bytes, kind: type[T], path: Path) -> T:
    """Decode JSON. Raises a `harness.RecordError` that names `path` if the data is not a value of type `kind`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not valid: {error}") from None


def is_stored(path: Path) -> bool:
    """Return whether a file exists in a results directory.

    A link counts as an existing file, so that opening it raises an error.
    """
    try:
        path.lstat()
    except (OSError, ValueError):
        return False
    return True


def _checked(file: int, path: Path, limit: int) -> io.BufferedReader:
    state, problem = os.fstat(file), ""
    if stat.S_ISDIR(state.st_mode):
        problem = f"cannot be read: {os.strerror(errno.EISDIR)}"
    elif not stat.S_ISREG(state.st_mode):
        problem = "not a regular file; pipes and devices are not read"
    elif state.st_size > limit:
        problem = f"the file has {state.st_size} bytes; the limit is {limit}"
    if problem:
        os.close(file)
        raise RecordError(f"{path}: {problem}")
    return os.fdopen(file, "rb")


def _read(file: io.BufferedReader, path: Path, limit: int) -> bytes:
    try:
        with file:
            # Read only as many bytes as the file has, because allocating a buffer of `limit` bytes would take longer
            # than reading a record.
            size = os.fstat(file.fileno()).st_size
            data = file.read(size + 1)
            if len(data) > size:  # The file has grown since its size was determined.
                data += file.read(limit + 1 - len(data))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {_reason(error)}") from error
    if len(data) > limit:  # as above
        raise RecordError(f"{path}: the file has more than {limit} bytes")
    return data


def _reason(error: OSError) -> Any:
    return error.strerror or error
