"""Planning and execution shared by `harness.run` and the command ``harness run``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from harness.errors import UsageError
from harness.records import Failure, Success

if TYPE_CHECKING:
    from harness.api.results import Results
    from harness.plan.stages import Stages
    from harness.plan.suite import Suite
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.store import Store, StoredRun


class RunPlan(NamedTuple):
    """The planned runs of a suite or of a selection."""

    specs: tuple[RunSpec, ...]
    stages: Stages
    again: Callable[[Callable[[RunSpec], StoredRun | None]], tuple[RunSpec, ...]]
    """Function that plans the runs again after the teachers have been trained."""


class Executed(NamedTuple):
    """The executed runs of a plan."""

    results: Results
    specs: tuple[RunSpec, ...]
    """Specs of the runs that should have been executed."""
    teacher_failed: bool = False
    """True if only the teachers were executed, because one of them failed."""

    def is_successful(self) -> bool:
        """Return True if no run failed."""
        return not any(isinstance(record.outcome, Failure) for record in self.results)

    def is_complete(self) -> bool:
        """Return True if all runs were executed and succeeded."""
        return self.is_successful() and len(self.results) >= len(self.specs)


class Execute(Protocol):
    """A function that executes runs."""

    def __call__(self, specs: tuple[RunSpec, ...], *, budget_s: float | None, teachers: bool) -> Results:
        """Execute the specs within the time budget. If `teachers` is true, save the weights."""


def plan_runs(chosen: Suite, catalog: Catalog, store: Store, *, unavailable: bool, jobs: int) -> RunPlan:
    """Return the plan for the selections in a suite.

    If `unavailable` is true, the plan includes runs that cannot be executed on this machine.

    Raises `harness.UsageError` if a selection is invalid.
    """
    from harness.data.checkpoint import locate
    from harness.plan.expand import expand_all
    from harness.plan.stages import staged

    def planned(trained: Callable[[RunSpec], StoredRun | None]) -> tuple[tuple[RunSpec, ...], Stages]:
        stages = staged(chosen.selections, catalog, locate, store.find_trained, trained)
        return expand_all(stages.selections, catalog, unavailable=unavailable, jobs=jobs), stages

    specs, stages = planned(lambda spec: _trained(spec, catalog, store))
    return RunPlan(specs, stages, lambda trained: planned(trained)[0])


def only_available(
    specs: Sequence[RunSpec], reasons: Mapping[str, str], *, skip: bool, say: Callable[[str], None]
) -> tuple[RunSpec, ...]:
    """Return the specs of the available runs. For each unavailable run, pass the reason to `say`.

    Raises `harness.UsageError` with all reasons if any run is unavailable and `skip` is false, or if no run is
    available.
    """
    from harness.execute.availability import describe_reasons

    lines = describe_reasons(reasons)
    left = tuple(spec for spec in specs if spec.key not in reasons)
    if reasons and not (skip and left):
        advice = (
            "install the missing packages or datasets, or pass --skip-unavailable to execute the other runs"
            if left
            else ""
        )
        raise UsageError(
            "\n  ".join(["some runs cannot be executed on this machine:", *lines, *filter(None, [advice])])
        )
    for line in lines:
        say(f"unavailable: {line}")
    return left


def execute_plan(
    plan: RunPlan, store: Store, execute: Execute, *, budget_s: float | None, rerun: bool, detach: bool
) -> Executed:
    """Execute the runs of a plan. Runs that serve as teachers are executed first.

    Raises `harness.UsageError` if `detach` is true and a teacher must be trained first.
    """
    specs, teachers, began = plan.specs, plan.stages.teachers, time.monotonic()
    if plan.stages.untrained or (rerun and teachers):
        if detach:
            raise UsageError("--detach cannot be used, because the suite's teachers must be trained first; remove it")
        first = tuple(teachers.values())
        finished = execute(first, budget_s=budget_s, teachers=True)
        if len(finished) < len(first) or not all(isinstance(record.outcome, Success) for record in finished):
            return Executed(finished, first, teacher_failed=True)
        trained = _stored(first, finished, store)
        specs = tuple(
            spec for spec in plan.again(lambda spec: trained[spec.key]) if not rerun or spec.key not in teachers
        )
        budget_s = None if budget_s is None else max(1.0, budget_s - (time.monotonic() - began))
    return Executed(execute(specs, budget_s=budget_s, teachers=False), specs)


def _stored(specs: Sequence[RunSpec], finished: Results, store: Store) -> dict[str, StoredRun]:
    from harness.records.store import StoredRun

    return {
        spec.key: StoredRun(store.path / record.run_id, record) for spec, record in zip(specs, finished, strict=True)
    }


def _trained(spec: RunSpec, catalog: Catalog, store: Store) -> StoredRun | None:
    """Return the stored run of a teacher, or None if the teacher has not been trained with the current settings and
    code.
    """
    from harness.execute.resume import decide
    from harness.records.store import RECORD, StoredRun, read_record

    (decision,) = decide([spec], catalog, store, save_weights=True, quality_only=True)
    if decision.stored is None:
        return None
    path = decision.stored.path
    return StoredRun(path, read_record(path / RECORD))
