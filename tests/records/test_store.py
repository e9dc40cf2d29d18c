"""Tests of the results directory: atomic writes, repeats, and reading next to damaged records."""

from __future__ import annotations

import copy
import errno
import os
import resource
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from sample_records import failure, record
from strategies import records
from toy_plugin import environment_with

from harness.errors import RecordError, UnknownNameError, UsageError
from harness.records import SCHEMA_VERSION, RunRecord, Success
from harness.records import store as store_module
from harness.records.arrays import read_arrays
from harness.records.store import ARRAYS, RECORD, Store, StoredRun, read_record, results_dir, write_json


@pytest.fixture
def store(tmp_path: Path) -> Store:
    results = Store(tmp_path / "results")
    results.prepare()
    return results


def keep(store: Store, kept: RunRecord) -> StoredRun:
    with store.scratch() as scratch:
        (scratch / "log.txt").write_text("output\n")
        return store.commit(scratch, kept)


# ---- writing ----------------------------------------------------------------------------------------------


def test_commit_assigns_an_id_and_stores_all_files(store: Store) -> None:
    run = keep(store, record())
    key = run.record.spec.key
    assert run.path.name == run.record.run_id == f"nlp-bert-tiny-torch-s0-{key[:8]}-1"
    assert (run.record.key, run.record.repeat) == (key, 1)
    assert sorted(path.name for path in run.path.iterdir()) == ["log.txt", RECORD]
    assert read_record(run.path / RECORD) == run.record
    assert list(store.path.iterdir()) == [run.path]
    assert (run.path.stat().st_mode & 0o777) == 0o755


def test_repeats_do_not_overwrite_each_other(store: Store) -> None:
    runs = [keep(store, record(seed=seed)) for seed in (0, 0, 1, 0)]
    assert [run.record.repeat for run in runs] == [1, 2, 1, 3]
    assert len({run.path for run in runs}) == 4


def test_existing_file_with_the_name_of_a_run_is_kept(store: Store) -> None:
    name = f"nlp-bert-tiny-torch-s0-{record().spec.key[:8]}"
    (store.path / f"{name}-1").write_text("mine")
    (store.path / f"{name}-2").mkdir()
    assert keep(store, record()).record.repeat == 3
    assert (store.path / f"{name}-1").read_text() == "mine"


def test_two_processes_commit_at_once(store: Store) -> None:
    code = """
import sys
from pathlib import Path
from harness.records.store import Store
from sample_records import record
store = Store(Path(sys.argv[1]))
for _ in range(15):
    with store.scratch() as scratch:
        store.commit(scratch, record())
"""
    environment = environment_with(Path(__file__).parents[1] / "helpers")
    writers = [subprocess.Popen([sys.executable, "-c", code, str(store.path)], env=environment) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    loaded = store.load()
    assert loaded.problems == []
    assert sorted(run.record.repeat for run in loaded.runs) == list(range(1, 31))
    assert all(run.path.name == run.record.run_id for run in loaded.runs)


def test_scratch_directory_without_a_commit_is_removed(store: Store) -> None:
    def fail(scratch: Path) -> None:
        (scratch / "half").write_text("x")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), store.scratch() as scratch:
        fail(scratch)
    assert list(store.path.iterdir()) == []


def test_uncommitted_run_is_not_loaded(store: Store) -> None:
    with store.scratch() as scratch:
        write_json(scratch / RECORD, record())
        assert store.load() == store_module.Loaded([], [])


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(records)
def test_record_round_trips_through_a_file(tmp_path: Path, kept: RunRecord) -> None:
    write_json(tmp_path / RECORD, kept)
    assert read_record(tmp_path / RECORD) == kept


@pytest.mark.parametrize("name", ["with space", "Ergebnisse-äöü-結果", "a/b/c", "per%20cent'quote\""])
def test_results_directory_may_have_any_name(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / name)
    store.prepare()
    run = keep(store, record())
    assert [stored.record for stored in store.load().runs] == [run.record]
    assert store.find(str(run.path)).record == run.record


