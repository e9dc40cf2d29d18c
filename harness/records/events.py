"""Events that a run emits during its execution."""

from __future__ import annotations

import itertools

from msgspec import Struct


class PhaseStarted(Struct, frozen=True, kw_only=True, tag="phase"):
    """The start of a phase, such as ``data`` or ``train``."""

    phase: str
    """Name of the phase."""


class MetricCalled(Struct, frozen=True, kw_only=True, tag="metric"):
    """The start of a call to a metric function.

    If the function crashes the process, the failure message contains the metric's name.
    """

    metric: str
    """Name of the metric, or an empty string if the function has returned."""


class Fetching(Struct, frozen=True, kw_only=True, tag="fetching"):
    """Progress of downloading one file of a dataset."""

    dataset: str
    """Name of the dataset."""
    file: str
    """Name of the file."""
    done_bytes: int
    """Number of bytes received so far."""
    total_bytes: int | None
    """Size of the file in bytes, or None if the size is unknown."""


class DataPrepared(Struct, frozen=True, kw_only=True, tag="data"):
    """Event at the end of data preparation, before the model is built."""

    dataset: str
    examples: dict[str, int]
    """Number of examples in each split."""
    warnings: tuple[str, ...]
    """Warnings about the data, as in `DataInfo.warnings`."""


class Progress(Struct, frozen=True, kw_only=True, tag="progress"):
    """Progress of training."""

    epoch: int
    epochs: int
    step: int
    """Number of optimizer steps so far, out of `steps`."""
    steps: int
    """Total number of optimizer steps in training."""
    loss: float
    """Most recent training loss."""
    samples_per_s: float
    """Training throughput, in samples per second."""


class EpochEnded(Struct, frozen=True, kw_only=True, tag="epoch"):
    """The end of a training epoch, after validation. Each event is one point on the learning curves."""

    epoch: int
    epochs: int
    step: int
    train_s: float
    """Elapsed training time in seconds, not including validation."""
    train_loss: float
    """Mean loss over the batches of the epoch."""
    validation: dict[str, float | None]
    """Validation loss and primary metric."""


class StepsEnded(Struct, frozen=True, kw_only=True, tag="steps"):
    """Consecutive training steps of one epoch.

    The event is sent only if an event listener requests it by implementing the hook ``harness_steps_ended``. The event
    is sent at the end of each epoch and, during epochs longer than 10 seconds, every 10 seconds. This event is never
    sent within a timed window.
    """

    epoch: int
    step: int
    """Number of optimizer steps before the first step in this event."""
    losses: tuple[float, ...]
    """Loss of each step, averaged over the batch."""
    learning_rates: tuple[float, ...]
    """Learning rate of each step."""
    batch_size: int
    """Number of examples in each batch."""
    window_steps: tuple[int, ...]
    """Number of steps in each timed window. The tuple is empty in a quality-only run, which does not measure
    throughput."""
    window_s: tuple[float, ...]
    """Duration of each timed window in seconds."""
    first_windows: tuple[int, ...] = ()
    """Indices of the windows that contain the first step of a process: the first window of the run, and the first
    window after each resumption. These windows include compilation."""

    @property
    def throughput(self) -> list[tuple[int, float]]:
        """Number of optimizer steps at the end of each window, and the window's throughput in samples per second.

        Windows that include compilation are omitted (`first_windows`).
        """
        ends = itertools.accumulate(self.window_steps, initial=self.step)
        windows = zip(itertools.islice(ends, 1, None), self.window_steps, self.window_s, strict=True)
        return [
            (end, steps * self.batch_size / seconds)
            for number, (end, steps, seconds) in enumerate(windows)
            if number not in self.first_windows
        ]


class CheckpointFailed(Struct, frozen=True, kw_only=True, tag="checkpoint_failed"):
    """Failure to write a checkpoint. Training continues, and the previous checkpoint remains valid."""

    step: int
    """Number of completed training steps."""
    reason: str
    """Reason for the failure, such as a full disk."""


Event = PhaseStarted | Fetching | DataPrepared | Progress | StepsEnded | EpochEnded | CheckpointFailed
