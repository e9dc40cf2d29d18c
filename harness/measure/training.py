"""The training loop. Steps are timed in windows, and the device is synchronized only at the end of each window."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from harness.data.batches import steps_per_epoch, training_batches
from harness.errors import BadResultError
from harness.interfaces import Batch, PreparedData, Session
from harness.measure.inference import predict
from harness.measure.machine import Reading
from harness.measure.phases import Emit, Phases
from harness.measure.quality.scorer import Scorer
from harness.measure.schedule import learning_rate
from harness.measure.steady import is_enough
from harness.measure.timed import Meter, Timed
from harness.records import EpochEnded, Progress, RunSpec


class WindowLength:
    """Number of steps in the next window.

    The number doubles until a window lasts half of the target time. The number is then scaled to reach the target time.
    """

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self.steps = 1

    def learn(self, steps: int, seconds: float, first: bool) -> None:
        """Set the length of the next window after a window of `steps` steps."""
        if (
            first or steps < self.steps
        ):  # the first step includes compilation, and a window cut short by the end of an epoch is too noisy
            return
        grown = 2 * self.steps if seconds < self._target_s / 2 else round(self._target_s * steps / seconds)
        self.steps = max(1, grown)


class Training:
    """Training loop and its measurements.

    `first_step_s` is the duration of the first step, which includes compilation and allocation. `timed` contains the
    windows after the first step, `losses` the mean loss of each batch, and `curves` one entry per epoch.
    """

    def __init__(
        self,
        session: Session,
        data: PreparedData,
        spec: RunSpec,
        emit: Emit,
        meter: Meter = Reading,
        *,
        by_steps: bool = True,
    ) -> None:
        self._session, self._data, self._spec, self._emit = session, data, spec, emit
        self.batch_size = min(spec.recipe.batch_size, len(data.train)) if by_steps else len(data.train)
        self._per_epoch = steps_per_epoch(len(data.train), self.batch_size)
        self._steps = self._per_epoch * spec.recipe.epochs
        self._length = WindowLength(spec.protocol.window_s)
        self.first_step_s = 0.0
        self.timed = Timed(meter)
        self.recipe_windows = 0
        """Number of windows during the epochs of the recipe. Later windows are only used to measure speed."""
        self.losses: list[float] = []
        self.curves: list[EpochEnded] = []

    def run_epoch(self, epoch: int) -> None:
        """Run all steps of an epoch, counted from 1. Raises `harness.BadResultError` if a loss is not finite."""
        for pending, seconds in self._windows(epoch):
            self._keep_losses(pending)
            self._emit_progress(epoch, len(pending), seconds)
        self.recipe_windows = len(self.timed.windows)

    def sample(self) -> None:
        """Run additional steps to measure speed, until the requirements of the protocol are met or its time budget is
        used up.

        These steps use the learning rate of the last step of the recipe. The weights must not be used afterwards.
        """
        protocol, epoch = self._spec.protocol, self._spec.recipe.epochs
        deadline = time.perf_counter() + protocol.throughput_budget_s
        while True:
            epoch += 1
            for pending, _ in self._windows(epoch):
                for handle in pending:
                    self._session.fetch(handle)
                if self.is_enough() or time.perf_counter() >= deadline:
                    return

    def is_enough(self) -> bool:
        """Return True if the windows measured so far meet the requirements of the protocol."""
        return is_enough(self.timed.windows, self._spec.protocol)

    def _windows(self, epoch: int) -> Iterator[tuple[list[Any], float]]:
        """Run the steps of an epoch, and yield the loss handles and the duration in seconds for each window."""
        session, recipe, last = self._session, self._spec.recipe, self._steps - 1
        step = (epoch - 1) * self._per_epoch
        pending: list[Any] = []
        self.timed.open()
        start = time.perf_counter()
        for index, batch in enumerate(self._batches(epoch)):
            pending.append(session.train_step(batch, learning_rate(recipe, min(step + index, last), self._steps)))
            if len(pending) < self._length.steps and index + 1 < self._per_epoch:
                continue
            session.synchronize()
            seconds = time.perf_counter() - start
            first = not self.first_step_s
            if first:
                self.first_step_s = seconds
            else:
                self.timed.close(len(pending), seconds)
            self._length.learn(len(pending), seconds, first=first)
            yield pending, seconds
            pending = []
            self.timed.open()
            start = time.perf_counter()

    def _batches(self, epoch: int) -> Iterator[Batch]:
        data, spec = self._data, self._spec
        return training_batches(data.train, self.batch_size, spec.seed, epoch, data.augment)

    def end_epoch(self, epoch: int, validation: dict[str, float | None]) -> None:
        ended = EpochEnded(
            epoch=epoch,
            epochs=self._spec.recipe.epochs,
            step=len(self.losses),
            train_s=self.first_step_s + sum(window.seconds for window in self.timed.windows),
            train_loss=fmean(self.losses[-self._per_epoch :]),
            validation=validation,
        )
        self.curves.append(ended)
        self._emit(ended)

    def _keep_losses(self, pending: list[Any]) -> None:
        for handle in pending:
            self.losses.append(float(self._session.fetch(handle)))
            if not math.isfinite(self.losses[-1]):
                raise BadResultError(
                    f"the training loss became {self.losses[-1]} at step {len(self.losses)}; "
                    "try a lower recipe.learning_rate, or recipe.clip_norm=1"
                )

    def _emit_progress(self, epoch: int, steps: int, seconds: float) -> None:
        self._emit(
            Progress(
                epoch=epoch,
                epochs=self._spec.recipe.epochs,
                step=len(self.losses),
                steps=self._steps,
                loss=self.losses[-1],
                samples_per_s=steps * self.batch_size / seconds,
            )
        )


def train(
    session: Session,
    data: PreparedData,
    spec: RunSpec,
    scorer: Scorer,
    phases: Phases,
    emit: Emit,
    meter: Meter = Reading,
    *,
    by_steps: bool = True,
) -> Training:
    """Train with the recipe in `spec`. If `by_steps` is false, each epoch is one step on the whole training split.

    Training is measured as the phase ``train`` and validation as the phase ``validate``. Raises
    `harness.BadResultError` if a loss is not finite.
    """
    training = Training(session, data, spec, emit, meter, by_steps=by_steps)
    for epoch in range(1, spec.recipe.epochs + 1):
        with phases("train"):
            training.run_epoch(epoch)
        with phases("validate"):
            outputs = predict(session, data.validation, spec.recipe.batch_size, data.info.outputs)
            training.end_epoch(epoch, scorer.quick(data.validation.targets, outputs))
    return training
