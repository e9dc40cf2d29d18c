"""Tests of merging, pruning and verifying results directories."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from command_line import Invoke
from hypothesis import given
from hypothesis import strategies as st
from sample_records import failure, record, spec, success

from harness.checks.results.merge import merge
from harness.checks.results.prune import removable
from harness.checks.results.verify import verify
from harness.errors import RecordError, UsageError
from harness.plugins.environments import LOCK
from harness.records import Evidence, RunRecord
from harness.records.arrays import digest, write_arrays
from harness.records.store import ARRAYS, AUDIT, LOG, RECORD, Store, StoredRun, earlier_run_id, run_id, write_json


def made(seed: int = 0, minute: int = 0, **changes: Any) -> RunRecord:
    """Return a record whose start time is a minute of one hour."""
    settings = spec(seed=seed)
    values = {"started_at": f"2026-01-01T00:{minute:02d}:00.000+00:00", "spec": settings, "key": settings.key}
    return msgspec.structs.replace(record(), **values | changes)


def fill(results: Path, records: Sequence[RunRecord]) -> Path:
    """Write records as `Store.commit` numbers them, each with a log that names its start."""
    for each in records:
        number = next(n for n in itertools.count(1) if not (results / run_id(each.spec, each.spec.key, n)).exists())
        named = msgspec.structs.replace(each, run_id=run_id(each.spec, each.spec.key, number), repeat=number)
        folder = results / named.run_id
        folder.mkdir(parents=True)
        write_json(folder / RECORD, named)
        (folder / LOG).write_text(each.started_at)
    return results


def content(results: Path) -> dict[str, dict[str, bytes]]:
    """Return the files of each run."""
    return {
        folder.name: {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in results.iterdir()
        if not folder.name.startswith(".")
    }


runs = st.builds(made, seed=st.integers(0, 2), minute=st.integers(0, 5))


@given(stores=st.lists(st.lists(runs, max_size=4), min_size=1, max_size=4), data=st.data())
def test_merge_depends_neither_on_order_nor_on_repetition(stores: list[list[RunRecord]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, records in enumerate(stores):
            unique = {(each.spec.seed, each.started_at): each for each in records}
            fill(root / f"s{number}", list(unique.values())).mkdir(exist_ok=True)
        others = [root / f"s{number}" for number in range(len(stores))]
        everything = merge(root / "all", others)
        assert everything.problems == []
        expected = content(root / "all")
        distinct = {(each.spec.seed, each.started_at) for records in stores for each in records}
        assert sorted(
            (run.record.spec.seed, run.record.started_at) for run in Store(root / "all").load().runs
        ) == sorted(distinct)
        assert {
            name: files[RECORD].decode().find(f'"{name}"') > 0 for name, files in expected.items()
        } == dict.fromkeys(expected, True)
        for other in data.draw(st.permutations(others)):
            merge(root / "one by one", [other])
        assert content(root / "one by one") == expected
        again = merge(root / "all", [*others, root / "one by one", root / "all"])
        assert (again.added, again.renamed) == (0, {})
        assert content(root / "all") == expected
        for other, records in zip(others, stores, strict=True):
            assert len(content(other)) == len({(each.spec.seed, each.started_at) for each in records})


def test_merge_into_a_used_directory_renumbers_by_time(tmp_path: Path) -> None:
    fill(tmp_path / "here", [made(minute=5)])
    fill(tmp_path / "other", [made(minute=1), made(minute=9)])
    merged = merge(tmp_path / "here", [tmp_path / "other"])
    runs = Store(tmp_path / "here").load().runs
    assert [(run.record.started_at[14:16], run.record.repeat) for run in runs] == [("01", 1), ("05", 2), ("09", 3)]
    assert all((run.path / LOG).read_text() == run.record.started_at for run in runs)
    assert list(merged.renamed.values()) == [runs[1].record.run_id]


def test_merge_that_fails_while_runs_are_renumbered_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "here", [made(minute=5)])
    fill(tmp_path / "other", [made(minute=1)])

    def disk_full(*_: object) -> None:
        raise RecordError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("harness.checks.results.merge.write_json", disk_full)
        with pytest.raises(RecordError, match="the disk is full; the repeat numbers are incomplete until the merge is"):
            merge(tmp_path / "here", [tmp_path / "other"])
    merge(tmp_path / "here", [tmp_path / "other"])
    runs = Store(tmp_path / "here").load().runs
    assert [(run.record.started_at[14:16], run.record.repeat) for run in runs] == [("01", 1), ("05", 2)]
    assert [problem for _, found in verify(tmp_path / "here") for problem in found] == []


def test_merge_brings_missing_files_of_a_known_run(tmp_path: Path) -> None:
    fill(tmp_path / "here", [made()])
    fill(tmp_path / "other", [made()])
    (other,) = (tmp_path / "other").iterdir()
    (other / AUDIT).write_text("{}")
    (other / "latency").mkdir()
    (other / "latency" / "result.json").write_text("[]")
    (other / LOG).write_text("another log")
    merged = merge(tmp_path / "here", [tmp_path / "other"])
    (files,) = content(tmp_path / "here").values()
    assert merged.present == 1
    assert sorted(files) == [AUDIT, "latency/result.json", LOG, RECORD]
    assert files[LOG] == made().started_at.encode()


def test_merge_copies_no_links(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    fill(tmp_path / "other", [made()])
    (other,) = (tmp_path / "other").iterdir()
    (other / ARRAYS).symlink_to(tmp_path / "secret")
    merged = merge(tmp_path / "here", [tmp_path / "other"])
    (files,) = content(tmp_path / "here").values()
    assert sorted(files) == [LOG, RECORD]
    assert merged.problems == [f"{other / ARRAYS}: not copied, because it is not a regular file"]


def test_merge_damaged_record_is_reported_and_left_out(tmp_path: Path) -> None:
    fill(tmp_path / "other", [made(0), made(1)])
    (next((tmp_path / "other").glob("*-s1-*")) / RECORD).write_text("{")
    merged = merge(tmp_path / "here", [tmp_path / "other"])
    assert (merged.added, len(merged.problems)) == (1, 1)


def test_merge_renumbers_earlier_ids_without_adding_the_dataset(tmp_path: Path) -> None:
    late = made(0, 2)
    earlier = msgspec.structs.replace(late, run_id=earlier_run_id(late.spec, late.key, 1), repeat=1)
    path = tmp_path / "here" / earlier.run_id
    path.mkdir(parents=True)
    write_json(path / RECORD, earlier)
    merge(tmp_path / "here", [fill(tmp_path / "other", [made(0, 1)])])
    assert sorted(content(tmp_path / "here")) == sorted(
        [run_id(late.spec, late.key, 1), earlier_run_id(late.spec, late.key, 2)]
    )


@pytest.mark.parametrize("task", ["../../outside", "/tmp/outside", "a/b", "..", ".hidden", "a\0b"])
def test_merge_id_that_is_not_a_file_name_is_not_merged(task: str, tmp_path: Path) -> None:
    hostile = spec(task=task)
    for folder in ("here", "other"):
        (tmp_path / folder / "run").mkdir(parents=True)
        write_json(tmp_path / folder / "run" / RECORD, made(spec=hostile, key=hostile.key, minute=len(folder)))
    before = sorted(tmp_path.rglob("*"))
    merged = merge(tmp_path / "here", [tmp_path / "other"])
    assert (merged.added, merged.renamed, len(merged.problems)) == (0, {}, 2)
    assert sorted(tmp_path.rglob("*")) == before


def test_merge_absent_directory_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent: this results directory does not exist"):
        merge(tmp_path / "here", [tmp_path / "absent"])
    assert not (tmp_path / "here").exists()


def test_prune_removes_what_was_listed_and_nothing_else(invoke: Invoke, tmp_path: Path) -> None:
    records = [
        made(0, 1, outcome=failure("crash")),
        made(0, 2),
        made(0, 3),
        made(0, 4, outcome=failure("timeout")),
        made(1, 5, outcome=failure("oom")),
    ]
    fill(tmp_path / "results", records)
    kept = content(tmp_path / "results")
    listed = invoke("results", "prune", "--keep", "1")
    assert content(tmp_path / "results") == kept
    assert [line.partition(": ")[2] for line in listed.stdout.splitlines()] == [
        f"failed, and {run_id(spec(), spec().key, 2)} succeeded later",
        "not among the newest 1 successful repeats",
        "2 runs can be removed; pass --yes to confirm",
    ]
    assert invoke("results", "prune", "--keep", "1", "--yes").exit_code == 0
    assert sorted(run.record.started_at[14:16] for run in Store(tmp_path / "results").load().runs) == ["03", "04", "05"]
    assert invoke("results", "prune", "--failed", "--task", "vision", "--yes").stdout.endswith("0 runs removed\n")
    assert invoke("results", "prune", "--failed", "--yes").stdout.endswith("2 runs removed\n")
    assert [run.record.started_at[14:16] for run in Store(tmp_path / "results").load().runs] == ["03"]


@pytest.mark.parametrize("command", ["prune", "verify"])
def test_missing_results_directory_is_a_usage_error(command: str, invoke: Invoke) -> None:
    done = invoke("results", command, "--results", "missing")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "missing: this results directory does not exist" in done.stderr


@pytest.mark.parametrize("keep", [0, -1])
def test_removable_keep_must_be_positive(keep: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        removable([], keep=keep)


def with_arrays(results: Path) -> Path:
    """Write a run with raw samples whose digest is recorded, and return its directory."""
    arrays = {"latencies_s": np.array([0.5, 0.25])}
    evidence = Evidence(
        timed_examples=0,
        timed_error=0.0,
        evaluated_weights_digest="",
        clock_s=1.0,
        wall_s=1.0,
        arrays_digest=digest(arrays),
    )
    fill(results, [made(outcome=msgspec.structs.replace(success(), evidence=evidence))])
    (folder,) = results.iterdir()
    write_arrays(folder / ARRAYS, arrays)
    return folder


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: None, ""),
        (lambda folder: (folder / ARRAYS).unlink(), "missing"),
        (
            lambda folder: write_arrays(folder / ARRAYS, {"latencies_s": np.array([0.5, 0.5])}),
            "differs from the recorded one",
        ),
        (lambda folder: (folder / ARRAYS).write_bytes(b"PK"), "arrays.npz"),
        (lambda folder: (folder / RECORD).write_text("{}"), "not a valid record"),
        (lambda folder: folder.rename(folder.with_name("other")), "the record has the id"),
        (lambda folder: shutil.copytree(folder, folder.with_name("copy")), "this copy of the run"),
    ],
)
def test_verify_finds_damage(damage: Any, problem: str, tmp_path: Path) -> None:
    damage(with_arrays(tmp_path / "results"))
    found = [text for _, problems in verify(tmp_path / "results") for text in problems]
    assert (found == []) == (problem == "")
    assert problem in " ".join(found)


@pytest.mark.parametrize(
    ("recorded", "content", "problem"),
    [
        ("numpy==2.0", "numpy==2.0", ""),
        ("numpy==2.0", "numpy==2.1", "the SHA-256 differs from the recorded one"),
        ("numpy==2.0", None, "missing"),
        ("", "numpy==2.0", "the SHA-256 differs from the recorded one"),
        ("", None, ""),
    ],
)
def test_verify_compares_locks_with_their_digests(
    recorded: str, content: str | None, problem: str, tmp_path: Path
) -> None:
    digest = hashlib.sha256(recorded.encode()).hexdigest() if recorded else ""
    named = msgspec.structs.replace(record().environment, lock_digest=digest)
    fill(tmp_path / "results", [made(environment=named), made(1, 1, environment=named, outcome=failure())])
    for folder in (tmp_path / "results").iterdir():
        if content is not None:
            (folder / LOCK).write_text(content)
    found = [text for _, problems in verify(tmp_path / "results") for text in problems]
    assert [text.partition(f"{LOCK}: ")[2] for text in found] == ([problem] * 2 if problem else [])


def test_removable_counts_quality_only_runs_separately() -> None:
    records = [made(minute=minute, quality_only=minute > 1) for minute in range(4)]
    found = removable([StoredRun(Path(), each) for each in records], keep=1)
    assert [one.run.record.started_at[14:16] for one in found] == ["00", "02"]


def test_verify_command_fails_on_a_problem(invoke: Invoke, tmp_path: Path) -> None:
    folder = with_arrays(tmp_path / "results")
    assert invoke("results", "verify").stdout == "results: 1 run checked, 0 problems found\n"
    (folder / ARRAYS).unlink()
    assert invoke("results", "verify").exit_code == 1
