"""Timed windows, and what passed on the machine in each."""

from __future__ import annotations

from collections.abc import Callable

from harness.measure.machine import Reading, difference, total
from harness.measure.steady import Window

Meter = Callable[[], Reading]


class Timed:
    """`open` before a window's clock starts, `close` after it has stopped."""

    def __init__(self, meter: Meter = Reading) -> None:
        self._meter = meter
        self._before = Reading()
        self.windows: list[Window] = []
        self._passed: list[Reading] = []

    def open(self) -> None:
        self._before = self._meter()

    def close(self, count: int, seconds: float) -> None:
        self.windows.append(Window(count, seconds))
        self._passed.append(difference(self._before, self._meter()))

    def passed(self, start: int) -> Reading:
        """In all windows from `start`."""
        return total(self._passed[start:])
