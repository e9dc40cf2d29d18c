"""Execution of planned runs by an executor, and storage of the records of successful and failed runs."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from harness.errors import CombinationError, HarnessError, PluginError, RecordError, UsageError
from harness.execute.attempt import MAX_NAME, failed_record, interrupted, utc_now
from harness.execute.interrupts import Interrupts
from harness.execute.memory_limit import check_memory_limit
from harness.execute.teacher import provide_logits
from harness.execute.teacher_logits import is_distilled
from harness.interfaces import Attempt, Coordinator, Executor, PlannedRun, TrialPruned
from harness.plugins import environments
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.plugins.events import Events
from harness.records import (
    CheckpointPlan,
    EpochEnded,
    Event,
    Failure,
    ParityMark,
    PhaseStarted,
    PluginRef,
    RunRecord,
    RunSpec,
    StepsEnded,
    Success,
    TuningCost,
)
from harness.records.checkpoint import remove
from harness.records.record import EXECUTOR_PHASE
from harness.records.store import Store

DEFAULT_TIMEOUT_S = 3600.0
"""Default time limit for a run, in seconds."""
LOCAL = "local"
"""Name of the default executor, which executes runs on this machine."""

Prune = Callable[[RunSpec, EpochEnded], bool]
"""Function that receives the event at the end of each epoch of a trial. The function returns True to stop the trial."""
T = TypeVar("T")


class Listener:
    """Base class for receivers of progress events.

    This class only collects the records of finished runs and displays nothing.
    """

    def __init__(self) -> None:
        self.records: list[RunRecord] = []
        self.titles: Mapping[str, str] = {}

    def planned(self, titles: Mapping[str, str]) -> None:
        """Handle the plan. `titles` maps the key of each run to its title. This method is called before the first
        run."""
        self.titles = titles

    def title(self, spec: RunSpec) -> str:
        """Return the title of a run. The title distinguishes the run from the other runs of the plan."""
        return self.titles.get(spec.key, spec.title)

    def message(self, text: str) -> None:
        """Handle a message that does not concern a particular run."""

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        """Handle the start of run number `index` (counted from 1) of `total`."""

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        """Handle an event from run number `index`."""

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        """Handle the record of run number `index` (counted from 1) of `total`, after the run has finished."""
        self.records.append(record)

    def close(self) -> None:
        """Handle the end of all runs. This method is also called if an exception stopped the runs."""


class Guarded(Listener):
    """A listener that forwards events to another listener.

    Forwarding stops when the other listener raises an exception.

    An output error, such as a failed write to a closed terminal, must not stop a run.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener: Listener | None = listener
        self.latest: dict[int, RunRecord] = {}
        """Last record of each run, by run number."""

    def separate(self) -> Guarded:
        """Return a listener for another plan. Both listeners forward events to the same listener."""
        return Guarded(self._listener or Listener())

    def planned(self, titles: Mapping[str, str]) -> None:
        super().planned(titles)
        self._pass_on("planned", titles)

    def message(self, text: str) -> None:
        self._pass_on("message", text)

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self._pass_on("run_started", index, total, spec)

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        self._pass_on("event", index, spec, event)

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        self.latest[index] = record
        self._pass_on("run_finished", index, total, record)

    def close(self) -> None:
        self._pass_on("close")

    def _pass_on(self, method: str, *arguments: Any) -> None:
        if self._listener is None:
            return
        try:
            getattr(self._listener, method)(*arguments)
        except Exception:  # the output may be any stream, and rich can raise exceptions of many types
            self._listener = None


