"""Sequential execution of runs, each in a separate child process. A failed run is recorded, and the next run starts."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from harness.errors import RecordError, UsageError
from harness.execute.child import call_in_child
from harness.execute.environment import collect_failed
from harness.execute.failures import tail
from harness.execute.interrupts import Interrupts
from harness.execute.worker import RunJob, carry_out
from harness.measure.roofline import lookup
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.plugins.events import Events
from harness.records import (
    EpochEnded,
    Event,
    Failure,
    MetricCalled,
    ParityMark,
    PhaseStarted,
    Provenance,
    RunRecord,
    RunSpec,
)
from harness.records.scratch import spares
from harness.records.store import ARRAYS, LOG, WEIGHTS, Store

DEFAULT_TIMEOUT_S = 3600.0
"""Default time limit of a run, in seconds."""


MAX_NAME = 100
"""Maximum length of the name of a phase or metric in a failure."""


class Listener:
    """A receiver of progress events. This base class collects the finished records and shows nothing."""

    def __init__(self) -> None:
        self.records: list[RunRecord] = []

    def message(self, text: str) -> None:
        """Receive a line about work that is not part of a run."""

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        """Receive the start of run number `index` (from 1) of `total`."""

    def event(self, spec: RunSpec, event: Event) -> None:
        """Receive an event of the current run."""

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        """Receive the record of run number `index` (from 1) of `total`."""
        self.records.append(record)

    def close(self) -> None:
        """Receive the end of all runs, even if an exception stopped them."""


class Guarded(Listener):
    """A listener that forwards events to another listener until that listener raises an exception.

    Output errors, for example because a terminal was closed, must not end a run.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener: Listener | None = listener

    def message(self, text: str) -> None:
        self._pass_on("message", text)

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self._pass_on("run_started", index, total, spec)

    def event(self, spec: RunSpec, event: Event) -> None:
        self._pass_on("event", spec, event)

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        self._pass_on("run_finished", index, total, record)

    def close(self) -> None:
        self._pass_on("close")

    def _pass_on(self, method: str, *arguments: Any) -> None:
        if self._listener is None:
            return
        try:
            getattr(self._listener, method)(*arguments)
        except Exception:  # the output may be any stream, and rich raises many types of exceptions
            self._listener = None


def run_all(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    listener: Listener | None = None,
    marks: Mapping[str, list[ParityMark]] | None = None,
    save_weights: bool = False,
    budget_s: float | None = None,
) -> list[RunRecord]:
    """Execute `specs` in order and save every record in `store`.

    After `budget_s` seconds, no further run is started. The first run is always executed.

    `marks` maps the keys of specs to the parity marks that their records contain. With `save_weights`, the trained
    weights are saved next to the record.

    If interrupted, this function ends and records the current run before raising KeyboardInterrupt. Exceptions of the
    listener are ignored, and it is not called again. Raises `harness.RecordError` if the store cannot be written,
    `harness.UsageError` if the time limit is not positive, and before anything runs `harness.UnknownNameError` or
    `harness.CombinationError` if the plugins for one of the specs are not installed.
    """
    check_limit(timeout_s)
    for spec in specs:
        catalog.refs_for(spec)
    listener = listener if isinstance(listener, Guarded) else Guarded(listener or Listener())
    store.prepare()
    store = Store(store.path.absolute())  # a plugin may change the current directory
    records: list[RunRecord] = []
    start = time.monotonic()
    with Interrupts() as interrupts, Events(catalog) as events:
        for index, spec in enumerate(specs, start=1):
            if records and budget_s is not None and time.monotonic() - start >= budget_s:
                break
            listener.run_started(index, len(specs), spec)
            events.notify("harness_run_started", spec=spec)
            with interrupts.allowed():
                events.drain()  # a hook that is still running would disturb the measurement
            record = run_one(
                spec,
                catalog,
                store,
                timeout_s=timeout_s,
                listener=listener,
                events=events,
                interrupts=interrupts,
                marks=(marks or {}).get(spec.key, []),
                save_weights=save_weights,
            )
            records.append(record)
            listener.run_finished(index, len(specs), record)
            events.notify("harness_run_finished", record=record)
            with interrupts.allowed():
                events.drain()
            if isinstance(record.outcome, Failure) and record.outcome.kind == "interrupted":
                raise KeyboardInterrupt
    return records


