"""Execution of submissions. Runs are submitted to an executor (``--detach``), and a later command stores
their results.

The files of a submission are written before the runs are submitted, and removed after the results of all runs have been
stored. No results are therefore lost if a command is killed. The caller holds the lock of the results directory's
submissions (`harness.execute.submissions.locked`) while it collects results and submits runs. Simultaneous commands
therefore neither submit the same runs nor collect the same results.
"""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.errors import PluginError, UsageError
from harness.execute.attempt import utc_now
from harness.execute.interrupts import Interrupts
from harness.execute.runner import Guarded, RunCoordinator
from harness.execute.submissions import Access, Submission, grant, options_for, remove, submissions, write
from harness.interfaces import Executor, PlannedRun, SubmissionState
from harness.plugins import environments
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.plugins.events import Events
from harness.records import ParityMark, PluginRef, RunRecord, RunSpec
from harness.records.store import Store


@dataclass(frozen=True)
class Collected:
    """The result of collecting a submission."""

    submission: Submission
    state: SubmissionState | None
    """State of the submission. The value is None if the executor can no longer find the submission."""
    records: list[RunRecord]
    """Records that were stored."""
    left: list[PlannedRun]
    """Runs that are still running or waiting. If the submission could not be collected, all of its runs are listed."""
    problem: str = ""
    """Reason why the submission could not be collected, or an empty string."""


def check_detachable(executor: Executor, *, batch_size_backoff: bool, budget_s: float | None) -> None:
    """Raise `harness.UsageError` if the executor or a setting requires the command to wait for the runs."""
    if type(executor).submit is Executor.submit:
        raise UsageError(f"the executor {executor.name!r} does not support --detach; remove it")
    needs = {"--batch-size-backoff": batch_size_backoff, "the suite's time budget": budget_s is not None}
    for name in [name for name, given in needs.items() if given]:
        raise UsageError(f"{name} requires the command to wait for the runs; remove --detach or {name}")


def without(specs: Sequence[RunSpec], pending: Counter[str]) -> list[RunSpec]:
    """Return the specs that are not pending. `pending` maps the key of each spec to the number of its pending runs."""
    submitted = Counter(pending)
    left = []
    for spec in specs:
        if submitted[spec.key]:
            submitted[spec.key] -= 1
        else:
            left.append(spec)
    return left


def describe_submission(submitted: int, pending: int, executor: str, results: Path) -> str:
    """Return a message about the runs submitted by a command with ``--detach``. `results` is the results directory."""
    earlier = f"; unfinished runs submitted earlier: {pending}" if pending else ""
    return (
        f"{submitted} {'run' if submitted == 1 else 'runs'} submitted to the executor {executor}{earlier}; check the "
        f"progress with `harness status --results {shlex.quote(str(results))}`, and collect the results with the same "
        "command without --detach"
    )


def submit(
    name: str,
    executor: Executor,
    options: Mapping[str, str],
    runs: Sequence[PlannedRun],
    marks: Mapping[str, list[ParityMark]],
    store: Store,
    *,
    rerun: bool,
) -> None:
    """Submit runs to an executor as the submission `name`. Do nothing if there are no runs.

    Raises `harness.UsageError` if the executor does not accept the runs or the user's state directory is not writable.
    Raises `harness.RecordError` if the results directory is not writable.
    """
    if not runs:
        return
    submission = Submission(
        name=name,
        submitted_at=utc_now(),
        executor=executor.name,
        runs=list(runs),
        marks={key: list(value) for key, value in marks.items()},
        rerun=rerun,
    )
    try:
        grant(store, submission, options)
        write(store, submission)  # before the runs are submitted, so that their results cannot be lost
        found = executor.submit(submission.name, submission.runs)
        grant(store, submission, {**options, **found})
    except BaseException:
        with contextlib.suppress(Exception):
            executor.cancel(submission.name)
        with contextlib.suppress(OSError):
            remove(store, submission)
        raise


