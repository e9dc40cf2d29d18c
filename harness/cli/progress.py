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
from harness.records import CheckpointFailed, DataPrepared, Event, Failure, Progress, RunRecord, RunSpec
from harness.report.progress import (
    Lines,
    RunInProgress,
    clock,
    describe_failed_checkpoint,
    describe_result,
    new_warnings,
)

if TYPE_CHECKING:
    from rich.console import Console, Group

    from harness.api import Results
    from harness.plugins.catalog import Catalog
    from harness.records.store import Store

_REFRESH_S = 0.25
"""Minimum interval between updates of the live display, in seconds."""


def undecoded_notes(specs: Sequence[RunSpec], catalog: Catalog) -> list[str]:
    """Return one line of output for each of the user's datasets whose files are not decoded until the runs start."""
    from harness.data.user_files.location import MEDIA

    names = dict.fromkeys((s.dataset, s.task) for s in specs if s.source and catalog.task(s.task).kind in MEDIA)
    return [
        f"Note: {dataset}: the files are decoded by the run, which reports duplicate and damaged files; to find such "
        f"files without a run, use `harness data info` with --task {task} and the same options for the data"
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
    """Execute `specs` as `harness.api.carry_out` does, and show progress on stderr. Warnings in `warned` are omitted.

    SIGTERM and SIGHUP have the same effect as Ctrl-C: the current run is stopped and recorded as interrupted.
    """
    catch_signals()
    return api.carry_out(specs, catalog, store, listener=listener(quiet=quiet, warned=warned), **settings)


def catch_signals() -> None:
    """Handle SIGTERM and SIGHUP in the same way as Ctrl-C."""
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.default_int_handler)


class Plain(Lines):
    """A listener that prints a line for each phase, epoch and result to stderr."""

    def __init__(self, warned: Sequence[str] = ()) -> None:
        self._screen = screen()
        super().__init__(lambda text: show_progress(text, self._screen), warned)


class Live(Listener):
    """A live display that is redrawn when events arrive, at most four times per second.

    There is no refresh thread: this process sleeps between events, so that it does not interfere with the measured run.
    """

    def __init__(self, shown_on: Console | None = None, warned: Sequence[str] = ()) -> None:
        super().__init__()
        from rich.live import Live

        self._console = shown_on or console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._total = 0
        self._current: dict[int, RunInProgress] = {}
        """Runs in progress, keyed by their numbers."""
        self._warned = set(warned)
        self._drawn = 0.0

    def message(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text))

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self._total = total
        self._current[index] = RunInProgress(f"[{index}/{total}] {self.title(spec)}")
        self._live.start()
        self._draw()

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        from rich.text import Text

        current = self._current[index]
        current.update(event)
        if isinstance(event, Progress):
            if time.monotonic() - self._drawn < _REFRESH_S:
                return
        elif isinstance(event, DataPrepared):
            for warning in new_warnings(event, self._warned):
                self._console.print(Text(warning, style="yellow"))
        elif isinstance(event, CheckpointFailed):
            self._console.print(Text(f"{current.title}: {describe_failed_checkpoint(event)}", style="yellow"))
        self._draw()

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        from rich.text import Text

        current = self._current.pop(index, None)
        title = current.title if current else f"[{index}/{total}] {self.title(record.spec)}"
        failed = isinstance(record.outcome, Failure)
        line = Text(f"{title}: ")
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
