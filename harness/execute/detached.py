"""Submissions: planned runs that continue after the command that submitted them has ended (``--detach``).

Each submission has a file in the results directory that contains everything needed to store its results later. The file
is written before the runs are submitted and removed once the results of all runs are stored, so no results are lost
even if a command is killed. A command that collects results holds a lock (flock) on the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from harness.errors import BusyError, PluginError, RecordError, UsageError
from harness.execute.attempt import utc_now
from harness.execute.interrupts import Interrupts
from harness.execute.runner import Guarded, RunCoordinator, attempt_of
from harness.interfaces import Executor, PlannedRun, SubmissionState
from harness.plugins import environments
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.plugins.events import Events
from harness.records import ParityMark, PluginRef, RunRecord, RunSpec
from harness.records.files import make_directory, replacing
from harness.records.reading import MAX_JSON_BYTES, decode, read_stored
from harness.records.store import Store

FOLDER = ".submitted"


class Submission(Struct, frozen=True, kw_only=True):
    """Runs submitted with ``--detach`` whose results are not yet all stored. Saved in the submission's file."""

    version: Literal[1] = 1
    name: str
    """Name of the submission in the executor, and of the submission's file."""
    submitted_at: str
    """Time of submission in UTC, in the format of `RunRecord.started_at`."""
    executor: str
    options: dict[str, str]
    """Options that the executor needs to find the submission."""
    runs: list[PlannedRun]
    """The runs, with the digests of their plugins."""
    marks: dict[str, list[ParityMark]]
    """Parity results to store in the records, keyed by the specification's key."""


@dataclass(frozen=True)
class Collected:
    """The result of collecting a submission."""

    submission: Submission
    state: SubmissionState | None
    """State of the submission, or None if the executor no longer has it."""
    records: list[RunRecord]
    """Records that were stored."""
    left: list[PlannedRun]
    """Runs that are still running or waiting, or all runs if the submission could not be collected."""
    problem: str = ""
    """Reason why the submission could not be collected, or an empty string."""


def submissions(store: Store) -> list[Submission]:
    """Return the submissions in a results directory, oldest first.

    Raises `harness.RecordError` if a file cannot be read.
    """
    folder = store.path / FOLDER
    try:
        files = [] if folder.is_symlink() else [path for path in folder.iterdir() if path.suffix == ".json"]
    except OSError:
        return []
    found = [_read(path) for path in files if not path.name.startswith(".")]
    return sorted(
        (submission for submission in found if submission is not None),
        key=lambda submission: (submission.submitted_at, submission.name),
    )


def check_detachable(executor: Executor, *, batch_size_backoff: bool, budget_s: float | None) -> None:
    """Raise `harness.UsageError` if the executor or a setting requires the command to wait for the runs."""
    if type(executor).submit is Executor.submit:
        raise UsageError(f"the executor {executor.name!r} does not support --detach; remove it")
    needs = {"--batch-size-backoff": batch_size_backoff, "the suite's time budget": budget_s is not None}
    for name in [name for name, given in needs.items() if given]:
        raise UsageError(f"{name} needs a command that waits for the runs; remove --detach or {name}")


def without(specs: Sequence[RunSpec], pending: Counter[str]) -> list[RunSpec]:
    """Return the specs that are not pending. `pending` contains the number of pending runs, keyed by the spec's key."""
    submitted = Counter(pending)
    left = []
    for spec in specs:
        if submitted[spec.key]:
            submitted[spec.key] -= 1
        else:
            left.append(spec)
    return left


def describe_submission(submitted: int, pending: int, executor: str) -> str:
    """Return a message about the runs submitted by a command with ``--detach``."""
    earlier = f"; {pending} submitted earlier and not finished" if pending else ""
    return (
        f"{submitted} {'run' if submitted == 1 else 'runs'} submitted to the executor {executor}{earlier}; see the "
        "progress with `harness status`, and collect the results with the same command without --detach"
    )


def new_name() -> str:
    """Return a unique name for a submission."""
    return f"submission-{secrets.token_hex(8)}"


def submit(
    name: str,
    executor: Executor,
    options: Mapping[str, str],
    runs: Sequence[PlannedRun],
    marks: Mapping[str, list[ParityMark]],
    store: Store,
) -> None:
    """Submit runs to an executor as the submission `name`. Do nothing if there are no runs.

    Raises `harness.UsageError` if the executor does not accept the runs, and `harness.RecordError` if the results
    directory is not writable.
    """
    if not runs:
        return
    submission = Submission(
        name=name,
        submitted_at=utc_now(),
        executor=executor.name,
        options=dict(options),
        runs=list(runs),
        marks={key: list(value) for key, value in marks.items()},
    )
    _write(store, submission)  # before the runs are submitted, so that their results cannot be lost
    try:
        found = executor.submit(submission.name, submission.runs)
    except BaseException:
        with contextlib.suppress(Exception):
            executor.cancel(submission.name)
        _path(store, submission).unlink(missing_ok=True)
        raise
    submission = msgspec.structs.replace(submission, options={**submission.options, **found})
    _write(store, submission)


