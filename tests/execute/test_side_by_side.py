"""Tests of runs that are executed at the same time: lanes, turns, placement and interrupts."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import Invoke
from processes import gone
from toy_plugin import SET_FAST
from toy_runs import toy_specs

from harness.errors import PluginError, UsageError
from harness.execute import cores, side_by_side
from harness.execute.runner import Listener, run_all
from harness.execute.side_by_side import Lane, SideBySide, lanes_for, turns_of
from harness.interfaces import PlannedRun
from harness.measure.cgroup import available_cores
from harness.plan.expand import expand_all
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import Energy, EnergyUse, EpochEnded, Event, Failure, Gpu, RunRecord, RunSpec, Success, Trial
from harness.records.store import Store

LANES = (Lane((0,)), Lane(((os.cpu_count() or 1) - 1,)))
"""Two lanes with different cores, if the machine has two."""


def on_machine(patch: pytest.MonkeyPatch, cores: int, gpus: int = 0) -> None:
    """Pretend that the machine has this number of cores and GPUs."""
    patch.setattr(side_by_side, "available_cores", lambda: cores)
    patch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    patch.setattr(side_by_side, "gpus", lambda: [Gpu(name="H200", memory_bytes=1, driver="570")] * gpus)
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("cores", "threads", "jobs", "problem"),
    [
        (8, 2, 4, ""),
        (8, 2, 5, "--jobs 5 with 2 threads per run needs 5 x 2 = 10 cores, but 8 are available; pass --jobs 4, or "),
        (8, 3, 3, "pass --jobs 2, or pass --threads 2"),
        (2, 2, 2, "remove --jobs, or pass --threads 1"),
        (1, 1, 2, "--jobs 2 with 1 thread per run needs 2 x 1 = 2 cores, but 1 is available; remove --jobs"),
        (8, 1, 0, "at least 1, got 0"),
    ],
)
def test_lanes_for_disjoint_cores_or_refuses_with_the_numbers(
    cores: int, threads: int, jobs: int, problem: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, cores)
    specs = toy_specs(catalog, threads=threads)
    if problem:
        with pytest.raises(UsageError) as raised:
            lanes_for(specs, jobs)
        assert problem in str(raised.value)
        return
    used = [core for lane in lanes_for(specs, jobs) for core in lane.cores]
    assert len(used) == len(set(used)) == jobs * threads


def test_lanes_for_keeps_hardware_threads_of_a_core_together(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cores 0 and 4, 1 and 5, and so on, are hardware threads of the same physical core."""
    on_machine(monkeypatch, 8)
    for core in range(8):
        folder = tmp_path / f"cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text("0\n")
        (folder / "core_id").write_text(f"{core % 4}\n")
    monkeypatch.setattr(cores, "TOPOLOGY", tmp_path)
    lanes = lanes_for(toy_specs(catalog, threads=2), 4)
    assert [lane.cores for lane in lanes] == [(0, 4), (1, 5), (2, 6), (3, 7)]


@pytest.mark.parametrize(
    ("device", "visible", "found"),
    [
        ("cpu", None, ["", ""]),
        ("auto", None, ["0", "1"]),
        ("cuda", "GPU-a, GPU-b", ["GPU-a", "GPU-b"]),
        ("auto", "", ["", ""]),
        (
            "cuda",
            "3",
            "--jobs 2 requires 2 GPUs, one per run, but 1 is available; pass at most --jobs 1, or --device cpu",
        ),
        ("cuda:1", None, "--jobs assigns a GPU to each run; pass --device cuda instead of cuda:1"),
    ],
)
def test_lanes_for_have_one_gpu_each(
    device: str, visible: str | None, found: list[str] | str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, 8, gpus=2)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    specs = toy_specs(catalog, devices=(device,))
    if isinstance(found, str):
        with pytest.raises(UsageError, match=found):
            lanes_for(specs, 2)
    else:
        assert [lane.gpu for lane in lanes_for(specs, 2)] == found


