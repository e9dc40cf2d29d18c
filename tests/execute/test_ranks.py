"""Tests of runs on several devices, with a backend in numpy whose processes add up their gradients over sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from processes import gone
from toy_plugin import TOY_REF
from toy_runs import toy_specs

from harness.checks.audit import replay
from harness.checks.audit.check import Subject
from harness.errors import CombinationError, UsageError
from harness.execute.cores import core_shares
from harness.execute.rank_process import seed_of
from harness.execute.ranks import Ranks
from harness.execute.runner import run_all
from harness.execute.variables import thread_environment
from harness.interfaces import Coordinator, DeviceGroup, Executor, PlannedRun
from harness.plan.expand import expand
from harness.plan.rerun import arguments, selection
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog, Provided
from harness.records import Failure, PluginRef, RunRecord, RunSpec, Success
from harness.records.store import ARRAYS, Store, StoredRun

PLACE = " (harness_toy_parallel.py, line "
PARALLEL_REF = PluginRef(name="toy-parallel", value="harness_toy_parallel", distribution="harness-toy", version="1.0")


@pytest.fixture
def one_core() -> Iterator[None]:
    """Restrict this process and its children to one core, which the processes of a run then share."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture
def parallel(toy: Path) -> Catalog:
    """Catalog of the toy plugins with the backend ``toy-parallel``."""
    loaded = load([TOY_REF, PARALLEL_REF])
    assert loaded.failures == ()
    return loaded


def specs_of(catalog: Catalog, *overrides: str, counts: tuple[int, ...] = (2,), **chosen: Any) -> tuple[RunSpec, ...]:
    chosen = {"backends": ("toy-parallel",), "device_counts": counts} | chosen
    return toy_specs(catalog, *overrides, **chosen)


def run(catalog: Catalog, folder: Path, *specs: RunSpec, timeout_s: float = 60) -> list[StoredRun]:
    records = run_all(specs, catalog, Store(folder / "results"), timeout_s=timeout_s)
    return [StoredRun(folder / "results" / record.run_id, record) for record in records]


def success(record: RunRecord) -> Success:
    assert isinstance(record.outcome, Success), record.outcome
    return record.outcome


def failure(record: RunRecord) -> Failure:
    assert isinstance(record.outcome, Failure)
    return record.outcome


def losses(stored: StoredRun) -> Any:
    return np.load(stored.path / ARRAYS)["train_losses"]


