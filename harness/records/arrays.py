"""Functions that write and read a run's raw samples in ``arrays.npz``, make arrays read-only and compute digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from harness.errors import RecordError
from harness.records.files import replacing
from harness.records.reading import MAX_ARRAYS_BYTES, open_stored
from harness.records.zip_index import index_problem

if TYPE_CHECKING:
    import zipfile

    import numpy as np
    from numpy.typing import NDArray


MAX_ARRAYS = 10_000
"""Maximum number of arrays in a file."""
MAX_INDEX_BYTES = 2**24
"""Maximum size of the list of arrays, in bytes."""
EXPANSION = 20
"""Maximum ratio of array size to file size. Arrays are saved without compression, and the ratio for compressed
floating-point numbers rarely exceeds 5."""
MIN_LIMIT_BYTES = 64 * 2**20
"""Total size of the arrays, in bytes, that is always accepted, even if the file itself is much smaller."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` file atomically; see `harness.records.files.replacing`.

    Raises `OSError` if the file cannot be written, and TypeError if an array contains objects.
    """
    import numpy as np

    objects = [name for name, array in arrays.items() if array.dtype.hasobject]
    if objects:
        raise TypeError(f"the arrays {objects} contain objects, which cannot be saved without pickling")
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub adds a parameter of newer versions


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read an ``arrays.npz`` file without unpickling objects.

    Raises `harness.RecordError` if the file is damaged, is not a regular file, or exceeds this module's limits, or if
    the file or its directory is a symbolic link. The error message names the file.
    """
    import zipfile

    arrays = {}
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open_stored(path, MAX_ARRAYS_BYTES))
            if problem := index_problem(file, MAX_INDEX_BYTES, MAX_ARRAYS):
                raise RecordError(f"{path}: the file was not read, because {problem}")
            archive = stack.enter_context(zipfile.ZipFile(file))
            members = archive.infolist()
            size = os.fstat(file.fileno()).st_size
            if sum(member.compress_size for member in members) > size:
                raise RecordError(f"{path}: cannot be read: its members overlap")
            limit = min(MAX_ARRAYS_BYTES, max(MIN_LIMIT_BYTES, EXPANSION * size))
            declared = sum(member.file_size for member in members)
            if declared > limit:
                raise RecordError(f"{path}: the total size of the arrays is {declared} bytes; the limit is {limit}")
            for member in members:
                if not member.filename.endswith(".npy"):
                    raise RecordError(f"{path}: cannot be read: {member.filename!r} is not an array")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise RecordError(
                        f"{path}: cannot be read: {member.filename!r} has an unsupported compression method"
                    )
                content = _uncompressed(file, member)
                array = _array(_unpacked(archive, member) if content is None else content)
                arrays[member.filename.removesuffix(".npy")] = array
    except RecordError:
        raise
    except Exception as error:  # For damaged archives, numpy and zipfile raise many types of exceptions.
        raise RecordError(f"{path}: cannot be read: {error}") from None
    return arrays


def _uncompressed(file: BinaryIO, member: zipfile.ZipInfo) -> bytes | None:
    """Return the content of a member that is not compressed.

    Numpy stores arrays without compression. Return None if the member is compressed.

    Members are read directly, because zipfile reads in small chunks. For reports that read thousands of files, zipfile
    would be noticeably slower. For a damaged member, the result is also None, so that the caller reads the member with
    zipfile, which raises an exception.
    """
    import zlib

    if member.compress_type or member.flag_bits & 1:
        return None
    file.seek(member.header_offset + 26)  # Skip to the lengths in the local header (APPNOTE.TXT 6.3.10, section 4.3.7).
    lengths = file.read(4)
    file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), os.SEEK_CUR)
    content = file.read(member.file_size)
    return content if len(content) == member.file_size and zlib.crc32(content) == member.CRC else None


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return the content of a compressed member. At most the declared number of bytes is read."""
    with archive.open(member) as source:
        content = source.read(member.file_size)
        if len(content) < member.file_size or source.read(1):
            raise ValueError(f"{member.filename} does not have the declared size")
    return content


def _array(content: bytes) -> NDArray[Any]:
    """Return the content of an ``.npy`` file as a read-only array."""
    import numpy as np

    if content[:6] != b"\x93NUMPY" or content[6:8] not in _LENGTH_BYTES:
        raise ValueError("a member is not an array, or has an unknown format version")
    start = 8 + _LENGTH_BYTES[content[6:8]]
    start += int.from_bytes(content[8:start], "little")
    shape, by_columns, dtype = _array_header(content[6:8], content[8:start])
    if dtype.hasobject:
        raise ValueError("Objects are not unpickled (allow_pickle=False).")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array has the shape {shape}")
    if not dtype.itemsize and all(shape):
        raise ValueError("an array has elements of size zero")
    # The array uses the buffer `content` and allocates no memory, so a header that declares too much data raises an
    # error.
    return np.ndarray(shape, dtype, content, start, order="F" if by_columns else "C")


_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
"""Size of the header length field in bytes, keyed by the format version of the ``.npy`` file (NEP 1)."""


@lru_cache(maxsize=1024)
def _array_header(version: bytes, header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Parse a header. Results are cached, because many headers are equal and parsing a Python literal is slow."""
    import io

    from numpy.lib import format as npy

    read = npy.read_array_header_1_0 if version == b"\x01\x00" else npy.read_array_header_2_0
    return read(io.BytesIO(header))


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view of an array, without copying it.

    The view's base is a read-only buffer, so that numpy refuses to make the view writable again. For array subclasses
    and for dtypes without a buffer interface, such as dates, the result is an ordinary read-only view.
    """
    import numpy as np

    if type(array) in (np.ndarray, np.memmap):
        try:
            return np.asarray(array.data.toreadonly())
        except (ValueError, TypeError):
            pass
    view = array.view()
    view.flags.writeable = False
    return view


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return one SHA-256 digest (hex) of the names, dtypes, shapes and bytes of all arrays, in order of name."""
    import numpy as np

    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")  # `ascontiguousarray` changes the shape () to (1,).
        sha.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        sha.update(array.data if array.size else b"")
    return sha.hexdigest()
