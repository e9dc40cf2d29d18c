"""`StoredRows`, a file-backed array that reads only the requested rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError


class StoredRows:
    """A read-only array ``[N, ...]`` in a ``.npy`` file, with the subset of the array interface that batches need.

    The class supports ``shape``, ``dtype``, ``len``, and indexing with an integer array or a contiguous slice. Indexing
    returns a new array. Rows are read from the file when they are indexed. The file is not memory-mapped, because
    mapped pages count toward the process's memory, and a single page fault may load megabytes. The file remains open,
    so it can be deleted while in use. Raises ValueError if the file is not a complete ``.npy`` file in C order, and
    `harness.DataError` if the file is truncated later.
    """

    def __init__(self, path: Path) -> None:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)  # this reads the header and checks the file size
        if not whole.flags.c_contiguous or not whole.ndim:
            raise ValueError(f"{path.name} does not contain an array of rows in C order")
        self.path, self.shape, self.dtype = path, whole.shape, whole.dtype
        self._offset, self._row_bytes = whole.offset, whole.dtype.itemsize * int(np.prod(whole.shape[1:]))
        self._file = path.open("rb", buffering=0)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            block = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
            self._fill(block, start)
            return block
        picked = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for position, row in enumerate(rows.tolist()):
            self._fill(picked[position : position + 1], row)
        return picked

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the bytes of the array in chunks of at most `size` bytes."""
        start, end = self._offset, self._offset + len(self) * self._row_bytes
        while start < end:
            chunk = os.pread(self._file.fileno(), min(size, end - start), start)
            if not chunk:
                return
            start += len(chunk)
            yield chunk

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the whole array as an in-memory array."""
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def _fill(self, block: NDArray[Any], start: int) -> None:
        """Fill the C-contiguous `block` with consecutive rows, starting at index `start`."""
        buffer, done = block.reshape(-1).view(np.uint8).data, 0
        while done < len(buffer):
            count = os.preadv(self._file.fileno(), [buffer[done:]], self._offset + start * self._row_bytes + done)
            if not count:
                raise DataError(
                    f"{self.path} was truncated while in use; run `harness data clear` for its dataset and try again"
                )
            done += count
