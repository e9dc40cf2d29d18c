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
    added up.
    """

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.memory = PhaseMemory()
        self.seconds: dict[str, float] = {}
        self.current = ""
        self._is_open = False
        self._since_s = 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._enter(phase)
        yield
        self._leave()

    @contextmanager
    def aside(self, phase: str) -> Iterator[None]:
        """Measure a phase that may interrupt another phase.

        The duration and peak memory of the interrupted phase exclude those of the interrupting phase.
        """
        outer = self.current if self._is_open else None
        if outer is not None:
            self._leave()
        with self(phase):
            yield
        if outer is not None:
            self._enter(outer)

    def _enter(self, phase: str) -> None:
        self.emit(PhaseStarted(phase=phase))
        self.current, self._is_open = phase, True
        self.memory.enter(phase)
        self._since_s = time.perf_counter()

    def _leave(self) -> None:
        """Add the time spent in the current phase to the duration of that phase."""
        seconds = time.perf_counter() - self._since_s
        self.seconds[self.current] = self.seconds.get(self.current, 0.0) + seconds
        self.memory.finish()
        self._is_open = False
