"""The cache of prepared splits: round trips, invalidation and memory."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from toy_plugin import TOY_REF, install_toy

import harness
from harness import DataError, DataInfo, InputSpec, PreparedData, RawData, RemoteFile, Split
from harness.data import prepared_cache
from harness.data.prepared import dataset_digest
from harness.data.stored_rows import StoredRows
from harness.execute.preparation import cache_data, is_cached, prepare_data
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog, Provided
from harness.records import RunSpec
from harness.records.scratch import temporary


def prepared(inputs: np.ndarray, groups: dict[str, np.ndarray] | None = None) -> PreparedData:
    split = Split(inputs={"x": inputs}, targets=np.arange(len(inputs)), groups=groups or {})
    info = DataInfo(
        kind="points",
        inputs={"x": InputSpec(shape=inputs.shape[1:], dtype=inputs.dtype.name)},
        objective="classification",
        outputs=2,
        details={"share": 1.0, "count": 3, "known": True, "unit": "µm"},
    )
    data = PreparedData(train=split, validation=split, test=split, info=info)
    return dataclasses.replace(data, digest=dataset_digest(data))


KINDS = st.sampled_from(["float32", "float64", "int32", "int64", "uint8"])


@given(inputs=KINDS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=1, max_dims=3))))
def test_load_returns_what_was_saved(tmp_path_factory: pytest.TempPathFactory, inputs: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("cache") / "0123-4567"
    speakers = np.array([f"Zoë {number}" for number in range(len(inputs))], object)
    data = prepared(inputs, {"speaker": speakers})
    assert prepared_cache.save(folder, data)
    found = prepared_cache.load(folder)
    assert found is not None
    assert (found.info, found.digest) == (data.info, data.digest)
    for split in (found.train, found.validation, found.test):
        assert split.inputs["x"].dtype == inputs.dtype
        np.testing.assert_array_equal(split.inputs["x"], inputs)
        np.testing.assert_array_equal(split.targets, np.arange(len(inputs)))
        assert split.groups["speaker"].tolist() == speakers.tolist()


def test_load_reads_only_large_entries_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared_cache.save(tmp_path / "a-b", prepared(np.ones((10, 4), np.float32)))
    assert not isinstance(loaded(tmp_path / "a-b").train.inputs["x"], StoredRows)
    monkeypatch.setattr(prepared_cache, "IN_MEMORY_BYTES", 100)
    assert isinstance(loaded(tmp_path / "a-b").train.inputs["x"], StoredRows)


def loaded(folder: Path) -> PreparedData:
    data = prepared_cache.load(folder)
    assert data is not None
    return data


def flip_a_bit(folder: Path) -> None:
    path = folder / "1.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def truncate(folder: Path) -> None:
    path = folder / "1.npy"
    path.write_bytes(path.read_bytes()[:-8])


def swap_arrays(folder: Path) -> None:
    (folder / "0.npy").replace(folder / "1.npy")
    (folder / "2.npy").replace(folder / "0.npy")


def signed(meta: Any) -> bytes:
    """Return the content of ``meta.json`` with a valid checksum."""
    content: bytes = msgspec.json.encode(meta)
    return content + b"\n" + hashlib.sha256(content).hexdigest().encode()


DAMAGE = {
    "flipped bit": flip_a_bit,
    "truncated file": truncate,
    "swapped files": swap_arrays,
    "empty array file": lambda folder: (folder / "1.npy").write_bytes(b""),
    "missing file": lambda folder: (folder / "1.npy").unlink(),
    "damaged meta.json": lambda folder: (folder / "meta.json").write_text("{"),
    "missing arrays": lambda folder: (folder / "meta.json").write_bytes(
        signed(msgspec.json.decode((folder / "meta.json").read_bytes().rpartition(b"\n")[0]) | {"arrays": []})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_load_damaged_entry_returns_none(tmp_path: Path, damage: Any) -> None:
    prepared_cache.save(tmp_path / "a-b", prepared(np.ones((10, 4), np.float32)))
    damage(tmp_path / "a-b")
    assert prepared_cache.load(tmp_path / "a-b") is None


def test_save_full_disk_warns_and_leaves_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert not prepared_cache.save(tmp_path / "a-b", prepared(np.ones((10, 4), np.float32)))
    assert list(tmp_path.iterdir()) == []
    assert "cannot cache the prepared data: No space left on device" in capsys.readouterr().err


def test_save_removes_what_killed_processes_left(tmp_path: Path) -> None:
    (tmp_path / ".partial-killed" / "entry").mkdir(parents=True)
    with temporary(tmp_path) as in_use:
        prepared_cache.save(tmp_path / "a-b", prepared(np.ones((10, 4), np.float32)))
        assert sorted(path.name for path in tmp_path.iterdir()) == [in_use.name, "a-b"]


def test_save_replaces_entry_of_older_code(tmp_path: Path) -> None:
    for name in ("a-old", "a-new", "b-old"):
        prepared_cache.save(tmp_path / name, prepared(np.ones((10, 4), np.float32)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-new", "b-old"]


# ---- preparation of a run ---------------------------------------------------------------------------------


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    shift: int = 0


class Fetched(harness.Dataset):
    name = "fetched"
    kind = "points"
    objective = "regression"
    Options = Options
    files = (RemoteFile(url="http://localhost/points", sha256="0" * 64),)
    loads = 0

    def load(self, options: Any) -> RawData:
        type(self).loads += 1
        points = np.random.default_rng(options.shift).standard_normal((40, 4))
        split = Split(inputs={"points": points}, targets=points[:, :1])
        return RawData(train=split, validation=split, test=split, label_names=("sum",), details={"found": 7})


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Catalog:
    install_toy(monkeypatch)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Fetched, "loads", 0)
    catalog = load([TOY_REF])
    catalog.datasets["fetched"] = Provided(Fetched(), TOY_REF)
    return catalog


def spec_of(catalog: Catalog, *overrides: str, **changes: Any) -> RunSpec:
    selection = Selection(tasks=("toy-regress",), datasets=("fetched",), backends=("toy-numpy",), overrides=overrides)
    return msgspec.structs.replace(expand(selection, catalog)[0], **changes)


def test_prepare_data_second_run_uses_the_cache(catalog: Catalog) -> None:
    first, second = (prepare_data(catalog, spec_of(catalog, seed=seed)) for seed in (0, 1))
    assert Fetched.loads == 1
    assert (first.info, first.digest) == (second.info, second.digest)
    assert first.info.details["found"] == 7
    assert first.digest == dataset_digest(first)
    assert first.train.inputs.keys() == second.train.inputs.keys()


def test_prepare_data_after_cache_data_reads_the_cache_once(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's worker calls both functions, so that the memory used for preparation is freed before training."""
    spec, reads, load_entry = spec_of(catalog), [], prepared_cache.load
    monkeypatch.setattr(prepared_cache, "load", lambda folder: reads.append(folder) or load_entry(folder))
    assert not is_cached(catalog, spec)
    cache_data(catalog, spec)
    assert is_cached(catalog, spec)
    assert prepare_data(catalog, spec).digest
    assert (Fetched.loads, len(reads)) == (1, 1)