def run_all(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    memory_limit_bytes: int | None = None,
    batch_size_backoff: bool = False,
    executor: str | Executor = LOCAL,
    listener: Listener | None = None,
    marks: Mapping[str, list[ParityMark]] | None = None,
    save_weights: bool = False,
    quality_only: bool = False,
    budget_s: float | None = None,
    trial: Literal["quality", "speed"] | None = None,
    prune: Prune | None = None,
    tuning: Mapping[str, TuningCost] | None = None,
    checkpoints: Sequence[CheckpointPlan | None] | None = None,
) -> list[RunRecord]:
    """Execute `specs` with an executor, save every record in `store`, and return the last record of each spec.

    `executor` is an executor or the name of an executor in the catalog. If `quality_only` is true, neither throughput
    nor latency is measured.

    `marks` maps each spec's key to the parity results to be stored in the records of its runs. If `save_weights` is
    true, the trained weights are saved next to the record. If `batch_size_backoff` is true, a run that runs out of
    memory is executed again after all other runs, with half the batch size. The batch size is halved until the run
    succeeds or the batch size is 1. On several devices, the batch size must remain divisible by the number of devices.

    After `budget_s` seconds, no further runs are started, and the returned list is shorter than `specs`. The first run
    is always executed.

    If `trial` is given, the runs are trials (see `PlannedRun.trial`). `prune` is called after each epoch of a trial,
    with the spec of the trial. If `prune` returns True, the trial is stopped. `tuning` maps the keys of specs to the
    tuning cost to be stored in the records of their runs. `checkpoints` contains the checkpoint plan of each spec, or
    None for a run without checkpoints.

    Teacher logits that are not in the cache are computed first; see `harness.execute.teacher.provide_logits`.

    After Ctrl-C, the current runs are stopped and recorded before KeyboardInterrupt is raised. Exceptions raised by the
    listener are ignored, and the listener is not called again.

    Raises `harness.RecordError` if the store cannot be written, and `harness.PluginError` if the executor fails. Raises
    `harness.UsageError` if a limit is not positive or a named environment cannot be used. Raises
    `harness.UnknownNameError` or `harness.CombinationError` before any run starts if the executor or a plugin required
    by one of the specs is not installed.
    """
    chosen = catalog.executor(executor) if isinstance(executor, str) else executor
    check_executor(specs, chosen)
    listener = listener if isinstance(listener, Guarded) else Guarded(listener or Listener())
    runs = planned_runs(
        specs,
        catalog,
        timeout_s=timeout_s,
        memory_limit_bytes=memory_limit_bytes,
        save_weights=save_weights,
        quality_only=quality_only,
        trial=trial,
        checkpoints=checkpoints,
    )
    provide_logits(specs, catalog, say=listener.message)
    store.prepare()
    store = Store(store.path.absolute())  # a plugin may change the current directory
    with (
        Interrupts() as interrupts,
        Events(catalog) as events,
        closing(
            RunCoordinator(runs, store, listener, events, interrupts, marks or {}, budget_s, prune, tuning or {})
        ) as coordinator,
    ):
        while runs:
            try:
                with interrupts.allowed():
                    chosen.execute(runs, coordinator)
                coordinator.check_finished()
            except BudgetUsedUpError:
                coordinator.abandon(interrupted())
                break
            except KeyboardInterrupt:
                coordinator.abandon(interrupted())
                raise
            except (Exception, SystemExit) as error:
                if coordinator.not_stored is not None:  # such as a full disk
                    raise coordinator.not_stored from None
                problem = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
                message = f"the executor {chosen.name!r} failed: {problem}"
                failure = Failure(kind="error", message=message.splitlines()[0][:500], phase=EXECUTOR_PHASE)
                coordinator.abandon(failure)
                raise PluginError(message) from error
            runs = coordinator.reduce_batches(runs) if batch_size_backoff else []
    return [record for _, record in sorted(listener.latest.items())]


