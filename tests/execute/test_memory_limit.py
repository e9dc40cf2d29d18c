"""Tests of the limit on host memory, and of runs that are repeated with a smaller batch."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from command_line import Invoke
from hypothesis import given
from hypothesis import strategies as st
from toy_plugin import FAULTS_REF, SET_FAST, TOY_REF, install_toy
from toy_runs import toy_specs

from harness.analysis.comparison_table import build_table
from harness.checks.audit.from_record import on_record
from harness.errors import RecordError, UsageError
from harness.execute import memory_limit
from harness.execute.memory_limit import MemoryWatch, group_bytes, size_bytes, size_text
from harness.execute.resume import decide, describe
from harness.execute.runner import run_all
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import Failure, RunRecord, Success
from harness.records.store import RECORD, Store, StoredRun, decode_record

MIB = 2**20
IDENTITY = "the key and the run id match the spec"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * 2**30),
        ("4 gib", 4 * 2**30),
        ("4g", 4 * 2**30),
        ("500MB", 500_000_000),
        ("1.5 KiB", 1536),
        ("2t", 2**41),
        ("1234", 1234),
        (1234, 1234),
    ],
)
def test_size_is_parsed(text: str | int, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1GiB", "0", "0.2", "4 GiBs", "1e9", "nan", "4 4GiB", -1, "٤GiB", "9" * 30]
)
def test_text_that_is_no_size_raises(text: str | int) -> None:
    with pytest.raises(UsageError, match="is not a valid amount of memory; write a number and a unit"):
        size_bytes(text)


@given(st.integers(1, 2**45))
def test_shown_size_is_parsed_back(size: int) -> None:
    assert math.isclose(size_bytes(size_text(size).replace("bytes", "")), size, rel_tol=0.006)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
class TestObservation:
    def test_memory_of_a_group_is_that_of_its_processes(self) -> None:
        code = "held = b'x' * 50_000_000; print(flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            size = group_bytes(process.pid)
            status = Path(f"/proc/{process.pid}/status").read_text()
            resident = int(status.partition("VmRSS:")[2].split()[0]) * 1024
            process.communicate(b"\n")
        assert size == pytest.approx(resident, rel=0.1)
        assert size > 50_000_000
        assert group_bytes(process.pid) == 0

    def test_memory_of_a_group_includes_descendants_in_other_groups(self) -> None:
        held = "held = b'x' * 50_000_000; print(flush=True); input()"
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}], start_new_session=True)"
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert group_bytes(process.pid) > 60_000_000
            process.communicate(b"\n")

    def test_observation_uses_little_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Measurements that take long are made less often."""
        monkeypatch.setattr(memory_limit, "INTERVAL_S", 0.0)
        times = iter([0.0, 0.2])
        monkeypatch.setattr(time, "thread_time", lambda: next(times))
        watch = MemoryWatch(os.getpgrp(), 1)
        assert watch.exceeded()
        assert 19 < watch.wait_s <= 20  # 0.2 s are 1% of 20 s

    def test_run_over_the_limit_is_out_of_memory(self, catalog: Catalog, tmp_path: Path) -> None:
        (spec,) = toy_specs(catalog, backends=("toy-use-memory",))
        limit = 300 * MIB
        (record,) = run_all([spec], catalog, Store(tmp_path), timeout_s=60, memory_limit_bytes=limit)
        outcome = record.outcome
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.phase) == ("oom", "train")
        start, _, end = outcome.message.partition(" MiB of host memory, more than the limit of 300 MiB; ")
        assert 300 < float(start.removeprefix("used ")) < 1500
        assert end == "raise the limit with --memory-limit"
        assert msgspec.structs.replace(record.spec, device=spec.device).key == spec.key == record.request_key

    def test_run_below_the_limit_succeeds(self, catalog: Catalog, tmp_path: Path) -> None:
        (spec,) = toy_specs(catalog)
        (record,) = run_all([spec], catalog, Store(tmp_path), timeout_s=60, memory_limit_bytes=2**40)
        assert isinstance(record.outcome, Success)

    @pytest.mark.parametrize("limit", [0, -1])
    def test_limit_that_is_not_positive_raises(self, limit: int, catalog: Catalog, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="memory limit of a run must be positive"):
            run_all(toy_specs(catalog), catalog, Store(tmp_path / "results"), memory_limit_bytes=limit)
        assert not (tmp_path / "results").exists()


def test_limit_without_proc_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="cannot be measured without /proc; remove --memory-limit"):
        memory_limit.check_memory_limit(1)


# ---- repetition with a smaller batch ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[RunRecord]]:
    """Two runs, the first of which is out of memory with the batch sizes 11 and 5."""
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        catalog = load([TOY_REF, FAULTS_REF])
        specs = toy_specs(catalog, "recipe.batch_size=11", backends=("toy-small-batches", "toy-numpy"))
        store = Store(tmp_path_factory.mktemp("reduced") / "results")
        return store, run_all(specs, catalog, store, timeout_s=60, batch_size_backoff=True)


