"""Step-level events. Losses, learning rates and window durations are collected and sent between the timed windows."""

from __future__ import annotations

import time
from collections.abc import Sequence

from harness.measure.phases import Emit
from harness.measure.schedule import learning_rate
from harness.records import Recipe, StepsEnded

SEND_S = 10.0
"""Minimum interval between step events within an epoch, in seconds."""


def learning_rates(recipe: Recipe, first: int, count: int, steps: int, reductions: int) -> tuple[float, ...]:
    """Return the learning rates of `count` optimizer steps from step `first` (counted from 0); see `learning_rate`."""
    return tuple(learning_rate(recipe, step, steps, reductions) for step in range(first, first + count))


class StepEvents:
    """Collector that sends the steps of an epoch as `harness.StepsEnded` events."""

    def __init__(self, emit: Emit, recipe: Recipe, batch_size: int, steps: int, *, timed: bool = True) -> None:
        """Create a collector. `steps` is the planned number of steps. Windows are omitted if `timed` is false."""
        self._emit, self._recipe, self._batch_size, self._steps, self._timed = emit, recipe, batch_size, steps, timed
        self._windows: list[tuple[int, float]] = []
        self._sent = 0
        self._is_first = True
        self._sent_s = time.perf_counter()

    def skip(self, steps: int) -> None:
        """Skip the first `steps` steps of a run, which an earlier process executed."""
        self._sent = steps

    def add(self, epoch: int, losses: Sequence[float], steps: int, seconds: float, reductions: int) -> None:
        """Add a window of `steps` steps. `losses` contains the losses of all steps so far."""
        self._windows.append((steps, seconds))
        if time.perf_counter() - self._sent_s >= SEND_S:
            self.send(epoch, losses, reductions)

    def send(self, epoch: int, losses: Sequence[float], reductions: int) -> None:
        """Send the steps that have not been sent yet. `losses` contains the losses of all steps so far."""
        count = len(losses) - self._sent
        if count:
            windows = self._windows if self._timed else []
            self._emit(
                StepsEnded(
                    epoch=epoch,
                    step=self._sent,
                    losses=tuple(losses[self._sent :]),
                    learning_rates=learning_rates(self._recipe, self._sent, count, self._steps, reductions),
                    batch_size=self._batch_size,
                    window_steps=tuple(steps for steps, _ in windows),
                    window_s=tuple(seconds for _, seconds in windows),
                    first_windows=(0,) if windows and self._is_first else (),
                )
            )
            self._is_first = False
        self._windows, self._sent, self._sent_s = [], len(losses), time.perf_counter()
