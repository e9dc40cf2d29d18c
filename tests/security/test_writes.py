"""Tests that only regular files are replaced, so that a link in an untrusted directory cannot overwrite its target."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Invoke
from sample_records import record, success

from harness.analysis.compare.baseline import save as save_baseline
from harness.checks.parity.verdict import FOLDER
from harness.errors import HarnessError, RecordError, UsageError
from harness.execute.weights import save as save_weights
from harness.records.arrays import write_arrays
from harness.records.files import make_directory, replacing, write_directory, write_new, write_whole
from harness.records.store import AUDIT, RECORD, Store, StoredRun, write_json

Write = Callable[[Path], object]
WRITERS: dict[str, Write] = {
    "file": lambda path: write_whole(path, b"new"),
    "json": lambda path: write_json(path, {"new": 1}),
    "arrays": lambda path: write_arrays(path, {"a": np.zeros(3)}),
    "weights": lambda path: save_weights(path, {"a": np.zeros(3)}),
    "baseline": lambda path: save_baseline(path, [StoredRun(path, record(success()))]),
    "new file": lambda path: write_new(path, b"new"),
}


def _link(place: Path, target: Path) -> None:
    target.write_bytes(b"precious")
    place.symlink_to(target)


def _dangling(place: Path, target: Path) -> None:
    place.symlink_to(target)


def _chain(place: Path, target: Path) -> None:
    target.write_bytes(b"precious")
    place.with_name("hop").symlink_to(target)
    place.symlink_to("hop")


def _loop(place: Path, target: Path) -> None:
    place.symlink_to(place)


def _pipe(place: Path, target: Path) -> None:
    os.mkfifo(place)


def _device(place: Path, target: Path) -> None:
    place.symlink_to("/dev/null")


PLANTED = {"link": _link, "dangling": _dangling, "chain": _chain, "loop": _loop, "pipe": _pipe, "device": _device}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("writer", WRITERS)
def test_planted_path_is_refused_and_its_target_unchanged(writer: str, planted: str, tmp_path: Path) -> None:
    place, target = tmp_path / "results" / "file", tmp_path / "target"
    place.parent.mkdir()
    PLANTED[planted](place, target)
    before = {path: path.lstat().st_ino for path in tmp_path.rglob("*")}
    with pytest.raises((HarnessError, OSError)):
        WRITERS[writer](place)
    assert {path: path.lstat().st_ino for path in tmp_path.rglob("*")} == before
    assert not target.exists() or target.read_bytes() == b"precious"


def test_hard_link_is_replaced_without_changing_the_other_name(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "planted").hardlink_to(tmp_path / "target")
    write_whole(tmp_path / "planted", b"new")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert (tmp_path / "planted").read_bytes() == b"new"


def test_directory_that_becomes_a_link_while_a_file_is_written_is_not_followed(tmp_path: Path) -> None:
    """Another process could replace the directory between the check and the write."""
    run, victim = tmp_path / "run", tmp_path / "victim"
    run.mkdir()
    victim.mkdir()
    (victim / AUDIT).write_bytes(b"precious")
    with replacing(run / AUDIT, linked_folder=False) as file:
        run.rename(tmp_path / "moved")
        run.symlink_to(victim)
        file.write(b"new")
    assert {path.name: path.read_bytes() for path in victim.iterdir()} == {AUDIT: b"precious"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "moved").iterdir()} == {AUDIT: b"new"}
    with pytest.raises(RecordError, match="symbolic link"):
        write_json(run / AUDIT, [])
    assert (victim / AUDIT).read_bytes() == b"precious"
    write_whole(run / "other", b"the user named this path")
    assert (victim / "other").is_file()


def test_file_that_becomes_a_link_while_it_is_written_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")

    def write() -> None:
        with replacing(tmp_path / "file") as file:
            (tmp_path / "file").symlink_to(tmp_path / "target")
            file.write(b"new")

    with pytest.raises(OSError, match="symbolic link"):
        write()
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "target"]


@pytest.mark.parametrize("make", [write_directory, lambda path, files: make_directory(path)])
def test_linked_directory_is_refused(make: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_directory(tmp_path / "mine" / "site", [("index.html", b"old")])
    (tmp_path / "planted").symlink_to(tmp_path / "mine" / "site")
    with pytest.raises((UsageError, OSError), match="symbolic link"):
        make(tmp_path / "planted", [("index.html", b"new")])
    assert (tmp_path / "mine" / "site" / "index.html").read_bytes() == b"old"


@pytest.mark.parametrize("arguments", [("--format", "csv"), ("--format", "json"), ("--format", "html")])
def test_report_does_not_write_through_a_link(
    arguments: tuple[str, ...], results: Path, invoke: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "out").symlink_to(tmp_path / "target")
    result = invoke("report", *arguments, "--output", str(tmp_path / "out"), "--results", str(results))
    assert result.exit_code in (1, 2)
    assert "this is a symbolic link" in result.stderr
    assert (tmp_path / "target").read_bytes() == b"precious"


@pytest.mark.parametrize("command", [("baseline",), ("bundle", "--output")])
def test_saved_comparison_does_not_write_through_a_link(
    command: tuple[str, ...], results: Path, invoke: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "out").symlink_to(tmp_path / "target")
    runs = [str(results)] if command == ("baseline",) else []
    result = invoke(*command, *runs, str(tmp_path / "out"), "--results", str(results))
    assert result.exit_code == 1, result.output
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_verdicts_are_not_written_into_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / FOLDER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        make_directory(tmp_path / FOLDER)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_run_directory_behind_a_link_is_reported_and_not_used(results: Path, invoke: Invoke, tmp_path: Path) -> None:
    (run, *_) = sorted(results.iterdir())
    other = tmp_path / "other"
    other.mkdir()
    (other / "run").symlink_to(run)
    (other / "unrelated").symlink_to(tmp_path)
    loaded = Store(other).load()
    assert loaded.runs == []
    assert len(loaded.problems) == 1
    assert "run: this is a symbolic link" in loaded.problems[0]
    result = invoke("audit", str(other / "run"))
    assert result.exit_code == 1
    assert "this is a symbolic link" in result.stderr
    assert not (run / AUDIT).exists()
    assert (run / RECORD).is_file()


def test_planted_link_with_the_name_of_the_next_run_does_not_lose_it(tmp_path: Path) -> None:
    results = Store(tmp_path / "results")
    results.prepare()
    for name in ("first", "second"):
        with results.scratch() as scratch:
            run = results.commit(scratch, record(success()))
        assert run.path.is_dir()
        stem, _, number = run.path.name.rpartition("-")
        (results.path / f"{stem}-{int(number) + 1}").symlink_to(tmp_path / name)
    assert len(results.load().runs) == 2


ROOT = Path(__file__).parents[2]
PLACES = {
    "harness/records/files.py": "the atomic writer and the writer of new files",
    "harness/records/arrays.py": "np.savez to a file that the atomic writer opened",
    "harness/data/archives.py": "new files of an extracted archive, opened with mode x",
    "harness/data/download.py": "a new file in a new directory, opened with mode x",
    "harness/report/bundle/unpack.py": "new files of an extracted bundle, opened with mode x",
    "harness/report/bundle/pack.py": "an archive in a file that the atomic writer opened",
    "harness/checks/results/merge.py": "new files in a new hidden directory, opened with mode x",
    "harness/execute/channel.py": "the log of a child in its own new directory",
    "harness/plugins/containment.py": "descriptor 2, if a plugin has closed sys.stderr",
    "harness/execute/claims.py": "a new file with a random name, opened with mode x",
    "harness/execute/worker.py": "files in the locked directory of the run, with `harness.records.scratch.save`",
    "harness/records/checkpoint.py": "a new file, opened with mode x, in a directory that is not a link",
    "harness/records/scratch.py": "files in new directories, and copies of them",
    "harness/measure/memory.py": "files of /proc",
    "harness/deploy/serving/requests.py": "uploaded files in a new temporary directory",
    "harness/data/user_files/memory_files.py": "new files in a new directory, which is renamed when it is complete",
    "harness/tuning/collect.py": "a new directory, which is renamed when it is complete",
}
"""Modules that open files for writing, with the reason why they cannot overwrite another file."""
_WRITES = {"write_text", "write_bytes", "savez", "savez_compressed", "save_file", "copyfile", "copy2", "copytree"}


def _writes(tree: ast.AST) -> list[int]:
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [arg.value for arg in (*node.args, *(k.value for k in node.keywords)) if isinstance(arg, ast.Constant)]
        opens = name in ("open", "ZipFile") and any(isinstance(mode, str) and set(mode) & set("wax") for mode in modes)
        opens = opens or (name == "FileIO" and "w+" in modes)  # other calls open descriptors
        if name in _WRITES or (opens and any(m in ("w", "wb", "x", "xb", "a", "ab", "w+", "w+b") for m in modes)):
            lines.append(node.lineno)
    return lines


def test_files_are_written_by_known_modules_only() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "harness").rglob("*.py"))
        if _writes(ast.parse(path.read_text()))
    }
    assert found - PLACES.keys() == set(), "use harness.records.files to write files"
    assert PLACES.keys() - found == set()
