"""Progress of runs on stderr: a live display on a terminal, plain lines otherwise, or no output with --quiet."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness import api
from harness.cli.output import console, show_progress
from harness.cli.streams import screen
from harness.execute.runner import Listener
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

if TYPE_CHECKING:
    from rich.console import Console, Group

    from harness.api import Results
    from harness.plugins.catalog import Catalog
    from harness.records.store import Store

_REFRESH_S = 0.25
"""Minimum interval between updates of the live display, in seconds."""
_EPOCH_S = 1.0
_DOWNLOAD_S = 10.0
"""Minimum intervals between two lines of plain output, for epochs and for downloads, in seconds."""


def planned_warnings(specs: Sequence[RunSpec]) -> list[str]:
    """Return the warnings about the user's own data in the planned runs, one line of output per warning."""
    sources = {spec.source: spec.dataset for spec in specs if spec.source}
    lines = [warning_line(dataset, warning) for source, dataset in sources.items() for warning in source.warnings]
    return list(dict.fromkeys(lines))


def undecoded_notes(specs: Sequence[RunSpec], catalog: Catalog) -> list[str]:
    """Return one line of output for each of the user's datasets with files that have not been decoded when the runs
    start.
    """
    from harness.data.user_files.location import MEDIA

    names = dict.fromkeys((s.dataset, s.task) for s in specs if s.source and catalog.task(s.task).kind in MEDIA)
    return [
        f"Note: {dataset}: the files are decoded by the run, which reports copies and damaged files; to report them "
        f"without a run, use `harness data info` with --task {task} and the same options for the data"
        for dataset, task in names
    ]


def listener(*, quiet: bool, warned: Sequence[str] = ()) -> Listener:
    """Return a listener that shows a live display if stderr is a terminal, and plain lines otherwise. If `quiet` is
    true, the listener shows nothing.

    `warned` contains the warnings already shown, as lines of output.
    """
    if quiet:
        return Listener()
    if sys.stderr is None:
        return Listener()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Live(warned=warned)
    return Plain(warned)


def carry_out(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    *,
    quiet: bool,
    warned: Sequence[str] = (),
    **settings: Any,
) -> Results:
    """Execute `specs` like `harness.api.carry_out`, and show progress on stderr. Warnings in `warned` are omitted.

    SIGTERM and SIGHUP have the same effect as Ctrl-C: the current run is stopped and recorded as interrupted.
    """
    catch_signals()
    return api.carry_out(specs, catalog, store, listener=listener(quiet=quiet, warned=warned), **settings)


def catch_signals() -> None:
    """Handle SIGTERM and SIGHUP in the same way as Ctrl-C."""
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.default_int_handler)


class Plain(Listener):
    """A listener that prints a line for each phase, epoch and result. Epochs are shown at most once per second. The
    last epoch is always shown.
    """

    def __init__(self, warned: Sequence[str] = ()) -> None:
        super().__init__()
        self._screen = screen()
        self._prefixes: dict[int, str] = {}
        self._phases: dict[int, set[str]] = {}
        self._warned = set(warned)
        self._epoch_shown = self._download_shown = 0.0

    def message(self, text: str) -> None:
        show_progress(text, self._screen)

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self._prefixes[index] = f"[{index}/{total}] {spec.title}: "
        self._phases[index] = set()

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        prefix, phases = self._prefixes[index], self._phases[index]
        if isinstance(event, EpochEnded):
            if event.epoch < event.epochs and time.monotonic() - self._epoch_shown < _EPOCH_S:
                return
            self._epoch_shown = time.monotonic()
            show_progress(prefix + describe_epoch(event), self._screen)
        elif isinstance(event, Fetching):
            if time.monotonic() - self._download_shown >= _DOWNLOAD_S:
                self._download_shown = time.monotonic()
                show_progress(prefix + describe_fetching(event), self._screen)
        elif isinstance(event, DataPrepared):
            for warning in new_warnings(event, self._warned):
                show_progress(warning, self._screen)
        elif isinstance(event, CheckpointFailed):
            show_progress(prefix + describe_failed_checkpoint(event), self._screen)
        elif isinstance(event, PhaseStarted) and event.phase not in phases:
            phases.add(event.phase)  # Training and validation alternate; show each phase only once.
            show_progress(prefix + event.phase, self._screen)

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        show_progress(self._prefixes[index] + describe_result(record), self._screen)


