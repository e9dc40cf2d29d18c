"""Tests of reading a store: damaged records, migrations, and files that are not runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sample_records import record
from stored_runs import keep

from harness.errors import RecordError
from harness.records import SCHEMA_VERSION, Success
from harness.records import store as store_module
from harness.records.store import RECORD, Store, read_record, write_json

VALID = msgspec.json.encode(record())


def changed(**values: Any) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(VALID) | values)


DAMAGED = {
    "empty": (b"", "not a valid record"),
    "cut off": (VALID[: len(VALID) // 2], "not a valid record"),
    "not JSON": (b"PK\x03\x04", "not a valid record"),
    "not UTF-8": (VALID.replace(b"Example CPU", b"\xff\xfe"), "not a valid record"),
    "another document": (b'{"name": "x"}', "missing required field `schema_version`"),
    "no schema version": (
        msgspec.json.encode({k: v for k, v in msgspec.json.decode(VALID).items() if k != "schema_version"}),
        "missing required field `schema_version`",
    ),
    "a list": (b"[1, 2]", "Expected `object`"),
    "null": (b"null", "Expected `object`"),
    "nested without end": (b'{"schema_version": ' + b"[" * 10**5, "not a valid record"),
    "a later schema": (
        changed(schema_version=SCHEMA_VERSION + 1, surprise=True),
        f"up to {SCHEMA_VERSION}, but the record has version {SCHEMA_VERSION + 1}; upgrade harness",
    ),
    "schema zero": (changed(schema_version=0), "unknown schema version 0"),
    "negative schema": (changed(schema_version=-3), "unknown schema version -3"),
    "schema in words": (changed(schema_version="one"), "Expected `int`"),
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
def test_damaged_record_is_named_and_the_others_load(case: str, store: Store) -> None:
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


def test_record_that_cannot_be_opened(store: Store) -> None:
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_run_behind_a_closed_directory(store: Store) -> None:
    closed, sound = keep(store, record()), keep(store, record(seed=1))
    closed.path.chmod(0o000)
    loaded = store.load()
    closed.path.chmod(0o755)
    assert loaded.runs == [sound]
    assert "Permission denied" in loaded.problems[0]


def test_what_is_no_run_is_passed_over(store: Store) -> None:
    sound = keep(store, record())
    (store.path / "notes.txt").write_text("mine")
    (store.path / "plots").mkdir()
    (store.path / ".git").mkdir()
    (store.path / ".partial-abc").mkdir()
    (store.path / ".partial-abc" / RECORD).write_bytes(VALID)
    (store.path / "gone").symlink_to(store.path / "nowhere")
    assert store.load() == store_module.Loaded([sound], [])


def test_unknown_fields_of_the_same_schema_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_bytes(changed(added_by_a_fork=1))
    assert read_record(tmp_path / RECORD) == record()


def test_copies_of_a_run_load_once_and_are_named(store: Store) -> None:
    run = keep(store, record())
    shutil.copytree(run.path, store.path / "copy")
    loaded = store.load()
    assert len(loaded.runs) == 1
    assert len(loaded.problems) == 1
    assert "this copy of the run in" in loaded.problems[0]


def test_link_to_a_missing_record_is_named(store: Store) -> None:
    """Tools that keep large files elsewhere leave such links if the files were not fetched."""
    run = keep(store, record())
    (run.path / RECORD).unlink()
    (run.path / RECORD).symlink_to(store.path / "missing" / RECORD)
    loaded = store.load()
    assert (loaded.runs, len(loaded.problems)) == ([], 1)
    assert str(run.path / RECORD) in loaded.problems[0]


def test_order_is_that_of_the_starts(store: Store) -> None:
    times = ["2025-03-01T00:00:00Z", "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"]
    for time in times:
        keep(store, record(started_at=time))
    assert [run.record.started_at for run in store.load().runs] == sorted(times)


def test_no_directory_holds_no_runs(tmp_path: Path) -> None:
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
    with pytest.raises(RecordError, match=f"{RECORD}: not a valid record: 'title'"):
        read_record(tmp_path / RECORD)


def test_version_1_knew_no_detected_steady_state(tmp_path: Path) -> None:
    old = msgspec.json.decode(VALID) | {"schema_version": 1}
    numbers = {"window_s": 0.5, "warmup_windows": 3, "inference_s": 2.5, "latency_batches": 11, "latency_budget_s": 4.0}
    old["spec"]["protocol"] = numbers
    for field in ("flags", "energy", "time_to_target", "evidence"):
        del old["outcome"][field]
    speed = old["outcome"]["speed"]
    speed |= {"train_windows": 8, "inference_windows": 4}
    del speed["train"], speed["inference"]
    write_json(tmp_path / RECORD, old)
    found = read_record(tmp_path / RECORD)
    assert isinstance(found.outcome, Success)
    assert found.outcome.speed.train is not None
    assert (found.outcome.speed.train.windows, found.outcome.speed.train.warmup_windows) == (8, 3)
    assert (found.outcome.speed.inference.windows, found.outcome.speed.inference.low) == (4, None)
    assert (found.spec.protocol.name, found.spec.protocol.throughput_budget_s) == ("version 1", 2.5)
    assert found.outcome.scores == record().outcome.scores
    flags = [(flag.metric, flag.kind) for flag in found.outcome.flags]
    assert flags == [("train_throughput", "wide"), ("inference_throughput", "wide")]
    speed["train_windows"] = 0
    write_json(tmp_path / RECORD, old | {"outcome": old["outcome"] | {"speed": speed}})
    assert read_record(tmp_path / RECORD).outcome.speed.train is None
