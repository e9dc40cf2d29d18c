"""Replay of the events of a stored run, to log the run to an experiment tracker."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.data.batches import steps_per_epoch
from harness.errors import HarnessError, PluginError, RecordError
from harness.measure.schedule import planned_steps, reductions
from harness.measure.selection import monitored
from harness.measure.steps import learning_rates
from harness.plugins.catalog import Catalog, LoadedPlugin
from harness.plugins.failures import described_with_place
from harness.records import Failure, RunRecord, StepsEnded, Success, Trial
from harness.records.samples import first_windows, usable
from harness.records.store import ARRAYS, StoredRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BEFORE_TRAINING = ("import", "prepare", "data", "build")


def replay(run: StoredRun, catalog: Catalog) -> None:
    """Call the event hooks of the selected trackers (`Catalog.listeners`) in the same way as during the run, but with
    estimated times.

    Raises `harness.PluginError` if a hook raises an exception, and `harness.RecordError` if the raw samples do not
    match the record. If the raw samples are missing or unreadable, no steps are replayed.
    """
    record, attempt_id = run.record, run.record.run_id
    start_s = datetime.datetime.fromisoformat(record.started_at).timestamp()
    calls: list[tuple[str, dict[str, Any]]] = [("harness_run_started", {"spec": record.spec, "time_s": start_s})]
    if not isinstance(record.outcome, Failure):
        calls += _training(run, record.outcome, catalog, start_s)
    finished = {"record": record, "directory": run.path.absolute(), "time_s": start_s + record.wall_s}
    calls.append(("harness_run_finished", finished))
    for listener in catalog.listeners:
        for hook, arguments in calls:
            _call(listener, hook, arguments | {"attempt_id": attempt_id}, record.run_id)


def _call(listener: LoadedPlugin, hook: str, arguments: Mapping[str, Any], run_id: str) -> None:
    try:
        getattr(listener.hooks, hook)(**arguments)
    except HarnessError as error:
        error.args = (f"the run {run_id} was not logged completely: {error}",)
        raise
    except Exception as error:  # A plugin's code may raise any exception.
        name = listener.ref.name
        raise PluginError(f"the tracker {name!r} failed for the run {run_id}: {described_with_place(error)}") from error


def _training(
    run: StoredRun, outcome: Success | Trial, catalog: Catalog, start_s: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the hook calls for the epochs and their steps, with the arguments of each call."""
    spec, curves = run.record.spec, outcome.curves
    before_s = sum(outcome.phases_s.get(phase, 0.0) for phase in _BEFORE_TRAINING)
    validation_s = outcome.phases_s.get("validate", 0.0) / max(1, len(curves))
    arrays = usable(run) if curves else {}
    steps = _steps(run, outcome, catalog, arrays) if "train_losses" in arrays else [None] * len(curves)
    for number, (epoch, its_steps) in enumerate(zip(curves, steps, strict=True)):
        time_s = start_s + before_s + epoch.train_s + number * validation_s
        if its_steps is not None:
            yield "harness_steps_ended", {"spec": spec, "steps": its_steps, "time_s": time_s}
        yield "harness_epoch_ended", {"spec": spec, "epoch": epoch, "time_s": time_s + validation_s}


def _steps(
    run: StoredRun, outcome: Success | Trial, catalog: Catalog, arrays: Mapping[str, NDArray[Any]]
) -> list[StepsEnded]:
    """Return the step event of each epoch.

    Raises `harness.RecordError` if the number of steps in the arrays differs from the number in the record.
    """
    spec, curves = run.record.spec, outcome.curves
    losses: list[float] = arrays["train_losses"].tolist()
    batch_size = int(arrays["train_batch_size"])
    planned = planned_steps(spec.recipe, steps_per_epoch(outcome.examples.get("train", 0), batch_size))
    windows = _windows(arrays, [epoch.step for epoch in curves], timed=_is_timed(run.record, outcome))
    if windows is None or len(losses) != curves[-1].step:
        raise RecordError(f"{run.path / ARRAYS}: the number of training steps differs from the number in the record")
    primary = outcome.metric if isinstance(outcome, Trial) else outcome.scores.primary
    scores = monitored(curves, spec.recipe, primary, higher_is_better=_higher_is_better(outcome, primary, catalog))
    starting = first_windows(run.record, arrays) if isinstance(outcome, Success) else [0]
    events, first, passed = [], 0, 0
    for number, epoch in enumerate(curves):
        reduced = reductions(spec.recipe, number, scores[:number]) if number else 0
        count = epoch.step - first
        events.append(
            StepsEnded(
                epoch=epoch.epoch,
                step=first,
                losses=tuple(losses[first : epoch.step]),
                learning_rates=learning_rates(spec.recipe, first, count, planned, reduced),
                batch_size=batch_size,
                window_steps=tuple(steps for steps, _ in windows[number]),
                window_s=tuple(seconds for _, seconds in windows[number]),
                first_windows=tuple(i - passed for i in starting if passed <= i < passed + len(windows[number])),
            )
        )
        first, passed = epoch.step, passed + len(windows[number])
    return events


def _windows(
    arrays: Mapping[str, NDArray[Any]], ends: Iterable[int], *, timed: bool
) -> list[list[tuple[int, float]]] | None:
    """Return the windows of each epoch, or None if the windows do not match the ends of the epochs.

    `ends` contains the number of completed steps at the end of each epoch.
    """
    windows = list(zip(arrays["train_window_steps"].tolist(), arrays["train_window_s"].tolist(), strict=True))
    found: list[list[tuple[int, float]]] = []
    position = done = 0
    for end in ends:
        first = position
        while done < end and position < len(windows):
            done += windows[position][0]
            position += 1
        if done != end:
            return None
        found.append(windows[first:position] if timed else [])
    return found if position == len(windows) else None


def _is_timed(record: RunRecord, outcome: Success | Trial) -> bool:
    return outcome.train_samples_per_s is not None if isinstance(outcome, Trial) else not record.quality_only


def _higher_is_better(outcome: Success | Trial, primary: str, catalog: Catalog) -> bool:
    known = outcome.scores.metrics if isinstance(outcome, Success) else {}
    if primary in known:
        return known[primary].higher_is_better
    return catalog.metric(primary).higher_is_better if primary in catalog.metrics else False
