"""`StoredRows`: an array in a file, of which only the rows that are asked for come into memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError


class StoredRows:
    """What a batch needs of an array ``[N, ...]`` in a ``.npy`` file: ``shape``, ``dtype``, ``len`` and indexing by an
    int array or a slice of step 1, which gives a new array.

    Rows are read, not mapped: the pages of a mapping count as the process's memory for as long as the kernel likes, and
    one fault may bring in megabytes. The file stays open, so that it may be deleted meanwhile. Raises ValueError for a
    file that is not a whole C-ordered ``.npy``, and `harness.DataError` where it becomes shorter later.
    """

    def __init__(self, path: Path) -> None:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)  # reads the header, and checks the size
        if not whole.flags.c_contiguous or not whole.ndim:
            raise ValueError(f"{path.name} is no array of rows in C order")
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
        for place, row in enumerate(rows.tolist()):
            self._fill(picked[place : place + 1], row)
        return picked

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it, in memory."""
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def _fill(self, block: NDArray[Any], start: int) -> None:
        """Read rows from `start` on into the C-contiguous `block`."""
        buffer, done = block.reshape(-1).view(np.uint8).data, 0
        while done < len(buffer):
            got = os.preadv(self._file.fileno(), [buffer[done:]], self._offset + start * self._row_bytes + done)
            if not got:
                raise DataError(
                    f"{self.path} became shorter while it was read; run `harness data clear` for its dataset"
                )
            done += got
