"""Progress of runs as text: lines for listeners, and the state of a run in progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from harness.execute.runner import Listener
from harness.plugins.environments import CURRENT, differing_packages
from harness.records import (
    CheckpointFailed,
    DataPrepared,
    EpochEnded,
    Event,
    Failure,
    Fetching,
    PhaseStarted,
    Progress,
    RunRecord,
    RunSpec,
    Trial,
)

MAX_PACKAGES = 20
"""Maximum number of packages listed in a note about differences between environments."""
_EPOCH_S = 1.0
_DOWNLOAD_S = 10.0
"""Minimum interval in seconds between output lines about epochs, and between output lines about downloads."""


def planned_warnings(specs: Sequence[RunSpec]) -> list[str]:
    """Return the warnings about the user's own data in the planned runs, one line of output per warning."""
    sources = {spec.source: spec.dataset for spec in specs if spec.source}
    lines = [warning_line(dataset, warning) for source, dataset in sources.items() for warning in source.warnings]
    return list(dict.fromkeys(lines))


def planned_notes(specs: Sequence[RunSpec]) -> list[str]:
    """Return notes about the planned runs, as lines of output. There is one line for each setting that was chosen based
    on the size of the user's own data. If package versions differ between the named environments of the runs, another
    line lists these packages."""
    sources = [(spec.dataset, spec.source) for spec in specs if spec.source]
    chosen = [f"Note: {name}: {choice}" for name, source in sources for choice in source.defaults]
    return [*dict.fromkeys(chosen), *_package_notes(list(dict.fromkeys(spec.env for spec in specs)))]


def _package_notes(envs: Sequence[str]) -> list[str]:
    if len(envs) < 2:
        return []
    found = [f"{package} {', '.join(versions)}" for package, versions in differing_packages(envs)]
    more = [f"{len(found) - MAX_PACKAGES} more (`harness env show` lists all)"] if len(found) > MAX_PACKAGES else []
    names = ", ".join(env or CURRENT for env in envs)
    listed = "; ".join([*found[:MAX_PACKAGES], *more])
    return [f"Note: packages with different versions in the environments {names}: {listed}"] if found else []


class Lines(Listener):
    """A listener that passes a line of text to `show` for each phase, epoch and result. Epochs are shown at most once
    per second. The last epoch is always shown.

    `warned` contains the warnings that have already been shown, as lines of output.
    """

    def __init__(self, show: Callable[[str], None], warned: Sequence[str] = ()) -> None:
        super().__init__()
        self._show = show
        self._prefixes: dict[int, str] = {}
        self._phases: dict[int, set[str]] = {}
        self._warned = set(warned)
        self._epoch_shown = self._download_shown = 0.0

    def message(self, text: str) -> None:
        self._show(text)

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self._prefixes[index] = f"[{index}/{total}] {self.title(spec)}: "
        self._phases[index] = set()

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        prefix, phases = self._prefixes[index], self._phases[index]
        if isinstance(event, EpochEnded):
            if event.epoch < event.epochs and time.monotonic() - self._epoch_shown < _EPOCH_S:
                return
            self._epoch_shown = time.monotonic()
            self._show(prefix + describe_epoch(event))
        elif isinstance(event, Fetching):
            if time.monotonic() - self._download_shown >= _DOWNLOAD_S:
                self._download_shown = time.monotonic()
                self._show(prefix + describe_fetching(event))
        elif isinstance(event, DataPrepared):
            for warning in new_warnings(event, self._warned):
                self._show(warning)
        elif isinstance(event, CheckpointFailed):
            self._show(prefix + describe_failed_checkpoint(event))
        elif isinstance(event, PhaseStarted) and event.phase not in phases:
            phases.add(event.phase)  # Training and validation alternate; show each phase only once.
            self._show(prefix + event.phase)

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        self._show(self._prefixes[index] + describe_result(record))


class WarningLines(Listener):
    """A listener that passes only warnings about the data to `show`."""

    def __init__(self, show: Callable[[str], None], warned: Sequence[str] = ()) -> None:
        super().__init__()
        self._show = show
        self._warned = set(warned)

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        if isinstance(event, DataPrepared):
            for warning in new_warnings(event, self._warned):
                self._show(warning)