def planned_runs(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    *,
    timeout_s: float,
    memory_limit_bytes: int | None,
    save_weights: bool,
    quality_only: bool = False,
    trial: Literal["quality", "speed"] | None = None,
    checkpoints: Sequence[CheckpointPlan | None] | None = None,
    with_digests: bool = False,
) -> list[PlannedRun]:
    """Return the runs that an executor executes for `specs`. `checkpoints` contains the checkpoint plan of each spec.

    If `with_digests` is true, the references to plugins contain the digests of the current code. Raises the same errors
    as `run_all` if a limit is not positive, a plugin is not installed, or a named environment cannot be used.
    """
    check_limit(timeout_s)
    check_memory_limit(memory_limit_bytes)
    step_events = catalog.handles("harness_steps_ended")
    locks = {env: environments.lock_digest(env) for env in {spec.env for spec in specs}}
    runs = [
        PlannedRun(
            index=index,
            total=len(specs),
            spec=spec,
            plugins=catalog.refs_for(spec),
            packages=tuple(catalog.backend(spec.backend).packages),
            timeout_s=timeout_s,
            memory_limit_bytes=memory_limit_bytes,
            save_weights=save_weights,
            lock_digest=locks[spec.env],
            quality_only=quality_only,
            trial=trial,
            step_events=step_events,
            checkpoints=None if checkpoints is None else checkpoints[index - 1],
        )
        for index, spec in enumerate(specs, start=1)
    ]
    for env, refs in _plugins_by_environment(runs).items():
        environments.check(env, refs)
    if not with_digests:
        return runs
    digests = {ref: with_digest(ref) for run in runs for ref in run.plugins}
    return [msgspec.structs.replace(run, plugins=tuple(digests[ref] for ref in run.plugins)) for run in runs]


def _plugins_by_environment(runs: Sequence[PlannedRun]) -> dict[str, set[PluginRef]]:
    found: dict[str, set[PluginRef]] = {}
    for run in runs:
        found.setdefault(run.spec.env, set()).update(run.plugins)
    return found


def check_executor(specs: Iterable[RunSpec], executor: Executor) -> None:
    """Raise `harness.UsageError` if the executor cannot execute one of the runs."""
    if any(spec.devices > 1 for spec in specs) and not executor.data_parallel:
        raise CombinationError(
            f"the executor {executor.name!r} cannot execute runs on several devices; use --devices 1 or "
            f"--executor {LOCAL}"
        )
    if executor.remote and any(map(is_distilled, specs)):
        raise CombinationError(
            f"the executor {executor.name!r} executes runs on other machines, which do not have the teacher's logits; "
            f"remove --teacher, or use --executor {LOCAL}"
        )


def check_limit(timeout_s: float) -> None:
    """Raise `harness.UsageError` if a time limit is not positive and finite."""
    if not 0 < timeout_s < math.inf:
        raise UsageError(f"the time limit must be a positive, finite number of seconds, got {timeout_s}")


class BudgetUsedUpError(Exception):
    """Exception raised when the plan's time budget is exhausted.

    `RunCoordinator.start` raises this exception. An executor that catches the exception must complete its open attempts
    and then raise the exception again.
    """


@dataclass
class _Open:
    """An open attempt."""

    attempt: Attempt
    files: ExitStack
    """Context manager that removes the directory of the attempt unless the directory has been stored."""
    started_at: str
    start: float
    phase: str = ""