def collect_all(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    listener: Guarded,
    *,
    wait: bool,
    given: Access | None = None,
    rerun: bool = False,
    quality_only: bool = False,
    save_weights: bool = False,
) -> tuple[list[RunRecord], Counter[str]]:
    """Store the results of all submissions in a results directory.

    Return the stored records, and a mapping from the key of each spec to the number of its runs that are still
    running or waiting.

    If `wait` is true, this function waits for submissions that contain runs of `specs`. If `rerun` is true, the
    returned records include results that an earlier command, such as ``harness status``, has already stored. Only runs
    of `specs` that were submitted with ``--rerun`` are included. These records are included because the same command
    submitted the runs. `given` contains the executor of this command and the executor's options; see `options_for`.
    Raises the same errors as `collect`, and `harness.UsageError` if any of these submissions cannot be collected.
    """
    records: list[RunRecord] = []
    pending: Counter[str] = Counter()
    wanted = {spec.key: spec for spec in specs}
    digests: dict[PluginRef, PluginRef] = {}

    def current(ref: PluginRef) -> PluginRef:
        return digests[ref] if ref in digests else digests.setdefault(ref, with_digest(ref))

    def is_wanted(run: PlannedRun) -> bool:
        spec = wanted.get(run.spec.key)
        return (
            spec is not None
            and run.plugins == tuple(map(current, catalog.refs_for(spec)))
            and run.lock_digest == environments.lock_digest(spec.env)
            and (quality_only or not run.quality_only)
            and (run.save_weights or not save_weights)
        )

    for submission in submissions(store):
        wants = any(map(is_wanted, submission.runs))
        continued = wants and rerun and submission.rerun
        if submission.finished:
            if continued:
                # A command with --detach submits the runs anew.
                records += _stored(submission, store) if wait else []
                remove(store, submission)
            continue
        collected = collect(
            submission,
            catalog,
            store,
            listener.separate(),
            given=given,
            wait=is_wanted if wait else None,
            keep=submission.rerun and not (continued and wait),
        )
        # An earlier command may have stored some of the results and then been killed.
        records += _stored(submission, store) if continued or (wants and wait) else collected.records
        left = [run for run in collected.left if run.spec.key in wanted]
        if collected.problem and left:
            raise UsageError(
                f"the results of the runs that were submitted on {submission.submitted_at[:16]} cannot be collected: "
                f"{collected.problem}; make the executor available, or discard these runs with "
                "`harness status --cancel`"
            )
        if collected.state is None and not collected.problem:
            listener.message(
                f"the executor {submission.executor} no longer has the runs that were submitted on "
                f"{submission.submitted_at[:16]}; runs without a record are executed again"
            )
        pending.update(run.spec.key for run in left if is_wanted(run))
        if changed := sum(not is_wanted(run) for run in left):
            noun = "run was" if changed == 1 else "runs were"
            listener.message(
                f"{changed} detached {noun} submitted with different code or settings, so the results will not be used"
            )
    return records, pending


def collect(
    submission: Submission,
    catalog: Catalog,
    store: Store,
    listener: Guarded,
    *,
    given: Access | None = None,
    wait: Callable[[PlannedRun], bool] | None = None,
    keep: bool = False,
) -> Collected:
    """Store a submission's results.

    If all runs of the submission have finished, remove the submission. If `keep` is true, mark it as finished instead.

    If `wait` returns True for any unfinished run, this function returns only after all runs have finished. After
    Ctrl-C, KeyboardInterrupt is raised, and the runs continue. Raises `harness.RecordError` if the store cannot be
    written. Other errors are returned in `Collected.problem`.
    """
    records: list[RunRecord] = []
    try:
        executor = catalog.executor(submission.executor, options_for(store, submission, given))

        def report(*, wait: bool) -> SubmissionState | None:
            return _report(submission, executor, catalog, store, listener, records, wait=wait)

        state = report(wait=False)
        left = _left(submission, state)
        if wait is not None and any(map(wait, left)):
            count = f"{len(left)} detached {'run' if len(left) == 1 else 'runs'}"
            listener.message(
                f"waiting for {count} on the executor {submission.executor}; Ctrl-C does not stop the runs"
            )
            state = report(wait=True)
        if state is not None and state.finished:
            executor.cancel(submission.name)
    except (UsageError, PluginError) as error:
        return Collected(submission, None, records, submission.runs, problem=str(error))
    if state is None or state.finished:
        if keep:
            write(store, msgspec.structs.replace(submission, finished=True))
        else:
            remove(store, submission)
    return Collected(submission, state, records, _left(submission, state))


def cancel(submission: Submission, catalog: Catalog, store: Store, given: Access | None = None) -> str:
    """Cancel the runs of a submission and remove it.

    Return the reason why the executor could not be reached, or an empty string if it was reached.
    """
    problem = ""
    try:
        catalog.executor(submission.executor, options_for(store, submission, given)).cancel(submission.name)
    except (UsageError, PluginError) as error:
        problem = str(error)
    remove(store, submission)
    return problem


def _stored(submission: Submission, store: Store) -> list[RunRecord]:
    """Return the stored records of a submission's runs."""
    tasks = {run.spec.task for run in submission.runs}
    ids = {submission.run_id(run.index) for run in submission.runs}
    loaded = store.load(lambda run: run.setting.task in tasks).runs
    return [run.record for run in loaded if run.record.submission in ids]


def _report(
    submission: Submission,
    executor: Executor,
    catalog: Catalog,
    store: Store,
    listener: Guarded,
    records: list[RunRecord],
    *,
    wait: bool,
) -> SubmissionState | None:
    """Store the available results of a submission, and add the records to `records`."""
    store.prepare()
    store = Store(store.path.absolute())  # a plugin may change the current directory
    known = {record.submission for record in _stored(submission, store)}
    with (
        Interrupts() as interrupts,
        Events(catalog) as events,
        closing(
            RunCoordinator(
                submission.runs,
                store,
                listener,
                events,
                interrupts,
                submission.marks,
                submission_ids={run.index: submission.run_id(run.index) for run in submission.runs},
                known=known,
                records=records,
            )
        ) as coordinator,
    ):
        try:
            with interrupts.allowed():
                return executor.collect(submission.name, submission.runs, coordinator, wait=wait)
        except (Exception, SystemExit) as error:
            if coordinator.not_stored is not None:  # such as a full disk
                raise coordinator.not_stored from None
            if isinstance(error, UsageError | PluginError):
                raise
            raise PluginError(
                f"the executor {submission.executor!r} failed: {type(error).__name__}: {error}"
            ) from error


def _left(submission: Submission, state: SubmissionState | None) -> list[PlannedRun]:
    wanted = set() if state is None else {*state.running, *state.waiting}
    return [run for run in submission.runs if run.index in wanted]
