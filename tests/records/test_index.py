"""Tests that a selection with the index of a results directory equals a selection by reading all records."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_records import record
from toy_plugin import environment_with

from harness.analysis.compare.match import _device_independent_key, _model
from harness.checks.audit.siblings import is_comparable
from harness.records import DataSource
from harness.records import index as index_module
from harness.records import store as store_module
from harness.records.index import SETTLED_NS, Setting, Summary, summary_of
from harness.records.store import RECORD, Loaded, Store

TASKS = ("nlp", "nlq", "vision")
NAMES = ("a", "b", "c", "é", "e e")
TICK_S = 0.012
"""Time after which two changes of a file have different timestamps."""
HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an index for any number of records, and index files that were changed a moment ago."""
    monkeypatch.setattr(index_module, "SMALLEST", 0)
    monkeypatch.setattr(index_module, "SETTLED_NS", -(10**12))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List of the names of the directories whose records are read."""
    names: list[str] = []
    decode = store_module.decode_record

    def spy(data: bytes, path: Path) -> Any:
        names.append(path.parent.name)
        return decode(data, path)

    monkeypatch.setattr(store_module, "decode_record", spy)
    return names


def of_task(task: str) -> Callable[[Summary], bool]:
    return lambda run: run.setting.task == task


def encoded(task: str, number: int) -> bytes:
    started = f"2026-01-01T00:00:{number:02}Z"
    return msgspec.json.encode(record(task=task, started_at=started) if number % 3 else record(task=task))


def put(store: Store, name: str, data: bytes) -> Path:
    path = store.path / name / RECORD
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def check(store: Store) -> None:
    """Check every selection against the runs of a load without a selection, which does not use the index."""
    everything = store.load()
    for task in TASKS:
        runs = [run for run in everything.runs if run.record.spec.task == task]
        found = store.load(of_task(task))
        assert found == Loaded(runs, everything.problems)
        assert found.summaries == everything.summaries


def index_of(store: Store) -> Path:
    location = index_module._location(store.path)
    assert location is not None
    return location


# ---- any sequence of changes ----------------------------------------------------------------------------------------


def _add(store: Store, name: str, other: str, number: int) -> None:
    put(store, name, encoded(TASKS[number % 3], number))


def _edit_in_place(store: Store, name: str, other: str, number: int) -> None:
    """Change the task in a file, keeping its size, inode and modification time."""
    path = store.path / name / RECORD
    if path.is_file():
        state = path.stat()
        data = path.read_bytes()
        with path.open("r+b") as file:
            file.write(data.replace(b'"task":"nlp"', b'"task":"nl_"').replace(b'"task":"nlq"', b'"task":"nlp"'))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _replace(store: Store, name: str, other: str, number: int) -> None:
    path = store.path / name / RECORD
    if path.is_file():
        new = path.with_name("new")
        new.write_bytes(encoded(TASKS[number % 3], number))
        shutil.copystat(path, new)
        new.replace(path)


def _truncate(store: Store, name: str, other: str, number: int) -> None:
    path = store.path / name / RECORD
    if path.is_file():
        os.truncate(path, path.stat().st_size // 2)


def _delete_record(store: Store, name: str, other: str, number: int) -> None:
    (store.path / name / RECORD).unlink(missing_ok=True)


def _delete_run(store: Store, name: str, other: str, number: int) -> None:
    path = store.path / name
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _rename(store: Store, name: str, other: str, number: int) -> None:
    """Swap the names of two runs, or rename one."""
    paths = store.path / name, store.path / other
    aside = store.path.with_name("aside")
    for old, new in ((paths[0], aside), (paths[1], paths[0]), (aside, paths[1])):
        if old.exists() or old.is_symlink():
            old.rename(new)


def _copy(store: Store, name: str, other: str, number: int) -> None:
    if (store.path / name).is_dir() and not (store.path / other).exists():
        shutil.copytree(store.path / name, store.path / other, symlinks=True)


def _link(store: Store, name: str, other: str, number: int) -> None:
    """Replace a run's directory by a link to it."""
    path = store.path / name
    if path.is_dir() and not path.is_symlink():
        moved = Path(tempfile.mkdtemp(dir=store.path.parent)) / "run"
        path.rename(moved)
        path.symlink_to(moved)


def _delete_index(store: Store, name: str, other: str, number: int) -> None:
    index_of(store).unlink(missing_ok=True)