class RunInProgress:
    """A run in progress, as shown by a live display."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.phase = "starting"
        self.progress: Progress | None = None
        self.epoch: EpochEnded | None = None
        self.started = time.monotonic()
        self.first_at, self.first_step = 0.0, 0
        """Time and step of the first progress event."""

    def update(self, event: Event) -> None:
        """Update the displayed state after an event."""
        if isinstance(event, PhaseStarted):
            self.phase = event.phase
        elif isinstance(event, EpochEnded):
            self.epoch = event
        elif isinstance(event, Fetching):
            self.phase = describe_fetching(event)
        elif isinstance(event, Progress):
            if self.progress is None:
                self.first_at, self.first_step = time.monotonic(), event.step
            self.progress = event

    def state(self) -> list[str]:
        if self.progress is None:
            return [self.phase]
        p = self.progress
        counts = [f"epoch {p.epoch}/{p.epochs}", f"step {p.step}/{p.steps}"]
        return [self.phase, *counts, f"loss {p.loss:.4g}", f"{p.samples_per_s:.4g} samples/s"]

    def outlook(self) -> list[str]:
        """Return the last validation scores and an estimate of the remaining training time, based on the completed
        steps.
        """
        parts = describe_validation(self.epoch) if self.epoch else []
        if self.progress and self.progress.step > self.first_step:
            pace_s = (time.monotonic() - self.first_at) / (self.progress.step - self.first_step)
            parts = [*parts, f"training: {clock(pace_s * (self.progress.steps - self.progress.step))} left"]
        return parts


def describe_fetching(event: Fetching) -> str:
    from harness.interfaces.remote import megabytes

    return f"downloading {event.dataset}: {event.file}, {megabytes(event.done_bytes)} of {megabytes(event.total_bytes)}"


def new_warnings(event: DataPrepared, shown: set[str]) -> list[str]:
    """Return the warnings about a dataset that are not yet in `shown`, as lines of output, and add these warnings to
    `shown`.
    """
    lines = [warning_line(event.dataset, warning) for warning in event.warnings]
    new = [line for line in lines if line not in shown]
    shown.update(new)
    return new


def warning_line(dataset: str, warning: str) -> str:
    return f"Warning: {dataset}: {warning}"


def describe_failed_checkpoint(event: CheckpointFailed) -> str:
    return (
        f"Warning: the checkpoint after step {event.step} could not be written: {event.reason}; training continues, "
        "and the previous checkpoint is kept"
    )


def describe_epoch(event: EpochEnded) -> str:
    parts = [
        f"epoch {event.epoch}/{event.epochs}",
        f"training loss {event.train_loss:.4g}",
        *describe_validation(event),
    ]
    return "  ".join([*parts, f"{event.train_s:.1f} s"])


def describe_validation(event: EpochEnded) -> list[str]:
    known = [f"{name} {value:.4g}" for name, value in event.validation.items() if value is not None]
    return [f"validation {', '.join(known[:2])}"] if known else []


def describe_result(record: RunRecord) -> str:
    if isinstance(record.outcome, Failure):
        from harness.analysis.formatting import one_line
        from harness.records.record import MAX_MESSAGE

        return f"failed: {record.outcome.kind}: {one_line(record.outcome.message, MAX_MESSAGE)}"
    if isinstance(record.outcome, Trial):
        return describe_trial(record.outcome, record.wall_s)
    primary = record.outcome.scores.primary
    value = record.outcome.scores.test.get(primary)
    score = "undefined" if value is None else f"{value:.4g}"
    return f"{primary} {score} in {record.wall_s:.1f} s"


def describe_trial(trial: Trial, wall_s: float) -> str:
    scores = trial.validation or (trial.curves[-1].validation if trial.curves else {})
    value = scores.get(trial.metric)
    score = "undefined" if value is None else f"{value:.4g}"
    pruned = f"pruned after epoch {trial.curves[-1].epoch}: " if trial.state == "pruned" and trial.curves else ""
    return f"{pruned}validation {trial.metric} {score} in {wall_s:.1f} s"


def clock(seconds: float) -> str:
    """Return a duration as text. For example, 75.2 seconds is formatted as ``1:15``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