def test_run_on_three_devices_has_the_loss_curve_of_one_device(parallel: Catalog, tmp_path: Path) -> None:
    """With 50 examples, the only batch contains all of them, in parts of 17, 17 and 16 examples."""
    overrides = ("dataset.examples=50", "recipe.batch_size=60")
    one, three = run(parallel, tmp_path, *specs_of(parallel, *overrides, counts=(1, 3)))
    np.testing.assert_allclose(losses(three), losses(one), rtol=1e-6)
    assert one.record.provenance.initial_weights_digest == three.record.provenance.initial_weights_digest
    outcome, notes = success(three.record), three.record.provenance.notes
    assert len(outcome.memory.ranks) == 3
    assert outcome.memory.ranks[0].host_peak_bytes == outcome.memory.host_peak_bytes
    assert all(rank.host_peak_bytes > 2**20 for rank in outcome.memory.ranks)
    assert notes["processes"] == "3"
    assert success(one.record).memory.ranks == []


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("refuse", "error", "rank 1 of 2: ValueError: no more steps"),
        pytest.param("exhaust_memory", "oom", "rank 1 of 2: the batch is too large", marks=pytest.mark.slow),
        ("be_killed", "crash", "rank 1 of 2: killed by SIGKILL (the kernel sends this signal when memory runs out)"),
        pytest.param(
            "drift", "bad_result", "the trained weights of rank 1 differ from those of rank 0", marks=pytest.mark.slow
        ),
    ],
)
def test_failure_of_one_process_ends_the_run(
    fault: str, kind: str, message: str, parallel: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_RANK_FAULT", fault)
    (stored,) = run(parallel, tmp_path, *specs_of(parallel))
    failed = failure(stored.record)
    assert (failed.kind, failed.message.partition(PLACE)[0]) == (kind, message)
    assert failed.phase == ("validate" if fault == "drift" else "train")
    assert stored.record.wall_s < 20
    assert stored.record.provenance.dataset_digest
    if fault == "refuse":
        assert "in refuse" in failed.log_tail


def test_failure_of_the_worker_is_not_blamed_on_a_process_that_fails_because_of_it(
    parallel: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_RANK_FAULT", "refuse")
    monkeypatch.setenv("TOY_FAULTY_RANK", "0")
    (stored,) = run(parallel, tmp_path, *specs_of(parallel))
    assert failure(stored.record).message.partition(PLACE)[0] == "ValueError: no more steps"


@pytest.mark.slow
def test_stopped_process_ends_with_the_time_limit(
    parallel: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_RANK_FAULT", "be_stopped")
    monkeypatch.setenv("TOY_PID_FILE", str(tmp_path / "pids"))
    (stored,) = run(parallel, tmp_path, *specs_of(parallel), timeout_s=15)
    assert failure(stored.record).kind == "timeout"
    assert 15 <= stored.record.wall_s < 25
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


@pytest.mark.slow
def test_other_process_ends_with_the_worker(parallel: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_RANK_FAULT", "kill_worker")
    monkeypatch.setenv("TOY_PID_FILE", str(tmp_path / "pids"))
    (stored,) = run(parallel, tmp_path, *specs_of(parallel))
    assert (failure(stored.record).kind, failure(stored.record).phase) == ("crash", "train")
    assert gone(int((tmp_path / "pids").read_text()))


@pytest.mark.slow
def test_worker_that_is_blocked_after_a_failure_is_ended(
    parallel: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_RANK_FAULT", "refuse")
    monkeypatch.setenv("TOY_BLOCK", "1")
    start = time.monotonic()
    (stored,) = run(parallel, tmp_path, *specs_of(parallel))
    assert failure(stored.record).message.partition(PLACE)[0] == "rank 1 of 2: ValueError: no more steps"
    assert failure(stored.record).phase == "train"
    assert stored.record.provenance.initial_weights_digest
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(("shares", "expected"), [([(), ()], [7]), ([(0,), (1,)], [])])
def test_processes_are_counted_as_own_load_only_on_shared_cores(
    shares: list[tuple[int, ...]], expected: list[int]
) -> None:
    group = DeviceGroup(rank=0, addresses=("127.0.0.1:1", "127.0.0.1:2"))
    prepared: Any = SimpleNamespace(request=SimpleNamespace(group=group))
    ranks = Ranks(prepared, shares, lambda _: None)
    ranks._pids = [7]
    assert ranks.pids_on_own_cores == expected


@pytest.mark.usefixtures("one_core")  # the toy backend reports its cores, which must be the same in the replay
def test_audit_of_a_run_on_two_devices_repeats_its_first_steps(
    parallel: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in thread_environment(1).items():  # as in the child process of a replay
        monkeypatch.setenv(name, value)
    (stored,) = run(parallel, tmp_path, *specs_of(parallel, "recipe.epochs=1"))
    with replay.opened(stored.record, parallel.refs_for(stored.record.spec)) as repeated:
        findings = [check.finding(Subject(stored, parallel), repeated) for check in replay.CHECKS[:-1]]
    assert [finding for finding in findings if finding.passed is False] == []
    assert next(finding for finding in findings if "first training steps" in finding.check).passed


# ---- planning -------------------------------------------------------------------------------------------------


def test_plan_with_a_backend_without_support_is_refused(parallel: Catalog) -> None:
    with pytest.raises(CombinationError, match="backend 'toy-numpy' does not support training on several devices"):
        specs_of(parallel, backends=("toy-numpy",))


def test_plan_with_an_indivisible_batch_is_refused(parallel: Catalog) -> None:
    with pytest.raises(CombinationError, match=r"the batch size 16 is not divisible by 3 devices; .* such as 18"):
        specs_of(parallel, counts=(3,))


def test_plan_with_more_processes_than_cores_is_refused_unless_threads_are_given(parallel: Catalog) -> None:
    cores = len(os.sched_getaffinity(0))
    chosen = Selection(
        tasks=("toy-regress",),
        backends=("toy-parallel",),
        overrides=(f"recipe.batch_size={4 * cores}",),
        device_counts=(2 * cores,),
    )
    with pytest.raises(UsageError, match="pass --threads 1 to let processes share cores"):
        expand(chosen, parallel)


def test_plan_without_threads_divides_the_cores(parallel: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.devices.available_cores", lambda: 9)
    specs = specs_of(parallel, threads=None, counts=(1, 2, 4))
    assert [(spec.devices, spec.threads) for spec in specs] == [(1, 2), (2, 2), (4, 2)]


def test_plan_with_more_gpus_than_exist_is_refused(parallel: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.expand.gpus", lambda: [None])
    with pytest.raises(UsageError, match="--device cuda --devices 2 requires 2 GPUs, but this machine has 1"):
        specs_of(parallel, devices=("cuda",))


@pytest.mark.parametrize("count", [0, 257])
def test_plan_with_an_invalid_number_of_devices_is_refused(count: int, parallel: Catalog) -> None:
    with pytest.raises(UsageError, match=f"devices must be between 1 and 256, got {count}"):
        specs_of(parallel, counts=(count,))


def test_executor_without_support_is_refused(parallel: Catalog, tmp_path: Path) -> None:
    class Elsewhere(Executor):
        name = "elsewhere"
        summary = "an executor for runs on one device"

        def execute(self, runs: Any, coordinator: Coordinator) -> None:
            raise AssertionError([run for run in runs if isinstance(run, PlannedRun)])

    parallel.executors["elsewhere"] = Provided(Elsewhere(), TOY_REF)
    with pytest.raises(CombinationError, match="the executor 'elsewhere' cannot execute runs on several devices"):
        run_all(specs_of(parallel), parallel, Store(tmp_path), executor="elsewhere")


def test_key_of_one_device_is_that_of_older_runs_and_differs_from_two(parallel: Catalog) -> None:
    one, two = specs_of(parallel, counts=(1, 2))
    assert one.key != two.key
    assert "devices" not in arguments(selection(one, parallel))
    assert arguments(selection(two, parallel)).count("--devices") == 1


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", ("cpu",)), ("cuda", ("cuda",)), ("cuda:2", ("cuda:2", "cuda:3"))]
)
def test_used_devices_are_consecutive(device: str, expected: tuple[str, ...], parallel: Catalog) -> None:
    (spec,) = specs_of(parallel, devices=(device,)) if device != "cuda:2" else specs_of(parallel, devices=("cpu",))
    assert RunSpec(**{**_fields(spec), "device": device}).used_devices == expected


def _fields(spec: RunSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def test_cores_are_divided_into_disjoint_parts() -> None:
    assert core_shares([0, 1, 2, 5, 7], 2) == [(0, 1), (2, 5, 7)]
    assert core_shares([3], 2) == [(), ()]


def test_seeds_of_processes_differ_and_the_worker_has_that_of_the_run() -> None:
    seeds = {seed_of(seed, rank) for seed in (0, 1) for rank in range(4)}
    assert len(seeds) == 8
    assert (seed_of(7, 0), 0 <= seed_of(7, 1) < 2**32) == (7, True)
