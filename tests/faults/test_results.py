"""Faults of the results directory and of the disk. A finished run is saved in the results directory or elsewhere."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_records import record as sample
from toy_plugin import environment_with

from harness.errors import RecordError
from harness.records import Failure, RunRecord, Success, index
from harness.records import scratch as scratches
from harness.records.store import ARRAYS, LOG, RECORD, Store

from .conftest import CommandLine, Runs

HELPERS = Path(__file__).parents[1] / "helpers"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")


@pytest.mark.parametrize("backend", ["toy-remove-results", "toy-rename-results", "toy-results-link"])
def test_results_that_vanish_are_created_again(backend: str, runs: Runs) -> None:
    records = runs("toy-numpy", backend, "toy-numpy")
    assert all(isinstance(record.outcome, Success) for record in records), records
    assert [record.spec.backend for record in runs.stored()] == [backend, "toy-numpy"]
    for record in records[1:]:
        files = {path.name for path in (runs.results / record.run_id).iterdir()}
        assert files == {ARRAYS, LOG, RECORD}
    if backend != "toy-remove-results":
        assert [record.spec.backend for record in runs.stored(runs.folder / "renamed")] == ["toy-numpy"]
    assert list((runs.folder / "tmp").iterdir()) == []


def rescued(runs: Runs, error: RecordError) -> RunRecord:
    """Return the record of the run that was saved elsewhere, and check that the message names its directory."""
    (place,) = [path for path in (runs.folder / "tmp").iterdir() if path.name.startswith(scratches.RESCUED)]
    assert f"the run was saved in {place} instead" in str(error)
    (record,) = runs.stored(place)
    assert record.run_id in str(error)
    return record


@pytest.mark.parametrize("backend", ["toy-results-file", "toy-results-dangling"])
def test_results_that_cannot_be_created_again_stop_the_plan_with_the_run_saved(backend: str, runs: Runs) -> None:
    with pytest.raises(RecordError, match="cannot be written") as caught:
        runs("toy-numpy", backend, "toy-numpy")
    record = rescued(runs, caught.value)
    assert record.spec.backend == backend
    assert isinstance(record.outcome, Success)
    (place,) = (runs.folder / "tmp").iterdir()
    assert {path.name for path in (place / record.run_id).iterdir()} >= {ARRAYS, RECORD}
    assert [record.spec.backend for record in runs.stored(runs.folder / "renamed")] == ["toy-numpy"]


@needs_root
def test_read_only_results_stop_the_plan_with_the_run_saved(runs: Runs, small_disk: Callable[[int], None]) -> None:
    small_disk(4096)
    with pytest.raises(RecordError, match="Read-only file system") as caught:
        runs("toy-numpy", "toy-results-read-only", "toy-numpy")
    record = rescued(runs, caught.value)
    assert isinstance(record.outcome, Success)
    subprocess.run(["umount", "-l", str(runs.results)], check=True)
    assert [record.spec.backend for record in runs.stored()] == ["toy-numpy"]


def _obey_permissions() -> None:
    """Let root obey permissions after the next exec, like other users: drop CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    (capabilities 1 and 2) from the bounding set (``PR_CAPBSET_DROP``)."""
    for capability in (1, 2):
        if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):
            os._exit(99)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are specific to Linux")
def test_results_without_write_permission_stop_the_plan_with_the_run_saved(command_line: CommandLine) -> None:
    words = command_line.run_words("toy-numpy", "toy-results-unwritable", "toy-numpy")
    process = command_line.start(*words, preexec_fn=_obey_permissions)
    _, error = process.communicate(timeout=100)
    results = command_line.folder / "results"
    try:
        assert process.returncode == 1, error
        assert "Permission denied" in error
        place = Path(error.partition("the run was saved in ")[2].partition(" instead")[0])
        (rescued_run,) = Store(place).load().runs
        assert rescued_run.record.spec.backend == "toy-results-unwritable"
        assert isinstance(rescued_run.record.outcome, Success)
        assert (rescued_run.path / ARRAYS).is_file()
        assert [record.spec.backend for record in command_line.stored()] == ["toy-numpy"]
    finally:
        results.chmod(0o755)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are specific to Linux")
def test_results_that_cannot_be_written_at_first_start_no_run(command_line: CommandLine) -> None:
    results = command_line.folder / "results"
    results.mkdir(mode=0o555)
    process = command_line.start(*command_line.run_words("toy-numpy"), preexec_fn=_obey_permissions)
    _, error = process.communicate(timeout=100)
    results.chmod(0o755)
    assert process.returncode in (1, 2)
    assert "cannot store results here: Permission denied" in error
    assert list(results.iterdir()) == []


@pytest.mark.parametrize("size", [1, 100])
def test_limit_on_file_sizes_loses_no_run_silently(size: int, command_line: CommandLine) -> None:
    """`RLIMIT_FSIZE` has the same effect as a full disk, without a file system of this test."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size * 1024, size * 1024))

    process = command_line.start(*command_line.run_words("toy-numpy", "toy-fill-disk-outside"), preexec_fn=limit)
    _, error = process.communicate(timeout=100)
    assert "Traceback" not in error
    if size == 1:  # less than a record
        assert process.returncode == 1
        assert "File too large" in error
    else:
        assert process.returncode == 0, error
        assert [type(record.outcome) for record in command_line.stored()] == [Success, Success]


