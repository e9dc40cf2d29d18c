"""Tests that no one else can provide the index of a results directory, and that any other file in its place is
harmless.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from command_line import Invoke
from sample_records import comparison
from sample_store import write

from harness.records import index as index_module
from harness.records.store import RECORD, Store


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index_module, "SMALLEST", 0)
    monkeypatch.setattr(index_module, "SETTLED_NS", -(10**12))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(write(tmp_path / "results", comparison()))


def location(store: Store) -> Path:
    found = index_module._location(store.path)
    assert found is not None
    return found


def _link(place: Path, target: Path) -> None:
    place.symlink_to(target)


def _loop(place: Path, target: Path) -> None:
    place.symlink_to(place)


def _pipe(place: Path, target: Path) -> None:
    os.mkfifo(place)


def _device(place: Path, target: Path) -> None:
    place.symlink_to("/dev/zero")


def _directory(place: Path, target: Path) -> None:
    place.mkdir()


def _huge(place: Path, target: Path) -> None:
    with place.open("wb") as file:
        file.truncate(2**40)


def _random(place: Path, target: Path) -> None:
    place.write_bytes(bytes(range(256)) * 50)


def _empty(place: Path, target: Path) -> None:
    place.write_bytes(b"")


def _payload(payload: bytes) -> Callable[[Path, Path], None]:
    return lambda place, target: place.write_bytes(index_module._digest(payload) + payload) and None


def _pack(value: object) -> Callable[[Path, Path], None]:
    return _payload(msgspec.msgpack.encode(value))


_SETTING = ["nlp", "d", "m", "b", "cpu", "fp32"]
PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "link": _link,
    "loop": _loop,
    "pipe": _pipe,
    "device": _device,
    "directory": _directory,
    "huge": _huge,
    "random": _random,
    "empty": _empty,
    "another type": _pack({"rows": 1}),
    "SQL": _payload(b"SQLite format 3\x00'); DROP TABLE runs; --"),
    "nested": _payload(b"\x91" * 10**6),
    "claimed length": _payload(b"\xdd\xff\xff\xff\xff"),
    "missing setting": _pack([[_SETTING], [["x", [1, 2, 3, 4], "x", "", 7]]]),
    "negative setting": _pack([[_SETTING], [["x", [1, 2, 3, 4], "x", "", -9]]]),
    "number beyond 64 bits": _payload(msgspec.msgpack.encode([[_SETTING], []]) + b"\xcf" + b"\xff" * 8),
    "unknown runs": _pack([[_SETTING], [["../../etc", [1, 2, 3, 4], "x", "", 0]]]),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_anything_in_place_of_the_index_is_ignored(planted: str, store: Store, tmp_path: Path) -> None:
    expected = [run for run in store.load().runs if run.record.spec.backend == "torch"]
    place, target = location(store), tmp_path / "target"
    place.parent.mkdir(parents=True)
    target.write_bytes(b"precious")
    PLANTED[planted](place, target)
    start = time.process_time()
    for _ in range(2):
        loaded = store.load(lambda run: run.setting.backend == "torch")
        assert (loaded.runs, loaded.problems) == (expected, [])
        assert len(loaded.summaries) == len(store.load().runs)
    assert time.process_time() - start < 5
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("broken", ["file", "link to nothing", "folder is a link", "folder is a file", "read-only"])
def test_cache_that_cannot_be_used_changes_no_result(broken: str, store: Store, tmp_path: Path) -> None:
    cache, folder = location(store).parents[1], location(store).parent
    (tmp_path / "other").mkdir()
    if broken == "file":
        cache.write_bytes(b"")
    elif broken == "link to nothing":
        cache.symlink_to(tmp_path / "nowhere" / "else")
    else:
        cache.mkdir()
    if broken == "folder is a link":
        folder.symlink_to(tmp_path / "other")
    elif broken == "folder is a file":
        folder.write_bytes(b"")
    elif broken == "read-only":
        cache.chmod(0o500)
    for _ in range(2):
        loaded = store.load(lambda run: run.setting.backend == "torch")
        assert [run for run in store.load().runs if run.record.spec.backend == "torch"] == loaded.runs
    assert list((tmp_path / "other").iterdir()) == []


def test_index_of_another_user_is_not_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.load(lambda run: False)
    assert location(store).parent.stat().st_mode & 0o777 == 0o700
    assert index_module._read(location(store), 2**20) != {}
    path, user = location(store), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert index_module._read(path, 2**20) == {}


@pytest.mark.parametrize(
    "command", [("report", "--backend", "torch"), ("history", "--backend", "torch"), ("compare", "torch", "tensorflow")]
)
def test_commands_neither_write_into_the_results_nor_read_an_index_from_them(
    command: tuple[str, ...], store: Store, invoke: Invoke, tmp_path: Path
) -> None:
    def content() -> dict[Path, tuple[int, int]]:
        return {p: (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in [store.path, *store.path.rglob("*")]}

    before = content()
    expected = invoke(*command, "--results", str(store.path))
    assert content() == before
    assert location(store).is_file()
    assert tmp_path / "cache" in location(store).parents
    for name in (location(store).name, "index", ".index", "index.sqlite"):  # as a stranger's archive might contain
        (store.path / name).write_bytes(location(store).read_bytes())
    location(store).unlink()
    again = invoke(*command, "--results", str(store.path))
    assert (again.exit_code, again.stdout) == (expected.exit_code, expected.stdout)


def test_index_hides_no_record_that_is_not_valid(store: Store) -> None:
    """A record enters the index only if it is valid; an invalid record is reported each time."""
    bad = store.path / "bad" / RECORD
    bad.parent.mkdir()
    bad.write_bytes(b'{"schema_version": 2}')
    for _ in range(3):
        (problem,) = store.load(lambda run: False).problems
        assert problem.startswith(f"{bad}: not a valid record")


def test_record_of_100_mb_is_refused_at_once(store: Store, invoke: Invoke) -> None:
    large = store.path / "large" / RECORD
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(100 * 10**6)
    start = time.process_time()
    result = invoke("show", "large", "--results", str(store.path))
    assert time.process_time() - start < 2
    assert result.exit_code == 1
    assert f"{large}: the file has 100000000 bytes; the limit is {64 * 2**20}" in result.stderr