def test_file_in_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    for path in (tmp_path / "results", tmp_path / "results" / "below"):
        with pytest.raises(RecordError, match=f"{path}: cannot store results here: .*choose another directory"):
            Store(path).prepare()
        with pytest.raises(RecordError, match=str(path)), Store(path).scratch():
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root has write permission everywhere")
def test_directory_without_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RecordError, match="Permission denied"):
        Store(tmp_path).prepare()


def test_full_disk_is_an_error_and_leaves_no_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep(store, record())

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match=rf"{RECORD}: cannot be written: No space left on device"):
        keep(store, record())
    assert list(store.path.iterdir()) == [kept.path]


def test_write_over_the_size_limit_is_an_error(store: Store) -> None:
    """The write fails in the middle, as on a full disk or over a quota."""
    code = """
import resource, signal, sys
from pathlib import Path
from harness.errors import RecordError
from harness.records.store import Store
from sample_records import record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
store = Store(Path(sys.argv[1]))
try:
    with store.scratch() as scratch:
        store.commit(scratch, record())
except RecordError as error:
    print(error)
"""
    environment = environment_with(Path(__file__).parents[1] / "helpers", PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-c", code, str(store.path)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "record.json: cannot be written: File too large" in output
    assert list(store.path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200


# ---- reading ----------------------------------------------------------------------------------------------

VALID = msgspec.json.encode(record())


def changed(**values: Any) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(VALID) | values)


DAMAGED = {
    "empty": (b"", "is not a valid record"),
    "truncated": (VALID[: len(VALID) // 2], "is not a valid record"),
    "not JSON": (b"PK\x03\x04", "is not a valid record"),
    "not UTF-8": (VALID.replace(b"Example CPU", b"\xff\xfe"), "is not a valid record"),
    "another document": (b'{"name": "x"}', "missing required field `schema_version`"),
    "no schema version": (
        msgspec.json.encode({k: v for k, v in msgspec.json.decode(VALID).items() if k != "schema_version"}),
        "missing required field `schema_version`",
    ),
    "a list": (b"[1, 2]", "Expected `object`"),
    "null": (b"null", "Expected `object`"),
    "nested without end": (b'{"schema_version": ' + b"[" * 10**5, "is not a valid record"),
    "a later schema": (
        changed(schema_version=SCHEMA_VERSION + 1, surprise=True),
        f"schema version {SCHEMA_VERSION + 1} is newer than {SCHEMA_VERSION}, the newest",
    ),
    "schema zero": (changed(schema_version=0), "unknown schema version 0"),
    "negative schema": (changed(schema_version=-3), "unknown schema version -3"),
    "schema version as text": (changed(schema_version="one"), "Expected `int`"),
    "outcome of an unknown kind": (changed(outcome={"type": "partly"}), "Invalid value 'partly'"),
    "impossible recipe": (
        changed(spec=msgspec.json.decode(VALID)["spec"] | {"recipe": {"epochs": 0}}),
        "epochs and batch_size must be at least 1",
    ),
    "missing field": (
        msgspec.json.encode({k: v for k, v in msgspec.json.decode(VALID).items() if k != "wall_s"}),
        "missing required field `wall_s`",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_record_is_reported_and_others_are_loaded(case: str, store: Store) -> None:
    data, message = DAMAGED[case]
    sound = keep(store, record())
    damaged = store.path / "damaged" / RECORD
    damaged.parent.mkdir()
    damaged.write_bytes(data)
    loaded = store.load()
    assert loaded.runs == [sound]
    (problem,) = loaded.problems
    assert problem.startswith(f"{damaged}: ")
    assert message in problem
    with pytest.raises(RecordError, match="damaged"):
        store.find("damaged")


def test_unreadable_record_is_reported(store: Store) -> None:
    sound = keep(store, record())
    (store.path / "directory" / RECORD).mkdir(parents=True)
    (store.path / "loop").mkdir()
    (store.path / "loop" / RECORD).symlink_to(store.path / "loop" / RECORD)
    loaded = store.load()
    assert loaded.runs == [sound]
    assert sorted(problem.split(": ")[0] for problem in loaded.problems) == [
        str(store.path / "directory" / RECORD),
        str(store.path / "loop" / RECORD),
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root has read permission everywhere")
def test_run_without_permission_is_reported(store: Store) -> None:
    closed, sound = keep(store, record()), keep(store, record(seed=1))
    closed.path.chmod(0o000)
    loaded = store.load()
    closed.path.chmod(0o755)
    assert loaded.runs == [sound]
    assert "Permission denied" in loaded.problems[0]


def test_other_files_and_directories_are_ignored(store: Store) -> None:
    sound = keep(store, record())
    (store.path / "notes.txt").write_text("mine")
    (store.path / "plots").mkdir()
    (store.path / ".git").mkdir()
    (store.path / ".partial-abc").mkdir()
    (store.path / ".partial-abc" / RECORD).write_bytes(VALID)
    (store.path / "gone").symlink_to(store.path / "nowhere")
    assert store.load() == store_module.Loaded([sound], [])


def test_unknown_fields_of_the_same_schema_are_ignored(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_bytes(changed(added_by_a_fork=1))
    assert read_record(tmp_path / RECORD) == record()


def test_runs_are_ordered_by_start_time(store: Store) -> None:
    times = ["2025-03-01T00:00:00Z", "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"]
    for time in times:
        keep(store, record(started_at=time))
    assert [run.record.started_at for run in store.load().runs] == sorted(times)


def test_missing_directory_has_no_runs(tmp_path: Path) -> None:
    assert Store(tmp_path / "absent").load() == store_module.Loaded([], [])
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="file: cannot be read"):
        Store(tmp_path / "file").load()


def test_old_records_are_migrated_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, "schema_version": 1, "name": raw.pop("title")}

    def move(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, "schema_version": 2, "run_id": raw.pop("name")}

    monkeypatch.setattr(store_module, "MIGRATIONS", {0: rename, 1: move})
    old = msgspec.json.decode(VALID) | {"schema_version": 0, "title": "an-old-run"}
    del old["run_id"]
    write_json(tmp_path / RECORD, old)
    assert read_record(tmp_path / RECORD) == msgspec.structs.replace(record(), run_id="an-old-run")
    write_json(tmp_path / RECORD, {"schema_version": 0})
    with pytest.raises(RecordError, match=f"{RECORD}: is not a valid record: 'title'"):
        read_record(tmp_path / RECORD)


def test_record_of_version_1_is_migrated(tmp_path: Path) -> None:
    old = msgspec.json.decode(VALID) | {"schema_version": 1}
    numbers = {"window_s": 0.5, "warmup_windows": 3, "inference_s": 2.5, "latency_batches": 11, "latency_budget_s": 4.0}
    old["spec"]["protocol"] = numbers
    for field in ("flags", "energy", "time_to_target", "evidence"):
        del old["outcome"][field]
    speed = old["outcome"]["speed"]
    speed |= {"train_windows": 8, "inference_windows": 4}
    del speed["train"], speed["inference"]
    write_json(tmp_path / RECORD, old)
    migrated = read_record(tmp_path / RECORD)
    assert isinstance(migrated.outcome, Success)
    assert migrated.outcome.speed.train is not None
    assert (migrated.outcome.speed.train.windows, migrated.outcome.speed.train.warmup_windows) == (8, 3)
    assert (migrated.outcome.speed.inference.windows, migrated.outcome.speed.inference.low) == (4, None)
    assert (migrated.spec.protocol.name, migrated.spec.protocol.throughput_budget_s) == ("version 1", 2.5)
    assert migrated.outcome.scores == record().outcome.scores
    speed["train_windows"] = 0
    write_json(tmp_path / RECORD, old | {"outcome": old["outcome"] | {"speed": speed}})
    assert read_record(tmp_path / RECORD).outcome.speed.train is None


# ---- finding ----------------------------------------------------------------------------------------------


def test_find_accepts_ids_keys_and_paths(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, again = keep(store, record()), keep(store, record())
    vision = keep(store, record(task="vision", model="resnet-20"))
    for text in (vision.record.run_id, "vision", "resnet-20-torch", vision.record.key[:8], f"{vision.path}/"):
        assert store.find(text) == StoredRun(vision.path, vision.record)
    assert store.find(again.record.run_id).record.repeat == 2
    monkeypatch.chdir(store.path)
    assert store.find(torch.record.run_id).record == torch.record


def test_find_prefers_the_exact_id(store: Store) -> None:
    first, *_ = [keep(store, record()) for _ in range(10)]
    assert store.find(first.record.run_id).record.repeat == 1


def test_find_rejects_ambiguous_and_unknown_text(store: Store) -> None:
    ids = [keep(store, record(seed=seed)).record.run_id for seed in range(8)]
    with pytest.raises(UsageError, match=r"8 runs match 'nlp': .* \.\.\.") as caught:
        store.find("nlp")
    assert sorted(ids)[0] in str(caught.value)
    with pytest.raises(UnknownNameError, match=rf"unknown run '{ids[0]}x'; did you mean '{ids[0]}'\?.*looked in"):
        store.find(ids[0] + "x")
    with pytest.raises(RecordError, match=r"nowhere/record\.json: cannot be read: No such file"):
        store.find(str(store.path / "nowhere"))


def test_error_for_an_unknown_run_lists_few_of_many_runs(store: Store) -> None:
    for number in range(200):
        (store.path / f"run-{number:05}").mkdir()
        (store.path / f"run-{number:05}" / RECORD).write_bytes(VALID)
    with pytest.raises(UnknownNameError) as caught:
        store.find("xyz")
    assert len(str(caught.value)) < 600


# ---- arrays -----------------------------------------------------------------------------------------------


def test_arrays_are_stored_and_loaded(store: Store) -> None:
    with store.scratch() as scratch:
        np.savez(scratch / ARRAYS, losses=np.arange(3.0))
        run = store.commit(scratch, record())
    assert store.arrays(run)["losses"].tolist() == [0, 1, 2]
    assert store.arrays(keep(store, record(failure()))) == {}


@given(arrays(scalar_dtypes(), array_shapes(min_dims=0, min_side=0)), st.booleans(), st.booleans())
def test_read_arrays_agrees_with_numpy(array: np.ndarray[Any, Any], by_columns: bool, packed: bool) -> None:
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


def test_pickled_arrays_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / ARRAYS
    np.savez(path, trap=np.array([{"code": 1}], dtype=object))
    with pytest.raises(RecordError, match=f"{path}: cannot be read: .*allow_pickle"):
        read_arrays(path)


def test_damaged_arrays_are_reported(tmp_path: Path) -> None:
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


def test_overlapping_archive_members_are_rejected(tmp_path: Path) -> None:
    """Many members that share one array need little space on disk, but much memory."""
    path = tmp_path / ARRAYS
    np.savez(path, a=np.arange(1000.0), b=np.arange(1000.0))
    with zipfile.ZipFile(path, "a") as archive:
        first, second = archive.infolist()
        second.header_offset = first.header_offset
        for number in range(9):
            again = copy.copy(first)
            again.filename = f"again{number}.npy"
            archive.filelist.append(again)
        archive.comment = b"rewritten"
    with pytest.raises(RecordError, match=f"{path}: cannot be read: its members overlap"):
        read_arrays(path)


def test_results_directory_is_the_argument_the_variable_or_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_RESULTS", raising=False)
    assert results_dir() == Path("results")
    monkeypatch.setenv("HARNESS_RESULTS", "/elsewhere")
    assert results_dir() == Path("/elsewhere")
    assert results_dir("here") == Path("here")
    monkeypatch.setenv("HARNESS_RESULTS", "")
    assert results_dir() == Path("results")