@needs_root
def test_disk_that_a_run_fills_has_its_record_and_the_plan_goes_on(
    runs: Runs, small_disk: Callable[[int], None]
) -> None:
    """The arrays are saved elsewhere first. When the run has ended, there is space for them."""
    small_disk(2048)
    with pytest.raises(RecordError) as caught:
        runs("toy-numpy", "toy-fill-disk", "toy-numpy")
    assert isinstance(rescued(runs, caught.value).outcome, Success)
    assert [record.spec.backend for record in runs.stored()] == ["toy-numpy"]


@needs_root
@pytest.mark.parametrize("temporary", ["tmp", "results"])
@pytest.mark.parametrize("backend", ["toy-fill-disk-outside", "toy-fill-disk-and-print"])
def test_full_disk_stops_the_plan_with_the_run_saved(
    backend: str, temporary: str, runs: Runs, small_disk: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory for temporary files may be on the same disk."""
    small_disk(2048)
    monkeypatch.setenv("TMPDIR", str(runs.folder / temporary))
    with pytest.raises(RecordError, match="No space left on device") as caught:
        runs("toy-numpy", backend, "toy-numpy")
    place = Path(str(caught.value).partition("the run was saved in ")[2].partition(" instead")[0])
    (record,) = runs.stored(place)
    assert isinstance(record.outcome, Success)
    assert (place / record.run_id / ARRAYS).is_file()
    assert [record.spec.backend for record in runs.stored()] == ["toy-numpy"]
    shutil.rmtree(place)


@needs_root
def test_full_disk_has_space_for_the_record_of_a_failure(runs: Runs, small_disk: Callable[[int], None]) -> None:
    small_disk(2048)
    runs("toy-numpy", "toy-fill-disk-and-die")
    first, second = runs.stored()
    assert isinstance(first.outcome, Success)
    assert isinstance(second.outcome, Failure)
    assert second.outcome.message.startswith("killed by SIGKILL")
    assert list((runs.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize("call", range(1, 5))
def test_failed_write_of_any_file_loses_no_run(call: int, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th synchronization of a file in this process fails. The record is then written again, or elsewhere."""
    calls = 0
    sync = os.fsync

    def fail(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(fd)

    monkeypatch.setattr(os, "fsync", fail)
    try:
        runs("toy-killed", "toy-killed")
    except RecordError as error:
        rescued(runs, error)
    places = [runs.results, *(runs.folder / "tmp").iterdir()]
    stored = [record for place in places for record in runs.stored(place)]
    assert len(stored) == (1 if call <= 2 else 2)


def test_log_is_kept_in_memory_if_it_cannot_be_written(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.execute.channel.Log._write", lambda _self, _data: 0)
    (record,) = runs("toy-value-error")
    assert isinstance(record.outcome, Failure)
    assert record.outcome.message.startswith("ValueError: the toy broke (harness_toy_faults.py, line ")


def test_rescue_without_a_writable_directory_is_reported(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratches, "rescue", lambda *_: None)
    with pytest.raises(RecordError, match="the run could not be saved elsewhere either"):
        runs("toy-results-file")


# ---- directories of unfinished runs -----------------------------------------------------------------------


def test_abandoned_scratch_directories_are_removed_and_those_in_use_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.prepare()
    abandoned = store.path / ".partial-abandoned"
    abandoned.mkdir()
    (abandoned / ARRAYS).write_text("half")
    scratches.spares(abandoned)[0].mkdir()
    (store.path / ".partial-link").symlink_to(tmp_path)
    with store.scratch() as scratch:
        Store(store.path).prepare()
        assert scratch.is_dir()
        assert not abandoned.exists()
        assert not scratches.spares(abandoned)[0].exists()
    assert [path.name for path in store.path.iterdir()] == [".partial-link"]


def test_spare_directory_that_is_a_link_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user could have created it in a directory for temporary files."""
    monkeypatch.setattr(scratches, "places", lambda: [tmp_path / "bad", tmp_path / "good"])
    scratch = tmp_path / "blocked" / ".partial-x"
    (tmp_path / "blocked").write_text("a file")
    bad, good = scratches.spares(scratch)
    (tmp_path / "target").mkdir()
    bad.parent.mkdir()
    bad.symlink_to(tmp_path / "target")
    scratches.save(scratch, "data", lambda path: path.write_text("kept"))
    assert list((tmp_path / "target").iterdir()) == []
    assert (good / "data").read_text() == "kept"
    (tmp_path / "blocked").unlink()
    scratches.collect(scratch)
    assert (scratch / "data").read_text() == "kept"


def test_partial_directories_are_created_where_they_are_also_removed() -> None:
    """Directories made by `tempfile` next to their destination would remain if the process is killed."""
    package = Path(scratches.__file__).parents[1]
    made = re.compile(r"(mkdtemp|TemporaryDirectory)\([^)]*prefix=f?\"\.")
    assert [path for path in package.rglob("*.py") if made.search(path.read_text(encoding="utf-8"))] == []


def test_scratch_directories_of_many_processes_survive_sweeps(tmp_path: Path) -> None:
    """Each process creates and locks directories while the others sweep."""
    code = """
import sys
from pathlib import Path
from harness.records.store import Store
store = Store(Path(sys.argv[1]))
for _ in range(100):
    store.prepare()
    with store.scratch() as scratch:
        (scratch / "file").touch()
        store.prepare()
        assert (scratch / "file").exists()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "results")]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert list((tmp_path / "results").iterdir()) == []


def test_many_writers_that_are_killed_lose_no_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 processes commit 50 runs each, and half of them are killed at random times. Each run that a process reported
    as finished is stored once, and no reader ever sees an incomplete run, even through the index."""
    monkeypatch.setattr(index, "SMALLEST", 0)
    monkeypatch.setattr(index, "SETTLED_NS", 4 * 10**7)
    code = """
import os, random, signal, sys, threading
from pathlib import Path
from harness.records.store import Store
from sample_records import record
store, number = Store(Path(sys.argv[1])), int(sys.argv[2])
generator = random.Random(number)
sys.stdin.read(1)
if number % 2:
    threading.Timer(generator.uniform(0.05, 2.0), os.kill, (os.getpid(), signal.SIGKILL)).start()
for _ in range(50):
    with store.scratch() as scratch:
        (scratch / "log.txt").write_text("log")
        finished = store.commit(scratch, record(seed=number % 4))
    os.write(1, finished.path.name.encode() + b"\\n")
"""
    store = Store(tmp_path / "results")
    store.prepare()
    environment = environment_with(HELPERS)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(store.path), str(number)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(16)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("x")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        for run in store.load(lambda run: run.name.endswith("1")).runs:
            assert run.record.run_id == run.path.name
    reported = [name for writer in writers for name in writer.communicate()[0].split()]
    loaded = store.load()
    assert loaded.problems == []
    selected = store.load(lambda run: run.name.endswith("1"))
    assert selected.runs == [run for run in loaded.runs if run.path.name.endswith("1")]
    assert len(selected.summaries) == len(loaded.runs)
    names = [run.record.run_id for run in loaded.runs]
    assert len(set(reported)) == len(reported)
    assert set(reported) <= set(names)
    assert len(names) - len(reported) <= 8  # killed between the commit and the report
    assert len(reported) >= 8 * 50
    assert all({RECORD, LOG} == {file.name for file in run.path.iterdir()} for run in loaded.runs)
    store.prepare()
    assert sorted(path.name for path in store.path.iterdir()) == sorted(names)
    assert sample().spec.task in names[0]
