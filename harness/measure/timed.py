"""Timed windows, with the change in the machine's counters during each window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.measure.machine import Reading, difference, total
from harness.measure.steady import Window

Meter = Callable[[], Reading]


class Timed:
    """Series of timed windows. Call `open` before starting a window's timer and `close` after stopping it."""

    def __init__(self, meter: Meter = Reading) -> None:
        self._meter = meter
        self._before = Reading()
        self.windows: list[Window] = []
        self.readings: list[Reading] = []
        """Change in each counter during each window."""

    def open(self) -> None:
        self._before = self._meter()

    def close(self, count: int, seconds: float) -> None:
        self.windows.append(Window(count, seconds))
        self.readings.append(difference(self._before, self._meter()))

    def restore(self, windows: Sequence[Window], readings: Sequence[Reading]) -> None:
        """Replace all windows and readings with those measured by an earlier process."""
        self.windows, self.readings = list(windows), list(readings)

    def passed(self, start: int) -> Reading:
        """Return the total change in the counters over all windows from index `start`."""
        return total(self.readings[start:])
