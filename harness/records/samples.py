"""Conversion of raw samples to the form used by plots and comparisons: throughput by window, predictions by example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.records import RunRecord, Success

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]
    Floats = NDArray[np.float64]


class Windows(NamedTuple):
    """Timed windows of one phase, in chronological order."""

    samples_per_s: Floats
    seconds: Floats
    steady_from: int
    """Index of the first window in the steady state."""


def train_windows(record: RunRecord, arrays: Arrays) -> Windows | None:
    """Return the training windows, excluding the first step; None if they were not stored."""
    import numpy as np

    outcome = _outcome(record)
    if "train_window_s" not in arrays or outcome.speed.train is None:
        return None
    steps, seconds = arrays["train_window_steps"][1:], arrays["train_window_s"][1:]
    if "sampling_window_s" in arrays:  # absent in records of schema version 1
        steps = np.concatenate([steps, arrays["sampling_window_steps"]])
        seconds = np.concatenate([seconds, arrays["sampling_window_s"]])
    if "train_batch_size" in arrays:  # absent in older records, in which all backends train by steps
        size = int(arrays["train_batch_size"])
    else:
        size = min(record.spec.recipe.batch_size, outcome.examples["train"])
    return Windows(steps / seconds * size, seconds, outcome.speed.train.warmup_windows)


def inference_windows(record: RunRecord, arrays: Arrays) -> Windows | None:
    """Return the inference windows; None if they were not stored."""
    if "inference_window_s" not in arrays:
        return None
    outcome = _outcome(record)
    seconds = arrays["inference_window_s"]
    rates = arrays["inference_window_batches"] / seconds * outcome.latency.batch_size
    return Windows(rates, seconds, outcome.speed.inference.warmup_windows)


def predictions(record: RunRecord, arrays: Arrays) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the targets and outputs for the test split; None if they were not stored.

    For classification, targets are int64 ``[N]`` and outputs are logits ``[N, C]``; for token classification,
    ``[N, L]`` and ``[N, L, C]``. For regression, both are float64 ``[N, T]`` in the targets' unit.
    """
    info = record.provenance.data
    if info is None or "test_outputs" not in arrays:
        return None
    return info.in_target_unit(arrays["test_targets"]), info.in_target_unit(arrays["test_outputs"].astype("float64"))


def _outcome(record: RunRecord) -> Success:
    assert isinstance(record.outcome, Success)
    return record.outcome
