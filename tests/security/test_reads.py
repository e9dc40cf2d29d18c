"""Tests of reading a results directory.

Links, pipes and bombs are rejected, and a bad run does not block the others.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from command_line import Invoke
from hypothesis import given
from hypothesis import strategies as st
from sample_records import comparison
from sample_store import arrays_for, report_of, write

from harness.analysis.compare import baseline
from harness.checks.parity.verdict import FOLDER
from harness.checks.parity.verdict import load as load_verdicts
from harness.errors import RecordError, UsageError
from harness.execute.runner import run_all
from harness.plugins.catalog import Catalog
from harness.records import Recipe, RunSpec, reading, samples
from harness.records.arrays import read_arrays
from harness.records.store import ARRAYS, AUDIT, LOG, RECORD, Store, StoredRun, read_record
from harness.report.bundle.pack import pack

SECRET = "root:x:0:0:secret"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Results directory with raw samples and logs, in an archive's folder next to a secret file."""
    write(tmp_path / "results", comparison())
    (tmp_path / "secret").write_text(SECRET)
    return tmp_path / "results"


def first(results: Path) -> StoredRun:
    return next(run for run in Store(results).load().runs if (run.path / ARRAYS).exists())


def _replaced(kind: str, path: Path, secret: Path) -> None:
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "relative link":
        path.symlink_to(os.path.relpath(secret, path.parent))
    elif kind == "link to device":
        path.symlink_to("/dev/zero")
    elif kind == "link to directory":
        path.symlink_to(secret.parent)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "huge":
        path.touch()
        os.truncate(path, 2**40)
    else:
        path.symlink_to(path)


