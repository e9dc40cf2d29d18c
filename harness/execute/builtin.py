"""The plugin ``core-executors``, which provides the executor for this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from harness.interfaces import Coordinator, Executor, PlannedRun
from harness.plugins.hookspecs import hookimpl

HARNESS_API_VERSION = "1.0"


class LocalExecutor(Executor):
    """Executor that executes runs on this machine, one after another."""

    name = "local"
    summary = "this machine, one run after another"
    data_parallel = True
    prunes = True

    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        """Execute the runs one after another."""
        from harness.execute.attempt import execute_run

        for run in runs:
            attempt = coordinator.start(run)
            record = execute_run(run, attempt.directory, partial(coordinator.event, attempt.id))
            coordinator.finish(attempt.id, record)


@hookimpl
def harness_executors() -> Iterator[Executor]:
    yield LocalExecutor()
