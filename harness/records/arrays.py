"""Functions that read a run's raw samples from ``arrays.npz``, make arrays read-only and compute their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from harness.errors import RecordError

if TYPE_CHECKING:
    import zipfile

    import numpy as np
    from numpy.typing import NDArray


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read an ``arrays.npz`` file, without unpickling objects. Raises `harness.RecordError`, which names the file."""
    import zipfile

    arrays = {}
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.compress_size for member in members) > os.fstat(file.fileno()).st_size:
                raise RecordError(f"{path}: cannot be read: its members overlap")
            for member in members:
                if not member.filename.endswith(".npy"):
                    raise RecordError(f"{path}: cannot be read: {member.filename} is not an array")
                content = _uncompressed(file, member)
                array = _array(archive.read(member) if content is None else content)
                arrays[member.filename.removesuffix(".npy")] = array
    except RecordError:
        raise
    except Exception as error:  # numpy and zipfile raise many types of exceptions for damaged archives
        raise RecordError(f"{path}: cannot be read: {error}") from None
    return arrays


def _uncompressed(file: BinaryIO, member: zipfile.ZipInfo) -> bytes | None:
    """Return the content of a member that is stored uncompressed, as numpy stores arrays; None if it is compressed.

    This is faster than zipfile, which reads in small chunks. Speed matters because a report may read thousands of
    files. For a damaged member, return None as well, so that zipfile raises its error.
    """
    import zlib

    if member.compress_type or member.flag_bits & 1:
        return None
    file.seek(member.header_offset + 26)  # lengths in the local header (APPNOTE.TXT 6.3.10, section 4.3.7)
    lengths = file.read(4)
    file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), os.SEEK_CUR)
    content = file.read(member.file_size)
    return content if len(content) == member.file_size and zlib.crc32(content) == member.CRC else None


def _array(content: bytes) -> NDArray[Any]:
    """Return the array in the content of an ``.npy`` file as a read-only array."""
    import io

    import numpy as np
    from numpy.lib.format import read_array

    if content[:8] == b"\x93NUMPY\x01\x00":
        start = 10 + int.from_bytes(content[8:10], "little")
        shape, by_columns, dtype = _array_header(content[8:start])
        if not dtype.hasobject:
            return np.ndarray(shape, dtype, content, start, order="F" if by_columns else "C")
    array: NDArray[Any] = read_array(io.BytesIO(content), allow_pickle=False)
    return array


@lru_cache(maxsize=1024)
def _array_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Parse a header. Results are cached, because headers repeat and parsing a Python literal is slow."""
    import io

    from numpy.lib.format import read_array_header_1_0

    return read_array_header_1_0(io.BytesIO(header))


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view of an array, without copying it.

    The view's base is a read-only buffer, so numpy refuses to make the view writable again. Subclasses of arrays, and
    dtypes without a buffer interface, such as dates, get an ordinary read-only view.
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
    """Return the SHA-256 (hex) over the name, dtype, shape and bytes of each array, sorted by name."""
    import numpy as np

    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")  # ascontiguousarray changes the shape () to (1,)
        sha.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        sha.update(array.data if array.size else b"")
    return sha.hexdigest()