KINDS = ("link", "relative link", "link to device", "link to directory", "pipe", "directory", "huge", "loop")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [ARRAYS, LOG, AUDIT])
def test_bundle_refuses_what_is_not_a_regular_file(name: str, kind: str, stored: Path, tmp_path: Path) -> None:
    run = first(stored)
    _replaced(kind, run.path / name, tmp_path / "secret")
    with pytest.raises(RecordError, match=f"{name}: "):
        pack(report_of(stored), tmp_path / "out.zip", "0")
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_record_that_is_not_a_regular_file_is_left_out_and_named(kind: str, stored: Path, tmp_path: Path) -> None:
    run, count = first(stored), len(Store(stored).load().runs)
    _replaced(kind, run.path / RECORD, tmp_path / "secret")
    loaded = Store(stored).load()
    assert len(loaded.runs) == count - 1
    assert [problem.partition(": ")[0] for problem in loaded.problems] == [str(run.path / RECORD)]
    assert "secret" not in loaded.problems[0].partition(": ")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_verdict_that_is_not_a_regular_file_is_skipped(kind: str, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    _replaced(kind, tmp_path / FOLDER / "one.json", tmp_path / "secret")
    assert load_verdicts(tmp_path) == {}


def test_linked_run_directory_is_not_bundled(stored: Path, tmp_path: Path) -> None:
    run = first(stored)
    moved = run.path.rename(tmp_path / "moved")
    run.path.symlink_to(moved)
    with pytest.raises(RecordError, match=f"{run.path}: this is a symbolic link"):
        pack(report_of(stored) if not Store(stored).load().problems else _with(run, stored), tmp_path / "out.zip", "0")


def _with(run: StoredRun, stored: Path) -> Any:
    import dataclasses

    report = report_of(stored)
    return dataclasses.replace(report, runs=(*report.runs, run))


NAMES = ["../../escape", "/etc/passwd", "a\nb", "..", "", "a" * 400, "\u202egnp", "C:\\x", "records/../../x", "\x00"]


@pytest.mark.parametrize("name", NAMES)
def test_bundle_of_hostile_run_ids_and_verdict_keys_has_safe_paths(name: str, tmp_path: Path) -> None:
    write(tmp_path / "results", comparison())
    report = report_of(tmp_path / "results")
    runs = [StoredRun(report.runs[0].path, msgspec.structs.replace(report.runs[0].record, run_id=name))]
    import dataclasses

    pack(dataclasses.replace(report, runs=tuple(runs)), tmp_path / "out.zip", "0")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        for inside in archive.namelist():
            assert inside.isprintable()
            assert not inside.startswith("/")
            assert ".." not in inside.split("/")
            assert max(map(len, inside.split("/"))) < 200


@pytest.mark.parametrize("name", NAMES)
def test_baseline_with_hostile_run_id_refers_to_no_other_directory(name: str, tmp_path: Path) -> None:
    runs = [StoredRun(tmp_path, msgspec.structs.replace(record, run_id=name)) for record in comparison()]
    baseline.save(tmp_path / "baseline.json", runs)
    for run in baseline.load(tmp_path / "baseline.json"):
        assert run.path.parent == tmp_path


def _npy(shape: str, body: bytes = b"", dtype: str = "<f8", version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    width = 2 if version == b"\x01\x00" else 4
    return b"\x93NUMPY" + version + len(header).to_bytes(width, "little") + header + body


def _zip(members: dict[str, bytes], *, compress: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _lying(members: dict[str, bytes], size: int) -> bytes:
    """Return an archive whose members declare another uncompressed size."""
    data = bytearray(_zip(members, compress=True))
    for place in range(len(data) - 4):
        if data[place : place + 4] == b"PK\x01\x02":
            data[place + 24 : place + 28] = struct.pack("<I", size)
    return bytes(data)


ZEROS = bytes(200 * 2**20)
BOMBS: dict[str, Callable[[], bytes]] = {
    "compressed zeros": lambda: _zip({"a.npy": _npy("(26214400,)", ZEROS)}, compress=True),
    "lying shape": lambda: _zip({"a.npy": _npy("(1000000000000,)")}),
    "lying shape, version 2": lambda: _zip({"a.npy": _npy("(1000000000000,)", version=b"\x02\x00")}),
    "lying shape, version 3": lambda: _zip({"a.npy": _npy("(1000000000000,)", version=b"\x03\x00")}),
    "elements without a size": lambda: _zip({"a.npy": _npy("(1000000000000,)", dtype="|V0")}),
    "negative shape": lambda: _zip({"a.npy": _npy("(-1,)", bytes(80))}),
    "overflowing shape": lambda: _zip({"a.npy": _npy("(4294967296, 4294967296, 4294967296)")}),
    "deep header": lambda: _zip({"a.npy": _npy("(" * 5000 + ")" * 5000)}),
    "long header": lambda: _zip({"a.npy": _npy("(1," + " " * 60000 + ")", bytes(8))}),
    "unknown version": lambda: _zip({"a.npy": _npy("(1,)", bytes(8), version=b"\x09\x00")}),
    "too large a size declared": lambda: _lying({"a.npy": _npy("(1,)", bytes(8))}, 2**31),
    "too small a size declared": lambda: _lying({"a.npy": _npy("(13107200,)", ZEROS[: 100 * 2**20])}, 200),
    "many members": lambda: _zip({f"{number}.npy": _npy("()", bytes(8)) for number in range(10_001)}),
    "objects": lambda: _zip({"a.npy": _npy("(1,)", zlib.compress(b"x"), dtype="|O")}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_array_bomb_is_refused_without_allocating(bomb: str, tmp_path: Path) -> None:
    import tracemalloc

    (tmp_path / ARRAYS).write_bytes(BOMBS[bomb]())
    tracemalloc.start()
    try:
        with pytest.raises(RecordError, match=f"{ARRAYS}: "):
            read_arrays(tmp_path / ARRAYS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150 * 2**20


def test_incompressible_and_constant_arrays_within_the_limit_are_read(tmp_path: Path) -> None:
    for content in (np.zeros(8 * 2**20 - 100), np.random.default_rng(0).random(10**5)):
        np.savez_compressed(tmp_path / ARRAYS, a=content)
        np.testing.assert_array_equal(read_arrays(tmp_path / ARRAYS)["a"], content)


@pytest.mark.parametrize(
    "content",
    [b"[" * 10**6, b'{"a":' * 10**6, b'{"schema_version":1,"x":' + b"[" * 10**6, b"\xff\xfe", b"", b"nul", b"1e999"],
    ids=range(7),
)
def test_deep_or_damaged_json_is_named(content: bytes, tmp_path: Path) -> None:
    for name, read in ((RECORD, read_record), ("base.json", baseline.load)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecordError, match=name):
            read(tmp_path / name)


def test_large_record_is_refused_by_its_size(tmp_path: Path) -> None:
    (tmp_path / RECORD).touch()
    os.truncate(tmp_path / RECORD, reading.MAX_JSON_BYTES + 1)
    with pytest.raises(RecordError, match=f"has {reading.MAX_JSON_BYTES + 1} bytes; the limit is"):
        read_record(tmp_path / RECORD)


def test_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"12345678")
    opened = reading.open_stored(tmp_path / "a", 8)
    (tmp_path / "a").write_bytes(b"123456789")
    monkeypatch.setattr(reading, "open_stored", lambda path, limit: opened)
    with pytest.raises(RecordError, match="more than 8 bytes"):
        reading.read_stored(tmp_path / "a", 8)


WRONG: dict[str, dict[str, Any]] = {
    "text": {"latencies_s": np.array(["a"])},
    "two dimensions": {"train_window_s": np.ones((21, 2))},
    "a scalar": {"inference_window_s": np.array(1.0)},
    "other lengths": {"inference_window_s": np.ones(3)},
    "no durations": {"inference_window_s": np.zeros(14)},
    "not a number": {"train_window_s": np.full(21, np.nan)},
    "other examples": {"test_outputs": np.zeros((3, 2), "f4")},
    "complex": {"latencies_s": np.ones(3, complex)},
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("format_", ["pytest-benchmark", "text", "csv"])
def test_run_with_wrong_arrays_does_not_block_the_report(
    format_: str, wrong: str, stored: Path, invoke: Invoke
) -> None:
    run = first(stored)
    np.savez(run.path / ARRAYS, **(arrays_for(run.record) | WRONG[wrong]))
    with pytest.raises(RecordError, match=ARRAYS):
        samples.stored(run)
    assert samples.usable(run) == {}
    result = invoke("report", "--format", format_, "--results", str(stored))
    assert result.exit_code == 0, result.output


def test_run_with_wrong_arrays_is_named_in_a_warning(
    stored: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = first(stored)
    (run.path / ARRAYS).write_bytes(b"PK")
    samples.usable(run)
    samples.usable(run)
    assert capsys.readouterr().err.count(str(run.path / ARRAYS)) == 1


@given(st.dictionaries(st.sampled_from([*arrays_for(comparison()[0]), "other"]), st.integers(0, 3), max_size=4))
def test_arrays_of_any_shape_are_read_or_refused(shapes: dict[str, int]) -> None:
    import tempfile

    made = comparison()[0]
    with tempfile.TemporaryDirectory() as folder:
        arrays = arrays_for(made) | {name: np.ones((2,) * dimensions) for name, dimensions in shapes.items()}
        np.savez(Path(folder) / ARRAYS, **arrays)
        run = StoredRun(Path(folder), made)
        usable = samples.usable(run)
        for convert in (samples.train_windows, samples.inference_windows, samples.predictions):
            convert(made, usable)


def test_record_as_json_keeps_its_value(stored: Path, invoke: Invoke) -> None:
    run = first(stored)
    result = invoke("show", str(run.path), "--format", "json")
    assert json.loads(result.stdout)["run_id"] == run.record.run_id


UNKNOWN = {"task": "no-task", "dataset": "no-data", "model": "no-model", "backend": "no-backend"}


@pytest.mark.parametrize("field", UNKNOWN)
@pytest.mark.parametrize("position", ["first", "last"])
def test_unknown_names_in_a_bundle_stop_before_the_first_run(
    field: str, position: str, catalog: Catalog, tmp_path: Path
) -> None:
    sound = RunSpec(
        task="toy-classify", dataset="toy-colors", model="toy-linear", backend="toy-numpy", seed=0, recipe=Recipe()
    )
    catalog.refs_for(sound)
    specs = [sound, msgspec.structs.replace(sound, **{field: UNKNOWN[field]})]
    with pytest.raises(UsageError, match=UNKNOWN[field]):
        run_all(specs if position == "last" else specs[::-1], catalog, Store(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_run_that_cannot_be_read_blocks_comparisons_only(stored: Path, invoke: Invoke) -> None:
    damaged = next(run for run in Store(stored).load().runs if run.record.spec.seed == 2)
    (damaged.path / RECORD).write_bytes(b"{")
    # A comparison must not ignore runs, because its result would depend on the ignored runs.
    statuses = {("compare", "torch", "tensorflow"): 1, ("bundle", "--output", "b.zip"): 0, ("history", "--all"): 0}
    for command, status in statuses.items():
        result = invoke(*command, "--results", str(stored))
        assert result.exit_code == status, result.output
        assert f"{damaged.path / RECORD}: not a valid record" in result.stderr


# ---- files that the user names ---------------------------------------------------------------------------------------

SPECIAL = ["pipe", "device", "directory", "loop", "unknown user", "not UTF-8"]


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize(
    "line",
    [
        ("data", "info", "X.csv", "--task", "toy-regress"),
        ("data", "info", "X.jsonl", "--task", "toy-regress"),
        ("data", "info", "X.parquet", "--task", "toy-regress"),
        ("run", "--suite", "X.toml", "--dry-run"),
        ("run", "--task", "toy-regress", "--dataset", "X.csv", "--dry-run"),
        ("compare", "X.json", "X.json"),
        ("reproduce", "X.zip", "--verify"),
        ("list", "--plugin", "X.py"),
        ("plugin", "check", "X.py"),
        ("plugin", "check", "project"),
        ("bundle", "X.toml", "--output", "out.zip"),
        ("history", "--results", "X.json"),
    ],
    ids=" ".join,
)
def test_file_of_a_wrong_kind_is_an_error_of_the_user(
    line: tuple[str, ...], special: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for a pipe or reads a device."""
    (word,) = [word for word in line if word.startswith("X.") or word == "project"][:1]
    path = tmp_path / (word if word != "project" else "project/pyproject.toml")
    path.parent.mkdir(exist_ok=True)
    if special == "pipe":
        os.mkfifo(path)
    elif special == "device":
        path.symlink_to("/dev/zero")
    elif special == "directory":
        path.mkdir()
    elif special == "loop":
        path.symlink_to(path)
    elif special == "not UTF-8":
        path.write_bytes(b"\xff\xfe\x00\xff")
    monkeypatch.chdir(tmp_path)
    replaced = "~nosuchuser/X.csv" if special == "unknown user" and word != "project" else word
    result = invoke(*(replaced if part == word else part for part in line))
    assert result.exit_code in (0, 1, 2) if line[0] == "list" or line[0] == "history" else result.exit_code in (1, 2)
    assert "This is a bug" not in result.output, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