def test_expand_all_divides_the_cores_by_the_jobs(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.devices.available_cores", lambda: 8)
    chosen = Selection(tasks=("toy-regress",), backends=("toy-numpy",))
    assert [expand_all([chosen], catalog, jobs=jobs)[0].threads for jobs in (1, 3, 9)] == [8, 2, 1]


def planned(catalog: Catalog, seeds: int = 4, repeat: int = 1) -> tuple[RunSpec, ...]:
    """Return runs of three settings on two datasets."""
    overrides = ("recipe.batch_size=8,16,32", "recipe.epochs=1")
    tasks = ("toy-regress", "toy-classify")
    chosen = Selection(
        tasks=tasks,
        backends=("toy-numpy",),
        seeds=tuple(range(seeds)),
        threads=1,
        repeat=repeat,
        overrides=overrides,
    )
    return expand_all([chosen], catalog)


@pytest.mark.parametrize("repeat", [1, 3])
def test_turns_interleave_what_is_compared_in_every_lane(repeat: int, catalog: Catalog) -> None:
    """Three lanes take the turns as they become free. Each lane reverses the order of every second turn (A B B A)."""
    specs = planned(catalog, repeat=repeat)
    turns = turns_of(specs, quality_only=False)
    assert sorted(itertools.chain(*turns)) == list(range(1, len(specs) + 1))
    runs = {number: msgspec.structs.replace(spec) for number, spec in enumerate(specs, start=1)}
    lanes: list[dict[str, list[list[int]]]] = [defaultdict(list) for _ in range(3)]
    workers = [side_by_side._Worker(lane) for lane in (LANES[0],) * 3]
    for position, turn in enumerate(turns):
        assert len({(runs[n].task, runs[n].seed) for n in turn}) == 1
        assert [runs[n].recipe.batch_size for n in turn] == [8, 16, 32]
        lane = position % 3
        of_turn = [_Planned(runs[n]) for n in turn]
        sizes = [one.spec.recipe.batch_size for one in side_by_side._ordered(workers[lane], of_turn)]  # type: ignore[arg-type]
        lanes[lane][runs[turn[0]].task].append(sizes)
    for found in lanes:
        for orders in found.values():
            assert orders == [[8, 16, 32] if n % 2 == 0 else [32, 16, 8] for n in range(len(orders))]


class _Planned:
    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec


def test_turns_of_quality_only_runs_are_single_runs(catalog: Catalog) -> None:
    specs = planned(catalog)
    assert turns_of(specs, quality_only=True) == [[number] for number in range(1, len(specs) + 1)]


class Watching(Listener):
    """Listener that counts the runs in progress, and calls `action` when two runs have started to train."""

    def __init__(self, action: Any = lambda: None) -> None:
        super().__init__()
        self.open: set[int] = set()
        self.most = 0
        self.training: set[int] = set()
        self.threads: set[int] = set()
        self.action = action

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self.open.add(index)
        self.most = max(self.most, len(self.open))
        self.threads.add(threading.get_ident())

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        assert index in self.open
        self.threads.add(threading.get_ident())
        if getattr(event, "phase", "") == "train" and index not in self.training:
            self.training.add(index)
            if len(self.training) == 2:
                self.action()

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        self.open.discard(index)


def execute(
    specs: Sequence[RunSpec], catalog: Catalog, results: Path, listener: Listener, **settings: Any
) -> list[RunRecord]:
    timed = {"quality_only": True} | settings
    executor = SideBySide(LANES, turns_of(specs, quality_only=timed["quality_only"]), "2026-01-01T00:00:00+00:00")
    return run_all(specs, catalog, Store(results), executor=executor, timeout_s=60, listener=listener, **timed)


def test_runs_are_executed_at_the_same_time_on_their_cores(catalog: Catalog, tmp_path: Path) -> None:
    specs = toy_specs(catalog, "recipe.epochs=1", seeds=(0, 1, 2))
    listener, before = Watching(), os.sched_getaffinity(0)
    records = execute(specs, catalog, tmp_path / "results", listener)
    assert listener.most == 2
    assert listener.threads == {threading.get_ident()}
    assert os.sched_getaffinity(0) == before
    assert [record.spec.seed for record in records] == [0, 1, 2]
    for record in records:
        assert isinstance(record.outcome, Success), record.outcome
        assert record.placement is not None
        assert (record.placement.jobs, record.placement.checked_at, record.quality_only) == (2, "", True)
        assert record.provenance.notes["cores"] == str(list(record.placement.cores))
        assert record.environment.cores == available_cores()
    first, second = (records[n] for n in (0, 1))
    assert {record.placement.cores for record in (first, second) if record.placement} == {lane.cores for lane in LANES}
    begin = datetime.fromisoformat(second.started_at) - datetime.fromisoformat(first.started_at)
    assert abs(begin.total_seconds()) < min(first.wall_s, second.wall_s)
    loaded = Store(tmp_path / "results").load()
    assert (len(loaded.runs), loaded.problems) == (3, [])


def test_trial_that_is_pruned_ends_alone_after_the_same_epoch(catalog: Catalog, tmp_path: Path) -> None:
    long, short = (toy_specs(catalog, f"recipe.epochs={epochs}")[0] for epochs in (2000, 4))
    epochs: dict[str, list[int]] = {long.key: [], short.key: []}

    def prune(spec: RunSpec, epoch: EpochEnded) -> bool:
        epochs[spec.key].append(epoch.epoch)
        return spec == long and epoch.epoch == 2

    pruned, complete = execute([long, short], catalog, tmp_path / "results", Listener(), trial="quality", prune=prune)
    for record, state, count in ((pruned, "pruned", 2), (complete, "complete", 4)):
        assert isinstance(record.outcome, Trial)
        assert (record.outcome.state, len(record.outcome.curves)) == (state, count)
        assert record.placement is not None
        assert epochs[record.request_key] == list(range(1, count + 1))
    assert {run.record.run_id for run in Store(tmp_path / "results").load().runs} == {pruned.run_id, complete.run_id}


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), ValueError("the storage is full")])
def test_exception_while_a_trial_waits_for_its_verdict_ends_all_trials(
    problem: BaseException, catalog: Catalog, tmp_path: Path
) -> None:
    def prune(spec: RunSpec, epoch: EpochEnded) -> bool:
        raise problem

    specs = toy_specs(catalog, "recipe.epochs=2000", seeds=(0, 1))
    with pytest.raises(KeyboardInterrupt if isinstance(problem, KeyboardInterrupt) else PluginError):
        execute(specs, catalog, tmp_path / "results", Listener(), trial="quality", prune=prune)
    stored = [run.record.outcome for run in Store(tmp_path / "results").load().runs]
    assert [type(outcome) for outcome in stored] == [Failure, Failure]


