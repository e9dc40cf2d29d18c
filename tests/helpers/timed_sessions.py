"""Prepared data, a clock and sessions with known times, for the tests of measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from idle_session import IdleSession
from sample_records import spec as sample_spec

from harness.data.batches import training_batches
from harness.interfaces import Batch, PreparedData, Split
from harness.records import (
    DataInfo,
    InputSpec,
    Protocol,
    Recipe,
    RunSpec,
)

MIB = 2**20


def make_split(examples: int) -> Split:
    """Return a split in which each array contains the number of each example."""
    rows = np.arange(examples)
    return Split(inputs={"x": np.float32(rows)[:, None], "y": rows}, targets=np.float32(rows)[:, None])


def make_data(examples: int = 40) -> PreparedData:
    info = DataInfo(
        kind="numbers",
        inputs={"x": InputSpec(shape=(1,), dtype="float32"), "y": InputSpec(shape=(), dtype="int64")},
        objective="regression",
        outputs=1,
    )
    return PreparedData(train=make_split(examples), validation=make_split(7), test=make_split(10), info=info)


def make_spec(*, epochs: int = 2, batch_size: int = 4, seed: int = 0, **protocol: Any) -> RunSpec:
    return sample_spec(recipe=Recipe(epochs=epochs, batch_size=batch_size), seed=seed, protocol=Protocol(**protocol))


class Clock:
    """A clock that tests advance by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Doubler(IdleSession):
    """A session that predicts twice its input, records its calls, and advances the clock in them."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        step_s: float = 0.0,
        predict_s: float = 0.0,
        fetch_s: float = 0.0,
        losses: Callable[[int], float] = lambda step: 1 / step,
    ) -> None:
        self.clock = clock or Clock()
        self.step_s, self.predict_s, self.fetch_s, self.losses = step_s, predict_s, fetch_s, losses
        self.calls: list[str] = []
        self.seen: list[list[int]] = []
        self.rates: list[float] = []

    def train_step(self, batch: Batch, rate: float) -> Any:
        self.calls.append("train")
        self.seen.append(batch.inputs["y"].tolist())
        self.rates.append(rate)
        self.clock.now += self.step_s
        return self.losses(len(self.seen))

    def predict(self, inputs: Any) -> Any:
        self.calls.append("predict")
        self.clock.now += self.predict_s
        return 2 * inputs["x"]

    def fetch(self, handle: Any) -> Any:
        self.calls.append("fetch")
        self.clock.now += self.fetch_s
        return handle

    def synchronize(self) -> None:
        self.calls.append("synchronize")


class Positions(Doubler):
    """Logits of two classes for each of three positions, from the example's number."""

    def predict(self, inputs: Any) -> Any:
        return np.float32(inputs["y"])[:, None, None] + np.arange(6, dtype=np.float32).reshape(3, 2)


def order(split: Split, size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the examples of each training batch."""
    return [batch.inputs["y"].tolist() for batch in training_batches(split, size, seed, epoch)]