def test_run_out_of_memory_is_repeated_with_half_the_batch(reduced: tuple[Store, list[RunRecord]]) -> None:
    store, returned = reduced
    assert [record.spec.backend for record in returned] == ["toy-small-batches", "toy-numpy"]
    stored = [run.record for run in store.load().runs]
    made = [
        (record.spec.recipe.batch_size, record.batch_size_reduced_from, isinstance(record.outcome, Success))
        for record in stored
        if record.spec.backend == "toy-small-batches"
    ]
    assert made == [(11, None, False), (5, 11, False), (2, 11, True)]
    assert {record.request_key for record in stored if record.spec.backend == "toy-small-batches"} == {
        stored[0].request_key
    }
    assert [record.batch_size_reduced_from for record in returned] == [11, None]


def test_table_states_that_the_batch_was_reduced(reduced: tuple[Store, list[RunRecord]]) -> None:
    rows = build_table(reduced[1]).rows
    assert [(row.text("batch_size"), row.text("flags")) for row in rows if "reduced" in row.text("flags")] == [
        ("2", rows[0].text("flags"))
    ]
    assert "batch_size: reduced from 11" in rows[0].text("flags")
    assert rows[1].cells["train_ratio"].value == 1  # not relative to the run with another batch size


def test_record_with_a_size_that_halving_cannot_give_is_refused(reduced: tuple[Store, list[RunRecord]]) -> None:
    store, (record, _) = reduced
    assert decode_record((store.path / record.run_id / RECORD).read_bytes(), Path("x")) == record
    for size in (2, 1, 3, 7):
        with pytest.raises(RecordError, match=f"cannot be obtained by halving {size}"):
            decode_record(msgspec.json.encode(msgspec.structs.replace(record, batch_size_reduced_from=size)), Path("x"))


def test_audit_detects_another_requested_size(reduced: tuple[Store, list[RunRecord]], catalog: Catalog) -> None:
    store, (record, _) = reduced
    path = store.path / record.run_id
    for changes, passes in (
        ({}, True),
        ({"batch_size_reduced_from": 10}, False),
        ({"batch_size_reduced_from": None}, False),
        ({"request_key": ""}, False),
    ):
        run = StoredRun(path, msgspec.structs.replace(record, **changes))
        (identity,) = [one for one in on_record(run, [], {}, catalog) if one.check == IDENTITY]
        assert identity.passed is passes, changes


def test_repeated_command_uses_the_reduced_run_only_with_the_option(
    reduced: tuple[Store, list[RunRecord]], catalog: Catalog
) -> None:
    store, (record, _) = reduced
    specs = toy_specs(catalog, "recipe.batch_size=11", backends=("toy-small-batches",))
    (used,) = decide(specs, catalog, store, batch_size_backoff=True)
    assert used.stored is not None
    assert used.stored.record.run_id == record.run_id
    assert describe([used])[0].endswith(f"with batch size 2 ({record.run_id})")
    (redone,) = decide(specs, catalog, store)
    assert (redone.stored, redone.reason) == (None, "failed before: oom")
    (other,) = decide(toy_specs(catalog, "recipe.batch_size=2", backends=("toy-small-batches",)), catalog, store)
    assert (other.stored, other.reason) == (None, "")  # the reduced run was requested with another batch size


def test_run_that_fails_with_one_example_is_not_repeated(catalog: Catalog, tmp_path: Path) -> None:
    (spec,) = toy_specs(catalog, "recipe.batch_size=2", backends=("toy-memory-error",))
    (record,) = run_all([spec], catalog, Store(tmp_path), timeout_s=60, batch_size_backoff=True)
    assert isinstance(record.outcome, Failure)
    assert (record.spec.recipe.batch_size, record.batch_size_reduced_from) == (1, 2)
    assert len(Store(tmp_path).load().runs) == 2


def test_run_is_not_repeated_without_the_option(catalog: Catalog, tmp_path: Path) -> None:
    specs = toy_specs(catalog, "recipe.batch_size=8", backends=("toy-small-batches",))
    (record,) = run_all(specs, catalog, Store(tmp_path), timeout_s=60)
    assert isinstance(record.outcome, Failure)
    assert len(Store(tmp_path).load().runs) == 1


def test_command_has_the_options(invoke: Invoke, tmp_path: Path) -> None:
    command = ("run", "--task", "toy-regress", "--backend", "toy-small-batches", "--threads", "1", *SET_FAST)
    size = ("--set", "recipe.batch_size=8", "--memory-limit", "64GiB", "--batch-size-backoff")
    done = invoke(*command, *size, "--results", str(tmp_path / "r"))
    assert done.exit_code == 0, done.stderr
    assert "ran out of memory with batch size 8; repeating with batch size 4" in done.stderr
    assert "batch_size: reduced from 8" in " ".join(done.stdout.split())
    again = invoke(*command, *size, "--results", str(tmp_path / "r"))
    assert "with batch size 4" in again.stderr
    for more in ((), ("--dry-run",)):
        wrong = invoke(*command, "--memory-limit", "much", "--results", str(tmp_path / "other"), *more)
        assert (wrong.exit_code, "'much' is not a valid amount of memory" in wrong.stderr) == (2, True)
    assert not (tmp_path / "other").exists()