class _Current:
    """A run in progress, as shown by `Live`."""

    def __init__(self, index: int, total: int, spec: RunSpec) -> None:
        self.title = f"[{index}/{total}] {spec.title}"
        self.phase = "starting"
        self.progress: Progress | None = None
        self.epoch: EpochEnded | None = None
        self.started = time.monotonic()
        self.first_at, self.first_step = 0.0, 0
        """Time and step of the first progress event."""

    def update(self, progress: Progress) -> None:
        if self.progress is None:
            self.first_at, self.first_step = time.monotonic(), progress.step
        self.progress = progress

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


class Live(Listener):
    """A live display that is redrawn when events arrive, at most four times per second.

    There is no refresh thread: this process sleeps between events, so that it does not disturb the measured run.
    """

    def __init__(self, shown_on: Console | None = None, warned: Sequence[str] = ()) -> None:
        super().__init__()
        from rich.live import Live

        self._console = shown_on or console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._total = 0
        self._current: dict[int, _Current] = {}
        """Mapping from numbers to runs in progress."""
        self._warned = set(warned)
        self._drawn = 0.0

    def message(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text))

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self._total = total
        self._current[index] = _Current(index, total, spec)
        self._live.start()
        self._draw()

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        from rich.text import Text

        current = self._current[index]
        if isinstance(event, PhaseStarted):
            current.phase = event.phase
        elif isinstance(event, EpochEnded):
            current.epoch = event
        elif isinstance(event, Fetching):
            current.phase = describe_fetching(event)
        elif isinstance(event, DataPrepared):
            for warning in new_warnings(event, self._warned):
                self._console.print(Text(warning, style="yellow"))
        elif isinstance(event, CheckpointFailed):
            self._console.print(Text(f"{current.title}: {describe_failed_checkpoint(event)}", style="yellow"))
        elif isinstance(event, Progress):
            current.update(event)
            if time.monotonic() - self._drawn < _REFRESH_S:
                return
        self._draw()

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        from rich.text import Text

        self._current.pop(index, None)
        failed = isinstance(record.outcome, Failure)
        line = Text(f"[{index}/{total}] {record.spec.title}: ")
        line.append(describe_result(record), style="red" if failed else "green")
        self._console.print(line)

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._live.update(self._render(), refresh=True)

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        parts: list[Table | Text] = []
        for number, current in enumerate(self._current.values()):
            done, total = (current.progress.step, current.progress.steps) if current.progress else (0, 1)
            head = Table.grid(padding=(0, 2))
            head.add_column(no_wrap=True)
            head.add_row(Text(current.title, style="bold"), ProgressBar(total=total, completed=done, width=16))
            outlook = current.outlook() + (self._time_left() if number == 0 else [])
            lines = ("  ".join(words) for words in (current.state(), outlook))
            parts += [head, *(Text(f"  {line}", no_wrap=True, overflow="ellipsis") for line in lines)]
        return Group(*parts)

    def _time_left(self) -> list[str]:
        """Return an estimate of the remaining time of all runs, based on the finished runs."""
        if not self.records:
            return []
        mean_s, now = sum(record.wall_s for record in self.records) / len(self.records), time.monotonic()
        waiting = self._total - len(self.records) - len(self._current)
        rest_s = mean_s * waiting + sum(max(mean_s - (now - run.started), 0.0) for run in self._current.values())
        return [f"all runs: about {clock(rest_s / len(self._current))} left"]


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

        return f"failed: {record.outcome.kind}: {one_line(record.outcome.message)}"
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
