"""The training loop: windows of steps, synchronised at their edges only, and a validation after each epoch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.data.batches import steps_per_epoch, training_batches
from harness.errors import BadResultError
from harness.measure.inference import predict
from harness.measure.phases import Emit, Phases
from harness.measure.schedule import learning_rate
from harness.metrics import Scorer
from harness.protocols import PreparedData, Session
from harness.types import EpochEnded, Progress, RunSpec


@dataclass
class Training:
    """What the loop saw. `windows` are (steps, seconds), the very first step alone in the first one."""

    windows: list[tuple[int, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Mean loss of every batch, in order."""
    curves: list[EpochEnded] = field(default_factory=list)
    batch_size: int = 0

    @property
    def first_step_s(self) -> float:
        return self.windows[0][1]

    def steady(self, warmup_windows: int) -> list[tuple[int, float]]:
        """The windows after the first step and `warmup_windows` more; fewer are left out of a short training, so
        that at least one remains where there is more than the first step."""
        later = self.windows[1:]
        return later[min(warmup_windows, max(0, len(later) - 1)) :]


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


def train(session: Session, data: PreparedData, spec: RunSpec, scorer: Scorer, phases: Phases, emit: Emit) -> Training:
    """Train by the spec's recipe.

    Training time is counted in the phase ``train``, validation in ``validate``. Raises `harness.BadResultError` when a
    loss is not finite.
    """
    recipe = spec.recipe
    per_epoch = steps_per_epoch(len(data.train), recipe.batch_size)
    steps = per_epoch * recipe.epochs
    result = Training(batch_size=min(recipe.batch_size, len(data.train)))
    length = _WindowLength(spec.protocol.window_s)
    step, train_s = 0, 0.0
    for epoch in range(1, recipe.epochs + 1):
        with phases("train"):
            pending: list[Any] = []
            start = time.perf_counter()
            for index, batch in enumerate(training_batches(data.train, recipe.batch_size, spec.seed, epoch)):
                pending.append(session.train_step(batch, learning_rate(recipe, step, steps)))
                step += 1
                if len(pending) < length.steps and index + 1 < per_epoch:
                    continue
                session.synchronize()
                seconds = time.perf_counter() - start
                length.learn(len(pending), seconds, first=not result.windows)
                result.windows.append((len(pending), seconds))
                train_s += seconds
                _collect(session, pending, step, result.losses)
                emit(
                    Progress(
                        epoch=epoch,
                        epochs=recipe.epochs,
                        step=step,
                        steps=steps,
                        loss=result.losses[-1],
                        samples_per_s=len(pending) * result.batch_size / seconds,
                    )
                )
                pending = []
                start = time.perf_counter()
        with phases("validate"):
            outputs = predict(session, data.validation, recipe.batch_size)
            ended = EpochEnded(
                epoch=epoch,
                epochs=recipe.epochs,
                step=step,
                train_s=train_s,
                train_loss=float(np.mean(result.losses[-per_epoch:])),
                validation=scorer.quick(data.validation.targets, outputs),
            )
        result.curves.append(ended)
        emit(ended)
    return result


def _collect(session: Session, pending: list[Any], step: int, losses: list[float]) -> None:
    for offset, handle in enumerate(pending):
        loss = float(session.fetch(handle))
        losses.append(loss)
        if not math.isfinite(loss):
            raise BadResultError(
                f"the training loss became {loss} at step {step - len(pending) + offset + 1}; "
                "a lower recipe.learning_rate or recipe.clip_norm=1 may help"
            )