def test_prepare_data_other_options_content_or_code_prepares_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {prepare_data(catalog, spec_of(catalog)).digest}
    digests.add(prepare_data(catalog, spec_of(catalog, "dataset.shift=1")).digest)
    assert (Fetched.loads, len(digests)) == (2, 2)
    monkeypatch.setattr(Fetched, "files", (RemoteFile(url="http://localhost/points", sha256="1" * 64),))
    prepare_data(catalog, spec_of(catalog))
    assert Fetched.loads == 3
    monkeypatch.setattr("harness.data.prepared_cache._versions", lambda names: {"numpy": "9"})
    prepare_data(catalog, spec_of(catalog))
    assert Fetched.loads == 4


def test_prepare_data_damaged_entry_is_prepared_again(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    spec = spec_of(catalog)
    before = prepare_data(catalog, spec)
    folder = prepared_cache.entry(spec, catalog.dataset("fetched"), catalog)
    assert folder is not None
    flip_a_bit(folder)
    after = prepare_data(catalog, spec)
    assert (Fetched.loads, after.digest) == (2, before.digest)
    assert "the checksum of 1.npy does not match" in capsys.readouterr().err
    prepare_data(catalog, spec)
    assert Fetched.loads == 2


@pytest.mark.parametrize("files", [(), (RemoteFile(url="http://localhost/points"),)], ids=["embedded", "unverified"])
def test_prepare_data_without_digest_is_not_cached(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, files: Any
) -> None:
    monkeypatch.setattr(Fetched, "files", files)
    for _ in range(2):
        assert prepare_data(catalog, spec_of(catalog)).digest
    assert Fetched.loads == 2


@given(
    array=arrays.arrays("float32", arrays.array_shapes(min_dims=1, max_dims=3), elements=st.floats(-9, 9, width=32)),
    data=st.data(),
)
def test_stored_rows_index_like_the_array(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("rows") / "0.npy"
    np.save(path, array)
    rows = StoredRows(path)
    index = np.array(data.draw(st.lists(st.integers(0, len(array) - 1))), np.int64)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(array) + 2)] * 2)))
    assert (rows.shape, rows.dtype, len(rows)) == (array.shape, array.dtype, len(array))
    np.testing.assert_array_equal(rows[index], array[index])
    np.testing.assert_array_equal(rows[start:stop], array[start:stop])
    np.testing.assert_array_equal(np.asarray(rows), array)


