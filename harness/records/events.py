"""What a run tells while it goes on."""

from __future__ import annotations

from msgspec import Struct


class PhaseStarted(Struct, frozen=True, kw_only=True, tag="phase"):
    phase: str


class Fetching(Struct, frozen=True, kw_only=True, tag="fetching"):
    """Bytes of a dataset's file that have come so far."""

    dataset: str
    file: str
    done_bytes: int
    total_bytes: int | None
    """None where the file's size is not known."""


class Progress(Struct, frozen=True, kw_only=True, tag="progress"):
    epoch: int
    epochs: int
    step: int
    """Optimizer steps done so far, out of `steps` in the whole training."""
    steps: int
    loss: float
    samples_per_s: float


class EpochEnded(Struct, frozen=True, kw_only=True, tag="epoch"):
    """One epoch of training and the validation after it: a point of the learning curves."""

    epoch: int
    epochs: int
    step: int
    train_s: float
    """Seconds of training so far, validation left out."""
    train_loss: float
    """Mean over the epoch's batches."""
    validation: dict[str, float | None]


Event = PhaseStarted | Fetching | Progress | EpochEnded
