"""Conformance tests of executors and of the coordinator, with a simulated cluster."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import Invoke
from toy_plugin import SET_FAST
from toy_runs import toy_specs

import harness
from harness.errors import PluginError, RecordError, UnknownNameError
from harness.execute.runner import Listener, run_all
from harness.interfaces import Attempt, Coordinator, Executor, PlannedRun
from harness.plugins.catalog import Catalog, Provided
from harness.records import EpochEnded, Event, Failure, PluginRef, RunRecord, RunSpec, Success
from harness.records.store import ARRAYS, LOG, RECORD, Store

REF = PluginRef(name="cluster", value="cluster", distribution="cluster", version="1.0")


class Cluster(Executor):
    """An executor that executes runs in a separate directory, as on another machine, and fails in requested ways.

    `script` is called for each finished task, before its result is reported.
    """

    name = "cluster"
    summary = "a simulated cluster"

    def __init__(self, script: Callable[[Cluster, Coordinator, Attempt], None] | None = None) -> None:
        self.script = script or (lambda *_: None)
        self.attempts: list[Attempt] = []
        self.answers: list[bool] = []

    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        for run in runs:
            attempt = self.begin(run, coordinator)
            self.complete(attempt, coordinator)

    def begin(self, run: PlannedRun, coordinator: Coordinator) -> Attempt:
        attempt = coordinator.start(run)
        self.attempts.append(attempt)
        return attempt

    def complete(self, attempt: Attempt, coordinator: Coordinator) -> None:
        with task(attempt.run) as (record, events, files):
            for event in events:
                coordinator.event(attempt.id, event)
            self.script(self, coordinator, attempt)
            if coordinator.is_open(attempt.id):
                shutil.copytree(files, attempt.directory, dirs_exist_ok=True)
            self.answers.append(coordinator.finish(attempt.id, record))


@contextmanager
def task(run: PlannedRun) -> Iterator[tuple[RunRecord, list[Event], Path]]:
    """Execute a run as a remote task does: only encoded values and files are exchanged."""
    with tempfile.TemporaryDirectory() as directory:
        events: list[Event] = []
        sent = msgspec.json.decode(msgspec.json.encode(run), type=PlannedRun)
        record = harness.execute_run(sent, directory, events.append)
        yield msgspec.json.decode(msgspec.json.encode(record), type=RunRecord), events, Path(directory)


class Log(Listener):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self.lines.append(f"start {index}")

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        if isinstance(event, EpochEnded):
            self.lines.append("epoch")

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        self.lines.append(f"end {index}")


def execute(catalog: Catalog, results: Path, executor: Executor, *, seeds: int = 2, **settings: Any) -> list[RunRecord]:
    catalog.executors[executor.name] = Provided(executor, REF)
    specs = toy_specs(catalog, "recipe.epochs=1", seeds=tuple(range(seeds)))
    return run_all(specs, catalog, Store(results), timeout_s=60, executor=executor.name, **settings)


def stored(results: Path) -> list[RunRecord]:
    """Return the stored records, after checking that nothing else is left in the directory."""
    loaded = Store(results).load()
    assert loaded.problems == []
    assert sorted(path.name for path in results.iterdir()) == sorted(run.path.name for run in loaded.runs)
    return [run.record for run in loaded.runs]


def outcomes(results: Path) -> list[tuple[int, str, str]]:
    found = []
    for record in stored(results):
        outcome = record.outcome
        kind, text = (outcome.kind, outcome.message) if isinstance(outcome, Failure) else ("success", "")
        found.append((record.spec.seed, kind, text))
    return found


def test_remote_runs_are_stored_like_local_ones(catalog: Catalog, tmp_path: Path) -> None:
    log, executor = Log(), Cluster()
    remote = execute(catalog, tmp_path / "remote", executor, listener=log)
    local = run_all([record.spec for record in remote], catalog, Store(tmp_path / "local"), timeout_s=60)
    assert stored(tmp_path / "remote") == remote
    assert log.lines == ["start 1", "epoch", "end 1", "start 2", "epoch", "end 2"]
    assert executor.answers == [True, True]
    for one, other in zip(remote, local, strict=True):
        assert isinstance(one.outcome, Success)
        assert isinstance(other.outcome, Success)
        assert one.outcome.scores == other.outcome.scores
        assert (one.key, one.run_id, one.provenance) == (other.key, other.run_id, other.provenance)
        assert one.request_key
        names = [sorted(path.name for path in (tmp_path / at / one.run_id).iterdir()) for at in ("remote", "local")]
        assert names == [sorted([ARRAYS, LOG, RECORD])] * 2


def test_lost_attempt_is_repeated_and_its_late_result_is_dropped(catalog: Catalog, tmp_path: Path) -> None:
    """The first attempt of the first run answers when the second attempt is running, and again at the end."""

    class Losing(Cluster):
        def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
            lost = self.begin(runs[0], coordinator)
            with task(lost.run) as (record, events, _):
                again = self.begin(runs[0], coordinator)
                assert again.id != lost.id
                assert not lost.directory.exists()
                assert not coordinator.is_open(lost.id)
                coordinator.event(lost.id, next(event for event in events if isinstance(event, EpochEnded)))
                assert not coordinator.finish(lost.id, record)
                self.complete(again, coordinator)
                assert not coordinator.finish(lost.id, Failure(kind="crash", message="the late end of a lost attempt"))
                assert not coordinator.finish(again.id, record)
            self.complete(self.begin(runs[1], coordinator), coordinator)

    log = Log()
    returned = execute(catalog, tmp_path / "results", Losing(), listener=log)
    assert stored(tmp_path / "results") == returned
    assert outcomes(tmp_path / "results") == [(0, "success", ""), (1, "success", "")]
    lost = "an attempt was lost; the run will be restarted"
    assert [line.rpartition(": ")[2] for line in log.lines] == [
        *("start 1", lost, "start 1", "epoch", "end 1"),
        *("start 2", "epoch", "end 2"),
    ]


def test_runs_may_finish_in_another_order(catalog: Catalog, tmp_path: Path) -> None:
    class Reversed(Cluster):
        def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
            for attempt in reversed([self.begin(run, coordinator) for run in runs]):
                self.complete(attempt, coordinator)

    returned = execute(catalog, tmp_path / "results", Reversed(), seeds=3)
    assert [record.spec.seed for record in returned] == [0, 1, 2]
    assert {seed for seed, kind, _ in outcomes(tmp_path / "results") if kind == "success"} == {0, 1, 2}


def test_failure_without_a_record_is_recorded(catalog: Catalog, tmp_path: Path) -> None:
    class NoMachine(Cluster):
        def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
            for run in runs:
                attempt = coordinator.start(run)
                (attempt.directory / ARRAYS).write_text("incomplete")
                assert coordinator.finish(attempt.id, Failure(kind="crash", message="no machine is left"))

    execute(catalog, tmp_path / "results", NoMachine())
    assert outcomes(tmp_path / "results") == [(seed, "crash", "no machine is left") for seed in (0, 1)]
    assert [path.name for path in (tmp_path / "results").glob("*/*")] == [RECORD, RECORD]


def fail(_executor: Cluster, _coordinator: Coordinator, attempt: Attempt) -> None:
    if attempt.run.index == 2:
        raise RuntimeError("the cluster is gone")


def test_open_attempts_of_an_executor_that_raises_are_recorded(catalog: Catalog, tmp_path: Path) -> None:
    message = "the executor 'cluster' failed: RuntimeError: the cluster is gone"
    with pytest.raises(PluginError, match=f"^{message}$"):
        execute(catalog, tmp_path / "results", Cluster(fail), seeds=3)
    assert outcomes(tmp_path / "results") == [(0, "success", ""), (1, "error", message)]
    assert stored(tmp_path / "results")[1].outcome.phase  # type: ignore[union-attr]


def test_executor_that_leaves_runs_out_raises(catalog: Catalog, tmp_path: Path) -> None:
    class Lazy(Cluster):
        def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
            super().execute(runs[:1], coordinator)
            self.begin(runs[1], coordinator)

    with pytest.raises(PluginError, match="failed: the executor returned without reporting the results of 2 runs"):
        execute(catalog, tmp_path / "results", Lazy(), seeds=3)
    assert [(seed, kind) for seed, kind, _ in outcomes(tmp_path / "results")] == [(0, "success"), (1, "error")]


def test_interrupt_records_open_attempts(catalog: Catalog, tmp_path: Path) -> None:
    """Two attempts are open when Ctrl-C is pressed in the executor's own code."""

    class Waiting(Cluster):
        def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
            super().execute(runs[:1], coordinator)
            for run in runs[1:3]:
                self.begin(run, coordinator)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("not interrupted")

    log = Log()
    with pytest.raises(KeyboardInterrupt):
        execute(catalog, tmp_path / "results", Waiting(), seeds=4, listener=log)
    assert sorted(outcomes(tmp_path / "results")) == [
        (0, "success", ""),
        *((seed, "interrupted", "stopped by the user") for seed in (1, 2)),
    ]
    assert log.lines[-2:] == ["end 3", "end 2"]


