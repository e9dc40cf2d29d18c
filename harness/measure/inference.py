"""Prediction, and the timed loops of inference."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.batches import inference_batches
from harness.errors import BadResultError
from harness.protocols import Session, Split
from harness.types import Protocol

WARMUP_BATCHES = 3
MOST_BYTES = 256 * 2**20


def predict(session: Session, split: Split, batch_size: int, outputs: int) -> NDArray[Any]:
    """Predictions for every example, float32 ``[N, outputs]``, in the split's order.

    Raises `harness.BadResultError` for predictions of another shape, or that are not finite.
    """
    predictions = np.empty((len(split), outputs), np.float32)
    start = 0
    for inputs, valid in inference_batches(split, batch_size):
        part = session.fetch(session.predict(inputs))
        if part.shape != (batch_size, outputs):
            raise BadResultError(f"the backend's predictions have the shape {part.shape}, not {(batch_size, outputs)}")
        predictions[start : start + valid] = part if valid == batch_size else part[:valid]
        start += valid
    bad = int((~np.isfinite(predictions).all(axis=1)).sum())
    if bad:
        raise BadResultError(f"{bad} of {len(predictions)} predictions are not finite")
    return predictions


@dataclass(frozen=True)
class Inference:
    """`windows` are (batches, seconds), synchronised at the edges; `latencies_s` are single batches."""

    windows: list[tuple[int, float]]
    latencies_s: list[float]
    batch_size: int


def measure(session: Session, split: Split, batch_size: int, protocol: Protocol) -> Inference:
    """Time inference on the split's batches, or the first 256 MiB of them, over and over.

    Throughput: batches are submitted without waiting, in windows. Latency: one batch at a time, from input on the
    host to output on the host.
    """
    batches = _some_batches(split, batch_size)
    cycle = itertools.cycle(batches)
    for _ in range(WARMUP_BATCHES):
        session.fetch(session.predict(next(cycle)))
    windows = _throughput(session, cycle, protocol)
    return Inference(windows, _latencies(session, cycle, protocol), batch_size)


def _some_batches(split: Split, batch_size: int) -> list[dict[str, NDArray[Any]]]:
    """The split's batches, the first `MOST_BYTES` of them: they lie in memory while inference is timed."""
    batches, size = [], 0
    for inputs, _ in inference_batches(split, batch_size):
        batches.append(inputs)
        size += sum(array.nbytes for array in inputs.values())
        if size >= MOST_BYTES:
            break
    return batches


def _throughput(session: Session, cycle: Any, protocol: Protocol) -> list[tuple[int, float]]:
    windows = []
    window_s = min(protocol.window_s, protocol.inference_s / 4)
    end = time.perf_counter() + protocol.inference_s
    while True:
        session.synchronize()
        start = time.perf_counter()
        count = 0
        while True:
            handle = session.predict(next(cycle))
            count += 1
            if count % 16 == 0:  # bounds what is in flight, so that a window cannot run far past its length
                session.fetch(handle)
            if time.perf_counter() - start >= window_s:
                break
        session.synchronize()
        now = time.perf_counter()
        windows.append((count, now - start))
        if now >= end:
            return windows


def _latencies(session: Session, cycle: Any, protocol: Protocol) -> list[float]:
    latencies: list[float] = []
    begin = time.perf_counter()
    while True:
        inputs = next(cycle)
        start = time.perf_counter()
        session.fetch(session.predict(inputs))
        now = time.perf_counter()
        latencies.append(now - start)
        elapsed = now - begin
        lasted = elapsed >= protocol.inference_s / 2 or len(latencies) >= 10 * protocol.latency_batches
        if (len(latencies) >= protocol.latency_batches and lasted) or elapsed >= protocol.latency_budget_s:
            return latencies
