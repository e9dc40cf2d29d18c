"""The training loop: windows of steps, synchronised at their edges only, and a validation after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from harness.data.batches import steps_per_epoch, training_batches
from harness.errors import BadResultError
from harness.measure.inference import predict
from harness.measure.phases import Emit, Phases
from harness.measure.schedule import learning_rate
from harness.metrics import Scorer
from harness.protocols import Batch, PreparedData, Session
from harness.types import EpochEnded, Progress, RunSpec


class _WindowLength:
    """Steps in the next window: doubling until a window lasts half of the target, then in proportion."""

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self.steps = 1

    def learn(self, steps: int, seconds: float, first: bool) -> None:
        if first or steps < self.steps:  # the first step compiles; a window cut short by its epoch says little
            return
        grown = 2 * self.steps if seconds < self._target_s / 2 else round(self._target_s * steps / seconds)
        self.steps = max(1, grown)


class Training:
    """A training in progress, and what it has seen so far.

    `windows` are (steps, seconds), the very first step alone in the first one; `losses` the mean loss of every batch;
    `curves` an entry for each epoch.
    """

    def __init__(self, session: Session, data: PreparedData, spec: RunSpec, emit: Emit) -> None:
        self._session, self._data, self._spec, self._emit = session, data, spec, emit
        self._per_epoch = steps_per_epoch(len(data.train), spec.recipe.batch_size)
        self._steps = self._per_epoch * spec.recipe.epochs
        self._length = _WindowLength(spec.protocol.window_s)
        self.batch_size = min(spec.recipe.batch_size, len(data.train))
        self.windows: list[tuple[int, float]] = []
        self.losses: list[float] = []
        self.curves: list[EpochEnded] = []

    @property
    def first_step_s(self) -> float:
        return self.windows[0][1]

    def steady(self) -> list[tuple[int, float]]:
        """The windows after the first step and the protocol's warm-up; fewer are left out of a short training, so
        that at least one remains where there is more than the first step."""
        later = self.windows[1:]
        return later[min(self._spec.protocol.warmup_windows, max(0, len(later) - 1)) :]

    def run_epoch(self, epoch: int) -> None:
        """All steps of an epoch (from 1). Raises `harness.BadResultError` when a loss is not finite."""
        session, recipe = self._session, self._spec.recipe
        step = len(self.losses)
        pending: list[Any] = []
        start = time.perf_counter()
        for index, batch in enumerate(self._batches(epoch)):
            pending.append(session.train_step(batch, learning_rate(recipe, step + index, self._steps)))
            if len(pending) < self._length.steps and index + 1 < self._per_epoch:
                continue
            session.synchronize()
            self._close_window(epoch, pending, time.perf_counter() - start)
            pending = []
            start = time.perf_counter()

    def _batches(self, epoch: int) -> Iterator[Batch]:
        data, spec = self._data, self._spec
        return training_batches(data.train, spec.recipe.batch_size, spec.seed, epoch, data.augment)

    def end_epoch(self, epoch: int, validation: dict[str, float | None]) -> None:
        ended = EpochEnded(
            epoch=epoch,
            epochs=self._spec.recipe.epochs,
            step=len(self.losses),
            train_s=sum(seconds for _, seconds in self.windows),
            train_loss=fmean(self.losses[-self._per_epoch :]),
            validation=validation,
        )
        self.curves.append(ended)
        self._emit(ended)

    def _close_window(self, epoch: int, pending: list[Any], seconds: float) -> None:
        self._length.learn(len(pending), seconds, first=not self.windows)
        self.windows.append((len(pending), seconds))
        for handle in pending:
            self.losses.append(float(self._session.fetch(handle)))
            if not math.isfinite(self.losses[-1]):
                raise BadResultError(
                    f"the training loss became {self.losses[-1]} at step {len(self.losses)}; "
                    "a lower recipe.learning_rate or recipe.clip_norm=1 may help"
                )
        self._emit(
            Progress(
                epoch=epoch,
                epochs=self._spec.recipe.epochs,
                step=len(self.losses),
                steps=self._steps,
                loss=self.losses[-1],
                samples_per_s=len(pending) * self.batch_size / seconds,
            )
        )


def train(session: Session, data: PreparedData, spec: RunSpec, scorer: Scorer, phases: Phases, emit: Emit) -> Training:
    """Train by the spec's recipe.

    Training time is counted in the phase ``train``, validation in ``validate``. Raises `harness.BadResultError` when a
    loss is not finite.
    """
    training = Training(session, data, spec, emit)
    for epoch in range(1, spec.recipe.epochs + 1):
        with phases("train"):
            training.run_epoch(epoch)
        with phases("validate"):
            outputs = predict(session, data.validation, spec.recipe.batch_size, data.info.outputs)
            training.end_epoch(epoch, scorer.quick(data.validation.targets, outputs))
    return training