def test_interrupt_while_a_record_is_stored_keeps_the_record(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Store.commit

    def interrupted_commit(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return commit(*arguments)

    monkeypatch.setattr(Store, "commit", interrupted_commit)
    with pytest.raises(KeyboardInterrupt):
        execute(catalog, tmp_path / "results", Cluster())
    assert outcomes(tmp_path / "results") == [(0, "success", "")]


def test_coordinator_is_closed_after_the_executor(catalog: Catalog, tmp_path: Path) -> None:
    kept: list[Coordinator] = []

    def keep(executor: Cluster, coordinator: Coordinator, attempt: Attempt) -> None:
        kept.append(coordinator)
        fail(executor, coordinator, attempt)

    executor = Cluster(keep)
    with pytest.raises(PluginError):
        execute(catalog, tmp_path / "results", executor)
    before = stored(tmp_path / "results")
    last = executor.attempts[-1]
    assert not kept[0].finish(last.id, Failure(kind="crash", message="late"))
    with pytest.raises(PluginError, match="cannot be started, because it has finished or is not part of the plan"):
        kept[0].start(last.run)
    assert stored(tmp_path / "results") == before


def finish_for_another(_executor: Cluster, coordinator: Coordinator, attempt: Attempt) -> None:
    recipe = msgspec.structs.replace(attempt.run.spec.recipe, learning_rate=0.5)
    run = msgspec.structs.replace(attempt.run, spec=msgspec.structs.replace(attempt.run.spec, recipe=recipe))
    with task(run) as (record, _, _):
        coordinator.finish(attempt.id, record)


def start_a_finished_run(executor: Cluster, coordinator: Coordinator, attempt: Attempt) -> None:
    if attempt.run.index == 2:
        coordinator.start(executor.attempts[0].run)


def start_an_unplanned_run(_executor: Cluster, coordinator: Coordinator, attempt: Attempt) -> None:
    coordinator.start(msgspec.structs.replace(attempt.run, timeout_s=1e9))


def use_another_thread(_executor: Cluster, coordinator: Coordinator, attempt: Attempt) -> None:
    raised: list[PluginError] = []

    def call() -> None:
        try:
            coordinator.finish(attempt.id, Failure(kind="crash", message=""))
        except PluginError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    raise raised[0]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (finish_for_another, "the executor returned the record of"),
        (start_a_finished_run, "cannot be started, because it has finished"),
        (start_an_unplanned_run, "it has finished or is not part of the plan"),
        (use_another_thread, "in another thread"),
    ],
)
def test_broken_rule_ends_the_execution(script: Any, message: str, catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=message):
        execute(catalog, tmp_path / "results", Cluster(script))
    assert [kind for _, kind, _ in outcomes(tmp_path / "results")][-1] == "error"