def test_stored_rows_truncated_file_raises(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.ones((100, 100)))
    rows = StoredRows(tmp_path / "0.npy")
    with (tmp_path / "0.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match="was truncated while in use"):
        rows[np.array([99])]


# ---- data larger than memory ------------------------------------------------------------------------------


def test_stored_rows_training_on_large_data_needs_little_memory(tmp_path: Path) -> None:
    """Two epochs, validation and timed inference on 384 MB of training arrays need less than 64 MB."""
    folder = tmp_path / "a-b"
    rows, columns = 96 * 1024, 1024
    script = f"""
        import sys
        from pathlib import Path
        import numpy as np
        from harness.data import prepared_cache
        from harness.data.stored_rows import StoredRows
        from harness.data.batches import inference_batches, training_batches
        from harness.measure import inference
        from harness.measure.memory import peak_bytes, reset_peak

        inference.MAX_BYTES = 2**22
        data = prepared_cache.load(Path({str(folder)!r}))
        assert isinstance(data.train.inputs["x"], StoredRows)
        if not reset_peak():
            sys.exit(77)
        start, total = peak_bytes(), 0.0
        for epoch in (1, 2):
            for batch in training_batches(data.train, 256, 0, epoch):
                total += float(batch.inputs["x"][:, 0].sum())
        for inputs, valid in inference_batches(data.train, 256):
            total += float(inputs["x"][:valid, 0].sum())
        assert total == 3 * {rows}, total
        assert len(inference._some_batches(data.train, 256)) == 4
        print(peak_bytes() - start)
    """
    columns_of_one = np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (rows, columns), (0, 0))
    small = Split(inputs={"x": np.ones((2, columns), np.float32)}, targets=np.zeros(2, np.int64))
    train = Split(inputs={"x": columns_of_one}, targets=np.zeros(rows, np.int64))
    data = dataclasses.replace(prepared(np.ones((2, columns), np.float32)), train=train, validation=small, test=small)
    assert prepared_cache.save(folder, data)
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, timeout=200
    )
    if child.returncode == 77:
        pytest.skip("the kernel does not let a process reset its peak memory")
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < 64e6
