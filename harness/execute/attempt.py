"""Execute a planned run once, in a child process. A record is created even if the child fails."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from harness.errors import RecordError, UsageError
from harness.execute.child import call_in_child
from harness.execute.device_lock import measuring_on
from harness.execute.environment import collect_failed
from harness.execute.failures import tail
from harness.execute.variables import child_environment
from harness.execute.worker import RunJob, carry_out
from harness.interfaces import PlannedRun, TrialPruned
from harness.measure.roofline import lookup
from harness.plugins import environments
from harness.plugins.code import with_digest
from harness.plugins.environments import LOCK as ENVIRONMENT_LOCK
from harness.records import (
    EpochEnded,
    Event,
    Failure,
    MetricCalled,
    PhaseStarted,
    Provenance,
    RunRecord,
    Trial,
)
from harness.records.files import write_new
from harness.records.scratch import spares
from harness.records.store import ARRAYS, LOG, PREPROCESSING, WEIGHTS

MAX_NAME = 100
"""Maximum length of a phase or metric name in a failure message."""


def execute_run(
    run: PlannedRun,
    directory: str | os.PathLike[str],
    on_event: Callable[[Event], None] = lambda _: None,
    *,
    lock: Collection[str] = (),
) -> RunRecord:
    """Execute a planned run in a child process on this machine, and return its record.

    Executors call this function on the machine that executes the run; see `harness.Executor`. A record is also returned
    if the run fails or its child process is killed. The child process exits when this process exits.

    Parameters
    ----------
    run : PlannedRun
        The run. The plugins of the run must be installed in this environment. If the run uses a named environment, that
        environment must exist on this machine.
    directory : str or path-like
        Existing directory for the run's files: arrays, log, weights, and the lock of a named environment.
    on_event : callable, optional
        Function that receives each event of the run, such as the end of an epoch. If this function raises
        `harness.TrialPruned`, the child process is terminated, and a record with the trial's learning curves is
        returned.
    lock : collection of str, optional
        Devices that no other `harness` process on this machine may use for measurements during the run: GPU indices as
        ``cuda:N``, or ``cpu``. If necessary, this function first waits for other processes to finish measuring. Only
        executors on other machines pass this argument, because the devices of this machine are locked before the
        executor is called.

    Returns
    -------
    RunRecord
        The record. The run id and the repeat number are assigned when the record is stored.
    """
    with measuring_on(lock, wait=True) if lock else contextlib.nullcontext():
        return execute_attempt(run, directory, on_event)


def execute_attempt(
    run: PlannedRun,
    directory: str | os.PathLike[str],
    on_event: Callable[[Event], None],
    *,
    environment: Mapping[str, str] | None = None,
    lifeline: io.FileIO | None = None,
) -> RunRecord:
    """Execute a run like `execute_run`, with additional environment variables for the child process. The child process
    exits when the other end of the pipe `lifeline` is closed; see `harness.execute.child.call_in_child`."""
    folder = Path(directory).absolute()  # a plugin may change the current directory
    phase = metric = ""
    curves: list[EpochEnded] = []
    pruned = False

    def receive(event: Event | MetricCalled) -> None:
        nonlocal phase, metric, pruned
        if pruned:
            return  # The child sent this event before it was terminated.
        if isinstance(event, MetricCalled):
            metric = event.metric[:MAX_NAME]
            return
        if isinstance(event, PhaseStarted):
            phase, metric = event.phase[:MAX_NAME], ""
        if isinstance(event, EpochEnded) and run.trial is not None:
            curves.append(event)
        try:
            on_event(event)
        except TrialPruned:
            pruned = True
            raise

    run = msgspec.structs.replace(run, plugins=tuple(map(with_digest, run.plugins)))
    start, started_at = time.monotonic(), utc_now()
    returned: RunRecord | Failure | Trial
    interpreter = None
    try:
        if run.spec.env:
            environments.check(run.spec.env, run.plugins)
            named = environments.load(run.spec.env)
            if named.lock_digest != run.lock_digest:
                raise UsageError(
                    f"the packages of environment {run.spec.env!r} differ from those on the machine that runs the "
                    "command, or have changed since the command started; create the environment from the same "
                    "lock file"
                )
            interpreter = named.interpreter
            write_new(folder / ENVIRONMENT_LOCK, named.lock.encode())
        returned = call_in_child(
            carry_out,
            RunJob(
                spec=run.spec,
                plugins=run.plugins,
                save_weights=run.save_weights,
                quality_only=run.quality_only,
                trial=run.trial,
                step_events=run.step_events,
                checkpoints=run.checkpoints,
                lock_digest=run.lock_digest,
            ),
            timeout_s=run.timeout_s,
            environment={**child_environment(run.spec), **(environment or {})},
            directory=folder,
            event_type=Event | MetricCalled,
            on_event=receive,
            limit_option="--timeout",
            memory_limit_bytes=run.memory_limit_bytes,
            lifeline=lifeline,
            interpreter=interpreter,
        )
    except KeyboardInterrupt:
        returned = interrupted()
    except TrialPruned:
        returned = Trial(state="pruned", metric=_primary(curves), curves=curves)
    except (OSError, RecordError, UsageError) as error:  # for example too many open files, or a full disk
        returned = Failure(kind="error", message=f"the run could not be started: {error}")
    wall_s = time.monotonic() - start
    if isinstance(returned, Failure):
        called = f" (while calling the metric {metric!r})" if metric else ""
        failure = msgspec.structs.replace(returned, message=returned.message + called, phase=phase)
        returned = failed_record(run, folder, failure, started_at=started_at, wall_s=wall_s)
    elif isinstance(returned, Trial):
        returned = parents_record(run, folder, returned, started_at=started_at, wall_s=wall_s)
    outcome = returned.outcome
    if isinstance(outcome, Failure):
        outcome = msgspec.structs.replace(outcome, log_tail=outcome.log_tail or tail(folder / LOG))
    return msgspec.structs.replace(
        returned,
        wall_s=wall_s,
        environment=msgspec.structs.replace(returned.environment, lock_digest=_lock_digest(folder)),
        outcome=outcome,
        roofline=lookup(returned, tuple(run.packages)),
    )


def failed_record(run: PlannedRun, directory: Path, failure: Failure, *, started_at: str, wall_s: float) -> RunRecord:
    """Create a record for a run whose child process did not return a record. The record includes the last lines of the
    log.
    """
    failure = msgspec.structs.replace(failure, log_tail=failure.log_tail or tail(directory / LOG))
    return parents_record(run, directory, failure, started_at=started_at, wall_s=wall_s)


def parents_record(
    run: PlannedRun, directory: Path, outcome: Failure | Trial, *, started_at: str, wall_s: float
) -> RunRecord:
    """Create a record for a run whose child process failed or was terminated. Remove the run's arrays and weights,
    which may be incomplete."""
    for name in (ARRAYS, WEIGHTS, PREPROCESSING):
        for folder in (directory, *spares(directory)):
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    environment = collect_failed(run.packages, run.spec.env)
    return RunRecord(
        run_id="",
        key="",
        repeat=0,
        started_at=started_at,
        wall_s=wall_s,
        quality_only=run.quality_only,
        spec=run.spec,
        environment=msgspec.structs.replace(environment, lock_digest=_lock_digest(directory)),
        provenance=Provenance(plugins=list(run.plugins)),
        outcome=outcome,
    )


def _primary(curves: Sequence[EpochEnded]) -> str:
    """Return the name of the primary metric. The curves contain the loss and the primary metric. The primary metric may
    be the loss.
    """
    return next((name for epoch in curves for name in epoch.validation if name != "loss"), "loss")


def _lock_digest(directory: Path) -> str:
    """Return the SHA-256 digest (hex) of the lock in a run's directory, or an empty string if there is none."""
    try:
        return hashlib.sha256((directory / ENVIRONMENT_LOCK).read_bytes()).hexdigest()
    except OSError:
        return ""


def interrupted() -> Failure:
    """Return the failure for a run that the user stopped."""
    return Failure(kind="interrupted", message="stopped by the user")


def utc_now() -> str:
    """Return the current UTC time in ISO 8601 format."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