def test_interrupt_ends_all_simultaneous_runs(catalog: Catalog, tmp_path: Path) -> None:
    listener = Watching(lambda: os.kill(os.getpid(), signal.SIGINT))
    specs = toy_specs(catalog, "recipe.epochs=1", seeds=(0, 1, 2), backends=("toy-hang",))
    import psutil

    before = {thread.ident for thread in threading.enumerate()}
    running = set(psutil.Process().children(recursive=True))
    with pytest.raises(KeyboardInterrupt):
        execute(specs, catalog, tmp_path / "results", listener)
    stored = [run.record for run in Store(tmp_path / "results").load().runs]
    assert sorted(record.spec.seed for record in stored) == [0, 1]
    for record in stored:
        assert isinstance(record.outcome, Failure)
        assert (record.outcome.kind, record.outcome.phase) == ("interrupted", "train")
    for thread in threading.enumerate():
        if thread.ident not in before:
            thread.join(10)  # a thread that waits for the guard of a child may need a moment to end
    assert {thread.ident for thread in threading.enumerate()} <= before
    assert all(gone(child.pid) for child in set(psutil.Process().children(recursive=True)) - running)


def test_failed_run_does_not_stop_its_lane(catalog: Catalog, tmp_path: Path) -> None:
    specs = [
        spec
        for backend in ("toy-segfault", "toy-numpy")
        for spec in toy_specs(catalog, "recipe.epochs=1", backends=(backend,), seeds=(0, 1))
    ]
    records = execute(specs, catalog, tmp_path / "results", Watching())
    kinds = [record.outcome.kind if isinstance(record.outcome, Failure) else "success" for record in records]
    assert kinds == ["crash", "crash", "success", "success"]
    assert all(record.quality_only and record.placement for record in records)