def test_error_of_the_store_is_raised_even_if_the_executor_hides_it(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hiding(Cluster):
        def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
            try:
                super().execute(runs, coordinator)
            except RecordError:
                return

    def full(*_: object) -> None:
        raise RecordError("the disk is full")

    monkeypatch.setattr(Store, "commit", full)
    with pytest.raises(RecordError, match="the disk is full"):
        execute(catalog, tmp_path / "results", Hiding())
    assert stored(tmp_path / "results") == []


def test_reduced_batches_are_executed_by_the_same_executor(catalog: Catalog, tmp_path: Path) -> None:
    executor = Cluster()
    catalog.executors["cluster"] = Provided(executor, REF)
    specs = toy_specs(catalog, "recipe.batch_size=8", backends=("toy-small-batches",))
    (record,) = run_all(specs, catalog, Store(tmp_path), timeout_s=60, executor="cluster", batch_size_backoff=True)
    assert isinstance(record.outcome, Success)
    assert [attempt.run.spec.recipe.batch_size for attempt in executor.attempts] == [8, 4]


def test_unknown_executor_raises_before_the_first_run(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown executor 'locl'; did you mean 'local'"):
        run_all(toy_specs(catalog), catalog, Store(tmp_path / "results"), executor="locl")
    assert not (tmp_path / "results").exists()


def test_command_selects_the_executor(invoke: Invoke, tmp_path: Path) -> None:
    command = ("run", "--task", "toy-regress", "--backend", "toy-numpy", "--threads", "1", *SET_FAST)
    assert invoke(*command, "--executor", "local").exit_code == 0
    done = invoke(*command, "--executor", "ray", "--results", str(tmp_path / "other"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "unknown executor 'ray'" in done.stderr
    assert not (tmp_path / "other").exists()
    listed = invoke("plugin", "list").stdout
    assert "executor local" in listed
