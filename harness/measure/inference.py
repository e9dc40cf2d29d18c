"""Prediction and timed inference loops."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.batches import inference_batches, output_shape
from harness.errors import BadResultError, PluginError
from harness.interfaces import Session, Split
from harness.measure.machine import Reading
from harness.measure.steady import is_enough
from harness.measure.timed import Meter, Timed
from harness.records import Protocol

WARMUP_BATCHES = 3
MAX_BYTES = 256 * 2**20
MAX_KEPT = 64
"""Maximum number of batches whose predictions are kept during the timed loops."""

Cycle = Iterator[tuple[int, dict[str, NDArray[Any]]]]


def predict(session: Session, split: Split, batch_size: int, outputs: int) -> NDArray[Any]:
    """Return float32 predictions ``[N, outputs]`` or ``[N, L, outputs]`` for all examples in the split, in order.

    Raises `harness.BadResultError` if the predictions have an unexpected shape or are not finite.
    """
    predictions = np.concatenate(list(_batches(session, split, batch_size, outputs)), dtype=np.float32)
    _check_finite(predictions)
    return predictions


def predict_batches(session: Session, split: Split, batch_size: int, outputs: int) -> Iterator[NDArray[Any]]:
    """Yield the predictions of each batch of the split, as in `predict`, without keeping the predictions of other
    batches in memory."""
    for part in _batches(session, split, batch_size, outputs):
        predictions = np.asarray(part, np.float32)
        _check_finite(predictions)
        yield predictions


def _batches(session: Session, split: Split, batch_size: int, outputs: int) -> Iterator[NDArray[Any]]:
    """Yield the predictions of each batch without the padding of the last batch."""
    shape = output_shape(split.targets, batch_size, outputs)
    with session.inference():
        for inputs, valid in inference_batches(split, batch_size):
            part = session.fetch(session.predict(inputs))
            if not isinstance(part, np.ndarray):
                raise PluginError(
                    f"Session.fetch returned {type(part).__name__} for the result of Session.predict; it must return a "
                    "numpy array"
                )
            if part.shape != shape:
                raise BadResultError(f"the backend's predictions have the shape {part.shape}, not {shape}")
            yield part[:valid]


def _check_finite(predictions: NDArray[Any]) -> None:
    """Raise `harness.BadResultError` if predictions ``[N, ...]`` are not finite."""
    bad = int((~np.isfinite(predictions.reshape(len(predictions), -1)).all(axis=1)).sum())
    if bad:
        raise BadResultError(f"{bad} of {len(predictions)} predictions are not finite")


def most_kept(batch: tuple[int, ...]) -> int:
    """Return the number of batches whose predictions fit in `MAX_BYTES`, at least 1 and at most `MAX_KEPT`.

    `batch` is the shape of the predictions of a batch.
    """
    return max(1, min(MAX_KEPT, MAX_BYTES // (4 * math.prod(batch))))


def in_batches(kept: Iterable[int], predictions: NDArray[Any], batch_size: int) -> dict[int, NDArray[Any]]:
    """Return the predictions of the batches with the indices `kept`, keyed by batch index."""
    return {number: predictions[number * batch_size : (number + 1) * batch_size] for number in kept}


@dataclass(frozen=True)
class Inference:
    """Results of the timed inference loops."""

    timed: Timed
    """Throughput windows, in batches."""
    latencies_s: list[float]
    """Latencies of individual batches, in seconds."""
    kept: dict[int, NDArray[Any]]
    """Predictions made during the timed loops, keyed by the index of the batch in the split."""
    batch_size: int


def measure(
    session: Session,
    split: Split,
    batch_size: int,
    protocol: Protocol,
    meter: Meter = Reading,
    max_kept: int = MAX_KEPT,
) -> Inference:
    """Measure inference time while cycling over the full batches of the split (at most the first 256 MiB).

    Examples that do not fill a batch are not timed, because an incomplete batch would have to be padded, and padding
    must not be counted as examples. The batch size is at most the number of examples in the split.

    Throughput is measured over windows in which batches are submitted without waiting for their results. The latency of
    a batch is the time from inputs in host memory to outputs in host memory. Batches are processed one at a time. The
    predictions of at most `max_kept` batches are kept.
    """
    batch_size = min(batch_size, len(split))
    cycle = itertools.cycle(enumerate(_some_batches(split, batch_size)))
    kept: dict[int, NDArray[Any]] = {}
    with session.inference():
        for _ in range(WARMUP_BATCHES):
            session.fetch(session.predict(next(cycle)[1]))
        timed = _throughput(session, cycle, protocol, kept, meter, max_kept)
        latencies = _latencies(session, cycle, protocol, kept, max_kept)
    return Inference(timed, latencies, kept, batch_size)


def not_measured(batch_size: int) -> Inference:
    """Return the results of a quality-only run, in which inference is not timed."""
    return Inference(Timed(), [], {}, batch_size)


def largest_error(kept: Mapping[int, NDArray[Any]], scored: Mapping[int, NDArray[Any]]) -> tuple[int, float]:
    """Compare predictions from the timed loops with those that were scored. The keys are indices of batches.

    Returns the number of compared examples, and the largest norm-wise relative error of a batch. The error is infinite
    if a value is not finite.
    """
    examples, worst = 0, 0.0
    for number, outputs in kept.items():
        expected = scored[number].astype(np.float64)
        difference = float(np.linalg.norm(outputs[: len(expected)] - expected))
        norm = float(np.linalg.norm(expected))
        error = difference / norm if norm else difference
        worst = max(worst, error if np.isfinite(error) else float("inf"))
        examples += len(expected)
    return examples, worst


def _some_batches(split: Split, batch_size: int) -> list[dict[str, NDArray[Any]]]:
    """Return the first full batches of the split, limited to a total size of `MAX_BYTES`.

    The returned batches stay in memory while inference is timed. The split must have at least `batch_size` examples.
    """
    batches, size = [], 0
    for inputs, valid in inference_batches(split, batch_size):
        if valid < batch_size:
            break
        batches.append(inputs)
        size += sum(array.nbytes for array in inputs.values())
        if size >= MAX_BYTES:
            break
    return batches


def _throughput(
    session: Session, cycle: Cycle, protocol: Protocol, kept: dict[int, NDArray[Any]], meter: Meter, max_kept: int
) -> Timed:
    timed = Timed(meter)
    window_s = min(protocol.window_s, protocol.throughput_budget_s / 4)
    end = time.perf_counter() + protocol.throughput_budget_s
    while True:
        session.synchronize()
        timed.open()
        start = time.perf_counter()
        count = 0
        while True:
            number, inputs = next(cycle)
            handle = session.predict(inputs)
            count += 1
            if count % 16 == 0:  # limit the number of queued batches, so that the window does not run far over its time
                session.fetch(handle)
            if time.perf_counter() - start >= window_s:
                break
        session.synchronize()
        now = time.perf_counter()
        timed.close(count, now - start)
        if len(kept) < max_kept:
            kept[number] = session.fetch(handle)
        if now >= end or is_enough(timed.windows, protocol):
            return timed


def _latencies(
    session: Session, cycle: Cycle, protocol: Protocol, kept: dict[int, NDArray[Any]], max_kept: int
) -> list[float]:
    latencies: list[float] = []
    begin = time.perf_counter()
    while True:
        number, inputs = next(cycle)
        start = time.perf_counter()
        outputs = session.fetch(session.predict(inputs))
        now = time.perf_counter()
        latencies.append(now - start)
        if len(kept) < max_kept:
            kept[number] = outputs
        elapsed = now - begin
        lasted = elapsed >= protocol.throughput_budget_s / 4 or len(latencies) >= 10 * protocol.latency_batches
        if (len(latencies) >= protocol.latency_batches and lasted) or elapsed >= protocol.latency_budget_s:
            return latencies