def collect_all(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    listener: Guarded,
    *,
    wait: bool,
    quality_only: bool = False,
    save_weights: bool = False,
) -> tuple[list[RunRecord], Counter[str]]:
    """Store the results of all submissions in a results directory. Return the stored records and the number of runs of
    `specs` that are still running or waiting, keyed by the spec's key.

    With `wait`, this function waits for submissions that contain runs of `specs`. Raises `harness.UsageError` if any of
    these submissions cannot be collected, and the same errors as `collect`.
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
        collected = collect(submission, catalog, store, listener.separate(), wait=is_wanted if wait else None)
        records += collected.records
        left = [run for run in collected.left if run.spec.key in wanted]
        if collected.problem and left:
            raise UsageError(
                f"the results of the runs that were submitted on {submission.submitted_at[:16]} cannot be collected: "
                f"{collected.problem}; make it available, or discard these runs with `harness status --cancel`"
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
    wait: Callable[[PlannedRun], bool] | None = None,
) -> Collected:
    """Store a submission's results, and remove the submission if all its runs are finished.

    If `wait` returns True for any unfinished run, this function returns only when all runs are finished. After Ctrl-C,
    KeyboardInterrupt is raised, and the runs continue. Raises `harness.BusyError` if another process is collecting the
    submission, and `harness.RecordError` if the store cannot be written. Other errors are returned in
    `Collected.problem`.
    """
    with _locked(store, submission):
        records: list[RunRecord] = []

        def report(*, wait: bool) -> SubmissionState | None:
            return _report(submission, catalog, store, listener, records, wait=wait)

        try:
            state = report(wait=False)
            left = _left(submission, state)
            if wait is not None and any(map(wait, left)):
                count = f"{len(left)} detached {'run' if len(left) == 1 else 'runs'}"
                listener.message(f"waiting for {count} on the executor {submission.executor}; Ctrl-C does not end them")
                state = report(wait=True)
            if state is not None and state.finished:
                catalog.executor(submission.executor, submission.options).cancel(submission.name)
        except (UsageError, PluginError) as error:
            return Collected(submission, None, records, submission.runs, problem=str(error))
        if state is None or state.finished:
            _path(store, submission).unlink(missing_ok=True)
        return Collected(submission, state, records, _left(submission, state))


def cancel(submission: Submission, catalog: Catalog, store: Store) -> str:
    """Cancel the runs of a submission and remove it. Return the reason if the executor could not be reached, otherwise
    an empty string.

    Raises `harness.BusyError` if another process is collecting the submission.
    """
    with _locked(store, submission):
        problem = ""
        try:
            catalog.executor(submission.executor, submission.options).cancel(submission.name)
        except (UsageError, PluginError) as error:
            problem = str(error)
        _path(store, submission).unlink(missing_ok=True)
        return problem


def _report(
    submission: Submission, catalog: Catalog, store: Store, listener: Guarded, records: list[RunRecord], *, wait: bool
) -> SubmissionState | None:
    """Store a submission's available results, and add the records to `records`."""
    executor = catalog.executor(submission.executor, submission.options)
    store.prepare()
    store = Store(store.path.absolute())  # a plugin may change the current directory
    keys = {run.spec.key for run in submission.runs}
    tasks = {run.spec.task for run in submission.runs}
    known = {
        attempt_of(run.record)
        for run in store.load(lambda run: run.setting.task in tasks).runs
        if run.record.request_key in keys
    }
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


def _path(store: Store, submission: Submission) -> Path:
    return store.path / FOLDER / f"{submission.name}.json"


def _write(store: Store, submission: Submission) -> None:
    path = _path(store, submission)
    try:
        make_directory(path.parent)
        with replacing(path) as file:
            file.write(msgspec.json.encode(submission))
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}") from None


def _read(path: Path) -> Submission | None:
    try:
        submission = decode(read_stored(path, MAX_JSON_BYTES), Submission, path)
    except RecordError:
        if not path.exists():  # another process has collected the submission
            return None
        raise
    if not re.fullmatch(r"submission-[0-9a-f]{16}", submission.name) or submission.name != path.stem:
        raise RecordError(
            f"{path}: the file contains the name {submission.name!r}, which differs from its file name; remove the file"
        )
    return submission


@contextmanager
def _locked(store: Store, submission: Submission) -> Iterator[None]:
    """Hold a submission's lock. Raises `harness.BusyError` if another process holds it."""
    try:
        lock = os.open(_path(store, submission), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise BusyError("another harness command has collected the detached runs; repeat the command") from None
    except OSError as error:
        raise RecordError(f"{_path(store, submission)}: cannot be read: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                "another harness command is collecting the detached runs of this results directory; wait until it ends"
            ) from None
        except OSError:  # raised if the file system does not support locks
            pass
        yield
    finally:
        os.close(lock)