@pytest.mark.parametrize("budget_s", [None, 1e-6])
def test_exception_in_one_lane_lets_the_others_finish(
    budget_s: float | None, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that could not be executed is recorded as failed, and no further runs are started."""
    execute_attempt = side_by_side.execute_attempt

    def fail(run: PlannedRun, *arguments: Any, **settings: Any) -> RunRecord:
        if run.spec.seed == 0:
            raise ValueError("broken")
        return execute_attempt(run, *arguments, **settings)

    monkeypatch.setattr(side_by_side, "execute_attempt", fail)
    specs = toy_specs(catalog, "recipe.epochs=1", seeds=(0, 1, 2, 3))
    with pytest.raises(PluginError, match="the executor 'local' failed: ValueError: broken"):
        execute(specs, catalog, tmp_path / "results", Listener(), budget_s=budget_s)
    stored = [run.record for run in Store(tmp_path / "results").load().runs]
    outcomes = {record.spec.seed: record.outcome for record in stored}
    assert outcomes.keys() == {0, 1}
    assert isinstance(outcomes[0], Failure)
    assert "ValueError: broken" in outcomes[0].message
    assert isinstance(outcomes[1], Success)


def test_time_budget_completes_the_runs_in_progress(catalog: Catalog, tmp_path: Path) -> None:
    specs = toy_specs(catalog, "recipe.epochs=1", seeds=tuple(range(4)))
    records = execute(specs, catalog, tmp_path / "results", Listener(), budget_s=1e-6)
    assert [(record.spec.seed, type(record.outcome)) for record in records] == [(0, Success), (1, Success)]


def test_error_of_the_store_ends_all_simultaneous_runs(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.errors import RecordError

    def full(*_: object) -> None:
        raise RecordError("the disk is full")

    monkeypatch.setattr(Store, "commit", full)
    specs = toy_specs(catalog, "recipe.epochs=1", seeds=(0, 1, 2))
    with pytest.raises(RecordError, match="the disk is full"):
        execute(specs, catalog, tmp_path / "results", Listener())
    assert threading.active_count() == 1 or all("Thread" not in t.name for t in threading.enumerate()[1:])


def test_timed_run_next_to_others_has_no_energy_of_the_processor(catalog: Catalog, tmp_path: Path) -> None:
    (spec,) = toy_specs(catalog, "recipe.epochs=1")
    (record,) = run_all([spec], catalog, Store(tmp_path / "results"))
    assert isinstance(record.outcome, Success)
    use = EnergyUse(train_j_per_sample=1.0, train_w=1.0, inference_j_per_sample=1.0, inference_w=1.0)
    measured = msgspec.structs.replace(record.outcome, energy=Energy(cpu=use, gpu=use, gpu_source="NVML"))
    placement = side_by_side.Placement(jobs=2, cores=(0,), checked_at="2026-01-01T00:00:00Z")
    placed = side_by_side._placed(msgspec.structs.replace(record, outcome=measured), placement, 64)
    assert isinstance(placed.outcome, Success)
    assert (placed.outcome.energy.cpu, placed.outcome.energy.gpu) == (None, use)
    assert (placed.environment.cores, placed.placement) == (64, placement)


TOY = ("--task", "toy-classify", "--backend", "toy-numpy", "--threads", "1", *SET_FAST)


def test_quality_only_record_is_done_for_a_quality_only_request_alone(invoke: Invoke) -> None:
    quality = invoke("run", *TOY, "--quality-only")
    assert quality.exit_code == 0, quality.output
    assert "quality only: speed and memory were not measured" in quality.stdout
    assert "samples/s" not in quality.stdout
    assert "skip: " in invoke("run", *TOY, "--quality-only").stderr
    timed = invoke("run", *TOY)
    assert "redo: toy-classify · toy-linear · toy-numpy · seed 0: only the quality was measured" in timed.stderr
    assert "samples/s" in timed.stdout
    again = invoke("run", *TOY, "--quality-only")
    assert again.stderr.count("skip: ") == 1
    assert "quality only" not in again.stdout  # the timed run is used
    both = invoke("report")
    assert "1 of 2 runs: speed and memory were not measured" in " ".join(both.stdout.split())
    assert "mean over" not in both.stdout


def test_too_many_jobs_are_refused_before_anything_runs(invoke: Invoke, tmp_path: Path) -> None:
    jobs = str(available_cores() + 1)
    for more in ((), ("--dry-run",)):
        done = invoke("run", *TOY, "--jobs", jobs, *more)
        assert done.exit_code == 2
        assert f"--jobs {jobs} with 1 thread per run needs {jobs} x 1 = {jobs} cores" in done.stderr
    assert not (tmp_path / "results").exists()