class RunCoordinator(Coordinator):
    """Coordinator that `run_all` uses.

    The coordinator stores records and forwards events to the listener and to plugins.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        store: Store,
        listener: Guarded,
        events: Events,
        interrupts: Interrupts,
        marks: Mapping[str, list[ParityMark]],
        budget_s: float | None = None,
        prune: Prune | None = None,
        tuning: Mapping[str, TuningCost] | None = None,
        *,
        submission_ids: Mapping[int, str] | None = None,
        known: Collection[str] = (),
        records: list[RunRecord] | None = None,
    ) -> None:
        """Create a coordinator.

        `submission_ids` contains the values of `RunRecord.submission`, by run number. Results of runs whose ids are in
        `known` have already been stored and are not stored again. The stored records are appended to `records`.
        """
        self._submission_ids, self._known, self._records = submission_ids or {}, known, records
        self._deadline = None if budget_s is None else time.monotonic() + budget_s
        self._store, self._listener, self._events, self._interrupts = store, listener, events, interrupts
        self._marks, self._prune, self._tuning = marks, prune, tuning or {}
        self._thread = threading.get_ident()
        self._requested = {run.index: run.spec for run in runs}
        """Specifications of runs before their batch sizes were reduced, by run number."""
        self._waiting = {run.index: run for run in runs}
        """The unfinished runs."""
        self._open: dict[str, _Open] = {}
        self.not_stored: RecordError | None = None
        """Error that prevented a record from being stored, or None."""

    def start(self, run: PlannedRun) -> Attempt:
        self._check_thread()
        if self._waiting.get(run.index) != run:
            raise PluginError(
                f"run {run.spec.title!r} cannot be started, because it has finished or is not part of the plan"
            )
        if self._deadline is not None and self._listener.latest and time.monotonic() >= self._deadline:
            raise BudgetUsedUpError
        attempt_id = f"{run.index}-{secrets.token_hex(8)}"
        with self._interrupts.deferred():
            for lost in [key for key, one in self._open.items() if one.attempt.run.index == run.index]:
                self._lose(self._open.pop(lost))
                self.message(f"{run.spec.title}: an attempt was lost; the run will be restarted")
            self._listener.run_started(run.index, run.total, run.spec)
        try:
            return self._start(run, attempt_id)
        except BaseException:  # including Ctrl-C while waiting for event hooks
            if attempt_id not in self._open:
                self._events.notify("harness_attempt_lost", spec=run.spec, attempt_id=attempt_id)
            raise

    def _start(self, run: PlannedRun, attempt_id: str) -> Attempt:
        self._events.notify("harness_run_started", spec=run.spec, attempt_id=attempt_id)
        self._events.drain()  # wait for event hooks that are still running, which would affect the measurement
        with self._interrupts.deferred():
            files = ExitStack()
            directory = self._storing(lambda: files.enter_context(self._store.scratch()))
            attempt = Attempt(attempt_id, run, directory)
            self._open[attempt.id] = _Open(attempt, files, utc_now(), time.monotonic())
        return attempt

    def is_open(self, attempt_id: str) -> bool:
        self._check_thread()
        return attempt_id in self._open

    def event(self, attempt_id: str, event: Event) -> None:
        self._check_thread()
        one = self._open.get(attempt_id)
        if one is None:
            return
        with self._interrupts.deferred():
            if isinstance(event, PhaseStarted):
                one.phase = event.phase[:MAX_NAME]
            spec = one.attempt.run.spec
            if isinstance(event, StepsEnded):
                self._events.notify("harness_steps_ended", spec=spec, steps=event, attempt_id=attempt_id)
                return
            self._listener.event(one.attempt.run.index, spec, event)
            if isinstance(event, EpochEnded):
                self._events.notify("harness_epoch_ended", spec=spec, epoch=event, attempt_id=attempt_id)
        if self._prune is not None and isinstance(event, EpochEnded) and self._prune(spec, event):
            raise TrialPruned

    def finish(self, attempt_id: str, result: RunRecord | Failure) -> bool:
        self._check_thread()
        if attempt_id not in self._open:
            return False
        run = self._open[attempt_id].attempt.run
        with self._interrupts.deferred():
            if isinstance(result, RunRecord):
                _check_spec(result, run.spec)
            if self._submission_ids.get(run.index) in self._known:
                one = self._open.pop(attempt_id)
                self._lose(one)
                self._waiting.pop(run.index, None)
                return True
            stored = self._store_result(self._open.pop(attempt_id), result)
        self._events.drain()
        if isinstance(stored.outcome, Failure) and stored.outcome.kind == "interrupted":
            raise KeyboardInterrupt
        return True

    def message(self, text: str) -> None:
        self._check_thread()
        self._listener.message(text)

    def check_finished(self) -> None:
        """Raise `harness.PluginError` if the executor did not finish every run."""
        if self.not_stored is not None:
            raise self.not_stored
        if self._waiting:
            first, count = next(iter(self._waiting.values())).spec.title, len(self._waiting)
            raise PluginError(f"the executor returned without reporting the results of {count} runs, including {first}")

    def abandon(self, failure: Failure) -> None:
        """Record every open attempt as failed, and drop any results that the attempts report later."""
        while self._open:
            self._store_result(self._open.popitem()[1], failure)
        self._waiting.clear()
        self._events.drain()

    def close(self) -> None:
        """Remove the directories of open attempts."""
        while self._open:
            self._lose(self._open.popitem()[1])

    def reduce_batches(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """Halve the batch sizes of the runs that ran out of memory, and return these runs.

        The caller executes the returned runs again.
        """
        reduced = []
        for run in runs:
            outcome, size = self._listener.latest[run.index].outcome, run.spec.recipe.batch_size
            devices = run.spec.devices
            if isinstance(outcome, Failure) and outcome.kind == "oom" and size > 1 and size // 2 % devices == 0:
                recipe = msgspec.structs.replace(run.spec.recipe, batch_size=size // 2)
                spec = msgspec.structs.replace(run.spec, recipe=recipe)
                reduced.append(msgspec.structs.replace(run, spec=spec))
                self.message(
                    f"{spec.title}: ran out of memory with batch size {size}; repeating with batch size {size // 2}"
                )
        self._waiting = {run.index: run for run in reduced}
        return reduced

    def _lose(self, one: _Open) -> None:
        """Remove the directory of an attempt that has no record, and notify the event listeners."""
        one.files.close()
        self._events.notify("harness_attempt_lost", spec=one.attempt.run.spec, attempt_id=one.attempt.id)

    def _store_result(self, one: _Open, result: RunRecord | Failure) -> RunRecord:
        run, directory = one.attempt.run, one.attempt.directory
        with one.files:
            if isinstance(result, Failure):
                failure = msgspec.structs.replace(result, phase=result.phase or one.phase)
                wall_s = time.monotonic() - one.start
                # Submitted runs contain the digests of the code at the time of submission.
                plugins = tuple(ref if ref.code_digest else with_digest(ref) for ref in run.plugins)
                failed = msgspec.structs.replace(run, plugins=plugins)
                result = failed_record(failed, directory, failure, started_at=one.started_at, wall_s=wall_s)
            requested, size = self._requested[run.index], run.spec.recipe.batch_size
            record = msgspec.structs.replace(
                result,
                request_key=requested.key,
                submission=self._submission_ids.get(run.index, ""),
                batch_size_reduced_from=None if requested.recipe.batch_size == size else requested.recipe.batch_size,
                parity=list(self._marks.get(run.spec.key, [])),
                tuning=self._tuning.get(requested.key),
            )
            try:
                stored = self._storing(lambda: self._store.commit(directory, record))
            except RecordError:
                self._lose(one)
                raise
        if run.checkpoints is not None and isinstance(record.outcome, Success):
            try:
                remove(Path(run.checkpoints.directory))
            except OSError as error:
                self.message(f"{run.checkpoints.directory}: cannot be removed: {error.strerror}")
        self._waiting.pop(run.index, None)
        if self._records is not None:
            self._records.append(stored.record)
        self._listener.run_finished(run.index, run.total, stored.record)
        self._events.notify(
            "harness_run_finished", record=stored.record, directory=stored.path, attempt_id=one.attempt.id
        )
        return stored.record

    def _storing(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except RecordError as error:
            self.not_stored = error
            raise

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise PluginError(
                "an executor used its coordinator in another thread; use it only in the thread that called `execute`"
            )


def _check_spec(record: RunRecord, planned: RunSpec) -> None:
    """Raise `harness.PluginError` if a record does not belong to a spec. The record's spec may differ from the planned
    spec only in the device."""
    if msgspec.structs.replace(record.spec, device=planned.device) != planned:
        raise PluginError(
            f"the executor returned the record of {record.spec.title!r} as the result of {planned.title!r}"
        )
