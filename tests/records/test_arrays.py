"""Arrays on disk, which are read as numpy reads them, and rejected if they are damaged."""

from __future__ import annotations

import copy
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from sample_records import record

from harness.errors import RecordError
from harness.records.arrays import read_arrays
from harness.records.store import ARRAYS, Store


def test_arrays(store: Store) -> None:
    with store.scratch() as scratch:
        np.savez(scratch / ARRAYS, losses=np.arange(3.0))
        run = store.commit(scratch, record())
    assert read_arrays(run.path / ARRAYS)["losses"].tolist() == [0, 1, 2]


@given(arrays(scalar_dtypes(), array_shapes(min_dims=0, min_side=0)), st.booleans(), st.booleans())
def test_arrays_are_read_as_numpy_reads_them(array: np.ndarray[Any, Any], by_columns: bool, packed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ARRAYS
        (np.savez_compressed if packed else np.savez)(
            path, one=np.asfortranarray(array) if by_columns else array, two=np.zeros(3)
        )
        found, expected = read_arrays(path), np.load(path)
        assert found.keys() == set(expected.files)
        for name in expected.files:
            assert found[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(found[name], expected[name])


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / ARRAYS
    np.savez(path, trap=np.array([{"code": 1}], dtype=object))
    with pytest.raises(RecordError, match=f"{path}: cannot be read: .*allow_pickle"):
        read_arrays(path)


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    path = tmp_path / ARRAYS
    np.savez(path, losses=np.arange(1000.0))
    whole = path.read_bytes()
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("losses.npy", "not an array")
    flipped = bytearray(whole)
    flipped[4000] ^= 0xFF
    np.save(tmp_path / "single.npy", np.arange(3))
    others = [(tmp_path / name).read_bytes() for name in ("other.npz", "single.npy")]
    for data in (b"", b"text", whole[:3000], bytes(flipped), *others):
        path.write_bytes(data)
        with pytest.raises(RecordError, match=f"{path}: cannot be read"):
            read_arrays(path)


def test_parts_that_overlap_are_refused(tmp_path: Path) -> None:
    """A file in which many names refer to one array is small on disk but large in memory."""
    path = tmp_path / ARRAYS
    np.savez(path, a=np.arange(1000.0), b=np.arange(1000.0))
    with zipfile.ZipFile(path, "a") as archive:
        first, second = archive.infolist()
        second.header_offset = first.header_offset
        for number in range(9):
            again = copy.copy(first)
            again.filename = f"again{number}.npy"
            archive.filelist.append(again)
        archive.comment = b"written anew"
    with pytest.raises(RecordError, match=f"{path}: cannot be read: its members overlap"):
        read_arrays(path)
