"""Duration and peak memory of each phase of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.measure.memory import PhaseMemory
from harness.records import Event, PhaseStarted

Emit = Callable[[Event], None]


class Phases:
    """Duration and peak memory of each phase.

    ``with phases("data"):`` measures a phase and reports its start. If a phase is entered repeatedly, its durations are
    summed.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.memory = PhaseMemory()
        self.seconds: dict[str, float] = {}
        self.current = ""

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._emit(PhaseStarted(phase=phase))
        self.current = phase
        self.memory.enter(phase)
        start = time.perf_counter()
        yield
        self.add(phase, time.perf_counter() - start)
        self.memory.finish()

    def add(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