def check_limit(timeout_s: float) -> None:
    """Raise `harness.UsageError` if the time limit of a run is not positive."""
    if not timeout_s > 0:
        raise UsageError(f"the time limit of a run must be positive, got {timeout_s}")


def run_one(
    spec: RunSpec,
    catalog: Catalog,
    store: Store,
    *,
    timeout_s: float,
    listener: Listener,
    events: Events,
    interrupts: Interrupts,
    marks: Sequence[ParityMark] = (),
    save_weights: bool = False,
) -> RunRecord:
    """Execute one run in a child process and return its record. The record is stored even if the child fails."""

    phase = metric = ""

    def on_event(event: Event | MetricCalled) -> None:
        nonlocal phase, metric
        if isinstance(event, MetricCalled):
            metric = event.metric[:MAX_NAME]
            return
        if isinstance(event, PhaseStarted):
            phase, metric = event.phase[:MAX_NAME], ""
        listener.event(spec, event)
        if isinstance(event, EpochEnded):
            events.notify("harness_epoch_ended", spec=spec, epoch=event)

    with store.scratch() as scratch:
        plugins = tuple(map(with_digest, catalog.refs_for(spec)))
        start = time.monotonic()
        started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        returned: RunRecord | Failure
        try:
            with interrupts.allowed():
                returned = call_in_child(
                    carry_out,
                    RunJob(spec=spec, plugins=plugins, save_weights=save_weights),
                    timeout_s=timeout_s,
                    environment=child_environment(spec),
                    directory=scratch,
                    event_type=Event | MetricCalled,
                    on_event=on_event,
                    limit_option="--timeout",
                )
        except KeyboardInterrupt:
            returned = Failure(kind="interrupted", message="stopped by the user")
        except (OSError, RecordError) as error:  # for example too many open files, or a full disk
            returned = Failure(kind="error", message=f"the run could not be started: {error}")
        wall_s = time.monotonic() - start
        if isinstance(returned, Failure):
            called = f" (during the call of the metric {metric!r})" if metric else ""
            returned = msgspec.structs.replace(returned, message=returned.message + called, phase=phase)
            for name in (ARRAYS, WEIGHTS):
                for directory in (scratch, *spares(scratch)):
                    with contextlib.suppress(OSError):
                        (directory / name).unlink()  # may be incomplete
            returned = RunRecord(
                run_id="",
                key="",
                repeat=0,
                started_at=started_at,
                wall_s=wall_s,
                spec=spec,
                environment=collect_failed(catalog.backend(spec.backend).packages),
                provenance=Provenance(plugins=list(plugins)),
                outcome=returned,
            )
        outcome = returned.outcome
        if isinstance(outcome, Failure):
            outcome = msgspec.structs.replace(outcome, log_tail=outcome.log_tail or tail(scratch / LOG))
        record = msgspec.structs.replace(
            returned,
            wall_s=wall_s,
            request_key=spec.key,
            outcome=outcome,
            parity=list(marks),
            roofline=lookup(returned, tuple(catalog.backend(spec.backend).packages)),
        )
        return store.commit(scratch, record).record


def child_environment(spec: RunSpec) -> dict[str, str]:
    """Return the environment variables that must be set before a numerical library is loaded, for any backend."""
    return thread_environment(spec.threads)


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment variables for a child whose libraries use `threads` threads each."""
    count = str(threads)
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
    return {
        **dict.fromkeys(pools, count),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
