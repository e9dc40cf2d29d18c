"""Progress of runs in a notebook: one output area that is updated in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from harness.execute.runner import Listener
from harness.records import CheckpointFailed, DataPrepared, Event, Progress, RunRecord, RunSpec
from harness.records.printing import clean, note
from harness.report.html_table import preformatted
from harness.report.progress import (
    Lines,
    RunInProgress,
    WarningLines,
    describe_failed_checkpoint,
    describe_result,
    new_warnings,
)

_REFRESH_S = 0.5
"""Minimum interval between updates, in seconds."""


def listener_for(progress: bool | None, warned: Sequence[str] = ()) -> Listener:
    """Return a listener that shows the progress of runs in a notebook, or on stderr outside of notebooks.

    If `progress` is None, progress is shown only in notebooks. Warnings about the data are always shown unless
    `progress` is False. `warned` contains warnings that were raised before the runs started, which are shown first.
    """
    if progress is False:
        return Listener()
    listener: Listener
    if in_notebook():
        listener = Notebook(warned)
    else:
        listener = Lines(note, warned) if progress else WarningLines(note, warned)
        for line in warned:
            note(line)
    return listener


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return hasattr(shell, "kernel")


class Notebook(Listener):
    """A listener that shows messages and results, followed by the runs in progress, in one output area.

    The output area is created when the first text is shown. After the last run, the area contains only the messages and
    results.
    """

    def __init__(self, warned: Sequence[str] = ()) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._current: dict[int, RunInProgress] = {}
        self._warned = set(warned)
        self._handle: Any = None
        self._drawn = 0.0
        for line in warned:
            self.message(line)

    def message(self, text: str) -> None:
        self._lines.append(text)
        self._draw()

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self._current[index] = RunInProgress(f"[{index}/{total}] {self.title(spec)}")
        self._draw()

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        current = self._current[index]
        current.update(event)
        if isinstance(event, DataPrepared):
            self._lines += new_warnings(event, self._warned)
        elif isinstance(event, CheckpointFailed):
            self._lines.append(f"{current.title}: {describe_failed_checkpoint(event)}")
        elif isinstance(event, Progress) and time.monotonic() - self._drawn < _REFRESH_S:
            return
        self._draw()

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        super().run_finished(index, total, record)
        current = self._current.pop(index, None)
        title = current.title if current else f"[{index}/{total}] {self.title(record.spec)}"
        self._lines.append(f"{title}: {describe_result(record)}")
        self._draw()

    def close(self) -> None:
        self._current.clear()
        self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        lines = list(self._lines)
        for current in self._current.values():
            lines += [
                current.title,
                *(f"  {'  '.join(words)}" for words in (current.state(), current.outlook()) if words),
            ]
        if not lines:
            return
        text = clean("\n".join(lines))
        shown = {"text/plain": text, "text/html": preformatted(text)}
        self._drawn = time.monotonic()
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)
