"""An executor whose runs finish on demand, and commands that submit runs to this executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sample_records import success
from toy_runs import toy_specs

from harness.api import carry_out
from harness.errors import UsageError
from harness.execute.attempt import utc_now
from harness.execute.environment import collect as environment
from harness.execute.runner import Listener
from harness.interfaces import Coordinator, Executor, PlannedRun, SubmissionState
from harness.plugins.catalog import Catalog, Provided
from harness.records import Failure, PluginRef, Provenance, RunRecord
from harness.records.store import ARRAYS, Store

REF = PluginRef(name="queue", value="queue", distribution="queue", version="1.0")


class Queue(Executor):
    """An executor whose runs finish when a test calls `finish`. The submissions outlive the executor object."""

    name = "queue"
    summary = "runs that finish on demand"
    options: ClassVar[Mapping[str, str]] = {"color": "color of the queue"}
    remote = True
    submitted: ClassVar[dict[str, dict[int, PlannedRun]]] = {}
    results: ClassVar[dict[str, dict[int, RunRecord | Failure]]] = {}
    executed: ClassVar[list[int]] = []
    """Seeds of the submitted runs."""
    killed_after: ClassVar[int | None] = None
    """Number of results after which `collect` raises, before the results are acknowledged."""
    unreachable: ClassVar[bool] = False

    def configured(self, options: Mapping[str, str]) -> Queue:
        assert set(options) <= {"color", "found"}
        return self

    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        self.submit("direct", runs)
        finish()
        self.collect("direct", runs, coordinator, wait=False)

    def submit(self, submission: str, runs: Sequence[PlannedRun]) -> Mapping[str, str]:
        self.submitted[submission], self.results[submission] = {run.index: run for run in runs}, {}
        self.executed.extend(run.spec.seed for run in runs)
        return {"color": "red"}

    def collect(
        self, submission: str, runs: Sequence[PlannedRun], coordinator: Coordinator, *, wait: bool
    ) -> SubmissionState | None:
        if self.unreachable:
            raise UsageError("the queue cannot be reached")
        if submission not in self.submitted:
            return None
        if wait:
            finish()
        by_index = {run.index: run for run in runs}
        for count, (index, record) in enumerate(list(self.results[submission].items())):
            attempt = coordinator.start(by_index[index])
            (attempt.directory / ARRAYS).touch()
            coordinator.finish(attempt.id, record)
            if self.killed_after == count + 1:
                raise UsageError("killed")
            del self.results[submission][index]
        return SubmissionState(running=tuple(self.submitted[submission]), waiting=())

    def cancel(self, submission: str) -> None:
        self.submitted.pop(submission, None)
        self.results.pop(submission, None)


def finish(count: int | None = None, failure: Failure | None = None) -> None:
    """Finish the first `count` runs of each submission, by default all runs."""
    for submission, runs in Queue.submitted.items():
        for run in list(runs.values())[:count]:
            del runs[run.index]
            Queue.results[submission][run.index] = RunRecord(
                run_id="",
                key="",
                repeat=0,
                started_at=utc_now(),
                wall_s=0.5 + len(Queue.executed) + run.index / 7,
                spec=run.spec,
                environment=environment(run.packages),
                provenance=Provenance(plugins=list(run.plugins)),
                outcome=failure or success(primary="rmse", test={"rmse": 0.5}),
            )


class Bench:
    """A results directory, and commands for four runs."""

    def __init__(self, catalog: Catalog, results: Path) -> None:
        catalog.executors["queue"] = Provided(Queue(), REF)
        self.catalog, self.store = catalog, Store(results)
        self.specs = toy_specs(catalog, seeds=(0, 1, 2, 3))
        self.messages: list[str] = []

    def run(self, **settings: Any) -> list[RunRecord]:
        listener = Listener()
        listener.message = self.messages.append  # type: ignore[method-assign]
        return list(
            carry_out(
                self.specs,
                self.catalog,
                self.store,
                **{"executor": "queue", "listener": listener, "rerun": False} | settings,
            )
        )

    @property
    def stored(self) -> list[int]:
        """Seeds of the stored runs."""
        return sorted(run.record.spec.seed for run in self.store.load().runs)


def new_bench(catalog: Catalog, results: Path, patch: pytest.MonkeyPatch) -> Bench:
    """Return a results directory, with an executor without submissions until `patch` is undone."""
    for name, value in {
        "submitted": {},
        "results": {},
        "executed": [],
        "killed_after": None,
        "unreachable": False,
    }.items():
        patch.setattr(Queue, name, value)
    patch.setattr("harness.measure.environment._load_1min", lambda: 0.0)
    return Bench(catalog, results)
