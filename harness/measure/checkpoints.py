"""Checkpoints of the training loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from harness.errors import RecordError
from harness.interfaces import Session
from harness.measure.machine import Reading
from harness.measure.phases import Phases
from harness.measure.steady import Window
from harness.records import CheckpointFailed, CheckpointPlan, CheckpointUse, EpochEnded
from harness.records import checkpoint as files
from harness.records.checkpoint import Checkpoint, Identity, Progress
from harness.records.record import Ended

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.measure.quality.scorer import Scorer

    Arrays = dict[str, NDArray[Any]]

PHASE = "checkpoint"
"""Phase in which checkpoints are written and read."""
_SESSION, _BEST = "session.", "best."


class Loop(Protocol):
    """The training loop, `harness.measure.training.Training`."""

    steps: int
    losses: list[float]
    curves: list[EpochEnded]
    ended: Ended | None
    best: dict[str, Any]

    def progress(self) -> Progress: ...

    def arrays(self) -> Arrays: ...

    def restore(self, progress: Progress, arrays: Arrays, best: Arrays, scorer: Scorer) -> None: ...


class Checkpoints:
    """Checkpoints of one training run.

    The class determines when checkpoints are due, collects their contents, and measures the time spent writing them.
    """

    def __init__(self, plan: CheckpointPlan, identity: Identity, started_at: str, phases: Phases) -> None:
        """Set up the checkpoints of a run.

        `started_at` is the start time of this process, as stored in the run's record.
        """
        self._directory, self._every, self._resume = Path(plan.directory), plan.every, plan.resume
        self._identity, self._started_at, self._phases = identity, started_at, phases
        self._written, self._write_s = 0, 0.0
        self._earlier_s: dict[str, float] = {}
        self._resumed_at: list[int] = []
        self._problems: list[str] = []
        self._last_s = time.perf_counter()

    @property
    def every_steps(self) -> int | None:
        """Number of steps between checkpoints, or None if the interval is not given in steps."""
        return int(self._every.count) if self._every.unit == "steps" else None

    def use(self) -> CheckpointUse:
        """Return the description of the checkpoints to store in the run's record."""
        return CheckpointUse(
            every=self._every,
            written=self._written,
            write_s=self._write_s,
            resumed_at=self._resumed_at,
            earlier_s=self._earlier_s,
            problems=self._problems,
        )

    def is_due(self, training: Loop, *, epoch_ended: bool) -> bool:
        """Return True if a checkpoint must be written after a window or, if `epoch_ended` is true, after an epoch."""
        if epoch_ended and training.ended is not None:
            return True
        match self._every.unit:
            case "epochs":
                return epoch_ended and len(training.curves) % int(self._every.count) == 0
            case "steps":
                return not epoch_ended and len(training.losses) % int(self._every.count) == 0
            case "seconds":
                return time.perf_counter() - self._last_s >= self._every.count

    def write(self, session: Session, training: Loop) -> None:
        """Write a checkpoint. If the file cannot be written, report the problem and continue."""
        start = time.perf_counter()
        with self._phases.aside(PHASE):
            checkpoint = Checkpoint(
                identity=self._identity,
                arrays="",
                sha256="",
                step=len(training.losses),
                steps=training.steps,
                every=self._every,
                started_at=self._started_at,
                written=self._written + 1,
                write_s=self._write_s,
                phases_s={
                    name: self._phases.seconds.get(name, 0.0) + self._earlier_s.get(name, 0.0)
                    for name in ("train", "validate")
                },
                resumed_at=self._resumed_at,
                progress=training.progress(),
            )
            arrays = training.arrays() | {_SESSION + name: array for name, array in session.state().items()}
            arrays |= {_BEST + name: array for name, array in training.best.items()}
            try:
                files.write(self._directory, checkpoint, arrays)
                self._written += 1
            except OSError as error:
                self._report(checkpoint.step, error)
        self._last_s = time.perf_counter()
        self._write_s += self._last_s - start

    def restore(self, session: Session, training: Loop, scorer: Scorer) -> None:
        """Restore the last checkpoint if the plan requests it.

        Raises `harness.RecordError` if the checkpoint is damaged or belongs to a different run.
        """
        if not self._resume:
            return
        with self._phases(PHASE):
            checkpoint = files.read(self._directory)
            self._check(checkpoint.identity)
            arrays = files.read_arrays(self._directory, checkpoint)
            session.set_state(_with_prefix(_SESSION, arrays))
            training.restore(checkpoint.progress, arrays, _with_prefix(_BEST, arrays), scorer)
            self._written, self._write_s = checkpoint.written, checkpoint.write_s
            self._earlier_s = checkpoint.phases_s
            self._resumed_at = [*checkpoint.resumed_at, checkpoint.step]
            resumed = msgspec.structs.replace(
                checkpoint, started_at=self._started_at, resumed_at=self._resumed_at, every=self._every
            )
            try:
                # Store the interruption now, in case this process is also interrupted before its first checkpoint.
                files.describe(self._directory, resumed)
            except OSError as error:
                self._report(checkpoint.step, error)
        self._last_s = time.perf_counter()

    def _check(self, then: Identity) -> None:
        """Raise `harness.RecordError` if a checkpoint does not belong to this run."""
        for name, title in (
            ("key", "other settings"),
            ("device", "another device"),
            ("dataset_digest", "other prepared data"),
            ("initial_weights_digest", "other initial weights"),
            ("teacher_logits", "different teacher logits"),
        ):
            old, new = getattr(then, name), getattr(self._identity, name)
            if old != new:
                raise RecordError(
                    f"the checkpoint in {self._directory} was written with {title} "
                    f"({old[:16]} instead of {new[:16]}); undo this change, or pass --no-resume to start from the "
                    "beginning"
                )

    def _report(self, step: int, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason not in self._problems:
            self._problems.append(reason)
        self._phases.emit(CheckpointFailed(step=step, reason=reason))


def _with_prefix(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def encoded_readings(readings: list[Reading]) -> NDArray[np.float64]:
    """Return readings as an array ``[N, counters]``, in which NaN represents None."""
    values = [[np.nan if value is None else value for value in reading] for reading in readings]
    return np.array(values, np.float64).reshape(len(readings), len(Reading._fields))


def decoded_readings(array: NDArray[np.float64]) -> list[Reading]:
    """Decode readings from the format of `encoded_readings`."""
    rows: list[list[Any]] = array.tolist()
    return [Reading._make(None if np.isnan(value) else value for value in row) for row in rows]


def decoded_windows(batches: NDArray[Any], seconds: NDArray[Any]) -> list[Window]:
    """Return the windows with these numbers of batches and durations."""
    return [Window(*pair) for pair in zip(batches.tolist(), seconds.tolist(), strict=True)]