def _damage_index(store: Store, name: str, other: str, number: int) -> None:
    path = index_of(store)
    if path.is_file():
        data = bytearray(path.read_bytes())
        data[number * 37 % len(data)] ^= 1
        path.write_bytes(data)


def _cut_index(store: Store, name: str, other: str, number: int) -> None:
    path = index_of(store)
    if path.is_file():
        os.truncate(path, path.stat().st_size // 2)


CHANGES = (
    _add,
    _edit_in_place,
    _replace,
    _truncate,
    _delete_record,
    _delete_run,
    _rename,
    _copy,
    _link,
    _delete_index,
    _damage_index,
    _cut_index,
)
changes = st.tuples(
    st.sampled_from((_add, _add, *CHANGES)), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 59)
)


@pytest.mark.usefixtures("small")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(changes, min_size=1, max_size=10))
def test_selection_equals_reading_everything_after_any_changes(
    tmp_path: Path, steps: list[tuple[Callable[..., None], str, str, int]]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        store = Store(Path(folder, "results"))
        store.path.mkdir()
        for name, task in zip(NAMES[:3], TASKS, strict=True):
            put(store, name, encoded(task, 0))
        check(store)
        for change, name, other, number in steps:
            time.sleep(TICK_S)
            change(store, name, other, number)
            check(store)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_noticed(change: Callable[..., None], store: Store) -> None:
    for number, name in enumerate(NAMES[:4]):
        put(store, name, encoded(TASKS[number % 3], number + 1))
    check(store)
    for name, other in (("a", "b"), ("b", "c"), ("c", "e e")):
        time.sleep(TICK_S)
        change(store, name, other, 1)
        check(store)


# ---- what is read ---------------------------------------------------------------------------------------------------


@pytest.fixture
def three(store: Store) -> Store:
    for number, task in enumerate(TASKS):
        put(store, task, encoded(task, 3 * number + 1))
    return store


@pytest.mark.usefixtures("small")
def test_second_load_reads_only_the_selected_records(three: Store, read: list[str]) -> None:
    three.load(of_task("nlp"))
    assert sorted(read) == sorted(TASKS)
    read.clear()
    time.sleep(TICK_S)
    put(three, "vision", encoded("nlp", 7))
    assert [run.path.name for run in three.load(of_task("nlp")).runs] == ["nlp", "vision"]
    assert read == ["nlp", "vision"]
    read.clear()
    found = three.load(lambda run: False)
    assert (found.runs, read) == ([], [])
    assert [run.setting.task for run in found.summaries] == ["nlp", "nlq", "nlp"]


def test_few_records_are_read_without_an_index(three: Store) -> None:
    three.load(of_task("nlp"))
    assert not index_of(three).exists()


def test_index_is_written_for_many_records(store: Store, monkeypatch: pytest.MonkeyPatch, read: list[str]) -> None:
    for number in range(5):
        put(store, f"run-{number}", encoded("nlp", 3 * number + 1))
    monkeypatch.setattr(index_module, "SMALLEST", 5)
    later = time.time_ns() + 2 * SETTLED_NS
    monkeypatch.setattr(time, "time_ns", lambda: later)
    store.load(of_task("vision"))
    assert index_of(store).exists()
    read.clear()
    store.load(of_task("vision"))
    assert read == []


def test_file_that_was_just_changed_is_not_indexed(
    three: Store, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    """Another change within the resolution of the timestamps could not be noticed."""
    monkeypatch.setattr(index_module, "SMALLEST", 0)
    for _ in range(2):
        read.clear()
        three.load(of_task("nlp"))
        assert sorted(read) == sorted(TASKS)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("changed", ["code", "msgspec"])
def test_index_of_another_version_is_not_used(
    changed: str, three: Store, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    three.load(of_task("nlp"))
    read.clear()
    index_module._code.cache_clear()
    if changed == "msgspec":
        monkeypatch.setattr(msgspec, "__version__", "another")
    else:
        contents = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: contents(path) + b"# a stricter check")
    three.load(of_task("nlp"))
    monkeypatch.undo()
    index_module._code.cache_clear()
    assert sorted(read) == sorted(TASKS)


@pytest.mark.usefixtures("small")
def test_record_with_long_names_is_read_every_time(store: Store, read: list[str]) -> None:
    put(store, "long", msgspec.json.encode(record(task="t" * 2000)))
    put(store, "short", encoded("nlp", 1))
    os.mkdir(os.fsencode(store.path) + b"/\xff")  # noqa: PTH102 - the name is invalid UTF-8
    (store.path / os.fsdecode(b"\xff") / RECORD).write_bytes(encoded("nlq", 2))
    for expected in (3, 2):
        read.clear()
        assert len(store.load(of_task("vision")).summaries) == 3
        assert len(read) == expected


@pytest.mark.usefixtures("small")
def test_unused_index_is_removed(three: Store) -> None:
    three.load(of_task("nlp"))
    old = index_of(three).with_name("0" * 32)
    old.write_bytes(b"")
    os.utime(old, (0, time.time() - (index_module.KEPT_DAYS + 1) * 86400))
    put(three, "new", encoded("nlp", 5))
    three.load(of_task("nlp"))
    assert not old.exists()
    assert index_of(three).exists()


def test_conditions_of_commands_hold_for_all_runs_that_they_may_use() -> None:
    """The conditions for `audit` and for suites ignore the name of a user's own data, which is not in the keys."""
    files = [DataSource(path=f"/{name}.csv") for name in "ab"]
    specs = [record(dataset=str(source.path), source=source).spec for source in files]
    specs += [record(**{field: "x"}).spec for field in ("task", "dataset", "model", "backend", "device")]
    specs += [record().spec, record(seed=1).spec, record(precision="bf16").spec]
    for one in specs:
        for other in specs:
            setting = summary_of("run", msgspec.structs.replace(record(), spec=other)).setting
            if one.group_key == other.group_key:
                assert is_comparable(setting, one)
            if _device_independent_key(one) == _device_independent_key(other):
                assert _model(setting) == _model(one)
    assert specs[0].group_key == specs[1].group_key


def test_summary_has_the_fields_that_commands_select_by() -> None:
    from harness.cli.report import _FILTERS

    assert Setting.__struct_fields__ == _FILTERS


@pytest.mark.usefixtures("small")
def test_writers_and_readers_at_once_keep_the_index_correct(store: Store) -> None:
    """Writers commit runs, and readers write the index. Some of both are killed."""
    writer = """
import sys
from pathlib import Path
from harness.records.store import Store
from sample_records import record
store, task = Store(Path(sys.argv[1])), sys.argv[2]
for seed in range(int(sys.argv[3])):
    with store.scratch() as scratch:
        store.commit(scratch, record(task=task, seed=seed))
"""
    reader = """
import sys
from pathlib import Path
from harness.records import index
from harness.records.store import Store
index.SMALLEST, index.SETTLED_NS = 0, 4 * 10**7
while True:
    loaded = Store(Path(sys.argv[1])).load(lambda run: run.setting.task == "nlp")
    assert loaded.problems == [], loaded.problems
    assert all(run.record.spec.task == "nlp" for run in loaded.runs)
"""
    environment = environment_with(HELPERS)

    def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, str(store.path), *arguments], env=environment)

    readers = [start(reader) for _ in range(2)]
    writers = [start(writer, task, "12") for task in ("nlp", "vision")]
    doomed = start(writer, "nlq", "100000")
    assert [one.wait(120) for one in writers] == [0, 0]
    for one in (doomed, readers[0]):
        one.kill()
        one.wait()
    assert readers[1].poll() is None
    readers[1].kill()
    readers[1].wait()
    check(store)
    loaded = store.load(of_task("nlp"))
    assert sorted(run.record.spec.seed for run in loaded.runs) == list(range(12))


@pytest.mark.usefixtures("small")
def test_headers_are_those_of_valid_records(tmp_path: Path, read: list[str]) -> None:
    """Only records without a valid entry are decoded completely. A record that becomes invalid is not returned."""
    store = Store(tmp_path)
    for number in (1, 2, 4, 5):
        put(store, f"run-{number}", encoded("nlp", number))
    whole = {run.path.name: run.record for run in store.load(of_task("nlp")).runs}
    read.clear()
    found = {one.path.name: one.record for one in store.headers(of_task("nlp"))}
    assert read == []
    assert found.keys() == whole.keys()
    for name, header in found.items():
        expected = whole[name]
        assert (header.run_id, header.key, header.started_at) == (expected.run_id, expected.key, expected.started_at)
        assert (header.environment, header.provenance.plugins) == (expected.environment, expected.provenance.plugins)
    time.sleep(TICK_S)
    put(store, "run-1", encoded("nlp", 1).replace(b'"scores":{', b'"scores":{"primary":1,', 1))
    assert {one.path.name for one in store.headers(of_task("nlp"))} == whole.keys() - {"run-1"}
    assert read == ["run-1"]
